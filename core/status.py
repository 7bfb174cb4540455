"""Status files: what each running service says of itself, for people and for lockstep.

One JSON file a service under ``<state>/status``, replaced as a whole, written by one process only
and read by any. Never the source of truth for data: that is in the tables and the ledger.
"""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from core.errors import AlreadyRunningError

# The id of a process on another host, or in another container, says nothing here: it counts as alive this long, s.
FRESH_S = 30.0


def write_status(folder: Path, service: str, body: dict[str, Any]) -> None:
    """Replace the status of `service`; ``pid``, ``host`` and ``updated_at`` (wall clock, s) are added."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**body, "pid": os.getpid(), "host": socket.gethostname(), "updated_at": time.time()})
    part = folder / f".{service}.{os.getpid()}.part"
    part.write_text(text, encoding="utf-8")
    part.replace(folder / f"{service}.json")


def read_status(folder: Path, service: str) -> dict[str, Any] | None:
    """Return the last status of `service`, or None if there is none that can be read."""
    try:
        content: dict[str, Any] = json.loads((folder / f"{service}.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return content


def is_alive(status: dict[str, Any] | None) -> bool:
    """Tell whether the process that wrote `status` still runs; on another host, whether it wrote lately."""
    if not status or status.get("state") == "stopped":
        return False
    if not _is_here(status):
        return time.time() - float(status["updated_at"]) < FRESH_S
    return _runs(int(status["pid"]))


def refuse_second(folder: Path, service: str) -> None:
    """Refuse to start `service` where another process of it runs on the same state.

    Raises
    ------
    AlreadyRunningError
        If a live process wrote the service's status.
    """
    status = read_status(folder, service)
    if status and is_alive(status) and not (_is_here(status) and status["pid"] == os.getpid()):
        raise AlreadyRunningError(
            f"{service} already runs on {folder.parent} (process {status['pid']}); "
            "stop it first, or give another folder with HEADRACE_STATE"
        )


def _is_here(status: dict[str, Any]) -> bool:
    return bool(status.get("host", socket.gethostname()) == socket.gethostname())


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
