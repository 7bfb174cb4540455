"""Quality over time: the loss of what each policy served, and how far behind the best it fell. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

from backtest.page.axes import TimeAxis, ValueAxis
from backtest.page.plot import Point, plot, swatch
from backtest.page.wording import loss_name, number
from core.durations import parse_duration
from core.markup import Markup, element
from core.wording import counted

_MAX_POINTS = 400
_LOSS_CUT, _BEHIND_CUT = 3.0, 10.0
_CUT_OFF = "; what is beyond the upper end is cut off, point at it to read it"


@dataclass(frozen=True)
class _Window:
    """A window, or several side by side: where it starts and ends, ms, its common rows, each policy's mean loss."""

    start: int
    end: int
    rows: int
    losses: Sequence[float]


def charts(result: Mapping[str, Any], axis: TimeAxis, best: str | None) -> list[Markup]:
    """Return the charts with their legend, or a sentence where there is nothing to draw.

    Parameters
    ----------
    best : str or None
        The policy that the others are compared with.
    """
    windows, policies = _windows(result, axis), list(result["policies"])
    if not windows or best is None:
        return [element("p", "There is no row to compare, so there is nothing to draw.")]
    drawn = [_legend(policies), _losses(result, windows, axis)]
    if len(policies) > 1:
        drawn.append(_behind(result, windows, axis, best))
    return drawn


def _windows(result: Mapping[str, Any], axis: TimeAxis) -> list[_Window]:
    """Return the windows that hold common rows; neighbours become one where there are too many to see."""
    over_time = [policy["over_time"] for policy in result["policies"].values()]
    starts, rows = [axis.read(start) for start in over_time[0]["from"]], over_time[0]["rows"]
    if not starts:
        return []
    span = parse_duration(result["window"])
    span *= -(-(starts[-1] - starts[0] + span) // (span * _MAX_POINTS))
    found = []
    for at, together in groupby(range(len(starts)), lambda place: (starts[place] - starts[0]) // span):
        places = list(together)
        total = sum(rows[place] for place in places)
        losses = [sum(one["loss"]["served"][place] * rows[place] for place in places) / total for one in over_time]
        found.append(_Window(starts[0] + at * span, starts[0] + (at + 1) * span, total, losses))
    return found


def _losses(result: Mapping[str, Any], windows: Sequence[_Window], axis: TimeAxis) -> Markup:
    """Return the chart of each window's mean loss; a few that are far above the others are cut off."""
    losses = sorted(loss for window in windows for loss in window.losses)
    limit = _LOSS_CUT * losses[len(losses) * 9 // 10] or losses[-1]
    shown = [loss for loss in losses if loss <= limit]
    length = windows[0].end - windows[0].start
    title = f"mean {loss_name(result)} of each window of {axis.clock.span(length)}; smaller is better"
    title += _CUT_OFF if len(shown) < len(losses) else ""
    points = _points(result, windows, [window.losses for window in windows], axis)
    return _drawn(points, axis, ValueAxis.over(shown[0], shown[-1]), 300, title)


def _behind(result: Mapping[str, Any], windows: Sequence[_Window], axis: TimeAxis, best: str) -> Markup:
    """Return the chart of the loss that each policy has had more than the best; one far behind is cut off."""
    place = list(result["policies"]).index(best)
    more = [[(loss - window.losses[place]) * window.rows for loss in window.losses] for window in windows]
    sums = [list(accumulate(line)) for line in zip(*more, strict=True)]
    extents = sorted(max(map(abs, line)) for at, line in enumerate(sums) if at != place)
    limit = _BEHIND_CUT * extents[(len(extents) - 1) // 2] or extents[-1]
    shown = [value for line in sums if max(map(abs, line)) <= limit for value in line]
    title = f"{loss_name(result)} beyond that of {best}, summed over the compared rows; rising where {best} was better"
    title += _CUT_OFF if extents[-1] > limit else ""
    points = _points(result, windows, list(zip(*sums, strict=True)), axis)
    return _drawn(points, axis, ValueAxis.over(min(shown), max(shown)), 180, title)


def _points(
    result: Mapping[str, Any], windows: Sequence[_Window], values: Sequence[Sequence[float]], axis: TimeAxis
) -> list[Point]:
    """Return what is drawn of each window, and says its values, the best first."""
    points = []
    for window, its in zip(windows, values, strict=True):
        ranked = sorted(zip(its, result["policies"], strict=True))
        said = [f"{axis.text(max(window.start, axis.start))}, {counted(window.rows, 'row')} compared"]
        said += [f"{number(value)}  {name}" for value, name in ranked]
        points.append(Point(window.start, window.end, its, "\n".join(said)))
    return points


def _drawn(points: Sequence[Point], axis: TimeAxis, values: ValueAxis, height: int, title: str) -> Markup:
    time = "row of the file" if axis.rows else "event time (UTC)"
    return element(
        "div",
        element("p", title, class_="unit"),
        plot(points, axis, values, height=height, title=title),
        element("p", time, class_="unit time"),
        class_="whole",
    )


def _legend(policies: Sequence[str]) -> Markup:
    """Return the policies with their lines; each can be switched off."""
    entries = []
    for place, name in enumerate(policies):
        box = element("input", type="checkbox", checked="checked", data_hides=place)
        entries.append(element("li", element("label", box, swatch(place), " ", name)))
    return element("ul", entries, class_="legend")
