"""What is written about an id, erased: rows, example rows of pages, rows of references; and what cannot be reached."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.audit import Ledger
from core.errors import StoreError
from core.project import Project
from core.quarantine import is_inside
from core.removal import PERSONAL, Removal, remove_id, rows_of
from core.store import TableStore
from core.tables import EXAMPLES, PREDICTIONS, milliseconds
from monitoring.page.erasing import erase_from_pages

_NEXT = "next"
LogFile = Callable[[int, Path], None]
"""Puts a file of a version's reference in place of the one in its MLflow run."""


@dataclass(frozen=True)
class Erased:
    """What was erased of what is written.

    Attributes
    ----------
    rows, files : dict of str to int
        By table: rows of its latest version, and files of earlier ones that held such rows.
    pages : int
        Reports with an example row of it.
    references : list of int
        Versions whose reference had it among its rows.
    versions : list of int
        Versions that may have been trained on it, and still hold what they learned.
    """

    rows: dict[str, int]
    files: dict[str, int]
    pages: int
    references: list[int]
    versions: list[int]

    @property
    def found(self) -> bool:
        """Whether there was anything."""
        return bool(sum(self.rows.values()) or sum(self.files.values()) or self.pages)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def erase_written(project: Project, store: TableStore, ledger: Ledger, event_id: str, log_file: LogFile) -> Erased:
    """Erase an id, as it is in the tables, from everything that is written about it.

    What is found through its rows goes first: whoever is stopped in between finds them again.

    Raises
    ------
    StoreError
        If something cannot be read or written; what was erased is, and it can be done again.
    """
    known = [table for table in (PREDICTIONS, EXAMPLES) if store.exists(table)]
    rows = [rows_of(store, table, event_id) for table in known]
    labelled = [found for table, found in zip(known, rows, strict=True) if table == EXAMPLES]
    try:
        references = _erase_from_references(project.state / "references", rows, log_file)
        pages = erase_from_pages(project.reports, event_id)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise StoreError(f"a report or reference cannot be rewritten: {error}; run the same again") from error
    versions = trained_on(ledger, labelled[0]) if labelled else []
    removed: list[Removal] = [remove_id(store, table, event_id) for table in PERSONAL]
    return Erased(
        {removal.table: removal.rows for removal in removed},
        {removal.table: removal.files for removal in removed},
        pages,
        references,
        versions,
    )


def trained_on(ledger: Ledger, rows: pa.Table) -> list[int]:
    """Return the versions that may have been trained on one of these examples, by what was known when they were."""
    times = list(
        zip(milliseconds(rows["event_time"]).tolist(), milliseconds(rows["label_clock"]).tolist(), strict=True)
    )
    found = set()
    for record in ledger.history("retraining"):
        version, recipe = record.body.get("version"), record.body.get("recipe") or {}
        if version is None or "until" not in recipe:
            continue
        spans = [(int(start), int(end)) for start, end in recipe.get("left_out", [])]
        if any(clock <= recipe["until"] and not is_inside(time, spans) for time, clock in times):
            found.add(int(version))
    return sorted(found)


def _erase_from_references(folder: Path, rows: list[pa.Table], log_file: LogFile) -> list[int]:
    changed = []
    for path in sorted(folder.glob("*.parquet")):
        _finish(path)
        sample = pq.read_table(path)
        keep = ~np.logical_or.reduce([_among(sample, found) for found in rows] or [np.zeros(len(sample), dtype=bool)])
        if keep.all():
            continue
        _replace(path, sample.filter(pa.array(keep)))
        version = int(path.stem)
        for part in (path, path.with_suffix(".json")):
            log_file(version, part)
        changed.append(version)
    return changed


def _among(sample: pa.Table, rows: pa.Table) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which rows of a sample, which has no ids, have event time and features of one of these rows."""
    same = [name for name in sample.column_names if name in rows.column_names and _is_compared(name)]
    found = np.zeros(len(sample), dtype=bool)
    for row in rows.select(same).to_pylist():
        equal = np.ones(len(sample), dtype=bool)
        for name, value in row.items():
            column = sample[name]
            hits = pc.is_null(column) if value is None else pc.equal(column, pa.scalar(value, column.type))
            equal &= pc.fill_null(hits, False).to_numpy(zero_copy_only=False)
        found |= equal
    return found


def _is_compared(name: str) -> bool:
    return name == "event_time" or name.startswith("f_")


def _replace(path: Path, sample: pa.Table) -> None:
    """Write a sample and its new digest: said beforehand, so that a stop in between can be told from damage."""
    part = path.with_suffix(".part")
    pq.write_table(sample, part)
    digest = hashlib.sha256(part.read_bytes()).hexdigest()
    _stamp(path, {_NEXT: {"digest": digest, "rows": len(sample)}})
    part.replace(path)
    _finish(path)


def _finish(path: Path) -> None:
    """Stamp a sample with the digest that was said beforehand, if it has been put into place since."""
    stamp = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    coming = stamp.get(_NEXT)
    if coming is not None and hashlib.sha256(path.read_bytes()).hexdigest() == coming["digest"]:
        _stamp(path, {**coming, _NEXT: None})


def _stamp(path: Path, changes: dict[str, Any]) -> None:
    about, part = path.with_suffix(".json"), path.with_suffix(".json.part")
    content = {**json.loads(about.read_text(encoding="utf-8")), **changes}
    kept = {name: value for name, value in content.items() if not (name == _NEXT and value is None)}
    part.write_text(json.dumps(kept, indent=1, allow_nan=False), encoding="utf-8")
    part.replace(about)
