"""Snapshots of a partition's state: authenticated before they are unpickled, stamped, atomic.

A file is ``HEADRACE1``, a JSON header (versions, digest of the settings that matter, positions), and
the zlib-compressed pickle; the whole is followed by an HMAC-SHA256 under a key that only this installation
knows (``HEADRACE_STATE_KEY``, or ``<state>/state.key`` of mode 600). Pickle can run code, and a flipped bit can
load and predict wrongly without a word: nothing is unpickled before the HMAC holds.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import pickle
import secrets
import struct
import zlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from core.errors import CheckpointError
from core.project import Project
from core.settings import Settings
from streaming.machine import State

_MAGIC = b"HEADRACE1"
_KEPT = 2
_log = logging.getLogger("headrace.checkpoint")


@dataclass(frozen=True)
class Snapshot:
    """A partition's state, the broker whose offsets it names, and where the journal goes on from it.

    Attributes
    ----------
    journal : int
        Offset of the first journal entry that is not in the state.
    term, owner
        The how manieth owner of the partition wrote it, and its name in the journal.
    """

    state: State
    cluster_id: str
    journal: int = 0
    term: int = 0
    owner: str = ""


def load_key(state_folder: Path) -> bytes:
    """Return the installation's key; make one on the first call.

    Raises
    ------
    CheckpointError
        If others may read the key's file.
    """
    if named := os.environ.get("HEADRACE_STATE_KEY"):
        return named.encode()
    path = state_folder / "state.key"
    if not path.exists():
        _make_key(path)
    if path.stat().st_mode & 0o077:
        raise CheckpointError(f"{path}: others may read this key; run: chmod 600 {path}")
    return path.read_bytes()


def _make_key(path: Path) -> None:
    """Write a key as a whole or not at all; of two processes that do it at once the first wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    with os.fdopen(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
        file.flush()
        os.fsync(file.fileno())
    try:
        path.hardlink_to(part)
    except FileExistsError:
        _log.debug("%s was made by another process", path)
    finally:
        part.unlink()


class Checkpoints:
    """The snapshots of one project's partitions, the newest two of each."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._folder = project.checkpoints
        self._key = load_key(project.state)
        self._stamp = _stamp(project.settings)

    def save(self, partition: int, snapshot: Snapshot) -> Path:
        """Write a snapshot: part file, fsync, rename, fsync of the folder; then drop the oldest."""
        self._folder.mkdir(parents=True, exist_ok=True)
        header = {
            **self._stamp,
            "cluster_id": snapshot.cluster_id,
            "positions": snapshot.state.positions,
            "journal": snapshot.journal,
            "term": snapshot.term,
            "owner": snapshot.owner,
        }
        content = _frame(header, zlib.compress(pickle.dumps(snapshot.state, protocol=5), 1))
        path = self._folder / f"partition-{partition:04d}.{snapshot.state.step:016d}.snapshot"
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            file.write(content + hmac.digest(self._key, content, "sha256"))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _sync_folder(self._folder)
        for old in self._files(partition)[_KEPT:]:
            old.unlink()
        return path

    def load(self, partition: int) -> Snapshot | None:
        """Return the newest snapshot that can be trusted; None only if there never was one.

        Raises
        ------
        CheckpointError
            If snapshots exist and none can be trusted, or it was made under other versions or settings.
        """
        problems: dict[Path, str] = {}
        for path in self._files(partition):
            try:
                snapshot = self._read(path)
            except CheckpointError as error:
                _log.error("%s; trying the one before", error)
                problems[path] = str(error)
                continue
            for refused in problems:  # else it counted as the newest for ever
                refused.rename(refused.with_suffix(".refused"))
            return snapshot
        if problems:
            raise CheckpointError(
                f"no snapshot of partition {partition} can be used:\n  " + "\n  ".join(problems.values()) + "\n"
                "restore the state folder from a back-up, or move it away to start learning anew"
            )
        return None

    def _files(self, partition: int) -> list[Path]:
        return sorted(self._folder.glob(f"partition-{partition:04d}.*.snapshot"), reverse=True)

    def _read(self, path: Path) -> Snapshot:
        content = path.read_bytes()
        body, signature = content[:-32], content[-32:]
        if not hmac.compare_digest(hmac.digest(self._key, body, "sha256"), signature):
            raise CheckpointError(f"{path}: damaged, or not written with this installation's key")
        header, payload = _unframe(body)
        for name, mine in self._stamp.items():
            if header[name] != mine:
                raise CheckpointError(f"{path}: made with {name} {header[name]}, this is {mine}")
        self._import_project_code()
        try:
            state = pickle.loads(zlib.decompress(payload))  # noqa: S301
        except Exception as error:  # unpickling may raise anything
            raise CheckpointError(
                f"{path}: does not fit the code of this project any more: {type(error).__name__}: {error}"
            ) from error
        return Snapshot(state, header["cluster_id"], header["journal"], header["term"], header["owner"])

    def _import_project_code(self) -> None:
        """Import the files whose classes the experts of a snapshot may be of."""
        for entry in self._project.settings.online:
            if ":" in entry.factory:
                self._project.load_function(entry.factory)


def _stamp(settings: Settings) -> dict[str, Any]:
    """Return what a snapshot must agree on to be continued."""
    shape = settings.model_dump(mode="json", include={"task", "fields", "features", "online", "blend", "label"})
    digest = hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:16]
    return {"format": 3, "river": version("river"), "settings": digest}


def _frame(header: dict[str, Any], payload: bytes) -> bytes:
    text = json.dumps(header).encode()
    return _MAGIC + struct.pack(">I", len(text)) + text + payload


def _unframe(body: bytes) -> tuple[dict[str, Any], bytes]:
    start = len(_MAGIC) + 4
    (length,) = struct.unpack(">I", body[len(_MAGIC) : start])
    return json.loads(body[start : start + length]), body[start + length :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
