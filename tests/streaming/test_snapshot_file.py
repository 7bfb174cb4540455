from __future__ import annotations

import threading

import pytest

from core.errors import CheckpointError
from streaming.snapshot_file import SnapshotFile, load_key


@pytest.fixture(autouse=True)
def _no_key(monkeypatch):
    monkeypatch.delenv("HEADRACE_STATE_KEY", raising=False)


def test_what_was_signed_is_read_again():
    file = SnapshotFile({"step": 7, "books": {"a": 1}}, {"portable": b"p" * 1000, "models": b""})
    assert SnapshotFile.read(file.signed(b"k"), b"k", "here") == file


def test_every_single_bit_counts():
    content = SnapshotFile({"step": 7}, {"models": b"m"}).signed(b"k")
    for at in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[at // 8] ^= 1 << at % 8
        with pytest.raises(CheckpointError, match="here: damaged"):
            SnapshotFile.read(bytes(flipped), b"k", "here")
    for length in range(len(content)):
        with pytest.raises(CheckpointError, match="here: damaged"):
            SnapshotFile.read(content[:length], b"k", "here")


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


def test_a_key_in_the_environment_goes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADRACE_STATE_KEY", "secret")
    assert load_key(tmp_path) == b"secret"
    assert not list(tmp_path.iterdir())
