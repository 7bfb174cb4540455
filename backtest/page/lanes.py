"""When each policy was retrained and alerted: a lane for each under the chart, and its list. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backtest.page.axes import TimeAxis
from backtest.page.plot import colour, swatch, time_grid
from backtest.page.wording import alert, cost, quarantine, retraining, retraining_reasons
from core.markup import Markup, element
from core.wording import counted

_HEIGHT = 28
_SHAPES = {
    "bootstrap": "M-5-5H5V5H-5Z",
    "schedule": "M-6 0A6 6 0 1 1 6 0A6 6 0 1 1-6 0Z",
    "drift": "M0-7.5L7.5 0L0 7.5L-7.5 0Z",
    "growth": "M-6 3L0-7L6 3Z",
}
_OTHER = "M0-6L7 6H-7Z"


def lanes(policies: Mapping[str, Any], axis: TimeAxis) -> list[Markup]:
    """Return the lanes, and what their marks mean."""
    return [_key(), *(_lane(place, name, policies[name], axis) for place, name in enumerate(policies))]


def history(place: int, name: str, policy: Mapping[str, Any], axis: TimeAxis) -> Markup:
    """Return a policy's retrainings, alerts and quarantines in order of time with their reasons, folded."""
    summary = element("summary", swatch(place), " ", element("b", name), f": {_in_short(policy)}")
    entries = [(axis.read(one["due"]), 0, alert(one, axis), one["reasons"]) for one in policy["alerted"]]
    entries += [(axis.read(one["to"]), 0, quarantine(one, axis), one["reasons"]) for one in policy["quarantined"]]
    entries += [
        (axis.read(one["decided_at"]), 1, retraining(one, axis), retraining_reasons(one))
        for one in policy["retrainings"]
    ]
    entries += [(axis.read(one["at"]), 1, "Rolled back", one["reasons"]) for one in policy["rolled_back"]]
    if not entries:
        return element("details", summary, element("p", "Nothing happened."))
    rows = [
        element(
            "tr",
            element("td", axis.text(moment)),
            element("td", element("b", what) if kind else what),
            element("td", [element("div", reason) for reason in why]),
        )
        for moment, kind, what, why in sorted(entries, key=lambda entry: entry[:2])
    ]
    head = element("tr", [element("th", title, scope="col") for title in ("decided", "what", "why")])
    table = element("table", element("thead", head), element("tbody", rows), class_="history")
    return element("details", summary, element("div", table, class_="wide"))


def _in_short(policy: Mapping[str, Any]) -> str:
    return f"{cost(policy)}; {counted(policy['alerts'], 'alert')}"


def _lane(place: int, name: str, policy: Mapping[str, Any], axis: TimeAxis) -> Markup:
    marks = [_band(one, axis) for one in policy["quarantined"]]
    marks += [_alert_mark(one, axis) for one in policy["alerted"]]
    marks += [_retraining_mark(one, place, axis) for one in policy["retrainings"]]
    drawn = element(
        "svg",
        time_grid(axis, _HEIGHT),
        element("line", x1=0, x2="100%", y1=10, y2=10, class_="grid"),
        marks,
        width="100%",
        height=_HEIGHT,
        role="img",
        aria_label=f"{name}: {_in_short(policy)}",
    )
    return element(
        "div",
        element("p", swatch(place), " ", element("b", name), f": {_in_short(policy)}"),
        drawn,
        class_="lane whole",
    )


def _retraining_mark(one: Mapping[str, Any], place: int, axis: TimeAxis) -> Markup:
    said = [f"{axis.text(axis.read(one['decided_at']))}: {retraining(one, axis)}", *retraining_reasons(one)]
    kind = "promoted" if one["promoted"] else "refused"
    return _mark(one["decided_at"], _SHAPES.get(one["trigger"], _OTHER), f"mark {kind} {colour(place)}", said, axis)


def _alert_mark(one: Mapping[str, Any], axis: TimeAxis) -> Markup:
    said = [f"{axis.text(axis.read(one['due']))}: {alert(one, axis)}", *one["reasons"]]
    return _mark(one["due"], "M0 9V17", "alert", said, axis)


def _band(one: Mapping[str, Any], axis: TimeAxis) -> Markup:
    start, end = (axis.percent(axis.read(one[edge])) for edge in ("from", "to"))
    said = element("title", "\n".join([quarantine(one, axis), *one["reasons"]]))
    return element("rect", said, x=f"{start}%", width=f"{end - start}%", y=2, height=16, class_="quarantine")


def _mark(at: str | float, path: str, kind: str, said: Sequence[str], axis: TimeAxis) -> Markup:
    near = element("rect", x=-5, y=8, width=10, height=12, class_="near") if kind == "alert" else ""
    drawn = element("g", element("title", "\n".join(said)), near, element("path", d=path, class_=kind))
    return element("svg", drawn, x=f"{axis.percent(axis.read(at))}%", y=10, overflow="visible", width=1, height=1)


def _key() -> Markup:
    """Return what the marks mean."""

    def entry(path: str, kind: str, text: str) -> Markup:
        mark = element("svg", element("path", d=path, class_=kind), width=18, height=18, viewBox="-9 -9 18 18")
        return element("li", mark, " ", text)

    entries = [entry(path, "mark promoted", trigger) for trigger, path in _SHAPES.items()]
    entries.append(entry(_SHAPES["schedule"], "mark refused", "hollow: not promoted"))
    entries.append(entry("M0-5V5", "alert", "alert"))
    entries.append(entry("M-8-6H8V6H-8Z", "quarantine", "quarantine"))
    return element("ul", entries, class_="legend key")
