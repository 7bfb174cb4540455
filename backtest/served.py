"""What one policy serves: the champions' and the blend's predictions, beside those of the tape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from backtest.tables import matching
from backtest.tape import Tape
from core.batch_model import FittedModel
from core.blend import Blend
from core.predictions import Prediction
from core.settings import Settings
from core.tables import EXAMPLES, PREDICTIONS, Filter, prediction_cell, prediction_column
from flows.examples import as_frame
from streaming.plausible import LABELS_TO_JUDGE_A_CHAMPION, Plausible
from streaming.serving import CHAMPION, Scores, learn, serve

_CHUNK = 20_000


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
    """

    def __init__(self, tape: Tape, settings: Settings, *, alone: bool = False) -> None:
        self._tape = tape
        self._settings = settings
        self._alone = alone
        self._blend = Blend(settings.task, settings.blend)
        self._scores = Scores()
        self._plausible = Plausible(settings.task, LABELS_TO_JUDGE_A_CHAMPION)
        self._model: FittedModel | None = None
        self._row = self._label = 0
        rows = len(tape.online)
        self.versions = np.zeros(rows, dtype=np.int32)
        self.champion: list[Prediction | None] = [None] * rows
        self.served: list[Prediction | None] = [None] * rows

    def swap(self, model: FittedModel) -> None:
        """Let a champion predict from the next row on."""
        self._model = model

    def advance(self, step: int) -> None:
        """Serve and learn everything up to and with `step`."""
        tape = self._tape
        end = int(np.searchsorted(tape.step, step, side="right"))
        raw = None if self._model is None else self._predict(self._model, self._row, end)
        start, last = self._row, int(np.searchsorted(tape.label_step, step, side="right"))
        while self._row < end or self._label < last:
            if self._row < end and (self._label >= last or tape.step[self._row] <= tape.label_step[self._label]):
                self._serve(self._row, None if raw is None else raw[self._row - start])
                self._row += 1
            else:
                self._learn(int(tape.label_row[self._label]), self._label)
                self._label += 1

    def _predict(self, model: FittedModel, start: int, end: int) -> list[Prediction]:
        rows = self._tape.tables.whole(PREDICTIONS)
        found: list[Prediction] = []
        for at in range(start, end, _CHUNK):
            found += model.predict_frame(as_frame(rows.slice(at, min(_CHUNK, end - at)), self._settings))
        return found

    def _serve(self, row: int, champion: Prediction | None) -> None:
        predictions, served = serve(
            self._blend, self._plausible, champion, self._tape.online[row], int(self._tape.step[row])
        )
        self.champion[row] = predictions.get(CHAMPION)
        if CHAMPION in predictions and self._model is not None:
            self.versions[row] = self._model.version
            served = predictions[CHAMPION] if self._alone else served
        self.served[row] = served

    def _learn(self, row: int, label: int) -> None:
        champion, online = self.champion[row], self._tape.online[row]
        predictions = online if champion is None else {CHAMPION: champion, **online}
        outcome, step = self._tape.outcomes[label], int(self._tape.step[row])
        learn(self._blend, self._scores, self._plausible, predictions, self.served[row], outcome, step)

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
        mask = matching(rows, where or ())
        positions = np.arange(len(rows)) if mask is None else np.flatnonzero(mask.to_numpy())
        found = rows if mask is None else rows.take(pa.array(positions))
        if table in (PREDICTIONS, EXAMPLES):
            found = self._overlaid(found, positions if table == PREDICTIONS else self._tape.label_row[positions])
        return found if columns is None else found.select(list(columns))

    def _overlaid(self, found: pa.Table, rows: Any) -> pa.Table:
        versions = [int(version) or None for version in self.versions[rows]]
        replaced: dict[str, list[Any]] = {
            "champion_version": versions,
            prediction_column(CHAMPION): [prediction_cell(self.champion[row]) for row in rows],
            prediction_column("served"): [prediction_cell(self.served[row]) for row in rows],
        }
        for name, values in replaced.items():
            field = found.schema.field(name)
            found = found.set_column(found.schema.get_field_index(name), field, pa.array(values, field.type))
        return found
