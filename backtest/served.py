"""What one policy serves: the champions' and the blend's predictions, beside those of the tape."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from backtest.tables import matching
from backtest.tape import Ints, Tape
from backtest.unlearning import Relearned, learned_rows
from core.batch_model import FittedModel
from core.blend import Blend
from core.models import CHALLENGER, CHAMPION, SHADOWS
from core.predictions import Prediction
from core.quarantine import Span
from core.settings import Settings
from core.tables import EXAMPLES, PREDICTIONS, Filter, anew_column, prediction_cell, prediction_column, shadow_columns
from flows.examples import as_frame
from streaming.canary import Canary
from streaming.plausible import LABELS_TO_JUDGE_A_CHAMPION, Plausible
from streaming.serving import Scores, learn, usable
from streaming.shadow import Shadowed, Shadows, members_of

_CHUNK = 20_000
_ANCHORS = 16


@dataclass(frozen=True, eq=False)
class _Anchor:
    """Where the blend stood before an entry of the tape's order."""

    at: int
    blend: Blend
    plausible: Plausible
    shadows: Shadows


class _Event(NamedTuple):
    """A row as it was predicted; see :class:`streaming.shadow.Event`."""

    step: int
    predictions: Mapping[str, Prediction]
    served: Prediction | None
    shadows: Mapping[str, Shadowed] | None


