"""The fit of a candidate: on which rows, in how many threads, and what may go wrong."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from core.batch_model import FittedModel
from core.errors import HeadraceError
from core.project import Project
from flows.candidates import Candidate, build, single_threaded
from flows.examples import Examples


def rows_of(candidate: Candidate, rows: Examples) -> Examples:
    """Return those of the rows that a candidate is fitted on."""
    return rows if candidate.start is None else rows.take(np.asarray(rows.event_time >= candidate.start))


def fit(project: Project, candidate: Candidate, rows: Examples) -> FittedModel:
    """Fit a candidate on those of the rows that it is meant for.

    Raises
    ------
    HeadraceError
        If it cannot be fitted on these rows.
    """
    settings, rows = project.settings, rows_of(candidate, rows)
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


@contextmanager
def _threads(limit: int) -> Iterator[None]:
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(limits=limit), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
