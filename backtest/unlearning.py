"""What the online experts would have predicted, had they never learned from some windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from backtest.tape import Tape
from core.predictions import Features, Prediction
from core.project import Project
from core.quarantine import Span, outside
from core.tables import PREDICTIONS, feature_column, milliseconds
from streaming.experts import build_experts

_CHUNK = 4_096


class Unlearner:
    """Lets fresh experts go through a tape again; for the same windows once, whichever policies ask.

    Parameters
    ----------
    project : Project
        For the experts' code.
    tape : Tape
        The recorded stream.
    """

    def __init__(self, project: Project, tape: Tape) -> None:
        self._project = project
        self._tape = tape
        self._found: dict[tuple[Span, ...], list[dict[str, Prediction]]] = {}

    def without(self, windows: Sequence[Span]) -> list[dict[str, Prediction]]:
        """Return the online experts' predictions of each row, had they learned nothing of these windows."""
        key = tuple(windows)
        if key not in self._found:
            self._found[key] = self._predictions(windows)
        return self._found[key]

    def _predictions(self, windows: Sequence[Span]) -> list[dict[str, Prediction]]:
        tape, experts = self._tape, build_experts(self._project)
        kept = learned_rows(tape, windows)
        waiting: dict[int, Features] = {}
        rows, predicted = self._features(), []
        for entry in tape.order[0].tolist():
            if entry >= 0:
                features = next(rows)
                made = {expert.name: expert.predict(features) for expert in experts}
                predicted.append({name: prediction for name, prediction in made.items() if prediction is not None})
                if kept[entry]:
                    waiting[entry] = features
            elif (known := waiting.pop(int(tape.label_row[-1 - entry]), None)) is not None:
                for expert in experts:
                    expert.learn(known, tape.outcomes[-1 - entry])
        return predicted

    def _features(self) -> Iterator[Features]:
        names = {feature_column(name): name for name in self._project.settings.feature_kinds}
        for batch in self._tape.tables.whole(PREDICTIONS).select(list(names)).to_batches(max_chunksize=_CHUNK):
            yield from batch.rename_columns(list(names.values())).to_pylist()


def learned_rows(tape: Tape, windows: Sequence[Span]) -> NDArray[np.bool_]:
    """Return a mask of the rows that lie in none of these windows."""
    return outside(milliseconds(tape.tables.whole(PREDICTIONS)["event_time"]), windows)
