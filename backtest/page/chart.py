"""The loss of what each policy served, over time. Pure.

Positions along the time axis are percents and heights are pixels, so that one drawing fits any width: only the lines
are stretched, text is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from backtest.page.axes import TimeAxis, ValueAxis
from backtest.page.markup import Markup, element
from backtest.page.wording import counted, loss_with_unit, number
from core.durations import ROW, about, parse_duration, parse_iso

_HEIGHT = 300
_MAX_POINTS = 400
_CUT_ABOVE = 3.0
_COLOURS = 6


@dataclass(frozen=True)
class _Window:
    """A window, or several side by side: where it starts and ends, ms, its common rows, each policy's mean loss."""

    start: int
    end: int
    rows: int
    losses: Mapping[str, float]


def chart(result: Mapping[str, Any], axis: TimeAxis) -> Markup | list[Markup]:
    """Return the chart with its legend, or a sentence where there is nothing to draw."""
    windows = _windows(result)
    if not windows:
        return element("p", "There is no row that every expert of every policy predicted, so there is nothing to draw.")
    values, cut = _value_axis(windows)
    policies = list(result["policies"])
    said = f"{loss_with_unit(result)}, mean of each window of {_length(windows[0], axis)}; smaller is better"
    plot = element(
        "svg",
        _value_grid(values),
        time_grid(axis, _HEIGHT),
        _lines(policies, windows, axis, values),
        [_area(window, axis) for window in windows],
        _time_labels(axis),
        width="100%",
        height=_HEIGHT + 22,
        role="img",
        aria_label=f"{said}. One line each: {', '.join(policies)}",
    )
    left_out = "; what is above the upper end is cut off, point at it to read it" if cut else ""
    time = "row of the file" if axis.rows else "event time (UTC)"
    return [
        _legend(policies),
        element("p", said, left_out, class_="unit"),
        plot,
        element("p", time, class_="unit time"),
    ]


def colour(place: int) -> str:
    """Return the class that gives the policy at this place its colour."""
    return f"c{place % _COLOURS}"


def time_grid(axis: TimeAxis, height: int) -> list[Markup]:
    """Return a vertical line at each labelled time."""
    places = [f"{axis.percent(moment)}%" for moment, _ in axis.ticks()]
    return [element("line", x1=place, x2=place, y1=0, y2=height, class_="grid") for place in places]


def swatch(place: int) -> Markup:
    """Return a piece of the line of the policy at this place."""
    line = element("line", x1=2, x2=40, y1=5, y2=5, class_=_line(place))
    return element("svg", line, width=42, height=10, aria_hidden="true")


def _line(place: int) -> str:
    """Return the classes of a line: when colours come again, they have other dashes."""
    return f"line {colour(place)} d{(place + place // _COLOURS) % _COLOURS}"


def _windows(result: Mapping[str, Any]) -> list[_Window]:
    """Return the windows that hold common rows; neighbours become one where there are too many to see."""
    over_time = {name: policy["over_time"] for name, policy in result["policies"].items()}
    shared = next(iter(over_time.values()))
    starts, rows = [parse_iso(start) for start in shared["from"]], shared["rows"]
    if not starts:
        return []
    span = parse_duration(result["window"])
    span *= -(-(starts[-1] - starts[0] + span) // (span * _MAX_POINTS))
    found = []
    for at, together in groupby(range(len(starts)), lambda place: (starts[place] - starts[0]) // span):
        places = list(together)
        total = sum(rows[place] for place in places)
        losses = {
            name: sum(its["loss"]["served"][place] * rows[place] for place in places) / total
            for name, its in over_time.items()
        }
        found.append(_Window(starts[0] + at * span, starts[0] + (at + 1) * span, total, losses))
    return found


def _length(window: _Window, axis: TimeAxis) -> str:
    length = window.end - window.start
    return counted(length // ROW, "row") if axis.rows else about(length)


def _value_axis(windows: Sequence[_Window]) -> tuple[ValueAxis, bool]:
    """Return the axis of losses, and whether it leaves out a few that are far above the others."""
    losses = sorted(loss for window in windows for loss in window.losses.values())
    limit = _CUT_ABOVE * losses[len(losses) * 9 // 10]
    shown = [loss for loss in losses if loss <= limit]
    return ValueAxis.over(shown[0], shown[-1]), len(shown) < len(losses)


def _legend(policies: Sequence[str]) -> Markup:
    """Return the policies with their lines; each can be switched off."""
    entries = []
    for place, name in enumerate(policies):
        box = element("input", type="checkbox", checked="checked", data_line=f"line{place}")
        entries.append(element("li", element("label", box, swatch(place), " ", name)))
    return element("ul", entries, class_="legend")


def _value_grid(axis: ValueAxis) -> list[Markup]:
    found = []
    for tick in axis.ticks:
        height = round(_HEIGHT * (1 - axis.place(tick)), 1)
        found.append(element("line", x1=0, x2="100%", y1=height, y2=height, class_="grid"))
        found.append(element("text", axis.text(tick), x=2, y=height + 13 if height < 13 else height - 4))
    return found


def _time_labels(axis: TimeAxis) -> list[Markup]:
    """Return the labels of time; where there is little room, every other is hidden."""
    found = []
    for place, (moment, text) in enumerate(axis.ticks()):
        at = axis.percent(moment)
        anchor = "start" if at < 4 else "end" if at > 96 else "middle"
        hidden = "spare" if place % 2 else None
        found.append(element("text", text, x=f"{at}%", y=_HEIGHT + 16, text_anchor=anchor, class_=hidden))
    return found


def _lines(policies: Sequence[str], windows: Sequence[_Window], axis: TimeAxis, values: ValueAxis) -> Markup:
    """Return the lines in a drawing of 1,000 by 1,000 that is stretched over the plot."""
    lines = []
    for place, name in enumerate(policies):
        path = ""
        for run in _runs(windows):
            points = [_point(window, window.losses[name], axis, values) for window in run]
            path += "M" + "L".join(points if len(points) > 1 else points * 2)
        lines.append(element("path", d=path, class_=_line(place), id=f"line{place}"))
    box = {"viewBox": "0 0 1000 1000", "preserveAspectRatio": "none"}
    return element("svg", lines, width="100%", height=_HEIGHT, **box)


def _runs(windows: Sequence[_Window]) -> Iterator[list[_Window]]:
    """Yield the windows in runs without a gap."""
    run: list[_Window] = []
    for window in windows:
        if run and window.start > run[-1].end:
            yield run
            run = []
        run.append(window)
    yield run


def _point(window: _Window, loss: float, axis: TimeAxis, values: ValueAxis) -> str:
    middle = (window.start + min(window.end, axis.end)) / 2
    return f"{10 * axis.percent(middle):.2f} {1000 * (1 - values.place(loss)):.1f}"


def _area(window: _Window, axis: TimeAxis) -> Markup:
    """Return the area to point at to read a window's losses, the best first."""
    losses = sorted(window.losses.items(), key=lambda item: item[1])
    said = [f"{axis.text(window.start)}, {counted(window.rows, 'row')} compared"]
    said += [f"{number(loss)}  {name}" for name, loss in losses]
    left, right = axis.percent(window.start), axis.percent(min(window.end, axis.end))
    title = element("title", "\n".join(said))
    return element("rect", title, x=f"{left}%", width=f"{right - left:.3f}%", y=0, height=_HEIGHT, class_="window")