class Served:
    """Serves the rows of a tape in its order; reads as the tables that a worker would have written.

    Parameters
    ----------
    tape : Tape
        The recorded stream.
    settings : Settings
        The project file, with the policy's settings.
    alone : bool
        Whether the champion is served without the online experts.

    Attributes
    ----------
    served : list of prediction or None
        The blend with the champion of each row, or the champion alone.
    canary : array of int
        Version of the challenger with which each row was served all the same, 0 for none.
    """

    def __init__(self, tape: Tape, settings: Settings, *, alone: bool = False) -> None:
        self._tape = tape
        self._settings = settings
        self._alone = alone
        self._blend = Blend.of(settings)
        self._scores = Scores()
        self._plausible = Plausible(settings.task, LABELS_TO_JUDGE_A_CHAMPION)
        self._shadows = Shadows()
        self._model: FittedModel | None = None
        self._followed: dict[str, FittedModel] = {}
        self._canary = Canary()
        self._names = tape.names(settings.topics.key)
        self._entries, self._steps = tape.order
        self._implied = tape.tables.whole(EXAMPLES)["implied"].to_numpy()
        self._at = 0
        self._learned = learned_rows(tape, [])
        self._anchors: deque[_Anchor] = deque(maxlen=_ANCHORS)
        self.online, self._anew = tape.online, tape.anew
        rows = len(tape.online)
        self.versions = np.zeros(rows, dtype=np.int32)
        self.champion: list[Prediction | None] = [None] * rows
        self._since = 0
        self._successors: dict[int, Prediction | None] = {}
        self.served: list[Prediction | None] = [None] * rows
        self.shadowed: list[Mapping[str, Shadowed] | None] = [None] * rows
        self.canary = np.zeros(rows, dtype=np.int32)

    def swap(self, model: FittedModel) -> None:
        """Let a champion predict from the next row on; one that was in shadow brings its blend with it."""
        was_shadow = any(shadow.version == model.version for shadow in self._shadows.by_role.values())
        self._model = model
        self._since = 0 if was_shadow else self._rows_served

    def follow(self, role: str, model: FittedModel | None) -> None:
        """Let a model predict in shadow from the next row on; None ends it."""
        followed = {name: kept for name, kept in self._followed.items() if name != role}
        self._followed = followed if model is None else {**followed, role: model}
        if role == CHALLENGER:
            self._canary.follow(None if model is None else model.version, self._settings.promotion.canary)

    def published(self, row: int) -> Prediction | None:
        """Return what a row was served, with the champion or with the canary."""
        made = (self.shadowed[row] or {}).get(CHALLENGER)
        if made is None or not self.canary[row]:
            return self.served[row]
        return made.prediction if self._alone else made.blended

    def advance(self, step: int) -> None:
        """Serve and learn everything up to and with `step`."""
        end = int(np.searchsorted(self._steps, step, side="right"))
        entries = self._entries[self._at : end]
        rows = entries[entries >= 0]
        champion, successors = self._predict(self._model, rows), self._predict(self._model, self._late_rows(entries))
        own = {role: self._predict(model, rows) for role, model in self._followed.items()}
        for entry in entries.tolist():
            if entry >= 0:
                self._serve(entry, champion.get(entry), {role: made[entry] for role, made in own.items()})
            elif self._learned[row := int(self._tape.label_row[-1 - entry])]:
                if row in successors:
                    self._successors[row] = self._plausible.check(successors[row])
                self._learn(-1 - entry, self._anew)
        self._at = max(self._at, end)

    def keep(self) -> None:
        """Remember where the blend stands, so that a window that begins here can be unlearned."""
        self._anchors.append(_Anchor(self._at, *copy.deepcopy((self._blend, self._plausible, self._shadows))))

    def unlearn(self, windows: Sequence[Span], since: int, again: Relearned) -> None:
        """Go on as if nothing of some windows had been learned.

        Parameters
        ----------
        windows : sequence of Span
            All that are not to have been learned from.
        since : int
            Step of the stream before the first of those that were learned from until now.
        again : Relearned
            What the online experts predict then.
        """
        self._learned = learned_rows(self._tape, windows)
        at = self._return_to(since)
        asked: dict[int, _Event] = {}
        for entry in self._entries[at : self._at].tolist():
            row = entry if entry >= 0 else int(self._tape.label_row[-1 - entry])
            if entry >= 0:
                self._seat(row, self.shadowed[row] or {})
            if not self._learned[row]:
                continue
            if entry >= 0:
                asked[row] = self._asked(row, again.online[row])
            elif row in asked:
                self._score(-1 - entry, asked.pop(row), again.anew)
            else:
                self._learn(-1 - entry, again.anew)
        known, labels = self._rows_served, self._at - self._rows_served
        self.online = [*self.online[:known], *again.online[known:]]
        self._anew = [*self._anew[:labels], *again.anew[labels:]]

    @property
    def _rows_served(self) -> int:
        return int((self._entries[: self._at] >= 0).sum())

    def _return_to(self, step: int) -> int:
        """Take the blend back to where it was kept last before a step; return the place in the tape's order."""
        end = int(np.searchsorted(self._steps, step, side="right"))
        while self._anchors and self._anchors[-1].at > end:
            self._anchors.pop()
        self._scores = Scores()
        if not self._anchors:
            self._blend = Blend.of(self._settings)
            self._plausible = Plausible(self._settings.task, LABELS_TO_JUDGE_A_CHAMPION)
            self._shadows = Shadows()
            return 0
        anchor = self._anchors[-1]
        self._blend, self._plausible, self._shadows = copy.deepcopy((anchor.blend, anchor.plausible, anchor.shadows))
        return anchor.at

    def _late_rows(self, entries: Ints) -> Ints:
        """Return the rows whose labels come now, and which were predicted before the champion came."""
        labels = -1 - entries[entries < 0]
        labels = labels[~self._implied[labels]]
        rows = self._tape.label_row[labels]
        return np.asarray(rows[rows < self._since])

    def _predict(self, model: FittedModel | None, rows: Ints) -> dict[int, Prediction]:
        """Return what a model predicts of some rows."""
        found: dict[int, Prediction] = {}
        table = self._tape.tables.whole(PREDICTIONS)
        if model is None:
            return found
        for at in range(0, len(rows), _CHUNK):
            some = rows[at : at + _CHUNK]
            made = model.predict_frame(as_frame(table.take(pa.array(some)), self._settings))
            found |= dict(zip(some.tolist(), made, strict=True))
        return found

    def _serve(self, row: int, champion: Prediction | None, own: Mapping[str, Prediction]) -> None:
        predictions, step = usable(self._plausible, champion, self.online[row]), int(self._tape.step[row])
        self.champion[row] = predictions.get(CHAMPION)
        if CHAMPION in predictions and self._model is not None:
            self.versions[row] = self._model.version
        self._seat(row, {role: Shadowed(self._followed[role].version, None, None) for role in own})
        served = self._blend.mix(predictions, step) if predictions else None
        self.served[row] = predictions[CHAMPION] if self._alone and CHAMPION in predictions else served
        if own:
            checked = {role: self._plausible.check(prediction) for role, prediction in own.items()}
            self.shadowed[row] = self._shadows.mix(checked, predictions, step)
            self.canary[row] = self._canary.takes(self._names[row], self.shadowed[row]) or 0

    def _seat(self, row: int, followed: Mapping[str, Shadowed]) -> None:
        """Give the versions that predict a row their blends, as a worker does."""
        champion = int(self.versions[row]) or None
        if followed or not self._shadows.are_settled(champion):
            versions = {role: shadowed.version for role, shadowed in followed.items()}
            self._blend = self._shadows.seat(self._blend, champion, versions)

    def _asked(self, row: int, online: dict[str, Prediction]) -> _Event:
        """Return a row as it would be predicted now, had the online experts said this."""
        predictions, step = self._predictions(row, online), int(self._tape.step[row])
        own = {role: shadowed.prediction for role, shadowed in (self.shadowed[row] or {}).items()}
        served = self._blend.mix(predictions, step) if predictions else None
        return _Event(step, predictions, served, self._shadows.mix(own, predictions, step) if own else None)

    def _learn(self, label: int, anew: Sequence[dict[str, Prediction]]) -> None:
        row = int(self._tape.label_row[label])
        predictions = self._predictions(row, self.online[row])
        self._score(label, _Event(int(self._tape.step[row]), predictions, self.served[row], self.shadowed[row]), anew)

    def _score(self, label: int, event: _Event, anew: Sequence[dict[str, Prediction]]) -> None:
        members = members_of(event, self._shadows.serving) if event.shadows else None
        learn(
            self._blend,
            self._scores,
            self._plausible,
            dict(event.predictions),
            event.served,
            outcome := self._tape.outcomes[label],
            event.step,
            self._successors.get(int(self._tape.label_row[label])),
            members,
            anew[label],
        )
        self._shadows.learn(event, outcome, anew[label])

    def _predictions(self, row: int, online: dict[str, Prediction]) -> dict[str, Prediction]:
        champion = self.champion[row]
        return online if champion is None else {CHAMPION: champion, **online}

    def exists(self, table: str) -> bool:
        """See :class:`core.tables.ReadsTables`."""
        return self._tape.tables.exists(table)

    def read(
        self,
        table: str,
        *,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        where: Sequence[Filter] | None = None,
    ) -> pa.Table:
        """See :class:`core.tables.ReadsTables`; what is not served yet is null."""
        rows = self._tape.tables.whole(table)
        of_versions = [one for one in where or () if one[0].endswith("_version")]
        mask = matching(rows, [one for one in where or () if one not in of_versions])
        positions = np.arange(len(rows)) if mask is None else np.flatnonzero(mask.to_numpy())
        found = rows if mask is None else rows.take(pa.array(positions))
        if table == PREDICTIONS:
            found = _with(found, self._of_rows(positions))
        elif table == EXAMPLES:
            found = _with(found, self._of_rows(self._tape.label_row[positions]) | self._of_labels(positions))
        if (of_version := matching(found, of_versions)) is not None:
            found = found.filter(of_version)
        return found if columns is None else found.select(list(columns))

    def _of_rows(self, rows: Any) -> dict[str, list[Any]]:
        """Return the columns in which rows are other than on the tape."""
        versions = [int(version) or None for version in self.versions[rows]]
        replaced: dict[str, list[Any]] = {
            "champion_version": versions,
            "canary_version": [int(version) or None for version in self.canary[rows]],
            prediction_column(CHAMPION): [prediction_cell(self.champion[row]) for row in rows],
            prediction_column("served"): [prediction_cell(self.served[row]) for row in rows],
        }
        for role in SHADOWS:
            made = [(self.shadowed[row] or {}).get(role) for row in rows]
            if any(made):
                version, own, blended = shadow_columns(role)
                replaced[version] = [one and one.version for one in made]
                replaced[own] = [one and prediction_cell(one.prediction) for one in made]
                replaced[blended] = [one and prediction_cell(one.blended) for one in made]
        if self.online is not self._tape.online:
            replaced |= self._of_experts(prediction_column, self.online, rows)
        return replaced

    def _of_labels(self, labels: Any) -> dict[str, list[Any]]:
        """Return the columns in which what was said when labels came is other than on the tape."""
        return {} if self._anew is self._tape.anew else self._of_experts(anew_column, self._anew, labels)

    def _of_experts(
        self, column: Callable[[str], str], said: Sequence[Mapping[str, Prediction]], at: Any
    ) -> dict[str, list[Any]]:
        names = [expert.name for expert in self._settings.online]
        return {column(name): [prediction_cell(said[one].get(name)) for one in at] for name in names}


def _with(found: pa.Table, columns: Mapping[str, list[Any]]) -> pa.Table:
    for name, values in columns.items():
        field = found.schema.field(name)
        found = found.set_column(found.schema.get_field_index(name), field, pa.array(values, field.type))
    return found
