"""The whole page: what came out, a table of policies, the chart, and every retraining and alert. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backtest.page.axes import TimeAxis
from backtest.page.chart import charts
from backtest.page.lanes import history, lanes
from backtest.page.plot import swatch
from backtest.page.style import SCRIPT, STYLE
from backtest.page.wording import cost, loss_of, metric_name, number
from backtest.results import INCOMPARABLE
from core.clocks import ROW_CLOCK, UTC_CLOCK
from core.markup import Markup, element, whole_page
from core.wording import counted

_SERVED = "served"


def page(result: Mapping[str, Any]) -> str:
    """Return a result of :func:`backtest.results.result` as one HTML page that needs nothing else.

    Equal results give equal pages: what is called seconds is not on it.
    """
    axis = _time_axis(result)
    policies = result["policies"]
    ranked = _ranked(result)
    title = f"Backtest of {result['project']}"
    body = element(
        "main",
        element("h1", title),
        element("p", _stream(result, axis), class_="quiet"),
        element("p", _finding(result, ranked), class_="lead"),
        element("h2", "Policies"),
        _policies(result),
        element("h2", "Quality over time"),
        element("figure", charts(result, axis, next(iter(ranked), None)), lanes(policies, axis)),
        element("h2", "Retrainings and alerts"),
        [history(place, name, policies[name], axis) for place, name in enumerate(policies)],
        _experts(result) if ranked else "",
    )
    tip = element("div", "", id="tip", hidden="hidden")
    return whole_page(title, STYLE, body, tip, script=SCRIPT)


def _time_axis(result: Mapping[str, Any]) -> TimeAxis:
    """Return the axis from the first event to the last thing that happened."""
    rows = result["time"] == ROW_CLOCK.name
    read = (ROW_CLOCK if rows else UTC_CLOCK).from_json
    moments = [read(result["last_event"]) + 1]
    for policy in result["policies"].values():
        moments += [read(one["decided_at"]) for one in policy["retrainings"]]
        moments += [read(one["due"]) for one in policy["alerted"]]
    return TimeAxis(read(result["first_event"]), max(moments), rows)


def _stream(result: Mapping[str, Any], axis: TimeAxis) -> str:
    rows, refused = result["rows"], sum(result["refused"].values())
    repeated = result["repeated"]["events"]
    left_out = f" ({counted(refused, 'record')} could not be used)" if refused else ""
    left_out += f" ({counted(repeated, 'event')} with the id of an earlier one left out)" if repeated else ""
    times = "" if axis.rows else f" from {axis.text(axis.start)} to {axis.text(axis.read(result['last_event']))}"
    return (
        f"{counted(rows['events'], 'event')}{times}, {counted(rows['labels'], 'label')}"
        f"{left_out}. The policies are compared on "
        f"{counted(rows['common'], 'row')}: those that every expert of every policy predicted."
    )


def _ranked(result: Mapping[str, Any]) -> list[str]:
    """Return the policies from the least loss to the most; of equal ones, the cheaper first."""
    values = _served(result, loss_of(result))
    return sorted(values, key=lambda name: (values[name], result["policies"][name]["rows_trained"]))


def _finding(result: Mapping[str, Any], ranked: Sequence[str]) -> list[object]:
    """Say which policy served best, what it cost, and how far the next one is."""
    if not ranked:
        return [INCOMPARABLE]
    metric, policies = loss_of(result), result["policies"]
    values = _served(result, metric)
    best, *others = ranked

    def figures(name: str, gap: str = "") -> str:
        return f"{metric_name(metric)} {number(values[name])}{gap}, with {cost(policies[name])}."

    said: list[object] = [element("b", best), " served best: " if others else ": ", figures(best)]
    if others:
        more = values[others[0]] - values[best]
        gap = f" ({number(more)} more)" if more else " (the same)"
        said += [" Next is ", element("b", others[0]), ": ", figures(others[0], gap)]
    return said


def _policies(result: Mapping[str, Any]) -> list[Markup]:
    """Return the table of what was served and what it cost; the best of each metric is marked."""
    served = {metric: _served(result, metric) for metric in result["metrics"]}
    costs = ("retrainings", "promoted", "rows trained", "alerts")
    rows = []
    for place, (name, policy) in enumerate(result["policies"].items()):
        cells = [
            _cell(served[metric].get(name), _best(served[metric], way)) for metric, way in result["metrics"].items()
        ]
        cells += [element("td", f"{policy[key]:,}") for key in ("retrains", "promoted", "rows_trained", "alerts")]
        rows.append(element("tr", element("th", swatch(place), " ", name, scope="row"), cells))
    heads = [_metric_head(result, metric) for metric in served] + [element("th", title, scope="col") for title in costs]
    head = element("thead", element("tr", element("th", "policy", scope="col"), heads))
    periods = result["periods"]
    unit = "tenths of the file" if result["time"] == "rows" else "calendar months"
    note = f"Metrics of the served prediction: mean over {counted(periods, 'period')} ({unit})."
    note += " ★ best." if len(rows) > 1 and periods else ""
    return [_wide(element("table", head, element("tbody", rows))), element("p", note, class_="quiet")]


def _experts(result: Mapping[str, Any]) -> list[Markup]:
    """Return the section with the table of each expert's metrics, without what was served."""
    means = {name: policy["mean_monthly"] for name, policy in result["policies"].items()}
    columns = [
        (metric, expert)
        for metric in result["metrics"]
        for expert in dict.fromkeys(expert for mean in means.values() for expert in mean.get(metric, {}))
        if expert != _SERVED
    ]
    experts = list(dict.fromkeys(expert for _, expert in columns))
    groups = [
        element("th", metric_name(metric), scope="colgroup", colspan=len(experts)) for metric in result["metrics"]
    ]
    names = [element("th", expert, scope="col") for _, expert in columns]
    rows = [
        element(
            "tr",
            element("th", swatch(place), " ", name, scope="row"),
            [element("td", number(mean.get(metric, {}).get(expert))) for metric, expert in columns],
        )
        for place, (name, mean) in enumerate(means.items())
    ]
    first = element("tr", element("th", "policy", scope="col", rowspan=2), groups)
    return [
        element("h2", "Experts by themselves"),
        _wide(element("table", element("thead", first, element("tr", names)), element("tbody", rows))),
        element(
            "p",
            "Means over the same periods. The online experts are the same under every policy, but for what they "
            "unlearn after a quarantine.",
            class_="quiet",
        ),
    ]


def _served(result: Mapping[str, Any], metric: str) -> dict[str, float]:
    """Return each policy's mean of a metric of what it served, where it is defined."""
    found = {name: policy["mean_monthly"].get(metric, {}).get(_SERVED) for name, policy in result["policies"].items()}
    return {name: value for name, value in found.items() if value is not None}


def _best(values: Mapping[str, float], way: str) -> float | None:
    """Return the best of several values."""
    return None if len(values) < 2 else (min if way == "smaller" else max)(values.values())


def _cell(value: float | None, best: float | None) -> Markup:
    if value is None or value != best:
        return element("td", number(value))
    return element("td", element("b", "★ ", number(value)), class_="best")


def _metric_head(result: Mapping[str, Any], metric: str) -> Markup:
    hint = element("small", f"{result['metrics'][metric]} is better")
    return element("th", metric_name(metric), hint, scope="col")


def _wide(table: Markup) -> Markup:
    return element("div", table, class_="wide", tabindex=0)
