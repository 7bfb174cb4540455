"""One policy on the virtual clock: serve, look at each window when it is due, decide, fit, promote.

Event time stands still while a window is judged and a model fitted, as in lockstep: what is decided at a stage's due
time takes effect ``retrain.duration`` later, from the first record of that time on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import groupby

import pyarrow as pa

from backtest.outcome import Alert, Outcome, Retraining, ServedRows
from backtest.policies import Policy
from backtest.served import Served
from backtest.shadowing import Shadowing
from backtest.tape import Tape
from backtest.training import Champion, Trainer
from backtest.unlearning import Unlearner
from core.audit import Trigger
from core.quarantine import Span
from core.settings import Settings
from monitoring.comparison import DriftReport, compare_data, compare_labels
from monitoring.decision import Decision, PolicyState
from monitoring.distances import distances
from monitoring.inspection import Inspector
from monitoring.policy import decide
from monitoring.reference import Reference
from monitoring.rows import WindowRows
from monitoring.windows import WindowStage, due_stages, start_progress


class Distances:
    """Compares by the report's distances, without writing one.

    Parameters
    ----------
    settings : Settings
        The project file.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(self, stage: WindowStage, current: pa.Table, reference: pa.Table) -> DriftReport:
        """See :class:`monitoring.inspection.Compare`."""
        settings = self._settings
        if stage.stage == "labels":
            compared = compare_labels(current, reference, task=settings.task, sample=settings.windows.sample)
        else:
            compared = compare_data(
                current, reference, kinds=settings.batch_kinds, task=settings.task, sample=settings.windows.sample
            )
        return compared.report(distances(compared.columns))


