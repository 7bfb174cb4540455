"""What knows the label too well: a feature alone, or its mere absence. Pure.

Every feature is cut into bins; the mean label of each bin is learned on the earlier rows and tried on the later ones.
A bin of few rows says what all rows say, so that a feature with a value for every row predicts nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.predictions import Outcome
from core.setting_types import Task
from core.settings import Settings
from flows.checks.columns import Column, Numbers
from flows.checks.report import DataCheck, allow_it, found, to_check

Codes = NDArray[np.int64]
MIN_LATER, MIN_OF_A_CLASS = 200, 20
"""Later rows, and rows of each of two classes among them, below which nothing is said of a feature alone."""

MIN_GROUP, MIN_PARTS = 30, 10
"""Rows in which a feature is missing (or there), and hundredths of the stream that have some, to say something of it:
one storm in which a sensor fails is one event, however many rows it has."""

_BINS, _SAMPLE, _SHRINK = 256, 50_000, 10.0
_PARTS, _LIFT, _Z = 100, 20.0, 2.33


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of all rows, in order of time, and which rows are learned from and which are tried.

    Attributes
    ----------
    codes : array of int
        The position of each row's label among the distinct ones.
    values : array of float
        The labels of a regression; else the codes.
    names : list
        The distinct labels.
    earlier, later : array of bool
        Rows to learn from, and rows to try on.
    """

    codes: Codes
    values: Numbers
    names: list[Outcome]
    earlier: NDArray[np.bool_]
    later: NDArray[np.bool_]

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], earlier: NDArray[np.bool_], later: NDArray[np.bool_]) -> Labels:
        """Prepare labels; numbers keep their order."""
        names, codes = np.unique(np.array(outcomes), return_inverse=True)
        codes = codes.astype(np.int64)
        values = codes.astype(np.float64) if names.dtype.kind in "UO" else names.astype(np.float64)[codes]
        return cls(codes, values, names.tolist(), earlier, later)


def leak_checks(
    columns: Sequence[Column], labels: Labels, settings: Settings
) -> tuple[list[DataCheck], dict[str, float]]:
    """Return the features that predict the label too well, and how well each does (0 for one that tells nothing)."""
    task = settings.task
    limit, what = {
        "binary": (settings.validation.max_auc, "ROC AUC"),
        "multiclass": (settings.validation.max_gain, "share of the mistakes avoided"),
        "regression": (settings.validation.max_r2, "share of the variance explained"),
    }[task]
    if not _enough(labels, task):
        said = f"Too few later rows to say what a feature alone predicts: {int(labels.later.sum()):,}."
        return [DataCheck("leak", "passed", None, limit, said)], {}
    scores = {column.name: alone(column, labels, task) for column in columns}
    failed = [
        DataCheck("leak", "failed", score, limit, _leaks(column.name, what, score), column.name)
        for column in to_check(columns, "leak", settings)
        if (score := scores[column.name]) >= limit
    ]
    best = max(scores, key=lambda name: scores[name])
    said = f"No feature alone predicts the label too well on later rows; the best is {best}, {what} {scores[best]:.3f}."
    return found(failed, DataCheck("leak", "passed", scores[best], limit, said)), scores


def absence_checks(columns: Sequence[Column], labels: Labels, settings: Settings) -> list[DataCheck]:
    """Return the features that have (nearly) one label only where they are missing, or where they are there.

    Rows that lack a feature for an honest reason, such as bad weather, have that label more often, but not always.
    How often is the lower end of an interval, because some rows may have it by chance; and what is common among all
    rows is no wonder among these: the odds must be so many times those of the others.
    """
    limit, failed, largest = settings.validation.max_absence, [], 0.0
    for column in to_check(columns, "absence", settings):
        for group, state in ((column.missing, "missing"), (~column.missing, "there")):
            told = one_label(group, labels)
            if told is None:
                continue
            least, label, share, usual = told
            odds = _LIFT * usual / max(1.0 - usual, 1e-9)
            needed = max(limit, odds / (1.0 + odds))
            largest = max(largest, least)
            if least >= needed:
                said = _absent(column.name, state, int(group.sum()), (labels.names[label], share, usual))
                failed.append(DataCheck("absence", "failed", least, needed, said, column.name))
    said = "No feature's mere absence, or presence, tells the label."
    return found(failed, DataCheck("absence", "passed", largest, limit, said))


def alone(column: Column, labels: Labels, task: Task) -> float:
    """Return how well a feature alone predicts the later labels: ROC AUC, share of mistakes avoided, or R2."""
    bins, count = _bins(column, labels.earlier)
    if task == "regression":
        return _explained(column, bins, count, labels)
    classes = len(labels.names)
    before, after = (
        np.bincount(bins[rows] * classes + labels.codes[rows], minlength=count * classes).reshape(count, classes)
        for rows in (labels.earlier, labels.later)
    )
    return _auc(before, after) if task == "binary" else _avoided(before, after)


