"""What the policies are worth: metrics on the rows that all of them predicted, whole and by period. Pure."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np

from backtest.outcome import Outcome, Retraining, ServedRows
from backtest.policies import Policy
from backtest.shadowing import Ended
from backtest.tape import Tape
from core.clocks import Clock
from core.durations import ROW
from core.metrics import METRICS, SMALLER_IS_BETTER, loss, score
from core.models import CHALLENGER, PREVIOUS
from core.predictions import Prediction, is_sane
from core.recorded import FIRST_ROW, ROW_TIME
from core.settings import Settings
from core.spans import window_origin
from core.tables import PREDICTIONS, milliseconds
from core.wording import counted

_PERIODS = 10
Metrics = dict[str, dict[str, float | None]]
INCOMPARABLE = (
    "The policies cannot be compared: there is no row whose label came that every expert of every policy predicted. "
    "Take more of the stream, or leave the policies out whose champion came last."
)


@dataclass(frozen=True, eq=False)
class Common:
    """The rows that every expert of every policy predicted, and whose label came.

    Attributes
    ----------
    rows : array of int
        Their places in the predictions table, in its order.
    outcomes : list
        Their labels.
    periods : list of str
        The period of each: its month, or its tenth of a file without times.
    windows : array of int
        Where the window of each starts, ms.
    """

    rows: np.ndarray[Any, np.dtype[np.int64]]
    outcomes: list[Any]
    periods: list[str]
    windows: np.ndarray[Any, np.dtype[np.int64]]

    @cached_property
    def full_periods(self) -> list[str]:
        """Those that hold at least half as many rows as the one in the middle: the first and the last are often cut."""
        counts = Counter(self.periods)
        return [period for period, rows in counts.items() if 2 * rows >= statistics.median(counts.values())]


def common_rows(tape: Tape, outcomes: Sequence[Outcome], settings: Settings) -> Common:
    """Find them; a champion's, under those policies that ever got one."""
    labels = {int(row): outcome for row, outcome in reversed(list(zip(tape.label_row, tape.outcomes, strict=True)))}
    names = {expert.name for expert in settings.online}
    active = {name for name in names if any(name in online for online in tape.online)}
    rows = [
        row
        for row in sorted(labels)
        if all(outcome.rows.online[row].keys() >= active for outcome in outcomes)
        and all(is_sane(outcome.rows.published[row]) for outcome in outcomes)
        and all(outcome.rows.champion[row] is not None for outcome in outcomes if outcome.rows.has_champion)
    ]
    times = milliseconds(tape.tables.whole(PREDICTIONS)["event_time"])[rows]
    span = settings.windows.span
    origin = window_origin(tape.first_event, span)
    return Common(
        np.array(rows, dtype=np.int64),
        [labels[row] for row in rows],
        _periods(times, tape, settings),
        (times - origin) // span * span + origin,
    )


