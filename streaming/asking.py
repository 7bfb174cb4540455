"""Champion and shadows of a partition: whom they are, what they are asked about, and how often they failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from core.models import SHADOWS, BatchModel
from core.predictions import Features, Prediction
from core.records import Label
from streaming.plausible import Plausible
from streaming.prepared import Prepared
from streaming.shadow import ask
from streaming.state import State


class Models:
    """The batch models that predict a partition's events, and what they were asked.

    Attributes
    ----------
    champion : BatchModel or None
        The one that serves.
    followed : mapping of str to BatchModel
        Those that predict in shadow, by role.
    champion_failures : int
        Predictions that the champion did not make, or that were not plausible.
    shadow_failures : dict of str to int
        The same of each shadow, by role.
    """

    def __init__(self) -> None:
        self.champion: BatchModel | None = None
        self.followed: Mapping[str, BatchModel] = {}
        self.champion_failures = 0
        self.shadow_failures: dict[str, int] = {}

    def __bool__(self) -> bool:
        return self.champion is not None or bool(self.followed)

    @property
    def champion_version(self) -> int | None:
        """Version that serves now."""
        return None if self.champion is None else self.champion.version

    def follow(self, role: str, model: BatchModel | None) -> dict[str, int]:
        """Let `model` predict in shadow, None ends it; return the version of each role."""
        models = {**self.followed, role: model}
        self.followed = {name: kept for name in SHADOWS if (kept := models.get(name)) is not None}
        return {name: kept.version for name, kept in self.followed.items()}

    def predict(self, batch: Sequence[Prepared], state: State) -> list[Prepared]:
        """Let the champion and the shadows predict a batch; return it with what they predicted."""
        prepared = list(batch)
        if self.champion is not None:
            self._let_champion_predict(self.champion, prepared, state)
        if self.followed:
            self._let_shadows_predict(prepared)
        return prepared

    def checked(self, role: str, prediction: object, plausible: Plausible) -> Prediction | None:
        """Return what a shadow predicted; None, which is counted, where it failed or is not plausible."""
        checked = None if prediction is None else plausible.check(prediction)
        if checked is None:
            self.shadow_failures[role] = self.shadow_failures.get(role, 0) + 1
        return checked

    def _let_champion_predict(self, champion: BatchModel, prepared: list[Prepared], state: State) -> None:
        asked = {index: features for index, entry in enumerate(prepared) if (features := _asked(entry, state))}
        predictions = _each_predicted(champion, list(asked.values())) if asked else []
        self.champion_failures += predictions.count(None)
        for index, prediction in zip(asked, predictions, strict=True):
            entry = prepared[index]
            prepared[index] = Prepared(entry.record, entry.content, entry.features, prediction, keys=entry.keys)

    def _let_shadows_predict(self, prepared: list[Prepared]) -> None:
        """Ask every shadow about the events; one whose version has become champion, or has another role, is none."""
        rows = {index: entry.features for index, entry in enumerate(prepared) if entry.features is not None}
        answers: dict[str, list[object]] = {}
        known = {self.champion_version}
        for role, model in self.followed.items():
            if rows and model.version not in known:
                answers[role] = ask(model, list(rows.values()))
                known.add(model.version)
        if not answers:
            return
        for place, index in enumerate(rows):
            made = {role: predictions[place] for role, predictions in answers.items()}
            prepared[index] = replace(prepared[index], shadows=made)


def _asked(entry: Prepared, state: State) -> Features | None:
    """Return the features that the champion is asked about: an event's, also when its label comes to a new one."""
    if not isinstance(entry.content, Label):
        return entry.features
    event = state.join.pending_event(entry.content.id)
    return event.features if event is not None and event.step <= state.champion_since else None


def _each_predicted(champion: BatchModel, rows: list[Features]) -> list[object]:
    """Return a prediction a row, None where it fails; a row that makes it fail does not take others with it."""
    try:
        predictions: list[object] = list(champion.predict(rows))
    except Exception:  # noqa: BLE001  a batch model may be the user's code; the stream goes on
        predictions = []
    if len(predictions) == len(rows):
        return predictions
    return [None] if len(rows) == 1 else [_each_predicted(champion, [row])[0] for row in rows]
