"""Status files: what each running service says of itself, for people and for lockstep.

One JSON file a service under ``<state>/status``, replaced as a whole, written by one process only
and read by any. Never the source of truth for data: that is in the tables and the ledger.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from functools import cache
from pathlib import Path
from typing import Any

from core.errors import AlreadyRunningError
from core.processes import Birth, birth

# The id of a process on another host, or in another container, says nothing here: it counts as alive this long, s.
FRESH_S = 30.0

_TELL_EVERY_S = 30.0
_told_at: dict[Path, float] = {}
_log = logging.getLogger(__name__)


def write_status(folder: Path, service: str, body: dict[str, Any], instance: str = "") -> None:
    """Replace the status of `service`; who wrote it, and ``updated_at`` (wall clock, s), are added.

    Several processes of one service on one folder each have an `instance` name. A status that cannot be written (a
    full disk) is logged now and then, and stops nobody: it is only a word to others, who see that it is old.
    """
    text = json.dumps({**body, **_writer(os.getpid()), "host": socket.gethostname(), "updated_at": time.time()})
    name = _file_name(service, instance)
    part = folder / f".{name}.{os.getpid()}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(folder / name)
    except OSError as error:
        if time.monotonic() - _told_at.get(folder / name, float("-inf")) >= _TELL_EVERY_S:
            _told_at[folder / name] = time.monotonic()
            _log.warning("%s: the status cannot be written, tried again: %s; is the disk full?", folder / name, error)


def read_status(folder: Path, service: str, instance: str | None = None) -> dict[str, Any] | None:
    """Return the last status of `service`, or None if there is none that can be read.

    Without an `instance`, what all of them say: the partitions of those alive, and otherwise the latest word.
    """
    if instance is not None:
        return _read(folder / _file_name(service, instance))
    found = [status for path in _files(folder, service) if (status := _read(path)) is not None]
    found.sort(key=lambda status: (is_alive(status), float(status["updated_at"])))
    if not found:
        return None
    alive = [status for status in found if is_alive(status)] or found
    merged = dict(found[-1])
    if "partitions" in merged:
        merged["partitions"] = {n: part for status in alive for n, part in (status.get("partitions") or {}).items()}
    return merged


def read_instances(folder: Path, service: str) -> dict[str, dict[str, Any]]:
    """Return the last status of each process of `service` that is alive, by its instance name."""
    found = {path.stem.partition("@")[2]: _read(path) for path in _files(folder, service)}
    return {name: status for name, status in found.items() if status is not None and is_alive(status)}


def _file_name(service: str, instance: str) -> str:
    return f"{service}@{instance}.json" if instance else f"{service}.json"


def _files(folder: Path, service: str) -> list[Path]:
    return [folder / _file_name(service, ""), *sorted(folder.glob(_file_name(service, "*")))]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return content


def is_alive(status: dict[str, Any] | None) -> bool:
    """Tell whether the process that wrote `status` still runs; where that cannot be seen, whether it wrote lately."""
    if not status or status.get("state") == "stopped":
        return False
    runs = _runs(status) if _is_here(status) else None
    return time.time() - float(status["updated_at"]) < FRESH_S if runs is None else runs


def refuse_second(folder: Path, service: str, instance: str = "") -> None:
    """Refuse to start `service` where another process of it (of that name) runs on the same state.

    Raises
    ------
    AlreadyRunningError
        If a live process wrote the service's status.
    """
    status = read_status(folder, service, instance)
    if status and is_alive(status) and not (_is_here(status) and status["pid"] == os.getpid()):
        raise AlreadyRunningError(
            f"{service} already runs on {folder.parent} (process {status['pid']}); stop it first, "
            f"{'give this one a name with --instance, ' if service == 'worker' else ''}"
            "or give another folder with HEADRACE_STATE"
        )


def _is_here(status: dict[str, Any]) -> bool:
    return bool(status.get("host", socket.gethostname()) == socket.gethostname())


def _runs(status: dict[str, Any]) -> bool | None:
    """Tell whether the writer runs here, and not a stranger that has its id now; None where that cannot be seen."""
    try:
        found = birth(int(status["pid"]))
    except ProcessLookupError:
        return False
    if "started" not in status:  # written before statuses said so
        return True
    return None if found is None else found == Birth(status["boot"], status["started"])


@cache
def _writer(pid: int) -> dict[str, Any]:
    own = birth(pid)
    return {"pid": pid, **({} if own is None else {"boot": own.boot, "started": own.started})}
