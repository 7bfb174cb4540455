"""One pass of the stream through the partition's machine, with the online experts and without a champion.

What they predict and learn does not depend on when the batch model is fitted; so it is done once, and kept in the
order of its steps for every policy to be replayed against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, groupby
from typing import Any

import numpy as np
import pyarrow as pa

from backtest.tables import MemoryTables
from backtest.unused import Unused, unused
from core.errors import SourceError
from core.features import load_features
from core.pii_key import load_pseudonyms
from core.predictions import Outcome, Prediction
from core.project import Project
from core.settings import Settings
from core.spans import next_due, window_origin
from core.tables import (
    CORRECTIONS,
    EXAMPLES,
    PREDICTIONS,
    anew_column,
    key_column,
    milliseconds,
    prediction_column,
    prediction_of,
)
from streaming.canary import name_of
from streaming.decisions import BATCH
from streaming.experts import build_experts
from streaming.machine import Machine
from streaming.outputs import DeadLetter
from streaming.replay import Item, encode_payload
from streaming.state import State
from streaming.table_writer import TableWriter
from streaming.transport import RawRecord

_FLUSH_ROWS = 20_000
Progress = Callable[[int], None]
Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, eq=False)
class Tape:
    """What the online experts did, and when.

    Attributes
    ----------
    tables : MemoryTables
        Predictions, examples and corrections as a worker would have written them, without a champion.
    online : list of dict
        The online experts' predictions of each row of the predictions table.
    clock, step : array of int
        The partition's clock (ms) and step at each prediction.
    label_row, label_clock, label_step : array of int
        Which prediction each example is of, and clock and step when it was learned.
    outcomes : list
        Each example's label.
    anew : list of dict
        What the online experts said when each example was learned; empty where they were not asked again.
    boundaries : dict of int to int
        At each time at which a window's stage is due, ms: the step up to which the stream had come.
    first_event, last_event, end : int
        Event time of the first and the latest event, and the time behind the last record, ms.
    recorded_until : int
        Event time of the latest event of the recording: an injection may have taken it away. In ms.
    unused : Unused
        What was left out of the stream.
    """

    tables: MemoryTables
    online: list[dict[str, Prediction]]
    clock: Ints
    step: Ints
    label_row: Ints
    label_clock: Ints
    label_step: Ints
    outcomes: list[Outcome]
    anew: list[dict[str, Prediction]]
    boundaries: dict[int, int]
    first_event: int
    last_event: int
    end: int
    recorded_until: int
    unused: Unused

    @property
    def last_step(self) -> int:
        """The last step at which something was predicted or learned."""
        return int(max(self.step[-1], self.label_step.max(initial=0)))

    @cached_property
    def order(self) -> tuple[Ints, Ints]:
        """Rows (0, 1, ...) and labels (-1, -2, ...) in the order in which they were predicted and learned; their steps.

        Within a step, labels that are implied because a horizon passed come first, then the event, then its label.
        """
        implied = self.tables.whole(EXAMPLES)["implied"].to_numpy()
        steps = np.concatenate([self.step, self.label_step])
        turns = np.concatenate([np.ones_like(self.step), np.where(implied, 0, 2)])
        entries = np.concatenate([np.arange(len(self.step)), -1 - np.arange(len(self.label_step))])
        order = np.lexsort((turns, steps))
        return entries[order], steps[order]

    def names(self, key_field: str | None) -> list[str]:
        """Return what each row is named by, to be in a canary's share or not."""
        rows = self.tables.whole(PREDICTIONS)
        ids: list[str] = rows["id"].to_pylist()
        if key_field is None:
            return ids
        values = rows[key_column(key_field)].to_pylist()
        return [name_of(one, {key_field: value}, key_field) for one, value in zip(ids, values, strict=True)]

    def step_at(self, moment: int) -> int:
        """Return the step up to which the stream has come when its clock reaches `moment`, ms."""
        if moment in self.boundaries:
            return self.boundaries[moment]
        later = [
            int(steps[at]) - 1
            for clocks, steps in ((self.clock, self.step), (self.label_clock, self.label_step))
            if (at := int(np.searchsorted(clocks, moment))) < len(steps)
        ]
        return min(later, default=self.last_step)


def record(project: Project, items: Iterable[Item], progress: Progress = lambda records: None) -> Tape:
    """Run a recorded stream through the machine.

    Parameters
    ----------
    items : iterable
        The stream in time order, as of :func:`streaming.replay.read_source`.
    progress : callable
        Told now and then how many records are done.

    Raises
    ------
    SourceError
        If the stream holds no event that can be predicted, or no label that can be learned.
    """
    settings = project.settings
    state = State.fresh(settings, build_experts(project))
    machine = Machine(settings, load_features(project), state, load_pseudonyms(project))
    tables = MemoryTables()
    recorder = _Recorder(machine, TableWriter(tables, settings, 0), settings)
    for done, read in enumerate(records_of(items, settings)):
        recorder.take(read)
        if done % 10_000 == 0:
            progress(done)
    recorder.finish()
    if machine.state.first_event is None:
        raise SourceError(
            f"{project.folder}: the recorded stream has no event that could be predicted; "
            f"{recorder.unused().refused_told() or 'there is none'}"
        )
    if not machine.state.books.events.joined + machine.state.books.events.implied:
        raise SourceError(
            f"{project.folder}: no event of the recorded stream has a label that could be learned; "
            f"{recorder.unused().told(settings)}"
        )
    return _tape(tables, recorder, settings)


