"""Whether to retrain: at the bootstrap, on drift that lasts or many more rows, if worth it, on schedule. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from core.audit import Trigger
from core.clocks import Clock
from core.durations import DAY, HOUR, WEEK
from core.loop_settings import RetrainSettings
from core.settings import Settings
from monitoring.decision import PolicyState, Retraining
from monitoring.gain import Prospect, expected_gain, growth
from monitoring.judgement import Evidence, judge

_NAMED = 3
"""Windows that a sentence names."""


def retraining(evidence: Evidence, state: PolicyState, settings: Settings) -> Retraining:
    """Return whether to retrain now."""
    now, last = evidence.window.due, state.last_retraining
    if evidence.open_retraining or (last is not None and now <= last):
        return Retraining()
    if evidence.champion is None:
        reason = _bootstrap_reason(evidence, last, settings)
        return Retraining("bootstrap", (reason,)) if reason else Retraining()
    prospect = _prospect(evidence, state, settings)
    gain = None if prospect is None else expected_gain(prospect, evidence.past)
    found = _found(evidence, state, settings)
    why_not = (
        _not_worth_it(gain, settings.retrain, settings.clock)
        or _over_budget(evidence, settings.retrain)
        or _not_decided(evidence)
    )
    if found is not None and why_not is None:
        trigger, reasons = found
        return Retraining(trigger, (*reasons, *_gain_reasons(gain)), prospect, gain)
    if scheduled := _schedule_reason(evidence, last, settings):
        return Retraining("schedule", (scheduled,), prospect, gain)
    return Retraining(None, (f"{found[1][0]} {why_not}",), prospect, gain) if found else Retraining()


def _found(evidence: Evidence, state: PolicyState, settings: Settings) -> tuple[Trigger, tuple[str, ...]] | None:
    """Return what speaks for a retraining at no set time: drift, or many more rows; not soon after another."""
    last = state.last_retraining
    if last is not None and evidence.window.due < last + settings.drift.cooldown:
        return None
    if reason := _drift_reason(evidence, state, settings):
        return "drift", (reason, *judge(evidence, settings.drift).reasons)
    reason = _growth_reason(evidence, settings)
    return None if reason is None else ("growth", (reason,))


def _prospect(evidence: Evidence, state: PolicyState, settings: Settings) -> Prospect | None:
    """Return what a retraining would have to work with; None where it is not known what the champion was trained on."""
    if not evidence.trained_rows:
        return None
    more = growth(evidence.examples, evidence.trained_rows, settings.batch.max_rows)
    return Prospect(more, state.shortfall)


def _gain_reasons(gain: float | None) -> tuple[str, ...]:
    return () if gain is None else (f"A retraining is expected to lower the served loss by {gain:.2%}.",)


def _not_worth_it(gain: float | None, retrain: RetrainSettings, clock: Clock) -> str | None:
    """Return why the expected gain does not pay."""
    if gain is None:
        return None
    if gain < retrain.min_gain:
        return (
            f"A retraining is expected to lower the served loss by {gain:.2%}, "
            f"less than retrain.min_gain {retrain.min_gain:.2%}."
        )
    if retrain.worth is None:
        return None
    cost = retrain.cost + retrain.cost_per_hour * retrain.duration / HOUR
    until = retrain.every or 4 * WEEK
    worth = 100.0 * gain * retrain.worth * until / DAY
    if worth >= cost:
        return None
    return f"A retraining costs {cost:.2f} and is expected to be worth {worth:.2f} over {clock.span(until)}."


def _over_budget(evidence: Evidence, retrain: RetrainSettings) -> str | None:
    since = evidence.window.due - DAY
    today = sum(moment > since for moment in evidence.retrainings)
    if today < retrain.per_day:
        return None
    return f"There were {today} retrainings within {evidence.window.clock.day}, as many as retrain.per_day allows."


def _not_decided(evidence: Evidence) -> str | None:
    """A new challenger would take the place of the one in shadow: where drift lasts, none would ever be decided."""
    if evidence.in_shadow is None:
        return None
    return (
        f"Version {evidence.in_shadow} predicts in shadow, and is decided first, or at the next retraining that is due."
    )


def _bootstrap_reason(evidence: Evidence, last: int | None, settings: Settings) -> str | None:
    now, retrain = evidence.window.due, settings.retrain
    ready = now >= evidence.first_event + retrain.bootstrap_after
    rested = last is None or now >= last + settings.windows.span
    if not (ready and rested and evidence.examples >= retrain.min_examples):
        return None
    return (
        f"There is no champion, and {evidence.examples} examples were gathered in the "
        f"{settings.clock.span(now - evidence.first_event)} since the first event."
    )


def _drift_reason(evidence: Evidence, state: PolicyState, settings: Settings) -> str | None:
    """Count the latest windows judged at this stage that either stage found drifted."""
    drift = settings.drift
    if not settings.retrain.on_drift:
        return None
    own = state.data if evidence.window.stage == "data" else state.labels
    drifted = _drifted(state)
    starts = [verdict.start for verdict in own if verdict.start in drifted]
    count = len(starts)
    judged_now = bool(own) and own[-1].start == evidence.window.start
    if not judged_now or own[-1].start not in drifted or count < drift.persistence:
        return None
    limit = f"{drift.persistence} of {drift.of_windows}"
    which = _named(starts, drifted, settings.clock)
    return f"{count} of the latest {len(own)} judged windows have drifted (limit {limit}): {which}."


def _drifted(state: PolicyState) -> dict[int, list[str]]:
    """Return the starts of the windows that either stage found drifted, and the names of what has."""
    found: dict[int, list[str]] = {}
    for verdict in (*state.data, *state.labels):
        if verdict.drifted:
            names = found.setdefault(verdict.start, [])
            names += [name for name in verdict.what if name not in names]
    return found


def _named(starts: Sequence[int], drifted: Mapping[int, Sequence[str]], clock: Clock) -> str:
    """Say which windows have drifted and what of them, the latest if there are many."""
    told = [f"that from {clock.moment(start)}" + _inside(drifted[start]) for start in starts[-_NAMED:]]
    earlier = f"{len(starts) - _NAMED} earlier, " if len(starts) > _NAMED else ""
    return earlier + ", ".join(told)


def _inside(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if names else ""


def _growth_reason(evidence: Evidence, settings: Settings) -> str | None:
    """What a batch model gains follows how many times more rows there are, not how many months have passed."""
    times, trained = settings.retrain.growth, evidence.trained_rows
    usable = min(evidence.examples, settings.batch.max_rows)
    if times is None or not trained or usable < times * trained:
        return None
    return (
        f"There are {usable:,} labelled rows, {usable / trained:.1f} times the {trained:,} "
        f"that the champion was trained on (limit {times:g})."
    )


def _schedule_reason(evidence: Evidence, last: int | None, settings: Settings) -> str | None:
    every, now = settings.retrain.every, evidence.window.due
    since = evidence.first_event if last is None else last
    if every is None or now < since + every:
        return None
    what = "first event was" if last is None else "latest retraining was decided"
    clock = settings.clock
    return f"The {what} at {clock.moment(since)}; a retraining is due every {clock.span(every)}."
