from __future__ import annotations

import pickle
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_lab import as_raw, easy_stream, make_machine, make_project

import streaming.checkpoint as module
from core.errors import CheckpointError, FencedError
from streaming.checkpoint import Checkpoints, Snapshot
from streaming.digest import canonical_digest
from streaming.phases import Phases
from streaming.snapshot_file import SnapshotFile

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
    before = canonical_digest(state)
    checkpoints = Checkpoints(project)
    assert checkpoints.load(0) is None
    checkpoints.save(0, Snapshot(state, "cluster", journal=41, term=3))
    found = Checkpoints(project).load(0)
    assert canonical_digest(found.state) == before
    assert (found.cluster_id, found.journal, found.term) == ("cluster", 41, 3)
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
    state.scores.losses["bomb"] = Bomb(trace)
    checkpoints = Checkpoints(project)
    path = Path(checkpoints.save(0, Snapshot(state, "c")))
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
    newest = Path(checkpoints.save(0, Snapshot(state_at(project, 40), "c")))
    newest.write_bytes(newest.read_bytes()[:-1])
    assert checkpoints.load(0).state.step == 10
    for records in (20, 25):
        checkpoints.save(0, Snapshot(state_at(project, records), "c"))
        assert checkpoints.load(0).state.step == records
    assert sorted(path.suffix for path in project.checkpoints.iterdir()) == [".refused", ".snapshot", ".snapshot"]


def test_when_none_is_left_it_says_what_to_do_and_touches_nothing(project):
    checkpoints = Checkpoints(project)
    paths = [Path(checkpoints.save(0, Snapshot(state_at(project, n), "c"))) for n in (10, 20)]
    for path in paths:
        path.write_bytes(b"x" * 100)
    with pytest.raises(CheckpointError, match="back-up; or, to start learning anew") as caught:
        checkpoints.load(0)
    assert all(str(path) in str(caught.value) for path in paths)
    assert all(path.exists() for path in paths)


def test_four_thousand_damaged_ones_are_refused_before_anything_is_unpickled(project, monkeypatch):
    checkpoints = Checkpoints(project)
    older = Path(checkpoints.save(0, Snapshot(state_at(project, 10), "c")))
    newest = Path(checkpoints.save(0, Snapshot(state_at(project, 40), "c")))
    good, draw = newest.read_bytes(), random.Random(3)
    trusted = SnapshotFile.read(older.read_bytes(), checkpoints._key, "older").sections.values()
    unpickle, unpickled = pickle.loads, []

    def only_the_one_before(content):
        assert content in trusted, "a damaged snapshot was unpickled"
        unpickled.append(content)
        return unpickle(content)

    monkeypatch.setattr(module.pickle, "loads", only_the_one_before)
    kinds = ["cut"] * 1_000 + ["flipped"] * 3_000
    for kind in kinds:
        newest.write_bytes(damaged(good, kind, draw))
        assert checkpoints.load(0).state.step == 10
    assert len(unpickled) == 2 * len(kinds)
    newest.write_bytes(good)
    with pytest.raises(CheckpointError, match="a damaged snapshot was unpickled"):
        checkpoints.load(0)  # the guard works


def test_a_part_file_is_ignored_and_goes_with_the_next_save(project):
    checkpoints = Checkpoints(project)
    path = Path(checkpoints.save(0, Snapshot(state_at(project, 10), "c")))
    crashed = path.with_name(f".{path.name}.0123.part")
    crashed.write_bytes(path.read_bytes()[:50])
    other = path.with_name(".partition-0001.0000000000.0000000000000001.snapshot.0123.part")
    other.touch()
    assert checkpoints.load(0).state.step == 10
    checkpoints.save(0, Snapshot(state_at(project, 20), "c"))
    assert not crashed.exists()
    assert other.exists()


def test_the_part_file_of_a_worker_that_still_writes_stays(project):
    other = Checkpoints(project)

    class Slow(Phases):
        def enter(self, phase):
            if phase == "snapshot fsync":
                other.save(0, Snapshot(state_at(project, 20), "c"))
            return super().enter(phase)

    Checkpoints(project, Slow()).save(0, Snapshot(state_at(project, 10), "c"))
    assert [other.load(0).state.step, other.load(0, before=(0, 20)).state.step] == [20, 10]


class Killed(BaseException):
    pass


class Killing(Phases):
    """Ends the process, or the next best thing, when a phase begins."""

    def __init__(self, at):
        super().__init__()
        self._at = at

    def enter(self, phase):
        if phase == self._at:
            raise Killed
        return super().enter(phase)


@pytest.mark.parametrize("phase", ["snapshot write", "snapshot fsync", "snapshot rename"])
def test_killed_while_writing_the_one_before_counts_and_nothing_is_left_behind(project, phase):
    Checkpoints(project).save(0, Snapshot(state_at(project, 10), "c"))
    with pytest.raises(Killed):
        Checkpoints(project, Killing(phase)).save(0, Snapshot(state_at(project, 20), "c"))
    again = Checkpoints(project)
    assert again.load(0).state.step == 10
    again.save(0, Snapshot(state_at(project, 30), "c"))
    assert again.load(0).state.step == 30
    assert all(path.suffix == ".snapshot" for path in project.checkpoints.iterdir())


def test_a_failure_while_writing_leaves_the_one_before(project, monkeypatch):
    checkpoints = Checkpoints(project)
    checkpoints.save(0, Snapshot(state_at(project, 10), "c"))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="space"):
        checkpoints.save(0, Snapshot(state_at(project, 20), "c"))
    assert checkpoints.load(0).state.step == 10


