"""New features of old events: computed from the raw events that the topic keeps, written as a new version of the rows.

Rows are gone through in the order in which the partition predicted and learned, so that a feature of a key holds what
would have been known then. Predictions stay as they were made; earlier versions of the tables stay as they are.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from core.errors import BrokerError
from core.features import FeatureError, FeatureFunction, Vocabulary
from core.predictions import Features
from core.project import Project
from core.pseudonyms import Pseudonyms
from core.quarantine import Span, is_inside
from core.records import Decoder, Event
from core.store import TableStore
from core.tables import EXAMPLES, PREDICTIONS, feature_column, key_column, predictions_schema
from streaming.history import Asked, History
from streaming.keyed import KeyedFeatures, Keys
from streaming.transport import Consumer, TopicPartition

_ALL = 2**62
_POLL_MS, _POLL_RECORDS = 200, 10_000
_Place = tuple[int, int]
"""Partition and step of a row."""


@dataclass(frozen=True)
class Made:
    """An event's features, and the values of its fields that are in a key."""

    features: Features
    keys: dict[str, str | None] | None


@dataclass(frozen=True)
class Backfilled:
    """What was done.

    Attributes
    ----------
    rows : int
        Events whose features were computed again.
    gone : int
        Events whose raw record the topic does not keep any more: their rows stay as they are.
    refused : int
        Events that cannot be read, or make the feature function fail, as the project is now: likewise.
    versions : dict of str to int
        The tables' versions from now on.
    """

    rows: int
    gone: int
    refused: int
    versions: dict[str, int]


class _Raw:
    """Computes from raw records what follows from an event alone."""

    def __init__(self, project: Project, features: FeatureFunction, pseudonyms: Pseudonyms | None) -> None:
        self._decoder = Decoder(project.settings, pseudonyms)
        self._topic = project.settings.events_topic
        self._key_fields = project.settings.key_fields
        self._vocabulary = Vocabulary.of(project.settings)
        self._features = features

    def read(
        self, consumer: Consumer, partition: int, wanted: Mapping[int, int], patience_s: float
    ) -> dict[int, Made | None]:
        """Return what is made of the events at these offsets (to their steps); None of one that is refused."""
        place = TopicPartition(self._topic, partition)
        last, made, at = max(wanted, default=-1), dict[int, "Made | None"](), consumer.beginning([place])[place]
        consumer.assign({place: at})
        deadline = time.monotonic() + patience_s
        while at <= last:
            if time.monotonic() > deadline:
                raise BrokerError(
                    f"{place.topic}[{partition}]: nothing came from offset {at} on for {patience_s:.0f} s, and rows "
                    f"are of events up to {last}; nothing was written: try again"
                )
            for record in consumer.poll(_POLL_MS, _POLL_RECORDS):
                deadline, at = time.monotonic() + patience_s, record.offset + 1
                if record.offset in wanted:
                    content = self._decoder.read(record.topic, record.value, record.timestamp, record.headers)
                    made[record.offset] = self._made(content) if isinstance(content, Event) else None
        return made

    def _made(self, event: Event) -> Made | None:
        values = {name: event.fields[name] for name in self._key_fields}
        keys = {name: None if value is None else str(value) for name, value in values.items()} or None
        try:
            features = self._features(self._vocabulary.bound(event.fields), event.time)
        except FeatureError:
            return None
        return Made(self._vocabulary.bound_features(features), keys)


def backfill(
    project: Project,
    consumer: Consumer,
    features: FeatureFunction,
    pseudonyms: Pseudonyms | None,
    partitions: Mapping[int, Sequence[Span]],
) -> Backfilled:
    """Compute the features of stored events again, and write new versions of predictions and examples.

    Parameters
    ----------
    partitions : mapping of int to sequence of Span
        The partitions, and the windows that each has unlearned: features of a key hold nothing of them.

    Raises
    ------
    StoreError
        If the tables cannot be read or written, or hold a feature under another type.
    BrokerError
        If the topic cannot be read to where the rows end.
    """
    store, found = TableStore(project.tables), dict[_Place, Made]()
    gone = refused = 0
    for number, unlearned in partitions.items():
        history = History(store, project.settings, number, _ALL)
        wanted = {one.predicted.offset: one.predicted.step for one in history if isinstance(one, Asked)}
        raw = _Raw(project, features, pseudonyms)
        made = raw.read(consumer, number, wanted, project.settings.state.deadline / 1000)
        gone += len(wanted) - len(made)
        refused += sum(one is None for one in made.values())
        found |= {(number, step): one for step, one in _in_turn(project, history, made, unlearned).items()}
    for table in (PREDICTIONS, EXAMPLES):
        store.rewrite(table, lambda rows: _replaced(rows, found, project))
    versions = {table: store.version(table) or 0 for table in (PREDICTIONS, EXAMPLES)}
    return Backfilled(len(found), gone, refused, versions)


def _in_turn(
    project: Project, history: History, made: Mapping[int, Made | None], unlearned: Sequence[Span]
) -> dict[int, Made]:
    """Return each step's features, with those of its key as they were known then."""
    keyed, found = KeyedFeatures.of(project.settings), dict[int, Made]()
    known: dict[int, tuple[Keys, int]] = {}
    for happened in history:
        if isinstance(happened, Asked):
            event, one = happened.predicted, made.get(happened.predicted.offset)
            if one is None:
                continue
            keys = one.keys or {}
            whole = {**one.features, **keyed.features(keys, event.time)}
            found[event.step] = Made(whole, one.keys)
            if not is_inside(event.time, unlearned):
                keyed.observe_event(keys, event.time, whole)
                if happened.labelled:
                    known[event.step] = keys, event.time
        elif (waited := known.pop(happened.step, None)) is not None:
            keyed.observe_label(*waited, happened.outcome)
    return found


def _replaced(rows: pa.Table, found: Mapping[_Place, Made], project: Project) -> pa.Table:
    """Return the rows with the features that were found; others as they are."""
    settings = project.settings
    places = zip(rows["partition"].to_pylist(), rows["step"].to_pylist(), strict=True)
    made = [found.get(place) for place in places]
    types = {field.name: field.type for field in predictions_schema(settings)}
    columns = {feature_column(name): [one and one.features[name] for one in made] for name in settings.feature_kinds}
    for name in settings.key_fields:
        columns[key_column(name)] = [one and (one.keys or {}).get(name) for one in made]
    for name, values in columns.items():
        before = rows[name].to_pylist()
        merged = [value if one is not None else old for one, value, old in zip(made, values, before, strict=True)]
        rows = rows.set_column(rows.schema.get_field_index(name), name, pa.array(merged, types[name]))
    return rows
