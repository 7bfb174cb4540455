"""A trial of the search: a candidate, fitted on the earlier rows of a fold and scored on the later ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.clocks import Clock
from core.errors import HeadraceError
from core.metrics import METRICS, score
from core.predictions import is_sane
from core.project import Project
from core.wording import listed
from flows.candidates import Candidate
from flows.company import Company
from flows.examples import Examples
from flows.fitting import fit


@dataclass(frozen=True, eq=False)
class Fold:
    """Rows to fit on, rows to score on, and the company there; without it a candidate is scored by itself."""

    earlier: Examples
    later: Examples
    company: Company | None = None


@dataclass(frozen=True)
class Trial:
    """One candidate and its loss on later rows; None with the reason where it could not be scored, or was given up.

    Attributes
    ----------
    loss : float or None
        In company, the mean over all folds; by itself and on the latest rows, of one with a shorter history and of what
        that is compared with.
    reason : str or None
        Why there is none.
    folds : tuple of float
        The losses on the folds that it came through, the earliest first; empty where the latest rows alone judged.
    """

    candidate: Candidate
    loss: float | None
    reason: str | None = None
    folds: tuple[float, ...] = ()


def try_on(project: Project, candidate: Candidate, fold: Fold) -> Trial:
    """Fit a candidate on the first part of a fold and score it on the second."""
    try:
        predictions = fit(project, candidate, fold.earlier).predict_frame(fold.later.frame)
    except HeadraceError as error:
        return Trial(candidate, None, str(error))
    if not all(is_sane(prediction) for prediction in predictions):
        return Trial(candidate, None, "predictions are not finite")
    task = project.settings.task
    alone = score(task, predictions, fold.later.outcomes)[METRICS[task][0]]
    loss = alone if fold.company is None else fold.company.loss(predictions)
    if loss is None or not math.isfinite(loss):
        return Trial(candidate, None, "no later rows to score on")
    return Trial(candidate, loss)


def mean_of(trials: Sequence[Trial]) -> Trial:
    """Return the trials of one candidate on several folds as one; one without a loss where a fold has none."""
    if failed := next((trial for trial in trials if trial.loss is None), None):
        return failed
    losses = tuple(trial.loss for trial in trials if trial.loss is not None)
    return Trial(trials[0].candidate, float(np.mean(losses)), None, losses)


def said(trial: Trial, clock: Clock) -> str:
    """Return a trial as a line of the log."""
    candidate = trial.candidate
    history = "" if candidate.start is None else f" from {clock.moment(candidate.start)} on"
    without = f" without {listed(candidate.without)}" if candidate.without else ""
    result = trial.reason if trial.loss is None else f"loss {trial.loss:.5f}"
    return f"{candidate.family} {candidate.trial}{history}{without}: {result}"


def described(trial: Trial) -> dict[str, Any]:
    """Return a trial as JSON."""
    candidate = trial.candidate
    return {
        "family": candidate.family,
        "trial": candidate.trial,
        "params": dict(candidate.params),
        "start": candidate.start,
        "without": list(candidate.without),
        "loss": trial.loss,
        "folds": list(trial.folds),
        "reason": trial.reason,
    }
