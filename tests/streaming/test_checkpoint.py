from __future__ import annotations

import pickle
import random
import subprocess
import sys
import textwrap
import threading
import zlib
from pathlib import Path

import pytest
from stream_lab import as_raw, digest, easy_stream, make_machine, make_project

import streaming.checkpoint as module
from core.errors import CheckpointError
from streaming.checkpoint import Checkpoints, Snapshot, load_key

ROOT = str(Path(__file__).parents[2])


@pytest.fixture(autouse=True)
def _no_key(monkeypatch):
    monkeypatch.delenv("HEADRACE_STATE_KEY", raising=False)


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path, online=["prior"])


def state_at(project, records: int):
    machine = make_machine(project)
    machine.process(as_raw(easy_stream("binary", 50))[:records])
    return machine.state


class Bomb:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


def test_a_snapshot_restores_the_state(project):
    state = state_at(project, 60)
    before = digest(state)
    checkpoints = Checkpoints(project)
    assert checkpoints.load(0) is None
    checkpoints.save(0, Snapshot(state, "cluster"))
    found = Checkpoints(project).load(0)
    assert (digest(found.state), found.cluster_id) == (before, "cluster")
    assert Checkpoints(project).load(1) is None


def test_the_newest_two_are_kept_and_the_newest_is_loaded(project):
    checkpoints = Checkpoints(project)
    for records in (5, 10, 20, 30):
        checkpoints.save(0, Snapshot(state_at(project, records), "c"))
        checkpoints.save(1, Snapshot(state_at(project, records), "c"))
    assert len(list(project.checkpoints.glob("partition-0000.*.snapshot"))) == 2
    assert checkpoints.load(0).state.step == 30


def damaged(content: bytes, kind: str, draw: random.Random) -> bytes:
    if kind == "flipped":
        at = draw.randrange(len(content))
        return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]
    if kind == "cut":
        return content[: draw.randrange(len(content))]
    return {"empty": b"", "longer": content + b"\0", "other": draw.randbytes(500)}[kind]


@pytest.mark.parametrize("kind", ["flipped", "cut", "empty", "longer", "other"])
def test_a_damaged_snapshot_is_refused_before_it_is_unpickled(project, tmp_path, kind):
    trace = tmp_path / "unpickled"
    state = state_at(project, 10)
    state.books.reasons["bomb"] = Bomb(trace)
    checkpoints = Checkpoints(project)
    path = checkpoints.save(0, Snapshot(state, "c"))
    good, draw = path.read_bytes(), random.Random(3)
    for _ in range(200 if kind in ("flipped", "cut") else 1):
        path.write_bytes(damaged(good, kind, draw))
        with pytest.raises(CheckpointError, match="damaged"):
            checkpoints.load(0)
    assert not trace.exists()
    path.write_bytes(good)
    assert checkpoints.load(0) is not None
    assert trace.exists(), "the trace works: a good one is unpickled"


def test_a_damaged_one_is_passed_over_set_aside_and_does_not_come_back(project):
    checkpoints = Checkpoints(project)
    checkpoints.save(0, Snapshot(state_at(project, 10), "c"))
    newest = checkpoints.save(0, Snapshot(state_at(project, 40), "c"))
    newest.write_bytes(newest.read_bytes()[:-1])
    assert checkpoints.load(0).state.step == 10
    for records in (20, 25):
        checkpoints.save(0, Snapshot(state_at(project, records), "c"))
        assert checkpoints.load(0).state.step == records
    assert sorted(path.suffix for path in project.checkpoints.iterdir()) == [".refused", ".snapshot", ".snapshot"]


def test_when_none_is_left_it_says_what_to_do_and_touches_nothing(project):
    checkpoints = Checkpoints(project)
    paths = [checkpoints.save(0, Snapshot(state_at(project, n), "c")) for n in (10, 20)]
    for path in paths:
        path.write_bytes(b"x" * 100)
    with pytest.raises(CheckpointError, match="back-up, or move it away") as caught:
        checkpoints.load(0)
    assert all(str(path) in str(caught.value) for path in paths)
    assert all(path.exists() for path in paths)


