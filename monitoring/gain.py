"""What a retraining is expected to add to what is served. Pure.

A batch model gains by more rows (its loss falls about as much with each doubling) and by what it has lost against
the blend since it was validated. How much of either comes back is learned from the stream's own retrainings: a Bayesian
linear regression (Bishop 2006, 3.3) of the measured gains of the *blend*, from a prior that a few of them outweigh. A
challenger that the gates refused, or that was withdrawn from shadow, brought nothing, and took nothing away: nobody was
served by it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.audit import CHALLENGER_BLEND, CHAMPION_BLEND, LedgerRecord, RetrainRequest
from core.metrics import METRICS
from core.setting_types import Task

_PRIOR = np.array([0.01, 0.1])
_PRIOR_DEVIATION = np.array([0.01, 0.1])
_NOISE = 0.02


@dataclass(frozen=True)
class Prospect:
    """What a retraining has to work with.

    Attributes
    ----------
    growth : float
        Doublings of the rows since the champion was trained.
    shortfall : float
        By how much the champion's loss has risen against the served one since its validation: a difference of logs.
    """

    growth: float
    shortfall: float = 0.0


@dataclass(frozen=True)
class Gain:
    """What a past retraining had to work with, and what it brought: see `brought`."""

    prospect: Prospect
    gain: float


def growth(rows: int, trained: int, at_most: int) -> float:
    """Return the doublings from the rows trained on to those there are now, of which at most some are used.

    Examples
    --------
    >>> growth(4_000, 1_000, at_most=2_000), growth(10, 0, at_most=100)
    (1.0, 0.0)
    """
    return math.log2(max(min(rows, at_most) / trained, 1.0)) if trained else 0.0


def expected_gain(prospect: Prospect, past: Sequence[Gain]) -> float:
    """Return the expected relative fall of the served loss.

    Examples
    --------
    >>> expected_gain(Prospect(1.0), []), expected_gain(Prospect(1.0), [Gain(Prospect(1.0), 0.0)] * 50) < 0.002
    (0.01, True)
    """
    known = np.array([_inputs(one.prospect) for one in past]).reshape(-1, 2)
    gains = np.array([one.gain for one in past])
    precision = np.diag(_PRIOR_DEVIATION**-2.0) + known.T @ known / _NOISE**2
    rates = np.linalg.solve(precision, _PRIOR / _PRIOR_DEVIATION**2 + known.T @ gains / _NOISE**2)
    return float(_inputs(prospect) @ rates)


def _inputs(prospect: Prospect) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([prospect.growth, max(prospect.shortfall, 0.0)])


def measured_gain(metrics: Mapping[str, Mapping[str, float | None]], task: Task) -> float | None:
    """Return by how much, relatively, the blend's loss on the hold-out was lower with the challenger.

    None where it is not known, such as at the bootstrap.

    Examples
    --------
    >>> measured_gain({"blend_with_challenger": {"mae": 3.0}, "blend_with_champion": {"mae": 4.0}}, "regression")
    0.25
    """
    new, old = (metrics.get(name, {}).get(METRICS[task][0]) for name in (CHALLENGER_BLEND, CHAMPION_BLEND))
    return None if new is None or not old else 1.0 - new / old


def brought(measured: float | None, *, rejected: bool) -> float | None:
    """Return what a retraining brought: what was measured on the hold-out, or nothing if its challenger was rejected.

    Examples
    --------
    >>> brought(-0.02, rejected=True), brought(0.01, rejected=False), brought(None, rejected=False)
    (0.0, 0.01, None)
    """
    return 0.0 if rejected and measured is not None else measured


def gains(
    requests: Iterable[RetrainRequest],
    retrainings: Iterable[LedgerRecord],
    withdrawals: Iterable[LedgerRecord],
    task: Task,
    moment: int,
) -> tuple[Gain, ...]:
    """Return what the ledger says that former retrainings brought.

    Parameters
    ----------
    requests, retrainings, withdrawals : iterable
        The ledger's requests, and its records of what became of them, and of challengers that ended in shadow.
    task : {'binary', 'multiclass', 'regression'}
        Decides which loss is compared.
    moment : int
        Retrainings that took effect later do not count yet, ms, nor what was withdrawn then or later.
    """
    prospects = {
        request.id: Prospect(**request.body["prospect"])
        for request in requests
        if "prospect" in request.body and request.effective_at <= moment
    }
    withdrawn = {record.body["version"] for record in withdrawals if record.body["effective_at"] < moment}
    found = [
        (prospects.get(record.body.get("request", "")), _brought_by(record.body, withdrawn, task))
        for record in retrainings
    ]
    return tuple(Gain(prospect, gain) for prospect, gain in found if prospect is not None and gain is not None)


def _brought_by(retraining: Mapping[str, Any], withdrawn: Collection[int], task: Task) -> float | None:
    measured = measured_gain(retraining.get("metrics") or {}, task)
    has_passed = any(retraining.get(end) for end in ("promoted", "shadowing", "waiting"))
    return brought(measured, rejected=not has_passed or retraining.get("version") in withdrawn)