def one_label(group: NDArray[np.bool_], labels: Labels) -> tuple[float, int, float, float] | None:
    """Return the commonest label of some rows: its share at least and as measured, and its share of the other rows.

    Returns
    -------
    (least, label, share, usual) or None
        None where there are too few of these rows, or they come from too few times, or there are no others.
    """
    inside = int(group.sum())
    if inside < MIN_GROUP or len(group) - inside < MIN_GROUP:
        return None
    counts = np.bincount(labels.codes[group], minlength=len(labels.names))
    label = int(counts.argmax())
    places = np.flatnonzero(group)
    parts = places * _PARTS // len(group)
    in_part = np.bincount(parts, minlength=_PARTS)
    with_label = np.bincount(parts, labels.codes[places] == label, minlength=_PARTS)
    some = in_part > 0
    if int(some.sum()) < MIN_PARTS:
        return None
    share = counts[label] / inside
    cautious = min(share, float((with_label[some] / in_part[some]).mean()))
    usual = float((labels.codes[~group] == label).mean())
    return _at_least(cautious, inside), label, float(share), usual


def _enough(labels: Labels, task: Task) -> bool:
    if int(labels.later.sum()) < MIN_LATER or int(labels.earlier.sum()) < MIN_LATER:
        return False
    if task == "regression":
        return True
    return all(
        int((np.bincount(labels.codes[rows]) >= MIN_OF_A_CLASS).sum()) >= 2 for rows in (labels.earlier, labels.later)
    )


def _bins(column: Column, earlier: NDArray[np.bool_]) -> tuple[Codes, int]:
    """Return each row's bin, and how many there are; the first is for missing."""
    missing = column.missing
    if column.kind == "category":
        codes = np.where(missing, 0, np.nan_to_num(column.values) + 1).astype(np.int64)
        return codes, len(column.categories) + 1
    known = column.values[earlier & ~missing]
    sample = known[:: max(len(known) // _SAMPLE, 1)]
    edges = np.unique(sample)
    if len(edges) > _BINS:
        edges = np.unique(np.quantile(sample, np.linspace(0.0, 1.0, _BINS + 1), method="nearest"))
    sides = (np.searchsorted(edges, column.values, side) for side in ("left", "right"))
    codes = np.where(missing, 0, 1 + sum(sides)).astype(np.int64)  # a frequent value is an edge, and has its own bin
    return codes, 2 * len(edges) + 2


def _auc(before: Codes, after: Codes) -> float:
    base = before[:, 1].sum() / before.sum()
    chance = (before[:, 1] + _SHRINK * base) / (before.sum(axis=1) + _SHRINK)
    order = np.argsort(chance, kind="stable")
    groups = np.r_[0, np.cumsum(np.diff(chance[order]) > 0.0)]
    negative, positive = (np.bincount(groups, after[order, side]) for side in (0, 1))
    below = np.cumsum(negative) - negative
    pairs = positive.sum() * negative.sum()
    return float((positive * (below + 0.5 * negative)).sum() / pairs) if pairs else 0.5


def _avoided(before: Codes, after: Codes) -> float:
    base = before.sum(axis=0) / before.sum()
    guesses = np.argmax(before + _SHRINK * base, axis=1)
    rows, common = after.sum(), after[:, int(base.argmax())].sum()
    right = after[np.arange(len(after)), guesses].sum()
    return float((right - common) / (rows - common)) if rows > common else 0.0


def _explained(column: Column, bins: Codes, count: int, labels: Labels) -> float:
    """Return R2 of what lies between the bins' means, on labels without their extremes."""
    earlier, later = labels.earlier, labels.later
    low, high = np.quantile(labels.values[earlier], [0.001, 0.999])
    target = np.clip(labels.values, low, high)
    rows = np.bincount(bins[earlier], minlength=count)
    base = float(target[earlier].mean())
    means = (np.bincount(bins[earlier], target[earlier], minlength=count) + _SHRINK * base) / (rows + _SHRINK)
    predicted = means[bins[later]]
    if column.kind == "number":
        values = np.nan_to_num(column.values)
        some = np.flatnonzero((rows >= _SHRINK) & (np.arange(count) > 0))
        if len(some) > 1:
            sums = [np.bincount(bins[earlier], what[earlier], minlength=count)[some] for what in (values, target)]
            middle, level = (total / rows[some] for total in sums)
            between = np.interp(values[later], middle, level)
            predicted = np.where(column.missing[later], predicted, between)
    spread = float(((target[later] - target[later].mean()) ** 2).sum())
    return max(1.0 - float(((target[later] - predicted) ** 2).sum()) / spread, 0.0) if spread else 0.0


def _at_least(share: float, rows: int) -> float:
    """Return the lower end of Wilson's interval of a share, on one side at 1 %."""
    square = _Z * _Z
    middle = share + square / (2 * rows)
    half = _Z * float(np.sqrt(share * (1.0 - share) / rows + square / (4 * rows * rows)))
    return float((middle - half) / (1.0 + square / rows))


def _leaks(name: str, what: str, score: float) -> str:
    return (
        f"{name} alone predicts the label on later rows ({what} {score:.3f}): is it known when the event is predicted, "
        f"or filled in afterwards? Leave it out of the features, or {allow_it(name, 'leak')}."
    )


def _absent(name: str, state: str, rows: int, told: tuple[Outcome, float, float]) -> str:
    label, share, usual = told
    return (
        f"where {name} is {state} ({rows:,} rows) the label is {label} in {share:.1%}, of the other rows in "
        f"{usual:.1%}: is it filled in once the outcome is known? Leave it out of the features, "
        f"or {allow_it(name, 'absence')}."
    )
