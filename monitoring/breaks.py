"""What a window must not be learned from: a column gone, a unit changed, labels turned round. Pure.

Drift is how a stream changes; a break is how a pipeline fails. It is large, it comes from one window to the next, and
it leads where the stream's own past has not been.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy.stats import ks_2samp

from core.settings import Settings
from core.tables import feature_column
from monitoring.agreement import agreement
from monitoring.calibration import Surprise
from monitoring.columns import take_sample
from monitoring.days import AGREES, CONTRADICTS, contradicting_days, gone_by_day, has_days, named
from monitoring.signals import Signals

GONE = 0.5
"""Rise of the share of missing values from which a column is gone."""

ABRUPT = 1.5
"""A break is at least so many times the largest step between two windows of the reference, ..."""

FAR = 1.0
"""... and at least that long: standard deviations for numbers; for categories all of 0.83 but a fifth."""

UNHEARD_OF = 3.0
"""Where too few windows followed each other to know their steps, a number's break is at least so many deviations."""

MOVED_ROWS = 0.25
"""A number's break moves at least this share of the rows (the Kolmogorov-Smirnov distance), not only the mean."""

_FAR_CATEGORIES = 0.65
_UNUSUAL = 2.0


@dataclass(frozen=True, eq=False)
class Features:
    """A window's features beside the reference's.

    Attributes
    ----------
    current, reference : pyarrow.Table
        Rows of the window, and of the reference.
    settings : Settings
        The project file.
    steps : mapping of str to float
        The largest distance between two windows of the reference that followed each other, of each feature.
    surprise : Surprise or None
        How unusual the window is; without it only columns that are gone are found.
    """

    current: pa.Table
    reference: pa.Table
    settings: Settings
    steps: Mapping[str, float]
    surprise: Surprise | None

    @property
    def unusual(self) -> set[str]:
        """The features that are unusually far from the reference: of the others none can be an abrupt step."""
        moved = self.surprise.moved if self.surprise else ()
        return {signal.name for signal in moved if signal.score >= _UNUSUAL}

    def abrupt_steps(self, earlier: pa.Table) -> dict[str, float]:
        """Return the features that are an abrupt step away from an earlier window's, and how far.

        One that never moved is none: it has no scale that would tell a unit from another, and what was fitted on it
        learned nothing from it. The counter that moves at last (a year, a version) is drift.
        """
        settings = self.settings
        unusual = {name for name in self.unusual if _has_moved(self.reference, name)}
        if not unusual or not earlier.num_rows:
            return {}
        sides = [take_sample(side, settings.windows.sample) for side in (self.current, earlier, self.reference)]
        common = [name for name in sides[0].column_names if all(name in side.column_names for side in sides)]
        signals = Signals.of(pa.concat_tables([side.select(common) for side in sides]), settings, "data")
        ends = np.cumsum([len(side) for side in sides])
        places = [np.arange(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        moved = signals.distances(places[0], places[1], places[2])
        abrupt = {name: far for name, far in moved.items() if name in unusual and _is_abrupt(name, far, self)}
        return {name: far for name, far in abrupt.items() if _rows_moved(name, sides[0], sides[1], settings)}


def data_breaks(features: Features, previous: pa.Table) -> list[str]:
    """Return why a window's features are not to be learned from, a sentence each.

    Parameters
    ----------
    previous : pyarrow.Table
        Rows of the window before; empty if there was none.
    """
    current, reference, settings, steps = features.current, features.reference, features.settings, features.steps
    by_day = gone_by_day(current, reference, settings) if has_days(settings) else {}
    gone = {**by_day, **_gone(current, reference, settings)}
    abrupt = {
        name: f"{name} moved by {_with_unit(name, step, settings)} from one window to the next"
        + (f" (the largest step before was {steps[name]:.2f})" if name in steps else "")
        + ": was its unit or its meaning changed?"
        for name, step in features.abrupt_steps(previous).items()
        if name not in gone
    }
    return [*gone.values(), *abrupt.values()]


def data_doubts(features: Features, earlier: Iterable[pa.Table]) -> list[str]:
    """Return why features that follow a break are still broken: they are as far from where they were before it.

    Parameters
    ----------
    earlier : iterable of pyarrow.Table
        Rows of the windows more than one before, the latest first.
    """
    found: dict[str, float] = {}
    for window in earlier:
        found = {**features.abrupt_steps(window), **found}
    return [
        f"{name} is still {_with_unit(name, step, features.settings)} from where it was before."
        for name, step in found.items()
    ]


def label_breaks(
    examples: pa.Table,
    reference: pa.Table,
    settings: Settings,
    until: int | None = None,
    skill: float | None = None,
) -> list[str]:
    """Return why a window's labels are not to be learned from: the champion, right before, is wrong the other way.

    Parameters
    ----------
    examples, reference : pyarrow.Table
        Labelled rows of the window that are known by now, and the reference.
    until : int or None
        Now, ms: of the window's days those count whose labels are due. None for all.
    skill : float or None
        The champion's on its own hold-out, for a reference of rows of which too few were served to tell what is usual.
    """
    before = _usual_agreement(reference, settings, skill)
    if before is None or before < AGREES:
        return []
    now, on = agreement(examples, "champion", settings.task), ""
    if (now is None or now > CONTRADICTS) and has_days(settings):
        days, now = contradicting_days(examples, settings, until)
        on = f" on {named(days)}" if days else ""
    if now is None or now > CONTRADICTS:
        return []
    return [
        f"The labels contradict the champion{on}: their agreement is {now:+.2f}, where {before:+.2f} was usual; "
        "were they turned round?"
    ]


def label_doubts(examples: pa.Table, reference: pa.Table, settings: Settings, skill: float | None = None) -> list[str]:
    """Return why labels that follow a break may still be broken: the champion is not right again.

    Parameters
    ----------
    examples, reference : pyarrow.Table
        Labelled rows of the window that are known by now, and the reference.
    skill : float or None
        As of :func:`label_breaks`.
    """
    before, now = _usual_agreement(reference, settings, skill), agreement(examples, "champion", settings.task)
    if before is None or before < AGREES or now is None or now >= AGREES / 2:
        return []
    return [f"The labels do not agree with the champion again: their agreement is {now:+.2f}, {before:+.2f} was usual."]


def _usual_agreement(reference: pa.Table, settings: Settings, skill: float | None) -> float | None:
    served = agreement(reference, "served", settings.task)
    return skill if served is None else served


def _gone(current: pa.Table, reference: pa.Table, settings: Settings) -> dict[str, str]:
    found = {}
    for name in settings.batch_kinds:
        column = feature_column(name)
        if column not in reference.column_names or not current.num_rows or not reference.num_rows:
            continue
        now = current[column].null_count / current.num_rows
        before = reference[column].null_count / reference.num_rows
        if now - before > GONE:
            found[name] = f"{name} is missing in {now:.0%} of the rows, where {before:.0%} was usual."
    return found


def _has_moved(rows: pa.Table, name: str) -> bool:
    column = feature_column(name)
    return column in rows.column_names and len(rows[column].drop_null().unique()) > 1


def _rows_moved(name: str, current: pa.Table, earlier: pa.Table, settings: Settings) -> bool:
    """Tell a new unit, which moves every row, from a storm or a price spike, which moves the mean by a few of them."""
    if settings.batch_kinds[name] != "number":
        return True
    columns = [side[feature_column(name)].drop_null().cast(pa.float64()).to_numpy() for side in (current, earlier)]
    finite = [column[np.isfinite(column)] for column in columns]
    return not all(map(len, finite)) or float(ks_2samp(*finite, method="asymp").statistic) >= MOVED_ROWS


def _with_unit(name: str, step: float, settings: Settings) -> str:
    """Return a step with its unit."""
    return f"{step:.2f} standard deviations" if settings.batch_kinds[name] == "number" else f"a distance of {step:.2f}"


def _is_abrupt(name: str, step: float, features: Features) -> bool:
    is_number, steps = features.settings.batch_kinds[name] == "number", features.steps
    if name not in steps:
        return is_number and step >= UNHEARD_OF
    return step >= max(ABRUPT * steps[name], FAR if is_number else _FAR_CATEGORIES)