class _Recorder:
    """Steps through records in batches that end where a window's stage is due."""

    def __init__(self, machine: Machine, writer: TableWriter, settings: Settings) -> None:
        self.machine = machine
        self.boundaries: dict[int, int] = {}
        self.end = 0
        self._writer = writer
        self._span, self._horizon = settings.windows.span, settings.label.horizon
        self._origin = 0
        self._next: int | None = None
        self._waiting: list[RawRecord] = []
        self._first_letter: DeadLetter | None = None
        self._is_personal = settings.is_personal

    def take(self, record: RawRecord) -> None:
        if self._next is None:
            self._origin = window_origin(record.timestamp, self._span)
            self._next = next_due(self._origin, self._span, self._horizon, self._origin)
        while record.timestamp >= self._next:
            self._reach(self._next, record)
            self._next = next_due(self._origin, self._span, self._horizon, self._next)
        self._waiting.append(record)
        self.end = record.timestamp + 1
        if len(self._waiting) >= BATCH:
            self._work()

    def finish(self) -> None:
        self._work()
        self._writer.flush(self.machine.state.step)

    def unused(self) -> Unused:
        """Return what was left out so far."""
        return unused(self.machine.state.books, self._first_letter, is_personal=self._is_personal)

    def _reach(self, boundary: int, record: RawRecord) -> None:
        """Say that time has come: what that boundary is due to is known then."""
        self._work()
        offset = self.machine.state.positions.get(record.topic, 0) - 1
        said = RawRecord(record.topic, 0, offset, boundary, None, None)
        self._writer.add(self.machine.tick(said, boundary))
        self.boundaries[boundary] = self.machine.state.step

    def _work(self) -> None:
        if self._waiting:
            outputs = self.machine.process(self._waiting)
            self._writer.add(outputs)
            self._waiting = []
            if self._first_letter is None:
                self._first_letter = next((one for one in outputs if isinstance(one, DeadLetter)), None)
        if self._writer.rows >= _FLUSH_ROWS:
            self._writer.flush(self.machine.state.step)


def records_of(items: Iterable[Item], settings: Settings) -> Iterator[RawRecord]:
    """Yield the records as :class:`streaming.ordering.Merger` orders them: at equal times events go first."""
    topics = {"event": settings.events_topic, "label": settings.labels_topic}
    ranks = {kind: settings.input_topics.index(topic) for kind, topic in topics.items()}
    offsets = dict.fromkeys(topics.values(), 0)
    at_once = (sorted(group, key=lambda item: ranks[item[1]]) for _, group in groupby(items, key=lambda item: item[0]))
    for item_time, kind, identifier, payload in chain.from_iterable(at_once):
        topic = topics[kind]
        yield RawRecord(topic, 0, offsets[topic], item_time, identifier.encode(), encode_payload(payload, identifier))
        offsets[topic] += 1


def _tape(tables: MemoryTables, recorder: _Recorder, settings: Settings) -> Tape:
    predictions, examples = tables.whole(PREDICTIONS), tables.whole(EXAMPLES)
    tables.whole(CORRECTIONS)
    step = _ints(predictions["step"])
    state = recorder.machine.state
    assert state.first_event is not None
    last_event = int(milliseconds(predictions["event_time"]).max())
    return Tape(
        tables,
        _said(predictions, {expert.name: prediction_column(expert.name) for expert in settings.online}),
        milliseconds(predictions["clock"]),
        step,
        np.searchsorted(step, _ints(examples["step"])),
        milliseconds(examples["label_clock"]),
        _ints(examples["label_step"]),
        examples["label"].to_pylist(),
        _said(examples, {expert.name: anew_column(expert.name) for expert in settings.online}),
        recorder.boundaries,
        state.first_event,
        last_event,
        recorder.end,
        last_event,
        recorder.unused(),
    )


def _said(rows: pa.Table, columns: Mapping[str, str]) -> list[dict[str, Prediction]]:
    """Return what each expert said in each row, from the column that has it by name."""
    values = [[prediction_of(cell) for cell in rows[column].to_pylist()] for column in columns.values()]
    return [
        {name: value for name, value in zip(columns, row, strict=True) if value is not None}
        for row in zip(*values, strict=True)
    ]


def _ints(column: pa.ChunkedArray) -> Ints:
    return np.asarray(column.to_numpy(), dtype=np.int64)
