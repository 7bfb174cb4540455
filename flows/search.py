"""The search: every candidate is fitted on the earlier rows and scored on the latest ones; the best is fitted again.

What counts is the loss of a mixture with the online experts (:mod:`flows.company`): a batch model that says what they
say already is good, and adds nothing.

The best is also tried on the latest part of the earlier rows alone: after a turn, all of history would keep the old
world alive in the model. Less history has to be clearly better: the latest rows may only be another season.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from core.batch_model import FittedModel
from core.errors import HeadraceError
from core.metrics import METRICS, score
from core.predictions import is_sane
from core.project import Project
from flows.candidates import Candidate, build, candidates, single_threaded
from flows.company import Company
from flows.examples import Examples
from flows.splits import inner_split

_CLEARLY_BETTER = 0.95


@dataclass(frozen=True)
class Trial:
    """One candidate and its losses on the later rows; None with the reason where it could not be scored.

    Attributes
    ----------
    loss : float or None
        Of the candidate by itself.
    mixed : float or None
        Of the best mixture with the online experts.
    """

    candidate: Candidate
    loss: float | None
    mixed: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class SearchResult:
    """The best candidate, and all that were tried."""

    best: Trial
    trials: list[Trial]


def search(project: Project, train: Examples) -> SearchResult:
    """Try every candidate on the latest ``batch.search_rows`` rows; same data and seed, same result.

    Raises
    ------
    HeadraceError
        If no candidate could be fitted and scored; the message has each one's reason.
    """
    latest = train.take(np.arange(max(len(train) - project.settings.batch.search_rows, 0), len(train)))
    split = inner_split(latest.event_time, latest.label_clock)
    earlier, later = latest.take(split.train), latest.take(split.holdout)
    company = Company(project.settings, later)
    trials = [_try(project, candidate, earlier, later, company) for candidate in candidates(project)]
    scored = [trial for trial in trials if trial.loss is not None]
    if not scored:
        reasons = dict.fromkeys(f"{trial.candidate.family}: {trial.reason}" for trial in trials)
        raise HeadraceError(f"no candidate could be fitted: {'; '.join(reasons)}")
    best = min(scored, key=_mixed)
    less = _with_less_history(project, best, earlier)
    shorter = [_try(project, candidate, earlier, later, company) for candidate in less]
    clearly = [trial for trial in shorter if trial.loss is not None and trial.loss < _CLEARLY_BETTER * _loss(best)]
    return SearchResult(min(clearly, key=_loss, default=best), trials + shorter)


def _loss(trial: Trial) -> float:
    assert trial.loss is not None
    return trial.loss


def _mixed(trial: Trial) -> float:
    assert trial.mixed is not None
    return trial.mixed


def _with_less_history(project: Project, best: Trial, rows: Examples) -> list[Candidate]:
    """Return the best candidate with each of the shorter histories that still has enough rows."""
    settings = project.settings
    counts = [math.ceil(share * len(rows)) for share in settings.batch.histories if share < 1.0]
    starts = [int(rows.event_time[-count]) for count in counts if count >= settings.retrain.min_examples]
    return [replace(best.candidate, start=start) for start in starts]


def fit(project: Project, candidate: Candidate, rows: Examples) -> FittedModel:
    """Fit a candidate on those of the rows that it is meant for.

    Raises
    ------
    HeadraceError
        If it cannot be fitted on these rows.
    """
    settings = project.settings
    if candidate.start is not None:
        rows = rows.take(rows.event_time >= candidate.start)
    try:
        with _threads(settings.batch.threads):
            pipeline = build(project, candidate).fit(rows.frame, np.array(rows.outcomes))
            return FittedModel(single_threaded(pipeline), settings.batch_kinds, settings.task)
    except HeadraceError:
        raise
    except Exception as error:
        raise HeadraceError(
            f"{candidate.family} with {dict(candidate.params)} cannot be fitted on {len(rows)} rows: "
            f"{type(error).__name__}: {error}"
        ) from error


def _try(project: Project, candidate: Candidate, earlier: Examples, later: Examples, company: Company) -> Trial:
    try:
        predictions = fit(project, candidate, earlier).predict_frame(later.frame)
    except HeadraceError as error:
        return Trial(candidate, None, reason=str(error))
    if not all(is_sane(prediction) for prediction in predictions):
        return Trial(candidate, None, reason="predictions are not finite")
    loss = score(project.settings.task, predictions, later.outcomes)[METRICS[project.settings.task][0]]
    if loss is None or not math.isfinite(loss):
        return Trial(candidate, None, reason="no later rows to score on")
    return Trial(candidate, loss, company.loss(predictions))


@contextmanager
def _threads(limit: int) -> Iterator[None]:
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(limits=limit), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def described(trial: Trial) -> dict[str, Any]:
    """Return a trial as JSON."""
    candidate = trial.candidate
    return {
        "family": candidate.family,
        "trial": candidate.trial,
        "params": dict(candidate.params),
        "start": candidate.start,
        "loss": trial.loss,
        "mixed": trial.mixed,
        "reason": trial.reason,
    }
