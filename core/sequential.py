"""Is the blend with the challenger better? A test that may be looked at after every block and stopped at any. Pure.

Paired losses of the two blends are added up in blocks (days, or so many rows): what depends on each other lies in one
block, and blocks are what is counted. Against each hypothesis about the relative gain somebody bets, a share of what
they have on every block; who has become 1/alpha times as rich by a fair game has been lucky with a chance of at most
alpha, whenever one looks (Ville 1939). So the hypothesis is given up. This is betting on the mean of bounded values
(Waudby-Smith & Ramdas 2024, "Estimating means of bounded random variables by betting"), with a mixture of fixed stakes
(Robbins 1970) in place of a tuned one: wealth then falls steadily with the gain that is bet against, so that the gains
not given up are an interval.

Nothing is known of the losses' scale beforehand. A block's difference is clipped at 2.5 spreads, estimated from the
blocks before (and a hold-out, if one is given): so the game stays fair, and what is tested is the mean of clipped
differences. A verdict also needs the unclipped sum on its side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from core.promotion_settings import PromotionSettings

Conclusion = Literal["superior", "inferior", "futile", "spent", "undecided"]
Array = NDArray[np.float64]

_STAKES: Array = np.array([[0.2], [0.5], [0.95]])
_CLIP = 2.5
_BLOCKS_TO_SCALE = 3
_LOWEST = -100.0

FEWEST_BLOCKS = 14
"""However many labels a block has, so many blocks are seen before the labels allowed are spent: less decide nothing."""


@dataclass(frozen=True, slots=True)
class Block:
    """Losses of both blends on the same rows of one block, added up.

    Attributes
    ----------
    rows : int
        How many, at least 1.
    champion, challenger : float
        Sum of the losses of the blend with the champion and of that with the challenger; finite, not negative.

    Raises
    ------
    ValueError
        If it is not so.
    """

    rows: int
    champion: float
    challenger: float

    def __post_init__(self) -> None:
        sums = (self.champion, self.challenger)
        if self.rows < 1 or not all(math.isfinite(value) and value >= 0.0 for value in sums):
            raise ValueError(f"{self}: needs a row, and losses that are finite and not negative")

    @property
    def gain(self) -> float:
        """What the challenger saves."""
        return self.champion - self.challenger

    @property
    def swapped(self) -> Block:
        """The block with sides changed."""
        return Block(self.rows, self.challenger, self.champion)


@dataclass(frozen=True)
class Verdict:
    """What follows from the blocks up to the first that decided.

    Attributes
    ----------
    conclusion : {'superior', 'inferior', 'futile', 'spent', 'undecided'}
        ``superior``: promote. ``inferior``: the blend with it is worse. ``futile``: its gain is less than what is worth
        it. ``spent``: none of that within the labels allowed. ``undecided``: go on.
    blocks, rows : int
        What it took.
    gain : float
        Relative gain seen: share of the champion's loss that is saved; nan without blocks.
    low, high : float or None
        Bounds of the relative gain, each right with a chance of 1 - alpha however often one looked; None is no bound.
    evidence : dict of str to float
        Wealth of who bet against "not better", "not worse" and "worth it"; each starts at 1 and decides at 1/alpha.
    alpha : float
        As set.
    alone : bool
        Whether the models were compared, each by itself, rather than the blends with them.
    """

    conclusion: Conclusion
    blocks: int
    rows: int
    gain: float
    low: float | None
    high: float | None
    evidence: dict[str, float]
    alpha: float
    alone: bool = False

    @property
    def is_final(self) -> bool:
        """Whether the test has ended."""
        return self.conclusion != "undecided"

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**asdict(self), "gain": self.gain if math.isfinite(self.gain) else None}


def judge(
    blocks: Sequence[Block], settings: PromotionSettings, before: Sequence[Block] = (), *, margin: float = 0.0
) -> Verdict:
    """Go through the blocks in their order, and stop at the first that decides.

    Parameters
    ----------
    blocks : sequence of Block
        Those that have ended, since the shadow began; later calls get the same ones and more.
    settings : PromotionSettings
        Alpha, worth and the labels allowed.
    before : sequence of Block
        Of a hold-out: they tell the scale and are not bet on. Without them the first three blocks do.
    margin : float
        Relative gain beyond which it is ``superior``.

    Examples
    --------
    >>> better = [Block(1000, 500.0 + day % 3, 480.0) for day in range(30)]
    >>> verdict = judge(better, PromotionSettings())
    >>> verdict.conclusion, verdict.blocks < 20
    ('superior', True)
    >>> judge([block.swapped for block in better], PromotionSettings()).conclusion
    'inferior'
    """
    if not blocks:
        even = {"better": 1.0, "worse": 1.0, "futile": 1.0}
        return Verdict("undecided", 0, 0, math.nan, None, None, even, settings.alpha)
    game = _Game.of(blocks, before, settings.worth)
    paths = {
        "better": game.path(margin, up=True),
        "worse": game.path(0.0, up=False),
        "futile": game.path(settings.worth, up=False),
    }
    conclusion, last = _first(game, paths, settings, margin)
    game = game.first(last + 1)
    return Verdict(
        conclusion=conclusion,
        blocks=last + 1,
        rows=int(game.rows.sum()),
        gain=float(game.gains.sum() / game.losses.sum()) if game.losses.sum() > 0.0 else 0.0,
        low=_bound(game, settings.alpha, up=True),
        high=_bound(game, settings.alpha, up=False),
        evidence={name: math.exp(min(float(path[last]), 700.0)) for name, path in paths.items()},
        alpha=settings.alpha,
    )


def _first(game: _Game, paths: dict[str, Array], settings: PromotionSettings, margin: float) -> tuple[Conclusion, int]:
    """Return the first conclusion and the number of its block; of several at one block the first named here."""
    enough = -math.log(settings.alpha)
    gains, losses = game.gains.cumsum(), game.losses.cumsum()
    reached: dict[Conclusion, NDArray[np.bool_]] = {
        "superior": (paths["better"] >= enough) & (gains > margin * losses),
        "inferior": (paths["worse"] >= enough) & (gains < 0.0),
        "futile": (paths["futile"] >= enough) & (gains < settings.worth * losses),
        "spent": (game.rows.cumsum() >= settings.max_labels) & (np.arange(len(gains)) + 1 >= FEWEST_BLOCKS),
    }
    ends = {name: int(found.argmax()) for name, found in reached.items() if found.any()}
    if not ends:
        return "undecided", len(gains) - 1
    name = min(ends, key=lambda end: ends[end])
    return name, ends[name]


def _bound(game: _Game, alpha: float, *, up: bool) -> float | None:
    """Return the gain up to (down to) which every gain is given up; None where none is."""
    from scipy.optimize import brentq

    def beyond(gain: float) -> float:
        return float(game.path(gain, up=up)[-1]) + math.log(alpha)

    low, high = beyond(_LOWEST), beyond(1.0)
    if (low if up else high) < 0.0:
        return None
    if min(low, high) >= 0.0:
        return 1.0 if up else _LOWEST
    return float(brentq(beyond, _LOWEST, 1.0))


@dataclass(frozen=True, eq=False)
class _Game:
    """Arrays of block: rows, what was saved, the champion's loss, and the clip (0 where nothing is bet)."""

    rows: NDArray[np.int64]
    gains: Array
    losses: Array
    clips: Array

    @classmethod
    def of(cls, blocks: Sequence[Block], before: Sequence[Block], worth: float) -> _Game:
        both = [*before, *blocks]
        gains = np.array([block.gain for block in both])
        sizes = np.array([(block.champion + block.challenger) / 2 for block in both])
        rows = np.array([block.rows for block in both])
        behind = slice(len(before), None)
        losses = np.array([block.champion for block in blocks])
        return cls(rows[behind], gains[behind], losses, _clips(gains, rows, worth * sizes)[behind])

    def first(self, count: int) -> _Game:
        """Return the game up to a block."""
        return _Game(self.rows[:count], self.gains[:count], self.losses[:count], self.clips[:count])

    def path(self, gain: float, *, up: bool) -> Array:
        """Return the logarithm of the wealth after each block of who bets that the relative gain is more (less)."""
        found = self.gains - gain * self.losses
        moved = np.divide(found, self.clips, out=np.zeros_like(found), where=self.clips > 0.0)
        moved = np.minimum(np.maximum(moved, -1.0), 1.0)
        each = np.log1p(_STAKES * (moved if up else -moved)).cumsum(axis=1)
        most = each.max(axis=0)
        return np.asarray(most + np.log(np.exp(each - most).mean(axis=0)))


def _clips(gains: Array, rows: NDArray[np.int64], worth: Array) -> Array:
    """Return where each block's difference is clipped, as known from the blocks before it.

    The spread is that around the mean gain a row. What lies beyond the clip enters the estimates clipped, so that one
    absurd block does not blind the test. At least the gain that is worth it lies within the clip.
    """
    clips = np.zeros(len(gains))
    squares = total = seen = worths = 0.0
    for number, (gain, count) in enumerate(zip(gains.tolist(), rows.tolist(), strict=True)):
        centre = total / seen * count if seen else gain
        away = gain - centre
        if number >= _BLOCKS_TO_SCALE:
            clips[number] = max(_CLIP * math.sqrt(squares / (number - 1)), worths / number)
            away = min(max(away, -clips[number]), clips[number])
        squares += away * away
        total += centre + away
        seen += count
        worths += float(worth[number])
    return clips
