"""Example rows: of the signals that moved most, the rows of the window that are farthest from the reference. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from core.settings import Settings
from core.tables import milliseconds, prediction_column, prediction_of
from monitoring.comparison import LABEL, PREDICTION
from monitoring.inspection import Inspection
from monitoring.page.moves import Move
from monitoring.page.values import Values, missing_share, shares, values_of
from monitoring.page.wording import exact, loss, short
from monitoring.rows import losses_of
from monitoring.signals import SERVED_LOSS

MOST_ROWS, MOST_SIGNALS = 10, 3
_GONE = 0.1
"""A rise of the missing share from which rows without a value are shown."""

Positions = NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True)
class FarRow:
    """One row of the window.

    Attributes
    ----------
    values : dict of str to str
        Each signal shown, the served prediction and the label; None where there is none.
    far : frozenset of str
        Those of them that it was chosen for.
    """

    id: str
    time: int
    values: dict[str, str | None]
    far: frozenset[str]


def far_rows(found: Inspection, moved: Sequence[Move], settings: Settings) -> list[FarRow]:
    """Return at most `MOST_ROWS` rows, ordered by time.

    Of labels: those with a label that is far away, and those with the largest losses of the served prediction.
    """
    if found.sides is None:
        return []
    sides = found.sides
    rows = sides.current.sort_by([("event_time", "ascending"), ("id", "ascending")])
    columns: dict[str, Values] = {}
    if found.stage.stage == "labels":
        columns[SERVED_LOSS] = _losses(rows)
        far = {LABEL: _far_labels(rows, sides.reference, settings), SERVED_LOSS: [_largest(columns[SERVED_LOSS])]}
    else:
        far = {}
        for name in _signals(moved):
            now, before = values_of(rows, name, settings), values_of(sides.reference, name, settings)
            if now is not None and before is not None:
                columns[name], far[name] = now, farthest(now, before)
    return _shown(rows, columns, _chosen(far), sides.known)


def _far_labels(rows: pa.Table, reference: pa.Table, settings: Settings) -> list[Positions]:
    """Return the rows with a far label; a class that comes more often than it did makes no example."""
    now, before = values_of(rows, LABEL, settings), values_of(reference, LABEL, settings)
    if now is None or before is None:
        return []
    if isinstance(now, list):
        known = set(before)
        return [np.array([at for at, label in enumerate(now) if label not in known], dtype=np.int64)]
    return farthest(now, before)


def _losses(rows: pa.Table) -> Values:
    losses = losses_of(rows[prediction_column("served")].to_pylist(), rows["label"].to_pylist())
    return np.array(losses, dtype=np.float64)


def farthest(now: Values, before: Values) -> list[Positions]:
    """Return the positions of the rows that are far away, in groups of one kind; the farthest first.

    Numbers: those beyond the reference's 1st and 99th percentile, or the largest moves from its median where none is;
    and those without a value, if these have become many. Categories: those with a value that the reference does not
    know, and with one that comes much more often than it did.

    Examples
    --------
    >>> [group.tolist() for group in farthest(np.array([0.5, 9.0, -3.0]), np.array([0.0, 1.0]))]
    [[1, 2]]
    >>> [group.tolist() for group in farthest(["a", "new", "b"], ["a", "b", "b"])]
    [[1]]
    """
    if isinstance(now, list):
        return _risen(now, cast(list[str], before))
    numbers = cast(NDArray[np.float64], before)
    gone = missing_share(now) - missing_share(numbers) >= _GONE
    groups = [np.flatnonzero(np.isnan(now))] if gone else []
    if np.isnan(numbers).all():
        return groups
    low, middle, high = np.nanquantile(numbers, [0.01, 0.5, 0.99])
    beyond = np.maximum(low - now, now - high)
    if not (beyond > 0.0).any():
        return [*groups, _largest(np.abs(now - middle))]
    return [*groups, _largest(np.where(beyond > 0.0, beyond, np.nan))]


def _signals(moved: Sequence[Move]) -> list[str]:
    """Return the signals that moved further than is usual; where none did, the features that moved most."""
    known = [move for move in moved if move.missing is not None]
    far = [move for move in known if move.is_far] or [move for move in known if move.name != PREDICTION]
    return [move.name for move in far[:MOST_SIGNALS]]


def _largest(values: Values) -> Positions:
    known = np.flatnonzero(~np.isnan(cast(NDArray[np.float64], values)))
    return known[np.argsort(-np.asarray(values)[known], kind="stable")]


def _risen(now: list[str], before: list[str]) -> list[Positions]:
    was, found = shares(before), shares(now)
    rise = sorted(found, key=lambda value: (was.get(value, 0.0) - found[value], value))
    values = [value for value in rise if value not in was][:2]
    values += [value for value in rise if value in was and found[value] > was[value]][:2]
    cells = np.array(now, dtype=object)
    return [np.flatnonzero(cells == value) for value in values]


def _chosen(far: Mapping[str, Sequence[Positions]]) -> dict[int, set[str]]:
    """Take rows of each signal, and of each of its groups, in turn while there is room; return what each is for."""
    queues = {name: _in_turn([group[:MOST_ROWS].tolist() for group in groups]) for name, groups in far.items()}
    chosen: dict[int, set[str]] = {}
    for name, place in _in_turn([[(name, place) for place in queue] for name, queue in queues.items()]):
        if place in chosen or len(chosen) < MOST_ROWS:
            chosen.setdefault(place, set()).add(name)
    return chosen


def _in_turn(queues: Sequence[Sequence[T]]) -> list[T]:
    """Return the first of each, then the second of each, and so on.

    Examples
    --------
    >>> _in_turn([["a", "b", "c"], [], ["x"]])
    ['a', 'x', 'b', 'c']
    """
    return [
        one for turn in range(max(map(len, queues), default=0)) for queue in queues for one in queue[turn : turn + 1]
    ]


def _shown(rows: pa.Table, columns: dict[str, Values], chosen: dict[int, set[str]], known: pa.Table) -> list[FarRow]:
    places = sorted(chosen)
    some = rows.take(pa.array(places, pa.int64()))
    ids, times = some["id"].to_pylist(), milliseconds(some["event_time"]).tolist()
    served = some[prediction_column("served")].to_pylist()
    theirs = known.filter(pc.is_in(known["id"], pa.array(ids, pa.string())))
    labels = dict(zip(theirs["id"].to_pylist(), theirs["label"].to_pylist(), strict=True))
    found = []
    for at, place in enumerate(places):
        values = {name: _cell(column[place]) for name, column in columns.items()}
        if SERVED_LOSS in columns:
            values[SERVED_LOSS] = loss(float(columns[SERVED_LOSS][place]))
        values |= {PREDICTION: _prediction(served[at]), LABEL: _cell(labels.get(ids[at]))}
        found.append(FarRow(ids[at], times[at], values, frozenset(chosen[place])))
    return found


def _cell(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return exact(float(value))


def _prediction(cell: Any) -> str | None:
    """Return a served prediction; of classes the most likely with its probability."""
    prediction = prediction_of(cell)
    if isinstance(prediction, dict):
        known = {name: chance for name, chance in prediction.items() if chance is not None}
        best = max(sorted(known), key=lambda name: known[name], default=None)
        return None if best is None else f"{short(best, 40)} ({known[best]:.2f})"
    return None if prediction is None else f"{prediction:.6g}"