def result(tape: Tape, outcomes: Sequence[Outcome], settings: Settings, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Return everything as JSON values; equal from run to run but for what is called seconds."""
    common = common_rows(tape, outcomes, settings)
    metrics, clock = METRICS[settings.task], settings.clock
    return {
        "project": settings.name,
        "task": settings.task,
        "metrics": {name: "smaller" if name in SMALLER_IS_BETTER else "larger" for name in metrics},
        "time": clock.name,
        "window": clock.setting(settings.windows.span),
        "rows": {"events": len(tape.online), "labels": len(tape.outcomes), "common": len(common.rows)},
        "periods": len(common.full_periods),
        "refused": dict(tape.unused.refused),
        "repeated": dict(tape.unused.repeated),
        "unjoined": dict(tape.unused.unjoined),
        "first_event": clock.to_json(tape.first_event),
        "last_event": clock.to_json(tape.last_event),
        "policies": {outcome.policy.name: _of_policy(outcome, common, settings) for outcome in outcomes},
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
    }


def never_judged(tape: Tape, policies: Sequence[Policy]) -> list[str]:
    """Say of which policies no window can ever be judged, because none has rows enough, and what to do."""
    times = milliseconds(tape.tables.whole(PREDICTIONS)["event_time"])
    told: dict[str, list[str]] = {}
    for policy in policies:
        span, least = policy.settings.windows.span, policy.settings.drift.min_rows
        most = int(np.unique((times - window_origin(tape.first_event, span)) // span, return_counts=True)[1].max())
        if policy.batch and most < least:
            said = f"no window was judged: the largest holds {counted(most, 'event')}, drift.min_rows is {least:,}"
            told.setdefault(f"{said}; take longer windows (windows.span), or lower it", []).append(policy.name)
    return [f"{', '.join(names)}: {said}" for said, names in told.items()]


def _of_policy(outcome: Outcome, common: Common, settings: Settings) -> dict[str, Any]:
    rows, online = outcome.rows, outcome.rows.online
    columns: dict[str, list[Prediction]] = {"served": [_sure(rows.published[row]) for row in common.rows.tolist()]}
    if rows.has_champion:
        columns["champion"] = [_sure(rows.champion[row]) for row in common.rows]
    for expert in settings.online:
        if all(expert.name in online[row] for row in common.rows):
            columns[expert.name] = [online[row][expert.name] for row in common.rows]
    whole = _metrics(columns, common.outcomes, settings)
    monthly = {period: _metrics(*_part(columns, common, period), settings) for period in dict.fromkeys(common.periods)}
    done, write = outcome.retrainings, settings.clock.to_json
    return {
        **whole,
        "mean_monthly": _means([monthly[period] for period in common.full_periods]),
        "monthly": monthly,
        "over_time": _over_time(columns, common, settings.clock),
        "retrains": len(done),
        "promoted": len(outcome.entered),
        "train_seconds": round(sum(one.attempt.seconds for one in done), 2),
        "rows_trained": sum(one.attempt.rows for one in done if one.attempt.seconds),
        "alerts": len(outcome.alerts),
        "retrainings": [_of_retraining(one, outcome, settings.clock) for one in done],
        "alerted": [
            {
                "window": alert.stage.name,
                "from": write(alert.stage.start),
                "stage": alert.stage.stage,
                "due": write(alert.stage.due),
                "reasons": list(alert.reasons),
            }
            for alert in outcome.alerts
        ],
        "quarantined": [
            {"from": write(start), "to": write(end), "reasons": list(reasons)}
            for (start, end), reasons in outcome.quarantined.items()
        ],
        "rolled_back": [
            {"at": write(end.at), "reasons": [end.why]}
            for end in outcome.ended
            if (end.shadow.role, end.conclusion) == (PREVIOUS, "superior")
        ],
    }


def _of_retraining(one: Retraining, outcome: Outcome, clock: Clock) -> dict[str, Any]:
    version, write = one.attempt.version, clock.to_json
    ends = [end for end in outcome.ended if (end.shadow.role, end.shadow.version) == (CHALLENGER, version)]
    promoted = version in outcome.entered
    undecided = [] if version is None or promoted or ends else ["The stream ended before it was decided."]
    return {
        "trigger": one.trigger,
        "decided_at": write(one.decided_at),
        "effective_at": write(outcome.entered.get(version or 0, one.effective_at)),
        "promoted": promoted,
        "rows": one.attempt.rows,
        "why": list(one.why),
        "gain": one.attempt.gain,
        "shadow": None if not ends else _of_shadow(ends[0], outcome.rows, clock),
        "not_promoted_because": [*one.attempt.reasons, *([] if promoted else [end.why for end in ends]), *undecided],
    }


def _of_shadow(end: Ended, rows: ServedRows, clock: Clock) -> dict[str, Any]:
    verdict = end.verdict.as_json()
    return {
        "from": clock.to_json(end.shadow.since),
        "to": clock.to_json(end.at),
        "conclusion": end.conclusion,
        "labels": verdict["rows"],
        "served": int((rows.canary == end.shadow.version).sum()),
        "saved": verdict["gain"],
    }


def _metrics(columns: Mapping[str, Sequence[Prediction]], outcomes: Sequence[Any], settings: Settings) -> Metrics:
    scores = {name: score(settings.task, values, outcomes) for name, values in columns.items()}
    return {metric: {name: found[metric] for name, found in scores.items()} for metric in METRICS[settings.task]}


def _over_time(columns: Mapping[str, Sequence[Prediction]], common: Common, clock: Clock) -> dict[str, Any]:
    """Return each window that holds common rows: where it starts, how many, and the mean loss of each prediction."""
    starts, places, counts = np.unique(common.windows, return_inverse=True, return_counts=True)
    means = {}
    for name, values in columns.items():
        losses = [loss(value, outcome) for value, outcome in zip(values, common.outcomes, strict=True)]
        means[name] = (np.bincount(places, losses, len(starts)) / counts).tolist()
    return {"from": [clock.to_json(start) for start in starts.tolist()], "rows": counts.tolist(), "loss": means}


def _part(
    columns: Mapping[str, Sequence[Prediction]], common: Common, period: str
) -> tuple[dict[str, list[Prediction]], list[Any]]:
    places = [place for place, its in enumerate(common.periods) if its == period]
    part = {name: [values[place] for place in places] for name, values in columns.items()}
    return part, [common.outcomes[place] for place in places]


def _means(periods: Sequence[Metrics]) -> Metrics:
    """Return the mean over the periods in which a metric is defined."""
    means: Metrics = {}
    for metrics in periods:
        for metric, by_name in metrics.items():
            for name in by_name:
                values = [m[metric][name] for m in periods if m[metric].get(name) is not None]
                means.setdefault(metric, {})[name] = statistics.fmean(values) if values else None  # type: ignore[arg-type]
    return means


def _periods(times: np.ndarray[Any, Any], tape: Tape, settings: Settings) -> list[str]:
    if settings.time != ROW_TIME:
        return [datetime.fromtimestamp(time / 1000, UTC).strftime("%Y-%m") for time in times.tolist()]
    rows = (times - FIRST_ROW) // ROW
    size = -(-len(tape.online) // _PERIODS)
    return [f"rows from {row // size * size:,}" for row in rows.tolist()]


def _sure(prediction: Prediction | None) -> Prediction:
    assert prediction is not None
    return prediction
