"""Learning a partition's past again: after an upgrade, or without windows that nothing is to be learned from.

Experts and blend go through the rows of the tables in the order in which the partition did. To unlearn a window they
begin at the newest snapshot before it, so that not all of the past has to be gone through; which one it was makes no
difference, because both ways lead through the same steps.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from core.audit import Ledger
from core.errors import CheckpointError, StoreError
from core.models import CHAMPION
from core.project import Project
from core.quarantine import Span, is_inside, unlearned
from core.store import TableStore
from streaming.checkpoint import Checkpoints
from streaming.experts import build_experts
from streaming.history import Asked, History, Learned
from streaming.join import Predicted
from streaming.journal import Unlearn
from streaming.learning import Learners, learn_event, predicted_anew
from streaming.phases import Phases
from streaming.state import State

_SIGN_OF_LIFE = 256
_log = logging.getLogger("headrace.worker")


class Relearning:
    """Takes learners through a history.

    Parameters
    ----------
    learners : Learners
        Changed in place, by every row.
    without : sequence of Span
        Windows of event time; what was predicted in them is passed over.
    since : int
        Step at which the learners stand: what was predicted before is scored as it was published.
    """

    def __init__(self, learners: Learners, without: Sequence[Span] = (), since: int = 0) -> None:
        self._learners = learners
        self._without = without
        self._since = since
        self._asked: dict[int, Predicted] = {}

    def take(self, happened: Asked | Learned) -> None:
        """Predict, or learn, what was predicted or learned then."""
        if isinstance(happened, Learned):
            self._learn(happened)
            return
        event = happened.predicted
        if event.step > self._since:
            self._seat(event)
        if not is_inside(event.time, self._without):
            asked = self._predicted(event)
            if event.keys is not None and event.step > self._since:
                self._learners.keyed.observe_event(event.keys, event.time, event.features)
            if happened.labelled:
                self._asked[event.step] = asked

    def _seat(self, event: Predicted) -> None:
        """Give the versions that predicted then their blends, as the machine did."""
        learners = self._learners
        followed = {role: shadowed.version for role, shadowed in (event.shadows or {}).items()}
        learners.blend = learners.shadows.seat(learners.blend, event.champion_version, followed)

    def _predicted(self, event: Predicted) -> Predicted:
        """Let the learners predict again: predictions of champion and shadows are taken from the row."""
        if event.step <= self._since:
            return event
        learners = self._learners
        predictions = {CHAMPION: event.predictions[CHAMPION]} if CHAMPION in event.predictions else {}
        for expert in learners.experts:
            prediction = expert.predict(event.features)
            if prediction is not None:
                predictions[expert.name] = prediction
        served = learners.blend.mix(predictions, event.step) if predictions else None
        own = {role: shadowed.prediction for role, shadowed in (event.shadows or {}).items()}
        shadows = learners.shadows.mix(own, predictions, event.step) if own else None
        return replace(event, predictions=predictions, served=served, shadows=shadows)

    def _learn(self, example: Learned) -> None:
        if (asked := self._asked.pop(example.step, None)) is not None:
            anew = predicted_anew(self._learners, asked)
            learn_event(self._learners, asked, example.outcome, example.label_step, example.successor, anew)


@dataclass(frozen=True)
class Unlearner:
    """Takes windows out of what a partition has learned.

    Attributes
    ----------
    project : Project
        The project.
    partition : int
        Whose rows.
    checkpoints : Checkpoints
        Where it begins.
    phases : Phases
        Told now and then that it goes on.
    """

    project: Project
    partition: int
    checkpoints: Checkpoints
    phases: Phases

    def plan(self, windows: Sequence[Span], known: Sequence[Span]) -> Unlearn:
        """Return the action that takes these windows out; those that are `known` are out already."""
        first = min(start for start, _ in {*windows} - {*known})
        since = self.checkpoints.step_before(self.partition, first)
        return Unlearn(sorted({*windows, *known}), since, self.project.settings.drift.relearn_rows)

    def unlearn(self, state: State, action: Unlearn) -> None:
        """Let the learners be as if those windows had not been; the tables must hold all rows up to the state's step.

        Raises
        ------
        CheckpointError
            If the snapshot to begin with cannot be used.
        StoreError
            If the tables cannot be read.
        """
        with self.phases.enter("unlearn"):
            history = History(
                TableStore(self.project.tables),
                self.project.settings,
                self.partition,
                state.step,
                after=action.since,
                most=action.most,
            )
            learners = self._from(action.since)
        relearning = Relearning(learners, action.windows, history.after)
        rows = iter(history)
        while some := list(islice(rows, _SIGN_OF_LIFE)):
            with self.phases.enter("unlearn"):
                for happened in some:
                    relearning.take(happened)
        state.experts, state.blend, state.plausible = learners.experts, learners.blend, learners.plausible
        state.shadows, state.keyed, state.learned_at = learners.shadows, learners.keyed, learners.learned_at
        state.unlearned = list(action.windows)

    def _from(self, step: int) -> State:
        """Return learners as they were at a step: fresh ones at 0."""
        fresh = State.fresh(self.project.settings, build_experts(self.project))
        if step == 0:
            return fresh
        kept: dict[str, Any] | None = self.checkpoints.learners_at(self.partition, step)
        if kept is None:
            raise CheckpointError(
                f"partition {self.partition}: the snapshot of step {step} is gone, from which a window was being "
                f"unlearned; learn again from the tables: headrace rebuild-state {self.project.folder}"
            )
        for expert, made in zip(kept["experts"], fresh.experts, strict=True):
            expert.attach(made)
        for name, part in kept.items():
            setattr(fresh, name, part)
        return fresh


class ToUnlearn:
    """Asks the ledger now and then which windows are to be unlearned.

    Parameters
    ----------
    ledger : Path
        The ledger's file.
    every_s : float
        Time between two looks, s.
    """

    def __init__(self, ledger: Path, every_s: float) -> None:
        self._path = ledger
        self._every_s = every_s
        self._ledger: Ledger | None = None
        self._looked_at = -every_s
        self._known: list[Span] = []
        self._is_told = False

    def __call__(self) -> list[Span]:
        """Return them, as last known where the ledger cannot be read."""
        if time.monotonic() - self._looked_at < self._every_s:
            return self._known
        self._looked_at = time.monotonic()
        try:
            self._ledger = self._ledger or Ledger(self._path)
            self._known = unlearned(self._ledger.history("unlearn"))
            self._is_told = False
        except (StoreError, OSError) as error:
            if not self._is_told:
                _log.warning("the ledger does not tell which windows are to be unlearned; tried again: %s", error)
            self._is_told = True
        return self._known

    def close(self) -> None:
        """Let go of the ledger."""
        if self._ledger is not None:
            self._ledger.close()