def test_a_part_file_is_ignored(project):
    checkpoints = Checkpoints(project)
    path = checkpoints.save(0, Snapshot(state_at(project, 10), "c"))
    path.with_name("partition-0000.0000000000000099.part").write_bytes(path.read_bytes()[:50])
    assert checkpoints.load(0).state.step == 10


def test_a_failure_while_writing_leaves_the_one_before(project, monkeypatch):
    checkpoints = Checkpoints(project)
    checkpoints.save(0, Snapshot(state_at(project, 10), "c"))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        checkpoints.save(0, Snapshot(state_at(project, 20), "c"))
    assert checkpoints.load(0).state.step == 10


@pytest.mark.parametrize(
    "change",
    [
        {"online": ["prior", "linear"]},
        {"label": {"horizon": "2h"}},
        {"fields": {"x": "number"}},
        {"task": "multiclass"},
    ],
)
def test_other_settings_are_refused_with_the_reason(project, tmp_path, change):
    Checkpoints(project).save(0, Snapshot(state_at(project, 10), "c"))
    task = change.pop("task", "binary")
    other = make_project(tmp_path, task, **{"online": ["prior"], **change})
    with pytest.raises(CheckpointError, match="made with settings"):
        Checkpoints(other).load(0)


def test_settings_that_do_not_matter_may_change(project, tmp_path):
    Checkpoints(project).save(0, Snapshot(state_at(project, 10), "c"))
    other = make_project(tmp_path, online=["prior"], state={"snapshot_every": "5m"}, drift={"min_rows": 7})
    assert Checkpoints(other).load(0).state.step == 10


@pytest.mark.parametrize("name", ["river", "format"])
def test_other_versions_are_refused_with_the_reason(project, monkeypatch, name):
    checkpoints = Checkpoints(project)
    checkpoints.save(0, Snapshot(state_at(project, 10), "c"))
    monkeypatch.setitem(checkpoints._stamp, name, "9.9")
    with pytest.raises(CheckpointError, match=f"made with {name} .*, this is 9.9"):
        checkpoints.load(0)


def test_the_key_is_made_once_and_for_its_owner_only(tmp_path):
    keys, start = [], threading.Barrier(6)

    def load():
        start.wait()
        keys.append(load_key(tmp_path / "state"))

    threads = [threading.Thread(target=load) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 6
    assert len(set(keys)) == 1
    assert len(keys[0]) == 64
    path = tmp_path / "state" / "state.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["state.key"]
    path.chmod(0o640)
    with pytest.raises(CheckpointError, match="chmod 600"):
        load_key(tmp_path / "state")


def test_another_key_is_refused(project, monkeypatch):
    Checkpoints(project).save(0, Snapshot(state_at(project, 10), "c"))
    monkeypatch.setenv("HEADRACE_STATE_KEY", "another")
    with pytest.raises(CheckpointError, match="this installation's key"):
        Checkpoints(project).load(0)


OWN = """
class Mine:
    def predict(self, features):
        return 0.5
    def learn(self, features, outcome):
        pass
"""


def own_project(folder, code=OWN):
    return make_project(folder, code=code, online=[{"name": "mine", "factory": "code.py:Mine"}])


def test_models_of_the_projects_own_code_come_back_in_a_new_process(tmp_path):
    project = own_project(tmp_path)
    Checkpoints(project).save(0, Snapshot(state_at(project, 10), "c"))
    script = f"""
        from core.project import load_project
        from streaming.checkpoint import Checkpoints
        print(Checkpoints(load_project({str(tmp_path)!r}, state={str(project.state)!r})).load(0).state.step)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "10", done.stderr


def test_code_that_does_not_fit_any_more_is_explained(tmp_path):
    project = own_project(tmp_path)
    checkpoints = Checkpoints(project)
    path = checkpoints.save(0, Snapshot(state_at(project, 10), "c"))
    header, payload = module._unframe(path.read_bytes()[:-32])
    content = pickle.dumps(zlib.decompress(payload))[::-1]  # signed, and no pickle of a state
    framed = module._frame(header, zlib.compress(content))
    path.write_bytes(framed + module.hmac.digest(checkpoints._key, framed, "sha256"))
    with pytest.raises(CheckpointError, match="does not fit the code"):
        checkpoints.load(0)
