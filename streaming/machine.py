"""The partition's machine: a state and a record go in, outputs come out. Nothing else decides.

For every event: features once, every expert predicts, the blend is served, the event waits in the join.
For every label: score first, then move the blend's weights, then let the online experts learn. Never
another order, and nothing here does I/O, reads a clock or draws a random number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from zlib import crc32

from core.durations import LATEST
from core.features import FeatureError, FeatureFunction
from core.models import CHALLENGER, CHAMPION, BatchModel
from core.outcomes import outcome_reader
from core.predictions import FeatureValue, Outcome, Prediction
from core.pseudonyms import Pseudonyms
from core.quarantine import is_inside
from core.records import BadRecord, Decoder, Event, Label
from core.settings import Settings
from streaming.asking import Models
from streaming.canary import name_of
from streaming.forgetting import Forgetting
from streaming.join import Fate, Predicted
from streaming.learning import learn_event, predicted_anew
from streaming.masking import Mask
from streaming.outputs import Correction, DeadLetter, Example, Kept, Output
from streaming.prepared import Prepared, guessed
from streaming.serving import usable
from streaming.state import State
from streaming.transport import RawRecord


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
        self.models = Models()
        self.pseudonyms = pseudonyms
        self._forgetting = Forgetting(state, name)
        self._decoder = Decoder(settings, pseudonyms)
        self._mask = Mask(settings, pseudonyms)
        self._features = features
        self._key_fields, self._key = settings.key_fields, settings.topics.key
        self._keep_one_of = settings.state.kept_events if settings.has_function else 0
        missing = settings.label.missing
        self._implied = None if missing is None else outcome_reader(settings)(missing)

    def swap(self, champion: BatchModel | None) -> None:
        """Let `champion` predict from the next record on.

        One that was in shadow brings its blend with it: that has learned what it is worth, and nothing in hindsight.
        """
        self.models.champion = champion
        version, state = None if champion is None else champion.version, self.state
        if version != state.champion_version:
            was_shadow = any(shadow.version == version for shadow in state.shadows.by_role.values())
            state.champion_version, state.champion_since = version, 0 if was_shadow else state.step

    def follow(self, role: str, model: BatchModel | None, share: float = 0.0) -> None:
        """Let `model` predict in shadow from the next record on, a challenger serve a share of events; None ends it."""
        self.state.following = self.models.follow(role, model)
        if role == CHALLENGER:
            self.state.canary.follow(None if model is None else model.version, share)

    def erase(self, requests: Sequence[str]) -> None:
        """Forget the ids that these requests name."""
        self._forgetting.forget(requests)
        self._count_waiting()

    def process(self, records: Sequence[RawRecord]) -> list[Output]:
        """Step through records; champion and shadows predict them as one batch, everything else goes one by one."""
        outputs: list[Output] = []
        for prepared in self.prepare(records):
            outputs.extend(self.step(prepared))
        return outputs

    def prepare(self, records: Sequence[RawRecord]) -> list[Prepared]:
        """Decode, compute features and let the champion and the shadows predict."""
        prepared = [self._prepare(record) for record in records]
        if self._key_fields and self.models:
            state = self.state
            prepared = guessed(prepared, state.keyed, state.join, state.clock, state.unlearned, self._implied)
        return self.models.predict(prepared, self.state)

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
        if state.join.knows(event.id) or self._forgetting.is_erased(event.id):
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
        if exact == prepared.features or not self.models:
            return replace(prepared, features=exact)
        self.models.champion_failures -= self.models.champion is not None and prepared.champion is None
        anew = Prepared(prepared.record, event, exact, keys=prepared.keys)
        return self.models.predict([anew], self.state)[0]

    def _predicted(self, prepared: Prepared, event: Event) -> Predicted:
        state, features = self.state, prepared.features
        assert features is not None
        online = {expert.name: expert.predict(features) for expert in state.experts}
        known = {name: prediction for name, prediction in online.items() if prediction is not None}
        predictions = usable(state.plausible, prepared.champion, known)
        self.models.champion_failures += prepared.champion is not None and CHAMPION not in predictions
        version = state.champion_version if CHAMPION in predictions else None
        own = self._seat(prepared, version)
        served = state.blend.mix(predictions, state.step) if predictions else None
        shadows = state.shadows.mix(own, predictions, state.step) if own else None
        canary = state.canary.takes(name_of(event.id, prepared.keys, self._key), shadows)
        state.books.events.canary += canary is not None
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
            shadows=shadows,
            keys=prepared.keys,
            canary=canary,
        )

    def _seat(self, prepared: Prepared, champion: int | None) -> dict[str, Prediction | None] | None:
        """Give champion and shadows their blends; return what the shadows predicted, None without any."""
        state = self.state
        if prepared.shadows is None and state.shadows.are_settled(champion):
            return None
        made = prepared.shadows or {}
        own = {role: self.models.checked(role, prediction, state.plausible) for role, prediction in made.items()}
        state.blend = state.shadows.seat(state.blend, champion, {role: state.following[role] for role in own})
        return own

    def _join(self, label: Label, successor: object) -> list[Output]:
        state, book = self.state, self.state.books.labels
        book.received += 1
        if self._forgetting.is_erased(label.id):
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
        anew = None
        if not (state.unlearned and is_inside(event.time, state.unlearned)):
            anew = predicted_anew(state, event)
            learn_event(state, event, outcome, state.step, new, anew)
        return Example(state.step, event, outcome, label_time, state.clock, implied, new, anew)


def _text(value: FeatureValue) -> str | None:
    return None if value is None else str(value)
