"""Feature parity: features made again from kept events must be those that were stored. Only reads tables.

What a model is trained on is stored at prediction; what it will be asked with is made by the project's function as it
is now. Where the two differ - the function was changed, reads a clock, draws by lot, depends on events before -, the
model would serve other features than it was fitted on, and no hold-out would show it: that has the stored ones, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from core.errors import ProjectCodeError
from core.features import OTHER, FeatureError, FeatureFunction, load_features
from core.predictions import FeatureValue
from core.project import Project
from core.settings import Settings
from core.tables import EVENTS, ReadsTables, feature_column, field_column, milliseconds
from flows.examples import Examples
from flows.gates import GateResult


@dataclass(frozen=True)
class Kept:
    """An event as its feature function got it, ms, and the features stored with its prediction."""

    id: str
    time: int
    fields: dict[str, FeatureValue]
    stored: dict[str, FeatureValue]


def parity_gate(project: Project, tables: ReadsTables, rows: Examples) -> GateResult:
    """Judge whether the features of a sample of rows, made again, are the stored ones.

    Parameters
    ----------
    tables : ReadsTables
        Holds the kept events.
    rows : Examples
        What is to be trained on.

    Raises
    ------
    StoreError
        If the table cannot be read.
    """
    settings = project.settings
    limit = settings.gates.max_skewed
    if not settings.has_function:
        said = "no feature function: the fields are the features, nothing to make again"
        return GateResult("parity", True, 0.0, limit, said)
    sample = kept_events(tables, rows, settings)
    if not sample:
        said = (
            f"no event of these {len(rows)} rows was kept (1 of {settings.state.kept_events} is, state.kept_events; "
            "none before headrace did so): wait for new labels, or keep more"
        )
        return GateResult("parity", False, None, limit, said)
    try:
        function = load_features(project)
    except ProjectCodeError as error:
        return GateResult("parity", False, None, limit, str(error))
    return judge_parity(sample, function, settings)


def judge_parity(sample: list[Kept], function: FeatureFunction, settings: Settings) -> GateResult:
    """Judge whether a function makes the stored features of these events; the reason names the first that differs."""
    limit = settings.gates.max_skewed
    found = [said for one in sample if (said := _skew(one, function)) is not None]
    share = len(found) / len(sample)
    said = f"{len(found)} of {len(sample)} rows have other features when made again"
    if found:
        said += (
            f"; {found[0]}. {settings.features.function if settings.features else 'the function'} must be pure, and "
            "as it was when these rows were predicted (gates.max_skewed)"
        )
    return GateResult("parity", share <= limit, share, limit, said)


def kept_events(tables: ReadsTables, rows: Examples, settings: Settings) -> list[Kept]:
    """Return kept events among these rows, evenly from the first to the last; at most `gates.parity_rows`."""
    if not len(rows) or not tables.exists(EVENTS):
        return []
    first, last = (datetime.fromtimestamp(int(end) / 1000, UTC) for end in rows.event_time[[0, -1]])
    events = tables.read(EVENTS, where=[("event_time", ">=", first), ("event_time", "<=", last)])
    places = {key: place for place, key in enumerate(_keys(rows.table))}
    pairs = [(place, at) for at, key in enumerate(_keys(events)) if (place := places.get(key)) is not None]
    pairs.sort()
    most = settings.gates.parity_rows
    if len(pairs) > most:
        pairs = [pairs[at] for at in np.linspace(0, len(pairs) - 1, most).round().astype(int)]
    stored = _values(rows.table, [place for place, _ in pairs], {n: feature_column(n) for n in settings.feature_kinds})
    fields = _values(events, [at for _, at in pairs], {name: field_column(name) for name in settings.kept_fields})
    times = milliseconds(events["event_time"])
    ids = events["id"].to_pylist()
    return [
        Kept(ids[at], int(times[at]), given, features)
        for (_, at), given, features in zip(pairs, fields, stored, strict=True)
    ]


def _keys(table: pa.Table) -> list[tuple[int, int]]:
    return list(zip(table["partition"].to_pylist(), table["step"].to_pylist(), strict=True))


def _values(table: pa.Table, places: list[int], columns: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return these rows as dictionaries; a column that the table does not have is None."""
    known = {name: column for name, column in columns.items() if column in table.column_names}
    chosen = table.select(list(known.values())).take(pa.array(places, pa.int64()))
    made = {name: chosen[column].to_pylist() for name, column in known.items()}
    return [{name: made[name][at] if name in made else None for name in columns} for at in range(len(places))]


def _skew(one: Kept, function: FeatureFunction) -> str | None:
    """Say which feature of an event differs; None if none does."""
    try:
        made = function(dict(one.fields), one.time)
    except FeatureError as error:
        return f"event {one.id!r}: {error}"
    for name, stored in one.stored.items():
        if name in made and not _same(stored, made[name]):
            return f"event {one.id!r}: feature {name!r} was stored as {stored!r} and is {made[name]!r} now"
    return None


def _same(stored: FeatureValue, made: FeatureValue) -> bool:
    if isinstance(stored, float) and isinstance(made, float) and math.isnan(stored) and math.isnan(made):
        return True
    return stored == made or (stored == OTHER and isinstance(made, str))
