"""Where snapshots are kept: a folder, or an object store. The only pyarrow.fs import.

Both write a file as a whole or not at all. In a folder: part file, fsync, rename, fsync of the folder. In an object
store an object is there when its upload is complete, and not before.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from core.errors import StoreError
from streaming.phases import Phases


class StateStore(Protocol):
    """Files by name, in one flat place."""

    def names(self, prefix: str) -> list[str]:
        """Return the names that start with `prefix`, in any order; part files are not among them."""

    def where(self, name: str) -> str:
        """Return the whole path, for messages."""

    def read(self, name: str) -> bytes:
        """Return a file's content."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file, durably, as a whole or not at all."""

    def remove(self, name: str) -> None:
        """Remove a file; one that is gone already is no error."""

    def rename(self, name: str, other: str) -> None:
        """Give a file another name."""


def open_store(place: Path | str, phases: Phases) -> StateStore:
    """Return the store at a folder or at an object store's URI.

    Raises
    ------
    StoreError
        If the object store cannot be used.
    """
    if isinstance(place, Path):
        return Folder(place, phases)
    from pyarrow import fs

    with _translated(place):
        filesystem, path = fs.FileSystem.from_uri(place)
    return ObjectStore(filesystem, path, phases)


class Folder:
    """A local folder, or one on a network file system.

    Parameters
    ----------
    path : Path
        Made at the first write.
    phases : Phases
        Told about each part of a write.
    """

    def __init__(self, path: Path, phases: Phases) -> None:
        self._path = path
        self._phases = phases

    def names(self, prefix: str) -> list[str]:
        """See `StateStore`."""
        return [path.name for path in self._path.glob(f"{prefix}*")]

    def where(self, name: str) -> str:
        """See `StateStore`."""
        return str(self._path / name)

    def read(self, name: str) -> bytes:
        """See `StateStore`."""
        return (self._path / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """See `StateStore`; part files that crashed writers of files with the same first part of the name left go."""
        self._path.mkdir(parents=True, exist_ok=True)
        self._sweep(name.partition(".")[0])
        part = self._path / f".{name}.{secrets.token_hex(8)}.part"
        with part.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            with self._phases.enter("snapshot write"):
                file.write(content)
            with self._phases.enter("snapshot fsync"):
                file.flush()
                os.fsync(file.fileno())
            with self._phases.enter("snapshot rename"):
                part.replace(self._path / name)
                self._sync()

    def remove(self, name: str) -> None:
        """See `StateStore`."""
        (self._path / name).unlink(missing_ok=True)

    def rename(self, name: str, other: str) -> None:
        """See `StateStore`."""
        (self._path / name).replace(self._path / other)

    def _sweep(self, stem: str) -> None:
        """Remove part files that nobody writes any more: the lock of a process ends with it."""
        for part in self._path.glob(f".{stem}.*.part"):
            with part.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                part.unlink(missing_ok=True)

    def _sync(self) -> None:
        descriptor = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class ObjectStore:
    """A bucket, or a path in one.

    Parameters
    ----------
    filesystem : pyarrow.fs.FileSystem
        The object store.
    path : str
        Bucket and path.
    phases : Phases
        Told about each part of a write.
    """

    def __init__(self, filesystem: Any, path: str, phases: Phases) -> None:
        self._filesystem = filesystem
        self._path = path
        self._phases = phases

    def names(self, prefix: str) -> list[str]:
        """See `StateStore`."""
        from pyarrow import fs

        with _translated(self._path):
            found = self._filesystem.get_file_info(fs.FileSelector(self._path, allow_not_found=True))
        return [entry.base_name for entry in found if entry.base_name.startswith(prefix)]

    def where(self, name: str) -> str:
        """See `StateStore`."""
        return f"{self._filesystem.type_name}://{self._path}/{name}"

    def read(self, name: str) -> bytes:
        """See `StateStore`."""
        with _translated(self.where(name)), self._filesystem.open_input_stream(self._at(name)) as file:
            return bytes(file.read())

    def write(self, name: str, content: bytes) -> None:
        """See `StateStore`; closing it completes the upload, which makes the object visible."""
        with _translated(self.where(name)):
            with self._phases.enter("snapshot write"):
                file = self._filesystem.open_output_stream(self._at(name))
                file.write(content)
            with self._phases.enter("snapshot rename"):
                file.close()

    def remove(self, name: str) -> None:
        """See `StateStore`."""
        with _translated(self.where(name)):
            if name in self.names(name):
                self._filesystem.delete_file(self._at(name))

    def rename(self, name: str, other: str) -> None:
        """See `StateStore`; a copy, then the removal."""
        with _translated(self.where(name)):
            self._filesystem.move(self._at(name), self._at(other))

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"


@contextmanager
def _translated(where: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{where}: the object store refuses or cannot be reached: {error}") from error
