"""What is past ``privacy.retention`` goes: rows of every version of a table, reports, references of what serves not.

Age counts from the event's time to the wall clock. Pins do not keep what is past its time: a version of a table that
has lost files is released, so that its other files go with the next vacuum.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from core.audit import Ledger
from core.errors import StoreError
from core.markup import element, whole_page
from core.project import Project
from core.removal import PERSONAL, Removal, remove_older
from core.store import TableStore
from flows.promotion import named_versions

_STAMP = "%Y-%m-%dT%H-%M-%SZ"
_STAMP_LENGTH = len("2013-01-01T00-00-00Z")
_log = logging.getLogger("headrace.maintenance")


@dataclass(frozen=True)
class LetGo:
    """What went.

    Attributes
    ----------
    removed : list of Removal
        Of each table.
    reports : int
        Files of reports.
    references : list of int
        Versions whose reference went.
    released : list of str
        Who had pinned a version of a table that cannot be read any more.
    """

    removed: list[Removal]
    reports: int
    references: list[int]
    released: list[str]


def let_go(project: Project, store: TableStore, ledger: Ledger, now: int) -> LetGo | None:
    """Remove what is past its time at `now`, wall clock in ms; None where the project keeps everything.

    Raises
    ------
    StoreError
        If something cannot be removed; it is tried again with the next maintenance.
    """
    kept = project.settings.privacy.retention
    if kept is None:
        return None
    moment = now - kept
    removed = [remove_older(store, table, moment) for table in PERSONAL]
    try:
        reports = remove_reports(project.reports, moment)
        references = _remove_references(project.state / "references", moment, named_versions(ledger.history()))
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"a report or reference past privacy.retention cannot be removed: {error}") from error
    done = LetGo(removed, reports, references, release_unreadable(store, ledger))
    _log.info("past privacy.retention: %s", done)
    return done


def release_unreadable(store: TableStore, ledger: Ledger) -> list[str]:
    """Release the pins of whoever pins a version that has lost files, and return whose these were."""
    whole: dict[tuple[str, int], bool] = {}
    released = []
    for table, version, owner in ledger.pins():
        if (table, version) not in whole:
            whole[table, version] = store.is_whole(table, version)
        if not whole[table, version] and owner not in released:
            ledger.unpin(owner)
            released.append(owner)
    return released


def remove_reports(folder: Path, moment: int) -> int:
    """Remove the reports of windows that began before `moment`, ms; a page says so in its place, as others link to it.

    Raises
    ------
    OSError
        If one cannot be removed.
    """
    gone = 0
    for path in sorted(folder.glob("*")):
        start = _start_of(path.name)
        if start is None or start >= moment:
            continue
        if path.suffix != ".html":
            path.unlink()
        elif path.read_text(encoding="utf-8") == _STUB:
            continue
        else:
            part = path.with_name(f".{path.name}.part")
            part.write_text(_STUB, encoding="utf-8")
            part.replace(path)
        gone += 1
    return gone


_STUB = whole_page("removed", "", element("p", "This report is past privacy.retention and was removed."))


def _start_of(name: str) -> int | None:
    """Return when the window of a report began, ms; None for what is no report of a window."""
    try:
        start = datetime.strptime(name[:_STAMP_LENGTH], _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None
    return round(start.timestamp() * 1000)


def _remove_references(folder: Path, moment: int, serving: set[int]) -> list[int]:
    """Remove references whose data all lies before `moment`, ms, but of versions that have an alias."""
    gone = []
    for about in sorted(folder.glob("*.json")):
        version = int(about.stem)
        if version not in serving and json.loads(about.read_text(encoding="utf-8"))["data_cut"] < moment:
            about.with_suffix(".parquet").unlink(missing_ok=True)
            about.unlink()
            gone.append(version)
    return gone