class Simulation:
    """Runs one policy over a tape.

    Parameters
    ----------
    tape : Tape
        The recorded stream.
    policy : Policy
        When to fit again.
    trainer : Trainer
        Fits, once for all policies that ask the same.
    unlearner : Unlearner
        Lets the online experts forget windows.
    progress : callable
        Told the event time reached, ms.
    """

    def __init__(
        self,
        tape: Tape,
        policy: Policy,
        trainer: Trainer,
        unlearner: Unlearner,
        progress: Callable[[int], None] = lambda moment: None,
    ) -> None:
        self._tape = tape
        self._settings = policy.settings
        self._trainer = trainer
        self._unlearner = unlearner
        self._progress = progress
        self._policy = policy
        self._served = Served(tape, policy.settings, alone=not policy.online)
        self._shadowing = Shadowing(self._served, policy.settings)
        self._retrainings: list[Retraining] = []
        self._alerts: list[Alert] = []
        self._quarantined: dict[Span, tuple[str, ...]] = {}
        self._coming: tuple[int, Champion] | None = None
        self._reached = tape.first_event
        self._state = PolicyState()
        self._alerted: set[str] = set()
        self._kept_out: set[Span] = set()
        self._unlearned: set[Span] = set()
        rows = WindowRows(self._served, policy.settings)
        self._inspector = Inspector(
            policy.settings, rows, self._reference, Distances(policy.settings), lambda _: sorted(self._kept_out)
        )

    def run(self) -> Outcome:
        """Replay the whole stream."""
        settings, tape = self._settings, self._tape
        span, horizon = settings.windows.span, settings.label.horizon
        progress = start_progress(tape.first_event, span)
        for due, stages in groupby(
            due_stages(progress, span, horizon, tape.end, settings.clock), key=lambda stage: stage.due
        ):
            self._reach(due)
            for stage in stages:
                if self._policy.batch:
                    self._look(stage)
                if stage.stage == "data":
                    self._served.keep()
            self._shadowing.judge(due, sorted(self._kept_out))
            self._progress(due)
        self._reach(tape.end)
        self._served.advance(tape.last_step)
        return self._outcome()

    def _outcome(self) -> Outcome:
        served, shadowing = self._served, self._shadowing
        published = [served.published(row) for row in range(len(served.online))]
        rows = ServedRows(served.online, served.champion, published, served.canary)
        return Outcome(
            self._policy, rows, self._retrainings, self._alerts, self._quarantined, shadowing.entered, shadowing.ended
        )

    def _reach(self, moment: int) -> None:
        """Serve up to a moment; shadows are judged as their blocks end, and one whose time comes begins."""
        block = self._settings.promotion.block
        at = self._reached
        while True:
            ends = [self._coming[0]] if self._coming is not None else []
            if self._shadowing.any:
                ends.append((at // block + 1) * block)
            at = min([moment, *ends])
            self._served.advance(self._tape.step_at(at))
            if at < moment:
                self._shadowing.judge(at, sorted(self._kept_out))
            if self._coming is not None and self._coming[0] <= at:
                self._shadowing.enter(self._coming[1], at)
                self._coming = None
            if at == moment:
                break
        self._reached = moment

    def _look(self, stage: WindowStage) -> None:
        """Judge a stage that is due; alert and retrain as decided."""
        champion = self._shadowing.champion
        version = None if champion is None else champion.model.version
        evidence = self._inspector.inspect(stage, version).evidence(self._tape.first_event)
        before = [done for done in self._retrainings if done.effective_at <= stage.due]
        sibling = stage.sibling("labels" if stage.stage == "data" else "data")
        is_whole = stage.end <= self._tape.recorded_until  # else the recording ends in it, whatever comes of labels
        evidence = replace(
            evidence,
            volume=evidence.volume if is_whole else None,
            alerted=sibling in self._alerted,
            open_retraining=any(stage.due < done.effective_at for done in self._retrainings),
            in_shadow=self._shadowing.challenger,
            retrainings=tuple(done.decided_at for done in self._retrainings),
            past=tuple(gain for done in before if (gain := done.gained(self._shadowing.withdrawn)) is not None),
        )
        is_bootstrapped = self._retrainings and self._retrainings[-1].attempt.version == 1
        opening = self._policy.opening if is_bootstrapped else None
        decision, self._state = decide(evidence, self._state, opening or self._settings)
        if decision.alert:
            self._alerted.add(stage.name)
            self._alerts.append(Alert(stage, decision.alert))
        self._keep_out(stage, decision)
        if decision.unlearn:
            self._unlearn(self._spans(decision.unlearn))
        if decision.trigger is not None:
            self._retrain(decision, decision.trigger, stage.due)

    def _keep_out(self, stage: WindowStage, decision: Decision) -> None:
        """Keep a window out of learning, or let it in after all."""
        if decision.quarantine and (stage.start, stage.end) not in self._quarantined:
            self._quarantined[stage.start, stage.end] = decision.quarantine
            self._kept_out.add((stage.start, stage.end))
        self._kept_out -= self._spans(decision.release)

    def _unlearn(self, windows: set[Span]) -> None:
        """Let the online experts and the blend be as if these windows had not been."""
        since = self._tape.step_at(min(start for start, _ in windows))
        self._unlearned |= windows
        without = sorted(self._unlearned)
        self._served.unlearn(without, since, self._unlearner.without(without))

    def _spans(self, starts: Iterable[int]) -> set[Span]:
        return {(start, start + self._settings.windows.span) for start in starts}

    def _retrain(self, decision: Decision, trigger: Trigger, moment: int) -> None:
        version = 1 + sum(done.attempt.version is not None for done in self._retrainings)
        kept_out = sorted(self._kept_out)
        lasted = sorted(self._quarantined.keys() - self._kept_out)
        champion = self._shadowing.champion
        attempt, made = self._trainer.attempt(self._settings, self._served, moment, champion, version, kept_out, lasted)
        effective_at = moment + self._settings.retrain.duration
        self._retrainings.append(
            Retraining(trigger, moment, effective_at, decision.reasons, decision.prospect, attempt)
        )
        if made is not None:
            self._coming = effective_at, made

    def _reference(self, version: int) -> Reference:
        champion = self._shadowing.champion
        assert champion is not None and champion.model.version == version
        return champion.reference
