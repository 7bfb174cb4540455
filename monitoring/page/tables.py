"""The tables of a stage's page: what moved, the losses, and the example rows. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from core.clocks import Clock
from core.markup import Markup, element
from core.wording import counted
from monitoring.inspection import Inspection
from monitoring.page.far_rows import FarRow
from monitoring.page.moves import Move
from monitoring.page.shell import heads, wide
from monitoring.page.wording import MAX_ID, distance, foreign, loss, number, share
from monitoring.signals import SERVED_LOSS

_WIDTH, _USUAL_AT, _HEIGHT = 132, 44, 9
_LEAST_LIMIT = 0.05


def signals(moved: Sequence[Move]) -> Markup:
    """Return the table of signals: distance, what is usual, missing values, and what changed."""
    titles = ("", "distance", "usual", "", "missing before → now", "before → now")
    return wide(heads(*titles, numbers=("distance", "usual")), [_signal(move) for move in moved])


def _signal(move: Move) -> Markup:
    far = "–" if move.distance is None else distance(move.distance)
    missing = "" if move.missing is None else _missing(*move.missing)
    changes = [_change(what.what, what.before, what.now, move.is_number) for what in move.changes]
    why_not = element("span", f"not compared: {move.note}", class_="quiet") if move.note else ""
    return element(
        "tr",
        element("th", foreign(move.name), scope="row"),
        element("td", element("b" if move.is_far else "span", far), class_="n"),
        element("td", "" if move.limit is None else f"< {distance(move.limit)}", class_="n"),
        element("td", _bar(move)),
        element("td", missing, class_="t"),
        element("td", element("div", changes, why_not, class_="changes")),
        class_="over" if move.is_far else None,
    )


def _missing(before: float, now: float) -> str:
    return "" if before == now == 0.0 else f"{share(before)} → {share(now)}"


def _change(what: str, before: float, now: float, is_number: bool) -> Markup:
    """Return a quantile of numbers, or how often a value of the stream comes."""
    if is_number:
        return element("span", element("small", what), f" {number(before)} → {number(now)}")
    grown = " (new)" if before == 0.0 else " (gone)" if now == 0.0 else ""
    return element("span", foreign(what, 40), f": {share(before)} → {share(now)}{grown}")


def _bar(move: Move) -> Markup | str:
    """Return the distance as a bar, in units of what is usual: that is at the same place in every row."""
    if move.distance is None or move.limit is None:
        return ""
    times = move.distance / max(move.limit, _LEAST_LIMIT)
    length = max(min(times * _USUAL_AT, _WIDTH), 1.0)
    said = f"{move.name}: {times:.1f} times what is usual"
    return element(
        "svg",
        element("title", said),
        element("rect", width=_WIDTH, height=_HEIGHT, class_="rail"),
        element("rect", width=f"{length:.1f}", height=_HEIGHT, class_="bar"),
        element("line", x1=_USUAL_AT, x2=_USUAL_AT, y1=-2, y2=_HEIGHT + 2, class_="limit"),
        width=_WIDTH,
        height=_HEIGHT + 4,
        viewBox=f"0 -2 {_WIDTH} {_HEIGHT + 4}",
        role="img",
    )


def losses(found: Inspection) -> list[Markup]:
    """Return the mean losses of what was served and of each expert, the best first; nothing where there is none."""
    if not found.losses.mean:
        return []
    usual = {signal.name: signal.usual for signal in found.surprise.moved} if found.surprise else {}
    promised = found.reference and {"champion": found.reference.validation_loss, "served": found.reference.served_loss}
    ranked = sorted(found.losses.mean.items(), key=lambda one: (one[0] != "served", one[1], one[0]))
    rows = [
        element(
            "tr",
            element("th", "served (the blend)" if name == "served" else foreign(name), scope="row"),
            element("td", loss(mean), class_="n"),
            element("td", loss((promised or {}).get(name)), class_="n"),
            element("td", _usually(usual.get(SERVED_LOSS)) if name == "served" else "", class_="n"),
        )
        for name, mean in ranked
    ]
    titles = ("mean loss", "this window", "at the champion's validation", "usual")
    said = f"Over the {counted(found.losses.rows, 'row')} that all of them predicted."
    return [
        element("h2", "Losses"),
        wide(heads(*titles, numbers=titles[1:]), rows),
        element("p", said, class_="quiet"),
    ]


def _usually(limit: float | None) -> str:
    return "" if limit is None else f"< {loss(limit)}"


def examples(rows: Sequence[FarRow], clock: Clock) -> Markup:
    """Return the table of example rows; what a row was chosen for is marked."""
    names = list(rows[0].values)
    return wide(heads("id", f"time ({clock.name})", *names), [_example(row, clock) for row in rows])


def _example(row: FarRow, clock: Clock) -> Markup:
    values = [
        element("td", "–" if value is None else foreign(value), class_="v far" if name in row.far else "v")
        for name, value in row.values.items()
    ]
    return element(
        "tr",
        element("th", foreign(row.id, MAX_ID), scope="row"),
        element("td", clock.brief(row.time), class_="t"),
        values,
    )
