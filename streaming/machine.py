"""The partition's machine: a state and a record go in, outputs come out. Nothing else decides.

For every event: features once, every expert predicts, the blend is served, the event waits in the join.
For every label: score first, then move the blend's weights, then let the online experts learn. Never
another order, and nothing here does I/O, reads a clock or draws a random number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from zlib import crc32

from core.blend import Blend
from core.durations import LATEST
from core.features import FeatureError, FeatureFunction, Vocabulary
from core.models import CHAMPION, SHADOWS, BatchModel
from core.predictions import Features, FeatureValue, Outcome, Prediction
from core.pseudonyms import Pseudonyms
from core.quarantine import Span, is_inside
from core.records import BadRecord, Decoder, Event, Label, outcome_reader
from core.settings import Settings
from streaming.books import Books
from streaming.erasure import name_in
from streaming.experts import Expert
from streaming.join import Fate, LabelJoin, Predicted
from streaming.keyed import KeyedFeatures
from streaming.learning import learn_event
from streaming.masking import Mask
from streaming.plausible import LABELS_TO_JUDGE_A_CHAMPION, Plausible
from streaming.prepared import Prepared, guessed
from streaming.serving import Scores, usable
from streaming.shadow import Shadows, ask
from streaming.transport import RawRecord


@dataclass(frozen=True, slots=True)
class Example:
    """A prediction and its outcome; `label_time` and `label_clock` in ms.

    `successor` is what the champion predicts that has come in between, None where there is none.
    """

    step: int
    predicted: Predicted
    outcome: Outcome
    label_time: int
    label_clock: int
    implied: bool
    successor: Prediction | None = None


@dataclass(frozen=True, slots=True)
class Correction:
    """A second, different label."""

    step: int
    label: Label
    label_clock: int


@dataclass(frozen=True, slots=True)
class Kept:
    """The fields of an event as the feature function got them; `time` in ms."""

    step: int
    id: str
    time: int
    partition: int
    fields: dict[str, FeatureValue]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be used, without what is personal; `masked` are the headers that say so."""

    record: RawRecord
    bad: BadRecord
    masked: Mapping[str, str] = field(default_factory=dict)


Output = Predicted | Example | Correction | Kept | DeadLetter


Erased = tuple[int, str]
"""Until when (ms) an erased id is known by its name, and what was known of it: pending, closed, label or nothing."""


@dataclass
class State:
    """All that a partition knows; what a snapshot holds."""

    experts: list[Expert]
    blend: Blend
    join: LabelJoin
    vocabulary: Vocabulary
    plausible: Plausible
    books: Books = field(default_factory=Books)
    scores: Scores = field(default_factory=Scores)
    step: int = 0
    clock: int = 0
    first_event: int | None = None
    champion_version: int | None = None
    champion_since: int = 0
    positions: dict[str, int] = field(default_factory=dict)
    topic_clocks: dict[str, int] = field(default_factory=dict)
    unlearned: list[Span] = field(default_factory=list)
    following: dict[str, int] = field(default_factory=dict)
    shadows: Shadows = field(default_factory=Shadows)
    erased: dict[str, Erased] = field(default_factory=dict)
    keyed: KeyedFeatures = field(default_factory=lambda: KeyedFeatures((), 1))

    @classmethod
    def fresh(cls, settings: Settings, experts: list[Expert]) -> State:
        """Return the state of a partition that has seen nothing."""
        return cls(
            experts=experts,
            blend=Blend(settings.task, settings.blend),
            join=LabelJoin(settings.label.horizon, settings.state.max_pending),
            vocabulary=Vocabulary.of(settings),
            plausible=Plausible(settings.task, LABELS_TO_JUDGE_A_CHAMPION),
            keyed=KeyedFeatures.of(settings),
        )


def _text(value: FeatureValue) -> str | None:
    return None if value is None else str(value)


def _forgotten(state: State) -> dict[str, int]:
    """Return until when each erased id is known, ms, by its name."""
    return {name_in(request): until for request, (until, _) in sorted(state.erased.items())}


