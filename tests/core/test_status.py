"""A process is known by its id and by when it began: ids are used again after a crash, and after a reboot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core import status as status_module
from core.errors import AlreadyRunningError
from core.processes import Birth, birth
from core.status import FRESH_S, is_alive, read_instances, read_status, refuse_second, write_status


@pytest.fixture
def another() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def written(folder: Path, pid: int, born: Birth | None, **changes: Any) -> dict[str, Any]:
    """The status of a process with this id that began then."""
    write_status(folder, "monitor", {"state": "running"})
    content = {**read_status(folder, "monitor"), "pid": pid, **(asdict(born) if born else {}), **changes}
    (folder / "monitor.json").write_text(json.dumps(content))
    return content


def test_who_runs_is_not_started_twice(tmp_path, another):
    written(tmp_path, another.pid, birth(another.pid))
    with pytest.raises(AlreadyRunningError, match=f"process {another.pid}"):
        refuse_second(tmp_path, "monitor")


@pytest.mark.parametrize("change", [{"started": 1.0}, {"boot": "the one before"}])
def test_a_stranger_with_the_id_of_one_that_crashed_is_not_taken_for_it(tmp_path, another, change):
    content = written(tmp_path, another.pid, replace(birth(another.pid), **change))
    assert not is_alive(content)
    refuse_second(tmp_path, "monitor")


def test_a_service_that_gets_its_own_old_id_again_starts(tmp_path):
    content = written(tmp_path, os.getpid(), replace(birth(os.getpid()), started=1.0))
    assert not is_alive(content)
    refuse_second(tmp_path, "monitor")


def test_one_that_was_killed_does_not_live_until_its_parent_notices(tmp_path, another):
    content = written(tmp_path, another.pid, birth(another.pid))
    another.kill()
    os.waitid(os.P_PID, another.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(content)


def test_a_status_of_an_older_version_counts_by_its_id(tmp_path, another):
    content = written(tmp_path, another.pid, None)
    del content["started"], content["boot"]
    assert is_alive(content)
    another.kill()
    another.wait()
    assert not is_alive(content)


def test_where_processes_of_others_are_hidden_it_counts_by_what_it_writes(tmp_path, another, monkeypatch):
    content = written(tmp_path, another.pid, birth(another.pid))
    monkeypatch.setattr(status_module, "birth", lambda _: None)
    assert is_alive(content)
    assert not is_alive({**content, "updated_at": time.time() - FRESH_S - 1})


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_two_processes_with_one_id_differ_and_one_that_is_gone_is_said(another, monkeypatch, platform):
    monkeypatch.setattr("core.processes.sys", SimpleNamespace(platform=platform))
    assert birth(another.pid) == birth(another.pid)
    assert birth(another.pid) != birth(os.getpid())
    another.kill()
    another.wait()
    with pytest.raises(ProcessLookupError):
        birth(another.pid)


def test_each_living_process_of_a_service_is_told_by_its_name(tmp_path):
    write_status(tmp_path, "worker", {"state": "running", "partitions": {"0": {}}}, "a")
    write_status(tmp_path, "worker", {"state": "running", "partitions": {"1": {}}})
    write_status(tmp_path, "worker", {"state": "stopped", "partitions": {}}, "gone")
    found = read_instances(tmp_path, "worker")
    assert {name: sorted(body["partitions"]) for name, body in found.items()} == {"a": ["0"], "": ["1"]}


def test_a_second_worker_is_told_of_names(tmp_path):
    write_status(tmp_path / "status", "worker", {"state": "running"})
    content = json.loads((tmp_path / "status" / "worker.json").read_text())
    parent = os.getppid()
    own = birth(parent)
    content |= {"pid": parent, "boot": own.boot, "started": own.started}
    (tmp_path / "status" / "worker.json").write_text(json.dumps(content))
    with pytest.raises(AlreadyRunningError, match="give this one a name with --instance"):
        refuse_second(tmp_path / "status", "worker")
