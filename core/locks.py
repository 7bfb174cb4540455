"""A lock on a file of the state folder: whoever holds it has it until it lets go or ends, however it ends.

The kernel keeps it, so nobody has to guess from clocks or process ids whether the holder still lives, and containers
of one machine see each other's. A holder that stands still keeps it, as it should.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from pathlib import Path

from core.errors import StoreError


class FileLock:
    """A lock of one process; the file stays, and says who took it last.

    Parameters
    ----------
    path : Path
        The file; on a local file system, as the ledger.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "judging.lock"
    >>> mine, yours = FileLock(path), FileLock(path)
    >>> mine.acquire("monitor"), yours.acquire("drift check")
    (True, False)
    >>> yours.holder()[0]
    'monitor'
    >>> mine.release()
    >>> yours.acquire("drift check")
    True
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: int | None = None

    def acquire(self, what: str) -> bool:
        """Take the lock unless another holds it; return whether it is held now.

        Parameters
        ----------
        what : str
            What it is taken for: tells others who holds it.

        Raises
        ------
        OSError
            If the file cannot be written.
        StoreError
            If the file system knows no locks.
        """
        if self._held is not None:
            return True
        self._path.parent.mkdir(parents=True, exist_ok=True)
        opened = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if not self._locked(opened):
                os.close(opened)
                return False
            said = json.dumps([what, os.getpid(), socket.gethostname()]).encode()
            os.ftruncate(opened, 0)
            os.pwrite(opened, said, 0)
        except BaseException:
            os.close(opened)  # lets go of it, too
            raise
        self._held = opened
        return True

    def release(self) -> None:
        """Let go; nothing happens where it is not held."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def holder(self) -> tuple[str, str]:
        """Return for what it was taken last, and by whom, in words."""
        try:
            what, pid, host = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError):  # being written at this moment
            return "", "another process"
        return str(what), f"process {pid} on {host}"

    def _locked(self, opened: int) -> bool:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise StoreError(
                f"{self._path}: cannot be locked: {error.strerror}; the state folder has to be on a local file system, "
                "name one with HEADRACE_STATE"
            ) from error
        return True
