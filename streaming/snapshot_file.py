"""The bytes of a snapshot: a header that tells what is inside, named sections, and an HMAC over all of it.

::

    HEADRACE1 | length of header | header (JSON) | section | section ... | HMAC-SHA256

The header says where a partition goes on, so that nobody has to unpickle a section to know it. Nothing of the
content is looked at before the HMAC holds: a flipped bit can load and predict wrongly without a word, and pickle
can run code. Sections are not compressed: that made a forest a fifth smaller and its snapshot twice as slow.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import secrets
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import CheckpointError

_MAGIC = b"HEADRACE1"
_SIGNATURE = 32
_log = logging.getLogger("headrace.checkpoint")


@dataclass(frozen=True)
class SnapshotFile:
    """A snapshot before anything of it is unpickled.

    Attributes
    ----------
    header : dict
        JSON-ready values.
    sections : dict of str to bytes
        Pickles, by name.
    """

    header: dict[str, Any]
    sections: dict[str, bytes]

    def signed(self, key: bytes) -> bytes:
        """Return the bytes of the file."""
        lengths = [[name, len(content)] for name, content in self.sections.items()]
        text = json.dumps({**self.header, "sections": lengths}).encode()
        body = b"".join([_MAGIC, struct.pack(">I", len(text)), text, *self.sections.values()])
        return body + hmac.digest(key, body, "sha256")

    @classmethod
    def read(cls, content: bytes, key: bytes, where: str) -> SnapshotFile:
        """Read what `signed` wrote.

        Parameters
        ----------
        where : str
            Names the file in the error.

        Raises
        ------
        CheckpointError
            If a single bit differs from what was written with `key`.

        Examples
        --------
        >>> content = SnapshotFile({"step": 7}, {"models": b"..."}).signed(b"key")
        >>> SnapshotFile.read(content, b"key", "here").header
        {'step': 7}
        >>> SnapshotFile.read(content[:-1], b"key", "here")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        core.errors.CheckpointError: here: damaged, or not written with this installation's key...
        """
        view = memoryview(content)
        body, signature = view[:-_SIGNATURE], view[-_SIGNATURE:]
        if not hmac.compare_digest(hmac.digest(key, body, "sha256"), signature):
            raise CheckpointError(
                f"{where}: damaged, or not written with this installation's key: all hosts of a project need the same "
                "HEADRACE_STATE_KEY, or a copy of the same state.key"
            )
        start = len(_MAGIC) + 4
        (length,) = struct.unpack(">I", body[len(_MAGIC) : start])
        header = json.loads(bytes(body[start : start + length]))
        at, sections = start + length, {}
        for name, size in header.pop("sections", []):
            sections[name] = bytes(body[at : at + size])
            at += size
        return cls(header, sections)


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