class Machine:
    """Steps one partition's state from record to record.

    Parameters
    ----------
    settings : Settings
        The project file.
    features : FeatureFunction
        The project's features.
    state : State
        Changed in place by every step.
    pseudonyms : Pseudonyms, optional
        Needed where something is to be hashed.
    name : callable, optional
        Gives the name under which an id is erased; needed where one is.
    """

    def __init__(
        self,
        settings: Settings,
        features: FeatureFunction,
        state: State,
        pseudonyms: Pseudonyms | None = None,
        name: Callable[[str], str] | None = None,
    ) -> None:
        self.state = state
        self.champion_failures = 0
        self.shadow_failures: dict[str, int] = {}
        self.pseudonyms = pseudonyms
        self._name = name
        self._forgotten = _forgotten(state)
        self._decoder = Decoder(settings, pseudonyms)
        self._mask = Mask(settings, pseudonyms)
        self._features = features
        self._key_fields = settings.key_fields
        self._champion: BatchModel | None = None
        self._followed: dict[str, BatchModel] = {}
        self._keep_one_of = settings.state.kept_events if settings.has_function else 0
        missing = settings.label.missing
        self._implied = None if missing is None else outcome_reader(settings)(missing)

    def swap(self, champion: BatchModel | None) -> None:
        """Let `champion` predict from the next record on.

        One that was in shadow brings its blend with it: that has learned what it is worth, and nothing in hindsight.
        """
        self._champion = champion
        version, state = None if champion is None else champion.version, self.state
        if version != state.champion_version:
            was_shadow = any(shadow.version == version for shadow in state.shadows.by_role.values())
            state.champion_version, state.champion_since = version, 0 if was_shadow else state.step

    def follow(self, role: str, model: BatchModel | None) -> None:
        """Let `model` predict in shadow from the next record on; None ends it."""
        models = {**self._followed, role: model}
        self._followed = {name: kept for name in SHADOWS if (kept := models.get(name)) is not None}
        self.state.following = {name: kept.version for name, kept in self._followed.items()}

    def erase(self, requests: Sequence[str]) -> None:
        """Forget the ids that these requests name: an event that waits expires, a label that waits has no event.

        Their names are kept as long as such an id would have been, so that neither a repeated event nor a late label
        brings it back.
        """
        assert self._name is not None
        state, wanted, found = self.state, {name_in(request) for request in requests}, {}
        for event_id in [known for known in state.join.ids() if self._name(known) in wanted]:
            was = state.join.forget(event_id)
            found[self._name(event_id)] = str(was)
            state.books.events.expired += was == "pending"
            state.books.events.erased += was == "pending"
            state.books.labels.orphaned += was == "label"
        until = state.clock + 2 * state.join.horizon
        made = {request: (until, found.get(name_in(request), "nothing")) for request in requests}
        state.erased = {**state.erased, **made}
        self._forgotten = _forgotten(state)
        self._count_waiting()

    def _is_erased(self, event_id: str) -> bool:
        if not self._forgotten or self._name is None:
            return False
        return self.state.clock <= self._forgotten.get(self._name(event_id), -1)

    @property
    def followed(self) -> Mapping[str, BatchModel]:
        """The models that predict in shadow, by role."""
        return self._followed

    @property
    def champion_version(self) -> int | None:
        """Version that predicts now."""
        return None if self._champion is None else self._champion.version

    def process(self, records: Sequence[RawRecord]) -> list[Output]:
        """Step through records; champion and shadows predict them as one batch, everything else goes one by one."""
        outputs: list[Output] = []
        for prepared in self.prepare(records):
            outputs.extend(self.step(prepared))
        return outputs

    def prepare(self, records: Sequence[RawRecord]) -> list[Prepared]:
        """Decode, compute features and let the champion and the shadows predict."""
        prepared = [self._prepare(record) for record in records]
        if self._key_fields and (self._champion is not None or self._followed):
            state = self.state
            prepared = guessed(prepared, state.keyed, state.join, state.clock, state.unlearned, self._implied)
        return self._asked_models(prepared)

    def _asked_models(self, prepared: list[Prepared]) -> list[Prepared]:
        if self._champion is not None:
            self._let_champion_predict(prepared)
        if self._followed:
            self._let_shadows_predict(prepared)
        return prepared

    def _let_champion_predict(self, prepared: list[Prepared]) -> None:
        asked = {index: features for index, entry in enumerate(prepared) if (features := self._asked(entry))}
        predictions = self._ask_champion(list(asked.values())) if asked else []
        self.champion_failures += predictions.count(None)
        for index, prediction in zip(asked, predictions, strict=True):
            entry = prepared[index]
            prepared[index] = Prepared(entry.record, entry.content, entry.features, prediction, keys=entry.keys)

    def _let_shadows_predict(self, prepared: list[Prepared]) -> None:
        """Ask every shadow about the events; one whose version has become champion, or has another role, is none."""
        rows = {index: entry.features for index, entry in enumerate(prepared) if entry.features is not None}
        answers: dict[str, list[object]] = {}
        known = {self.champion_version}
        for role, model in self._followed.items():
            if rows and model.version not in known:
                answers[role] = ask(model, list(rows.values()))
                known.add(model.version)
        if not answers:
            return
        for place, index in enumerate(rows):
            made = {role: predictions[place] for role, predictions in answers.items()}
            prepared[index] = replace(prepared[index], shadows=made)

    def _asked(self, entry: Prepared) -> Features | None:
        """Return the features that the champion is asked about: an event's, also when its label comes to a new one."""
        if not isinstance(entry.content, Label):
            return entry.features
        event = self.state.join.pending_event(entry.content.id)
        return event.features if event is not None and event.step <= self.state.champion_since else None

    def step(self, prepared: Prepared) -> list[Output]:
        """Take one record in and return everything that follows from it."""
        record, content = prepared.record, prepared.content
        outputs = self._advance(record, record.timestamp)
        if isinstance(content, BadRecord):
            outputs.append(self._refuse(record, content))
        elif isinstance(content, Event):
            outputs.extend(self._predict(prepared, content))
        else:
            outputs.extend(self._join(content, prepared.champion))
        self._count_waiting()
        return outputs

    def tick(self, record: RawRecord, time: int) -> list[Output]:
        """Take a clock record in and move the clock to `time`, ms."""
        outputs = self._advance(record, time)
        self._count_waiting()
        return outputs

    def _advance(self, record: RawRecord, time: int) -> list[Output]:
        """Count the step, move the clock, never back; return what passed its horizon."""
        state = self.state
        state.step += 1
        state.positions[record.topic] = record.offset + 1
        if time <= LATEST:
            state.clock = max(state.clock, time)
        expiry = state.join.advance(state.clock)
        state.books.labels.orphaned += expiry.orphans
        state.books.events.evicted += expiry.evicted
        outputs: list[Output] = []
        for event in expiry.events:
            if self._implied is None:
                state.books.events.expired += 1
                continue
            state.books.events.implied += 1
            due = event.time + state.join.horizon
            outputs.append(self._learn(event, self._implied, due, implied=True))
        return outputs

    def _count_waiting(self) -> None:
        self.state.books.events.pending = self.state.join.pending
        self.state.books.labels.waiting = self.state.join.waiting

    def _prepare(self, record: RawRecord) -> Prepared:
        return self.enrich(record, self._decoder.read(record.topic, record.value, record.timestamp, record.headers))

    def enrich(self, record: RawRecord, content: Event | Label | BadRecord) -> Prepared:
        """Compute the features of a decoded record; one that has none, or a class too many, becomes bad."""
        vocabulary = self.state.vocabulary
        if isinstance(content, Label) and not vocabulary.admits(content.outcome):
            content = BadRecord(
                "label", "bad_label", "one class more than label.max_classes; raise it, or name classes"
            )
        if not isinstance(content, Event):
            return Prepared(record, content)
        keys = {name: _text(content.fields[name]) for name in self._key_fields} if self._key_fields else None
        try:
            features = vocabulary.bound_features(self._features(vocabulary.bound(content.fields), content.time))
        except FeatureError as error:
            return Prepared(record, BadRecord("event", "feature_error", str(error)[:300]))
        return Prepared(record, content, features, keys=keys)

    def _ask_champion(self, rows: list[Features]) -> list[object]:
        """Return a prediction a row, None where it fails; a row that makes it fail does not take others with it."""
        assert self._champion is not None
        try:
            predictions: list[object] = list(self._champion.predict(rows))
        except Exception:  # noqa: BLE001  a batch model may be the user's code; the stream goes on
            predictions = []
        if len(predictions) == len(rows):
            return predictions
        return [None] if len(rows) == 1 else [self._ask_champion([row])[0] for row in rows]

    def _refuse(self, record: RawRecord, bad: BadRecord) -> DeadLetter:
        book = self.state.books.events if bad.kind == "event" else self.state.books.labels
        book.received += 1
        book.dead_lettered += 1
        reasons = self.state.books.reasons
        reasons[bad.reason] = reasons.get(bad.reason, 0) + 1
        masked = self._mask(record)
        return DeadLetter(masked.record, bad, masked.headers)

    def _predict(self, prepared: Prepared, event: Event) -> list[Output]:
        state, book = self.state, self.state.books.events
        book.received += 1
        if state.join.knows(event.id) or self._is_erased(event.id):
            book.duplicates += 1
            return []
        book.unknown_fields += event.unknown
        book.predicted += 1
        if state.first_event is None:
            state.first_event = event.time
        if prepared.keys is not None:
            prepared = self._with_keyed(prepared, event)
        predicted = self._predicted(prepared, event)
        outputs: list[Output] = [predicted]
        if self._keeps(event):
            outputs.append(Kept(predicted.step, event.id, event.time, predicted.partition, event.fields))
        if prepared.keys is not None and not is_inside(event.time, state.unlearned):
            state.keyed.observe_event(prepared.keys, event.time, predicted.features)
        label = state.join.add_event(predicted)
        if label is None:
            return outputs
        book.joined += 1
        state.books.labels.joined += 1
        return [*outputs, self._learn(predicted, label.outcome, label.time, implied=False)]

    def _keeps(self, event: Event) -> bool:
        """Tell whether the event is one of those kept: by its id, so that a repetition keeps the same."""
        return self._keep_one_of > 0 and crc32(event.id.encode()) % self._keep_one_of == 0

    def _with_keyed(self, prepared: Prepared, event: Event) -> Prepared:
        """Give an event the features of its key, now that it is its turn; ask again whom another guess was shown."""
        assert prepared.keys is not None and prepared.features is not None
        exact = {**prepared.features, **self.state.keyed.features(prepared.keys, event.time)}
        if exact == prepared.features or (self._champion is None and not self._followed):
            return replace(prepared, features=exact)
        self.champion_failures -= self._champion is not None and prepared.champion is None
        return self._asked_models([Prepared(prepared.record, event, exact, keys=prepared.keys)])[0]

    def _predicted(self, prepared: Prepared, event: Event) -> Predicted:
        state, features = self.state, prepared.features
        assert features is not None
        online = {expert.name: expert.predict(features) for expert in state.experts}
        known = {name: prediction for name, prediction in online.items() if prediction is not None}
        predictions = usable(state.plausible, prepared.champion, known)
        self.champion_failures += prepared.champion is not None and CHAMPION not in predictions
        version = state.champion_version if CHAMPION in predictions else None
        own = self._seat(prepared, version)
        served = state.blend.mix(predictions, state.step) if predictions else None
        return Predicted(
            step=state.step,
            id=event.id,
            time=event.time,
            clock=state.clock,
            partition=prepared.record.partition,
            offset=prepared.record.offset,
            champion_version=version,
            features=features,
            predictions=predictions,
            served=served,
            shadows=state.shadows.mix(own, predictions, state.step) if own else None,
            keys=prepared.keys,
        )

    def _seat(self, prepared: Prepared, champion: int | None) -> dict[str, Prediction | None] | None:
        """Give champion and shadows their blends; return what the shadows predicted, None without any."""
        state = self.state
        if prepared.shadows is None and state.shadows.are_settled(champion):
            return None
        own = {role: self._checked(role, prediction) for role, prediction in (prepared.shadows or {}).items()}
        state.blend = state.shadows.seat(state.blend, champion, {role: state.following[role] for role in own})
        return own

    def _checked(self, role: str, prediction: object) -> Prediction | None:
        checked = None if prediction is None else self.state.plausible.check(prediction)
        if checked is None:
            self.shadow_failures[role] = self.shadow_failures.get(role, 0) + 1
        return checked

    def _join(self, label: Label, successor: object) -> list[Output]:
        state, book = self.state, self.state.books.labels
        book.received += 1
        if self._is_erased(label.id):
            book.late += 1
            return []
        fate, event = state.join.add_label(label, state.clock)
        if fate is Fate.JOINED and event is not None:
            book.joined += 1
            state.books.events.joined += 1
            return [self._learn(event, label.outcome, label.time, implied=False, successor=successor)]
        if fate is Fate.LATE:
            book.late += 1
        elif fate is Fate.DUPLICATE:
            book.duplicates += 1
        elif fate is Fate.CORRECTED:
            book.corrected += 1
            return [Correction(state.step, label, state.clock)]
        return []

    def _learn(
        self, event: Predicted, outcome: Outcome, label_time: int, *, implied: bool, successor: object = None
    ) -> Example:
        """Score, then move the weights, then learn; nothing of the windows that were unlearned."""
        state = self.state
        new = None if successor is None else state.plausible.check(successor)
        example = Example(state.step, event, outcome, label_time, state.clock, implied, new)
        if state.unlearned and is_inside(event.time, state.unlearned):
            return example
        learn_event(state, event, outcome, new)
        return example