def test_a_worker_that_lost_its_partition_cannot_shadow_the_one_that_has_it(project):
    had, has = Checkpoints(project), Checkpoints(project)
    had.save(0, Snapshot(state_at(project, 10), "c", term=4))
    has.save(0, Snapshot(state_at(project, 20), "c", term=5))
    with pytest.raises(FencedError, match="later term than 4"):
        had.save(0, Snapshot(state_at(project, 60), "c", term=4))
    assert (has.load(0).term, has.load(0).state.step) == (5, 20)
    assert (has.load(0, before=(5, 20)).term, has.load(0, before=(5, 20)).state.step) == (4, 10)


def test_a_snapshot_that_lost_the_race_while_it_was_written_goes_again(project):
    checkpoints = Checkpoints(project)

    class Overtaken(Phases):
        def enter(self, phase):
            if phase == "snapshot rename":
                checkpoints.save(0, Snapshot(state_at(project, 20), "c", term=5))
            return super().enter(phase)

    with pytest.raises(FencedError):
        Checkpoints(project, Overtaken()).save(0, Snapshot(state_at(project, 60), "c", term=4))
    assert [path.name for path in project.checkpoints.iterdir()] == [
        "partition-0000.0000000005.0000000000000020.0001700000660000.snapshot"
    ]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6)), min_size=1, max_size=12))
def test_the_newest_by_term_and_step_wins_whatever_the_order_of_writing(tmp_path_factory, saves):
    project = make_project(tmp_path_factory.mktemp("race"), online=["prior"])
    checkpoints, best, state = Checkpoints(project), (-1, 0), state_at(project, 6)
    for term, step in saves:
        state.step = step
        if term < best[0]:
            with pytest.raises(FencedError):
                checkpoints.save(0, Snapshot(state, "c", term=term))
        else:
            checkpoints.save(0, Snapshot(state, "c", term=term))
            best = max(best, (term, step))
        found = checkpoints.load(0)
        assert (found.term, found.state.step) == best
        assert len(list(project.checkpoints.iterdir())) <= 2


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
    with pytest.raises(CheckpointError, match=r"made with settings\..*headrace rebuild-state"):
        Checkpoints(other).load(0)
    assert [path.suffix for path in project.checkpoints.iterdir()] == [".snapshot"], "kept for rebuild-state"


def test_settings_that_do_not_matter_may_change(project, tmp_path):
    Checkpoints(project).save(0, Snapshot(state_at(project, 10), "c"))
    other = make_project(tmp_path, online=["prior"], state={"snapshot_every": "5m"}, drift={"min_rows": 7})
    assert Checkpoints(other).load(0).state.step == 10


@pytest.mark.parametrize("name", ["river", "format", "python"])
def test_other_versions_are_refused_with_the_reason(project, monkeypatch, name):
    checkpoints = Checkpoints(project)
    checkpoints.save(0, Snapshot(state_at(project, 10), "c"))
    monkeypatch.setitem(checkpoints._stamp, name, "9.9")
    with pytest.raises(CheckpointError, match=f"made with {name} .*, this is {name} 9.9"):
        checkpoints.load(0)


def test_other_feature_code_is_refused(tmp_path):
    def with_code(code):
        features = {"function": "code.py:make", "outputs": {"x2": "number"}}
        return make_project(tmp_path, code=code, online=["prior"], features=features)

    code = "def make(fields):\n    return {'x2': 2.0 * fields['x']}\n"
    project = with_code(code)
    Checkpoints(project).save(0, Snapshot(state_at(project, 10), "c"))
    assert Checkpoints(with_code(code)).load(0).state.step == 10
    with pytest.raises(CheckpointError, match="made with features"):
        Checkpoints(with_code(code.replace("2.0", "3.0"))).load(0)


def test_the_header_tells_where_it_goes_on_without_unpickling(project, monkeypatch):
    state = state_at(project, 60)
    Checkpoints(project).save(0, Snapshot(state, "c", journal=7, term=2))
    monkeypatch.delattr(module.pickle, "loads")
    header = Checkpoints(project).inspect(0).header
    assert (header["cluster_id"], header["journal"], header["term"], header["step"]) == ("c", 7, 2, 60)
    assert (header["positions"], header["clock"]) == (state.positions, state.clock)
    assert header["books"] == state.books.as_dict()
    assert Checkpoints(project).partitions() == [0]


def test_another_key_is_refused_and_the_snapshot_stays(project, monkeypatch):
    Checkpoints(project).save(0, Snapshot(state_at(project, 10), "c"))
    monkeypatch.setenv("HEADRACE_STATE_KEY", "another")
    with pytest.raises(CheckpointError, match="all hosts of a project need the same HEADRACE_STATE_KEY"):
        Checkpoints(project).load(0)
    monkeypatch.delenv("HEADRACE_STATE_KEY")
    assert Checkpoints(project).load(0).state.step == 10


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
    path = Path(checkpoints.save(0, Snapshot(state_at(project, 10), "c")))
    file = SnapshotFile.read(path.read_bytes(), checkpoints._key, "here")
    sections = {**file.sections, "models": file.sections["models"][::-1]}  # signed, and no pickle of a state
    path.write_bytes(SnapshotFile(file.header, sections).signed(checkpoints._key))
    with pytest.raises(CheckpointError, match=r"does not fit the code .*rebuild-state"):
        checkpoints.load(0)
