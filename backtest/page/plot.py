"""Lines over time as SVG. Pure.

Positions along the time axis are percents and heights are pixels, so that one drawing fits any width: only the lines
are stretched, text is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from backtest.page.axes import TimeAxis, ValueAxis
from core.markup import Markup, element

_COLOURS = 6


@dataclass(frozen=True)
class Point:
    """What is drawn of a span of time.

    Attributes
    ----------
    start, end : int
        The span, ms.
    values : list of float
        The value of each line.
    said : str
        What can be read when one points at it.
    """

    start: int
    end: int
    values: Sequence[float]
    said: str


def plot(points: Sequence[Point], axis: TimeAxis, values: ValueAxis, *, height: int, title: str) -> Markup:
    """Return a drawing of the lines, broken where a span does not follow the one before.

    Parameters
    ----------
    points : sequence of Point
        At least one, in order of time.
    height : int
        Of the plot without the labels of time, pixels.
    title : str
        What it shows, for those who do not see it.
    """
    return element(
        "svg",
        _value_grid(values, height),
        time_grid(axis, height),
        _lines(points, axis, values, height),
        [_area(point, axis, height) for point in points],
        _time_labels(axis, height),
        width="100%",
        height=height + 22,
        class_="plot",
        role="img",
        aria_label=title,
    )


def colour(place: int) -> str:
    """Return the class that gives the line at this place its colour."""
    return f"c{place % _COLOURS}"


def swatch(place: int) -> Markup:
    """Return a piece of the line at this place."""
    line = element("line", x1=2, x2=40, y1=5, y2=5, class_=_line(place))
    return element("svg", line, width=42, height=10, aria_hidden="true")


def time_grid(axis: TimeAxis, height: int) -> list[Markup]:
    """Return a vertical line at each labelled time."""
    places = [f"{axis.percent(moment)}%" for moment, _ in axis.ticks()]
    return [element("line", x1=place, x2=place, y1=0, y2=height, class_="grid") for place in places]


def _line(place: int) -> str:
    """Return the classes of a line: when colours come again, they have other dashes."""
    return f"line {colour(place)} d{(place + place // _COLOURS) % _COLOURS}"


def _value_grid(axis: ValueAxis, height: int) -> list[Markup]:
    found = []
    for tick in axis.ticks:
        y = round(height * (1 - axis.place(tick)), 1)
        found.append(element("line", x1=0, x2="100%", y1=y, y2=y, class_="grid"))
        found.append(element("text", axis.text(tick), x=2, y=y - 4))
    return found


def _time_labels(axis: TimeAxis, height: int) -> list[Markup]:
    """Return the labels of time; where there is little room, every other is hidden."""
    found = []
    for place, (moment, text) in enumerate(axis.ticks()):
        at = axis.percent(moment)
        anchor = "start" if at < 4 else "end" if at > 96 else "middle"
        hidden = "spare" if place % 2 else None
        found.append(element("text", text, x=f"{at}%", y=height + 16, text_anchor=anchor, class_=hidden))
    return found


def _lines(points: Sequence[Point], axis: TimeAxis, values: ValueAxis, height: int) -> Markup:
    """Return the lines in a drawing of 1,000 by 1,000 that is stretched over the plot and cut off at its ends."""
    lines = []
    for place in range(len(points[0].values)):
        path = ""
        for run in _runs(points):
            places = [_place(point, point.values[place], axis, values) for point in run]
            path += "M" + "L".join(places if len(places) > 1 else places * 2)
        lines.append(element("path", d=path, class_=_line(place), data_line=place))
    box = {"viewBox": "0 0 1000 1000", "preserveAspectRatio": "none"}
    return element("svg", lines, width="100%", height=height, class_="lines", **box)


def _runs(points: Sequence[Point]) -> Iterator[list[Point]]:
    """Yield the points in runs without a gap."""
    run: list[Point] = []
    for point in points:
        if run and point.start > run[-1].end:
            yield run
            run = []
        run.append(point)
    yield run


def _place(point: Point, value: float, axis: TimeAxis, values: ValueAxis) -> str:
    return f"{5 * sum(_ends(point, axis)):.2f} {1000 * (1 - values.place(value)):.1f}"


def _area(point: Point, axis: TimeAxis, height: int) -> Markup:
    """Return the area to point at."""
    left, right = _ends(point, axis)
    title = element("title", point.said)
    return element("rect", title, x=f"{left}%", width=f"{right - left:.3f}%", y=0, height=height, class_="window")


def _ends(point: Point, axis: TimeAxis) -> tuple[float, float]:
    """Return where a point's span starts and ends on the axis, in percent."""
    return axis.percent(max(point.start, axis.start)), axis.percent(min(point.end, axis.end))
