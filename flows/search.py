"""The search: settings are tried on spans of time, each on what was known before it; the best is fitted again.

It stands for the fit on all rows, so what it is given is drawn evenly from all of them. What counts is the loss in
the company of the online experts (:mod:`flows.company`): a model that says what they say already adds nothing.

The best is then tried without the features that it owes nothing to (:mod:`flows.selection`), and on the latest part of
the latest rows alone: after a turn, all of history would keep the old world alive in the model. Less history has to be
clearly better: the latest rows may only be another season.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from core.batch_model import used_features
from core.errors import HeadraceError
from core.project import Project
from flows.candidates import Candidate
from flows.company import Company
from flows.examples import Examples
from flows.fitting import fit
from flows.selection import NOTHING, idle, selectable
from flows.spaces import families
from flows.splits import Split, folds, inner_split
from flows.trials import Fold, Trial, mean_of, said, try_on

if TYPE_CHECKING:
    from flows.study import Draw, Study

_CLEARLY_BETTER = 0.95

Seconds = Callable[[], float]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class SearchResult:
    """The best candidate, and all that were tried."""

    best: Trial
    trials: list[Trial]


def search(
    project: Project, train: Examples, progress: Progress = lambda line: None, clock: Seconds = time.monotonic
) -> SearchResult:
    """Try settings of every family on at most ``batch.search_rows`` rows; same data and seed, same result.

    Parameters
    ----------
    project : Project
        Its families, spaces and budget.
    train : Examples
        The rows that the best will be fitted on.
    progress : callable
        Told a line about each trial when it ends.
    clock : callable
        Seconds; for ``batch.seconds``.

    Raises
    ------
    HeadraceError
        If no candidate could be fitted and scored; the message has each one's reason.
    """
    tries = _Search(project, train, progress, clock)
    trials = tries.run()
    scored = [trial for trial in trials if trial.loss is not None]
    if not scored:
        reasons = dict.fromkeys(f"{trial.candidate.family}: {trial.reason}" for trial in trials)
        raise HeadraceError(f"no candidate could be fitted: {'; '.join(reasons)}")
    best = min(scored, key=_loss)
    if (fewer := tries.with_fewer_features(best)) is not None:
        trials.append(fewer)
        best = fewer if fewer.loss is not None and fewer.loss <= (1.0 + NOTHING) * _loss(best) else best
    shorter = _on_the_latest(project, best, train, progress)
    return SearchResult(_clearly_better(shorter) or best, trials + shorter)


class _Search:
    """The trials of all families, one after the other."""

    def __init__(self, project: Project, train: Examples, progress: Progress, clock: Seconds) -> None:
        from flows.study import Study

        batch = project.settings.batch
        known = families(project)
        varied = sum(family.varies for family in known)
        self._project, self._progress, self._clock = project, progress, clock
        self._deadline = math.inf if batch.seconds is None else clock() + batch.seconds
        self._folds = _folds(project, train.spread(batch.search_rows))
        self._defaults = len(known)
        self._budget = len(known) + (batch.trials - 1) * varied
        self._study: Study = Study(known, self._budget, batch.seed)
        self._tried: dict[str, Trial] = {}
        self._numbers: Counter[str] = Counter()

    def run(self) -> list[Trial]:
        """Return what was tried within the budget."""
        trials: list[Trial] = []
        for number in range(self._budget):
            if number >= self._defaults and self._late:
                break
            draw = self._study.draw()
            key = _key(draw, number)
            if key in self._tried:
                self._repeat(self._tried[key])
                continue
            trials.append(self._one(draw))
            self._tried[key] = trials[-1]
            line = said(trials[-1], self._project.settings.clock)
            self._progress(f"trial {number + 1} of {self._budget}: {line}")
        return trials

    def with_fewer_features(self, best: Trial) -> Trial | None:
        """Try the best without the features that it does as well without; None where it needs each."""
        settings, features = self._project.settings, selectable(self._project.settings)
        if not features or self._late:
            return None
        fitted = [(fit(self._project, best.candidate, fold.earlier), fold.later) for fold in self._folds]
        without = idle(fitted, features, settings.batch.seed)
        if not without or len(without) == len(used_features(settings.batch_kinds)):
            return None
        trial = mean_of([try_on(self._project, replace(best.candidate, without=without), fold) for fold in self._folds])
        self._progress(f"with fewer features: {said(trial, settings.clock)}")
        return trial

    @property
    def _late(self) -> bool:
        return self._clock() >= self._deadline

    def _one(self, draw: Draw) -> Trial:
        candidate = Candidate(draw.family.name, self._numbers[draw.family.name], draw.params)
        self._numbers[draw.family.name] += 1
        losses: list[float] = []
        for fold in self._folds:
            if losses and not draw.default and (why := self._why_give_up()):
                self._study.give_up()
                done = f"given up after {len(losses)} of {len(self._folds)} folds: {why}"
                return Trial(candidate, None, done, tuple(losses))
            scored = try_on(self._project, candidate, fold)
            if scored.loss is None:
                self._study.fail()
                return replace(scored, folds=tuple(losses))
            losses.append(scored.loss)
            self._study.report(scored.loss)
        self._study.complete()
        return Trial(candidate, float(np.mean(losses)), None, tuple(losses))

    def _why_give_up(self) -> str | None:
        if self._study.hopeless:
            return "not among the better quarter"
        return "batch.seconds were over" if self._late else None

    def _repeat(self, known: Trial) -> None:
        """Tell the study what is known already of a setting that it drew again."""
        for loss in known.folds:
            self._study.report(loss)
        if known.loss is not None:
            self._study.complete()
        elif known.folds:
            self._study.give_up()
        else:
            self._study.fail()


def _key(draw: Draw, number: int) -> str:
    """Return what is the same for the same setting; a function that draws by itself never does the same."""
    own = number if draw.family.draws else None
    return json.dumps([draw.family.name, own, draw.params], sort_keys=True)


def _folds(project: Project, rows: Examples) -> list[Fold]:
    """Return the folds that can be fitted and scored; the latest, if there is none, so that trials say why."""
    found = folds(rows.event_time, rows.label_clock, project.settings.batch.folds)
    classes = 1 if project.settings.task == "regression" else 2
    made = [_parts(rows, split) for split in found]
    usable = [fold for fold in made if len(set(fold.earlier.outcomes)) >= classes and len(fold.later)]
    return [replace(fold, company=Company(project.settings, fold.later)) for fold in usable or made[-1:]]


def _parts(rows: Examples, split: Split) -> Fold:
    return Fold(rows.take(split.train), rows.take(split.holdout))


def _on_the_latest(project: Project, best: Trial, train: Examples, progress: Progress) -> list[Trial]:
    """Return the best candidate on the latest rows: with all of them, then with each shorter history."""
    settings = project.settings
    latest = train.take(np.arange(max(len(train) - settings.batch.search_rows, 0), len(train)))
    fold = _parts(latest, inner_split(latest.event_time, latest.label_clock))
    shorter = _with_less_history(project, best, fold.earlier)
    if not shorter:
        return []
    trials = []
    for candidate in [best.candidate, *shorter]:
        trials.append(try_on(project, candidate, fold))
        progress(f"on the latest rows: {said(trials[-1], settings.clock)}")
    return trials


def _clearly_better(trials: list[Trial]) -> Trial | None:
    """Return the best of the shorter histories if it is clearly better than the first trial, which has all of them."""
    if not trials or trials[0].loss is None:
        return None
    limit = _CLEARLY_BETTER * trials[0].loss
    better = [trial for trial in trials[1:] if trial.loss is not None and trial.loss < limit]
    return min(better, key=_loss, default=None)


def _loss(trial: Trial) -> float:
    assert trial.loss is not None
    return trial.loss


def _with_less_history(project: Project, best: Trial, rows: Examples) -> list[Candidate]:
    """Return the best candidate with each of the shorter histories that still has enough rows."""
    settings = project.settings
    counts = [math.ceil(share * len(rows)) for share in settings.batch.histories if share < 1.0]
    starts = [int(rows.event_time[-count]) for count in counts if count >= settings.retrain.min_examples]
    return [replace(best.candidate, start=start) for start in starts]
