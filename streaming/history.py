"""A partition's past as the tables hold it: what it predicted and what it learned, in the order in which it did."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from core.errors import CheckpointError
from core.models import SHADOWS
from core.predictions import Outcome, Prediction
from core.settings import Settings
from core.store import TableStore
from core.tables import (
    EXAMPLES,
    PREDICTIONS,
    Filter,
    examples_schema,
    feature_column,
    key_column,
    prediction_column,
    predictions_schema,
    shadow_columns,
)
from streaming.join import Predicted
from streaming.shadow import Shadowed

_CHUNK = 4_096
_LEARNED = (
    *("id", "step", "event_time", "clock"),
    *("label", "label_time", "label_clock", "label_step", "implied", "successor"),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A prediction that was made; `labelled` tells whether an example of it follows."""

    predicted: Predicted
    labelled: bool


@dataclass(frozen=True, slots=True)
class Learned:
    """An example that was learned; `step` is that of its prediction, times in ms; see `streaming.outputs.Example`."""

    step: int
    id: str
    outcome: Outcome
    label_time: int
    label_clock: int
    label_step: int
    successor: Prediction | None = None


class History:
    """What one partition did up to a step, from its rows of ``predictions`` and ``examples``.

    Within a step, events pass their horizon first, then the step's own event is predicted, then its label is learned.

    Parameters
    ----------
    store : TableStore
        Where the tables are; columns that the settings have and they have not yet are added to them.
    settings : Settings
        Decides which features and experts are read.
    partition : int
        Whose rows.
    through : int
        The last step that counts.
    after : int
        The step behind which it begins; predictions of earlier steps, whose labels came later, are in it too.
    most : int, optional
        Examples at most: it begins later where there are more.

    Attributes
    ----------
    after : int
        Where it begins.

    Raises
    ------
    StoreError
        If the tables cannot be read, or hold a feature under another type.
    CheckpointError
        If rows do not tell their step.
    """

    def __init__(
        self,
        store: TableStore,
        settings: Settings,
        partition: int,
        through: int,
        *,
        after: int = 0,
        most: int | None = None,
    ) -> None:
        self._settings = settings
        for table, schema in ((PREDICTIONS, predictions_schema(settings)), (EXAMPLES, examples_schema(settings))):
            store.widen(table, schema)
        names = predictions_schema(settings).names
        learned = _read(store, EXAMPLES, examples_schema(settings).names, "label_step", partition, after, through)
        if most is not None and learned.num_rows > most:
            after = int(learned["label_step"].sort()[-most].as_py()) - 1
            learned = learned.filter(pc.greater(learned["label_step"], after))
        self.after = after
        asked = _read(store, PREDICTIONS, names, "step", partition, after, through)
        only_there = learned.filter(pc.invert(pc.is_in(learned["step"], value_set=asked["step"])))
        asked = pa.concat_tables([asked, only_there.select(names)])
        asked = asked.append_column("labelled", pc.is_in(asked["step"], value_set=learned["step"]))
        self._asked = asked.sort_by("step")
        self._learned = _in_order(learned.select(list(_LEARNED)))

    @property
    def predictions(self) -> int:
        """Number of predictions."""
        return int(self._asked.num_rows)

    @property
    def examples(self) -> int:
        """Number of examples."""
        return int(self._learned.num_rows)

    def __iter__(self) -> Iterator[Asked | Learned]:
        asked = ((row["step"], 1, row) for row in _rows(self._asked))
        learned = ((row["label_step"], 0 if row["implied"] else 2, row) for row in _rows(self._learned))
        for _, turn, row in heapq.merge(asked, learned, key=lambda entry: entry[:2]):
            yield self._as_asked(row) if turn == 1 else _as_learned(row)

    def _as_asked(self, row: dict[str, Any]) -> Asked:
        made = {name: _prediction(row[prediction_column(name)]) for name in self._settings.expert_names}
        predicted = Predicted(
            step=row["step"],
            id=row["id"],
            time=row["event_time"],
            clock=row["clock"],
            partition=row["partition"],
            offset=row["offset"],
            champion_version=row["champion_version"],
            features={name: row[feature_column(name)] for name in self._settings.feature_kinds},
            predictions={name: prediction for name, prediction in made.items() if prediction is not None},
            served=_prediction(row[prediction_column("served")]),
            shadows=_shadows(row),
            keys={name: row[key_column(name)] for name in self._settings.key_fields} or None,
            canary=row["canary_version"],
        )
        return Asked(predicted, row["labelled"])


def _shadows(row: dict[str, Any]) -> dict[str, Shadowed] | None:
    made = {role: [row[name] for name in shadow_columns(role)] for role in SHADOWS}
    found = {
        role: Shadowed(version, _prediction(own), _prediction(blended))
        for role, (version, own, blended) in made.items()
        if version is not None
    }
    return found or None


def _as_learned(row: dict[str, Any]) -> Learned:
    successor = _prediction(row["successor"])
    return Learned(
        row["step"], row["id"], row["label"], row["label_time"], row["label_clock"], row["label_step"], successor
    )


def _read(
    store: TableStore, table: str, columns: list[str], step: str, partition: int, after: int, through: int
) -> pa.Table:
    """Return a partition's rows of the steps (after, through], times in ms."""
    where: list[Filter] = [("partition", "==", partition)]
    if after:
        where.append((step, ">", after))
    rows = store.read(table, columns=columns, where=where)
    if rows[step].null_count:
        raise CheckpointError(
            f"table {table!r} has rows without a step, written by an older headrace: their order is not known; "
            "go back to the version that wrote them"
        )
    rows = rows.filter(pc.less_equal(rows[step], through))
    for index, field in enumerate(rows.schema):
        if pa.types.is_timestamp(field.type):
            times = rows[field.name].cast(pa.timestamp("ms", tz="UTC")).cast(pa.int64())
            rows = rows.set_column(index, field.name, times)
    return rows


def _in_order(learned: pa.Table) -> pa.Table:
    """Sort examples as they were learned: those that passed their horizon in one step by deadline, then id."""
    due = pc.max_element_wise(learned["event_time"], learned["clock"])
    keys = [("label_step", "ascending"), ("implied", "descending"), ("due", "ascending"), ("id", "ascending")]
    return learned.append_column("due", due).sort_by(keys)


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=_CHUNK):
        yield from batch.to_pylist()


def _prediction(cell: Any) -> Prediction | None:
    return dict(cell) if isinstance(cell, list) else cell
