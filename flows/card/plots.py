"""The plots of a card as PNG. The only matplotlib import.

Figures are drawn without its global state and without a display. Names of classes come from labels: they are drawn as
they are, never read as formulas.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable
from typing import Any

from flows.card.curves import Curves, Residuals, Roc
from flows.card.facts import Card
from flows.card.importance import Ranking
from flows.reliability import Bin
from monitoring.page.wording import short

_log = logging.getLogger("headrace.retrain")
_INK, _QUIET, _GRID, _FILL = "#1c1f24", "#5a6270", "#dfe3e8", "#7d93ad"
_LINES = ("#0060a0", "#c44a00", "#2e7d32", "#7b4ea3", "#8a6d1f", "#00838f", "#ad1457", "#455a64", "#5d4037", "#9e9d24")
_DPI = 160
_MAX_BARS = 25
_MAX_NAME = 24
_UNPRINTABLE = str.maketrans({"$": "＄"})


def plots_of(card: Card) -> dict[str, bytes]:
    """Return the plots of a card by name; one that cannot be drawn is left out, with a warning in the log."""
    curves, known = card.curves, card.importance
    drawn: dict[str, Callable[[Any], None]] = {}
    if known is not None:
        drawn["importance"] = lambda axes: _importance(axes, known)
    if curves.calibration:
        drawn["calibration"] = lambda axes: _calibration(axes, curves, card.task == "multiclass")
    if curves.roc:
        drawn["roc"] = lambda axes: _roc(axes, curves.roc)
    if (residuals := curves.residuals) is not None:
        drawn["residuals"] = lambda axes: _residuals(axes, residuals)
    heights = {"importance": 1.0 + 0.28 * min(len(known.features), _MAX_BARS) if known else 4.0}
    made = {name: _png(draw, heights.get(name, 4.6), name) for name, draw in drawn.items()}
    return {name: content for name, content in made.items() if content is not None}


def _png(draw: Callable[[Any], None], height: float, name: str) -> bytes | None:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.4, height), dpi=_DPI, facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        _plain(axes)
        draw(axes)
        target = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a class may be named with letters that no font here has
            figure.savefig(target, format="png", metadata={"Software": None})
        return target.getvalue()
    except Exception as error:  # noqa: BLE001  a picture is no reason to lose a version: fonts, settings of the user
        _log.warning("the plot %r cannot be drawn: %s: %s", name, type(error).__name__, error)
        return None


def _plain(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_QUIET)
    axes.tick_params(colors=_INK, labelsize=9)
    axes.grid(visible=True, color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def _named(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x, color=_INK, fontsize=10)
    axes.set_ylabel(y, color=_INK, fontsize=10)


def _importance(axes: Any, found: Ranking) -> None:
    features = found.features[:_MAX_BARS][::-1]
    places = range(len(features))
    colours = [_FILL if one.is_sure else _GRID for one in features]
    spreads = [one.spread for one in features]
    axes.barh(places, [one.mean for one in features], xerr=spreads, color=colours, ecolor=_INK, capsize=2, height=0.7)
    axes.set_yticks(list(places), [_text(one.feature) for one in features])
    axes.axvline(0.0, color=_INK, linewidth=0.8)
    axes.grid(visible=False, axis="y")
    _named(axes, f"rise of the loss when it is shuffled (from {found.loss:.4g})", "")


def _calibration(axes: Any, curves: Curves, several: bool) -> None:
    bins: list[Bin] = curves.calibration
    axes.plot([0, 1], [0, 1], color=_QUIET, linewidth=1, linestyle="--", label="as often as predicted")
    most = max(one.rows for one in bins)
    axes.plot([one.said for one in bins], [one.happened for one in bins], color=_LINES[0], linewidth=1.6)
    sizes = [20 + 60 * one.rows / most for one in bins]
    axes.scatter([one.said for one in bins], [one.happened for one in bins], s=sizes, color=_LINES[0], zorder=3)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    what = "the most likely class" if several else "the positive class"
    _named(axes, f"predicted probability of {what}", "share that happened")


def _roc(axes: Any, curves: list[Roc]) -> None:
    axes.plot([0, 1], [0, 1], color=_QUIET, linewidth=1, linestyle="--")
    for one, colour in zip(curves, _LINES, strict=False):
        name = f"AUC {one.area:.3f}" if len(curves) == 1 else f"class {_text(one.name)}: AUC {one.area:.3f}"
        axes.plot(one.false_alarms, one.hits, color=colour, linewidth=1.6, label=name)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    _named(axes, "false alarms (share of the others)", "hits (share of the class)")


def _residuals(axes: Any, found: Residuals) -> None:
    x, bands = found.predicted, found.bands
    axes.fill_between(x, bands["0.05"], bands["0.95"], color=_FILL, alpha=0.25, linewidth=0, label="90 % of the rows")
    axes.fill_between(x, bands["0.25"], bands["0.75"], color=_FILL, alpha=0.55, linewidth=0, label="half of the rows")
    axes.plot(x, bands["0.5"], color=_LINES[0], linewidth=1.6, marker="o", markersize=3.5, label="median")
    axes.axhline(0.0, color=_INK, linewidth=0.8)
    axes.legend(frameon=False, fontsize=9)
    _named(axes, "predicted", "happened less predicted")


def _text(name: str) -> str:
    """Return a name as it can be drawn: in one line, without formulas."""
    printable = "".join(letter if letter.isprintable() else "\ufffd" for letter in name)
    return short(printable, _MAX_NAME).translate(_UNPRINTABLE)
