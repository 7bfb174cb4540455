"""What the online experts would have predicted, then and when labels came, had they never learned from some windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backtest.tape import Tape
from core.blend import Blend
from core.predictions import Features, Prediction
from core.project import Project
from core.quarantine import Span, outside
from core.tables import PREDICTIONS, feature_column, milliseconds
from streaming.experts import build_experts
from streaming.learning import ask_again, is_asked_again, remember

_CHUNK = 4_096


class Relearned(NamedTuple):
    """Predictions of each row of a tape, and those made anew for each label; see :class:`backtest.tape.Tape`."""

    online: list[dict[str, Prediction]]
    anew: list[dict[str, Prediction]]


_KEPT = 4
"""Sets of windows of which it is kept what experts said: each takes as much as the predictions of the whole tape."""


class Unlearner:
    """Lets fresh experts go through a tape again; for the same windows once, whichever policies ask soon enough.

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
        self._found: dict[tuple[Span, ...], Relearned] = {}

    def without(self, windows: Sequence[Span]) -> Relearned:
        """Return the online experts' predictions, had they learned nothing of these windows."""
        key = tuple(windows)
        if key not in self._found:
            if len(self._found) == _KEPT:
                del self._found[next(iter(self._found))]
            self._found[key] = self._relearned(windows)
        return self._found[key]

    def _relearned(self, windows: Sequence[Span]) -> Relearned:
        tape, experts = self._tape, build_experts(self._project)
        kept = learned_rows(tape, windows)
        waiting: dict[int, Features] = {}
        rows, found, blend = self._features(), Relearned([], []), Blend.of(self._project.settings)
        learned_at: list[int] = []
        for entry, step in zip(*(part.tolist() for part in tape.order), strict=True):
            if entry >= 0:
                features = next(rows)
                made = {expert.name: expert.predict(features) for expert in experts}
                found.online.append({name: prediction for name, prediction in made.items() if prediction is not None})
                if kept[entry]:
                    waiting[entry] = features
                continue
            row, anew = int(tape.label_row[-1 - entry]), {}
            if (known := waiting.pop(row, None)) is not None:
                if is_asked_again(blend, int(tape.step[row]), learned_at):
                    anew = ask_again(experts, found.online[row], known)
                for expert in experts:
                    expert.learn(known, tape.outcomes[-1 - entry])
                remember(learned_at, step)
            found.anew.append(anew)
        return found

    def _features(self) -> Iterator[Features]:
        names = {feature_column(name): name for name in self._project.settings.feature_kinds}
        for batch in self._tape.tables.whole(PREDICTIONS).select(list(names)).to_batches(max_chunksize=_CHUNK):
            yield from batch.rename_columns(list(names.values())).to_pylist()


def learned_rows(tape: Tape, windows: Sequence[Span]) -> NDArray[np.bool_]:
    """Return a mask of the rows that lie in none of these windows."""
    return outside(milliseconds(tape.tables.whole(PREDICTIONS)["event_time"]), windows)
