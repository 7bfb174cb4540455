"""Where a version should not be trusted, in plain sentences that each follow from a fact. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.features import OTHER
from core.predictions import Outcome
from core.settings import Settings
from core.wording import counted, listed
from flows.card.importance import Ranking
from flows.card.slices import CardSlices, shown
from flows.checks.report import DataReport
from flows.evaluation import Evaluation
from monitoring.page.wording import number, share, short

_OFTEN_MISSING = 0.2
_MAX_NAMES = 20


@dataclass(frozen=True, eq=False)
class Known:
    """What the limits follow from.

    Attributes
    ----------
    outcomes : sequence
        Labels of the rows that the registered version was fitted on.
    trained : (int, int)
        From which event on, and up to which, ms.
    importance : Ranking or None
        None where it is not known.
    without : sequence of str
        Features that it was fitted without.
    """

    settings: Settings
    outcomes: Sequence[Outcome]
    trained: tuple[int, int]
    checks: DataReport
    evaluation: Evaluation
    slices: CardSlices
    importance: Ranking | None
    without: Sequence[str] = ()


def limits_of(known: Known) -> list[str]:
    """Return the sentences, the most general first."""
    parts = (_of_time, _of_refit, _of_labels, _of_left_out, _of_outcomes, _of_features, _of_slices, _of_warnings)
    return [shown(sentence, known.settings) for part in parts for sentence in part(known)]


def _of_time(known: Known) -> Iterator[str]:
    said = known.settings.clock.between(*known.trained)
    yield f"It has seen events from {said}, and nothing of other times: seasons that are not in there are new to it."


def _of_refit(known: Known) -> Iterator[str]:
    found, clock = known.evaluation, known.settings.clock
    yield (
        f"What is said of its quality was measured on a challenger that had not seen the hold-out "
        f"({clock.between(found.start, found.end)}). The registered version is the same candidate, fitted again on all "
        "rows, the hold-out too: nothing but the stream can judge it."
    )
    if found.experts:
        yield (
            f"It is not served by itself, but blended with the online experts {', '.join(found.experts)}, which learn "
            "from every label and cover for it."
        )


def _of_labels(known: Known) -> Iterator[str]:
    label, clock = known.settings.label, known.settings.clock
    yield f"A label that comes more than {clock.span(label.horizon)} after its event's arrival is not learned from." + (
        "" if label.missing is None else f" An event without a label by then counts as {short(label.missing)!r}."
    )


def _of_left_out(known: Known) -> Iterator[str]:
    why = {
        "immature": "labelled rows were left out as too young: labels of their age may still come",
        "quarantined": "labelled rows were left out: their windows are in quarantine",
        "older": "older labelled rows were left out: batch.max_rows is full",
        "repeated": "labelled rows were left out: their id came again",
    }
    for name, said in why.items():
        if count := known.checks.rows.get(name):
            yield f"{count:,} {said}."


def _of_outcomes(known: Known) -> Iterator[str]:
    task, labels = known.settings.task, known.outcomes
    if task == "regression":
        low, high = np.quantile(np.array(labels, dtype=float), (0.01, 0.99))
        yield f"98 % of the labels that it learned from are from {number(low)} to {number(high)}; beyond, it guesses."
    elif task == "binary":
        rate = float(np.mean([int(label) for label in labels]))
        yield f"Of the labels that it learned from {share(rate)} were positive; where that changes, it is off."
    else:
        names, counts = np.unique([str(label) for label in labels], return_counts=True)
        order = np.argsort(-counts, kind="stable")
        said = [f"{short(names[one])} ({share(counts[one] / len(labels))})" for one in order]
        yield f"It knows these classes only, and never predicts another: {listed(said, _MAX_NAMES)}."


def _of_features(known: Known) -> Iterator[str]:
    features, settings = known.checks.features, known.settings
    numbers = [name for name, kind in settings.batch_kinds.items() if kind == "number" and name not in known.without]
    yield from _of_missing(features)
    yield from _of_others(features)
    yield from _of_ranges({name: features[name] for name in numbers if name in features})
    if unused := [name for name in settings.feature_kinds if name not in settings.batch_kinds]:
        yield f"It cannot use {_named(unused)}: text, or for the online experts only."
    if known.without:
        yield f"It does without {_named(known.without)}: in the search, it was no worse without."
    if known.importance is not None:
        unsure = sorted(one.feature for one in known.importance.features if not one.is_sure)
        if unsure:
            yield (
                f"Shuffling {_named(unsure)} does not surely make it worse: it hardly uses "
                f"{'it' if len(unsure) == 1 else 'them'}, or has the same from another feature."
            )


def _of_missing(features: Mapping[str, Mapping[str, float | None]]) -> Iterator[str]:
    often = []
    for name, facts in features.items():
        before, then = facts.get("missing") or 0.0, facts.get("missing in hold-out") or 0.0
        if max(before, then) >= _OFTEN_MISSING:
            often.append(f"{name} ({share(before)}, of the hold-out {share(then)})")
    if often:
        yield f"Often missing, so that it has learned little from it: {_named(often)}."


def _of_others(features: Mapping[str, Mapping[str, float | None]]) -> Iterator[str]:
    many = [f"{name} ({share(other)})" for name, facts in features.items() if (other := facts.get("other") or 0.0) > 0]
    if many:
        yield f"More categories than max_categories, so that these rows' are all the same one, {OTHER}: {_named(many)}."


def _of_ranges(features: Mapping[str, Mapping[str, float | None]]) -> Iterator[str]:
    known = [
        f"{name} {number(facts['1 %'])} to {number(facts['99 %'])}"
        for name, facts in features.items()
        if facts.get("1 %") is not None and facts.get("99 %") is not None
    ]
    if known:
        yield f"Of each number it has seen 98 % between these two, and little beyond: {'; '.join(known)}."


def _of_slices(known: Known) -> Iterator[str]:
    least = known.settings.gates.min_slice_rows
    if small := known.slices.too_small:
        said = _named([f"{name} ({counted(count, 'value')})" for name, count in small.items()])
        yield f"Too few held-out rows to be judged on, below {least}: {said}."
    worse = [one.name for one in known.slices.judged if (one.over_trivial.relative or 0.0) >= 0.0]
    if worse:
        yield f"No better than predicting the same for every row on {_named([short(name) for name in worse])}."
    if not known.slices.judged:
        yield f"It was judged on no slice: none has {least} held-out rows."


def _of_warnings(known: Known) -> Iterator[str]:
    for warning in known.checks.warnings:
        yield f"A check of the data warns: {warning}"


def _named(names: Sequence[str]) -> str:
    return listed(names, _MAX_NAMES)
