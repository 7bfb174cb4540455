"""Services in containers share the state folder, but not their process ids."""

from __future__ import annotations

import json
import os
import time

import pytest

from core.errors import AlreadyRunningError
from core.status import FRESH_S, is_alive, read_status, refuse_second, write_status


def elsewhere(folder, **changes):
    """A status that a process of another container wrote, with the id that this process has here."""
    write_status(folder, "monitor", {"state": "running"})
    status = {**read_status(folder, "monitor"), "host": "another-container", **changes}
    (folder / "monitor.json").write_text(json.dumps(status), encoding="utf-8")
    return status


def test_a_process_of_another_container_lives_while_it_writes(tmp_path):
    assert is_alive(elsewhere(tmp_path, pid=2**22 + 1))
    assert not is_alive(elsewhere(tmp_path, pid=os.getpid(), updated_at=time.time() - FRESH_S - 1))
    assert not is_alive(elsewhere(tmp_path, state="stopped"))


def test_a_second_one_in_another_container_is_refused_although_both_have_the_same_process_id(tmp_path):
    elsewhere(tmp_path, pid=os.getpid())
    with pytest.raises(AlreadyRunningError):
        refuse_second(tmp_path, "monitor")


def test_the_own_status_does_not_stand_in_the_way(tmp_path):
    write_status(tmp_path, "monitor", {"state": "running"})
    refuse_second(tmp_path, "monitor")
