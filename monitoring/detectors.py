"""When, within a window, the loss began to rise: River's ADWIN and Page-Hinkley over its labelled rows. Pure.

Evidence and no verdict: on an unchanged stream ADWIN alarms in up to half of the windows, Page-Hinkley in more. What
has drifted is decided by what is usual (:mod:`monitoring.judgement`); a detector adds when quality turned.

Each window has detectors of its own, which see the window before it first. So there is no state to keep or to lose, a
window judged again says the same, and the backtest sees what the loop sees. The rows come in the order of their events,
not of their labels: all labels of a window that is judged are due, and which of them come late is no chance. Where a
missing label means "no fraud", the positives of each window come first and its negatives at the horizon; in that order
ADWIN saw the loss of every window of an unchanged stream turn, in the order of the events of none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from core.clocks import UTC_CLOCK, Clock
from core.tables import milliseconds, prediction_column
from monitoring.rows import losses_of

ADWIN, PAGE_HINKLEY = "ADWIN", "Page-Hinkley"

_FEWEST_BEFORE = 30
"""Rows of the window before that tell the scale of the losses: as many as Page-Hinkley waits for."""

_WHOSE = {"served": "served", "champion": "champion's"}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rise:
    """A rise of the loss that a detector sees.

    Attributes
    ----------
    detector : str
        ADWIN or Page-Hinkley.
    loss : str
        Whose: ``served`` or ``champion``.
    at : int
        Event time of the first row of the higher loss, ms.
    before, after : float
        Mean loss from the detector's last alarm until then, and from then to the window's end.
    """

    detector: str
    loss: str
    at: int
    before: float
    after: float


def rises(previous: pa.Table, current: pa.Table, champion: int) -> tuple[Rise, ...]:
    """Return the clearest rise of the served loss and of the champion's, as each detector sees it in a window.

    A rise belongs to the window in which it is noticed; it may have begun at the end of the one before.

    Parameters
    ----------
    previous, current : pyarrow.Table
        Examples of the window before and of the window, as of :meth:`monitoring.rows.WindowRows.examples`.
    champion : int
        Its version: what other versions predicted is not its own.
    """
    order = [("event_time", "ascending"), ("id", "ascending")]
    rows = pa.concat_tables([previous.sort_by(order), current.sort_by(order)])
    inside = np.arange(len(rows)) >= len(previous)
    own = pc.fill_null(pc.equal(rows["champion_version"], champion), False).to_numpy()
    found: list[Rise | None] = []
    for name, counts in (("served", np.ones(len(rows), dtype=bool)), ("champion", own)):
        cells = rows[prediction_column(name)].to_pylist()
        losses = np.array(losses_of(cells, rows["label"].to_pylist()), dtype=np.float64)
        known = counts & ~np.isnan(losses)
        times = milliseconds(rows["event_time"])[known]
        found += _of_one(name, losses[known], times, int(np.sum(known & ~inside)))
    return tuple(rise for rise in found if rise is not None)


def sentences(found: Sequence[Rise], clock: Clock = UTC_CLOCK) -> tuple[str, ...]:
    """Return a sentence about each loss that rises, with the first detector's numbers.

    Examples
    --------
    >>> sentences([Rise("ADWIN", "served", 0, 0.41, 0.55), Rise("Page-Hinkley", "served", 9, 0.4, 0.6)])
    ('ADWIN and Page-Hinkley see the served loss rise from 0.41 to 0.55 at 1970-01-01T00:00:00Z.',)
    """
    said = []
    for loss in dict.fromkeys(rise.loss for rise in found):
        first, *more = [rise for rise in found if rise.loss == loss]
        who = f"{first.detector} sees" if not more else f"{first.detector} and {more[0].detector} see"
        what = f"from {first.before:.3g} to {first.after:.3g} at {clock.moment(first.at)}"
        said.append(f"{who} the {_WHOSE[loss]} loss rise {what}.")
    return tuple(said)


def _of_one(name: str, losses: Floats, times: NDArray[np.int64], first: int) -> list[Rise | None]:
    """Let each detector see the losses; Page-Hinkley in standard deviations, since its threshold has no scale."""
    from river import drift  # brings scikit-learn: most of what imports this module looks at no loss

    known = losses[:first] if first >= _FEWEST_BEFORE else losses
    scaled = (losses - known.mean()) / (known.std() or 1.0) if len(known) else losses
    detectors = [(ADWIN, drift.ADWIN(), losses), (PAGE_HINKLEY, drift.PageHinkley(mode="up"), scaled)]
    return [_clearest(title, name, detector, seen, losses, times, first) for title, detector, seen in detectors]


def _clearest(
    title: str, name: str, detector: Any, seen: Floats, losses: Floats, times: NDArray[np.int64], first: int
) -> Rise | None:
    """Return the rise that stands out most from chance among those noticed from row `first` on."""
    best, clearest, start = None, 0.0, 0
    for at, value in enumerate(seen.tolist()):
        detector.update(value)
        if not detector.drift_detected:
            continue
        if at >= first and _rises(losses[start : at + 1]):
            turn = start + _turn(losses[start:], at - start)
            before, after = float(losses[start:turn].mean()), float(losses[turn:].mean())
            rows_before, rows_after = turn - start, len(losses) - turn
            clear = (after - before) * float(np.sqrt(rows_before * rows_after / (rows_before + rows_after)))
            if clear > clearest:
                best, clearest = Rise(title, name, int(times[turn]), before, after), clear
        start = at + 1  # River's detectors begin anew after an alarm
    return best


def _rises(losses: Floats) -> bool:
    """Tell whether the losses at which a detector alarmed are low first: ADWIN alarms of those that fall, too.

    Examples
    --------
    >>> _rises(np.array([1.0, 5.0])), _rises(np.array([5.0, 1.0]))
    (True, False)
    """
    sums = np.cumsum(losses - losses.mean())[:-1]
    return bool(len(sums)) and bool(-sums.min() > sums.max())


def _turn(losses: Floats, noticed: int) -> int:
    """Return the row from which losses are higher: up to the one before, the sum of their deviations is lowest (CUSUM).

    An alarm comes soon after the turn; the rows that follow tell better where it was.

    Examples
    --------
    >>> _turn(np.array([1.0, 1.0, 1.0, 5.0, 5.0]), noticed=4)
    3
    """
    return int(np.argmin(np.cumsum(losses - losses.mean())[:noticed])) + 1
