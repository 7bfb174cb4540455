"""Both blends on the same labels: from the examples table to blocks, and to the verdict on a shadow. Pure.

A worker writes with every event what was served and what would have been served with each shadow. Here their losses are
added up in blocks of event time. A block counts once it has ended and its labels are due: fast labels are not like
slow ones.

A blend drops a bad champion by itself, and so hides it. The watch on a new champion therefore compares it with the
former one too, each by itself, as the gate `alone` does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.metrics import loss
from core.models import CHALLENGER, CHAMPION, PREVIOUS
from core.quarantine import Span, outside
from core.sequential import FEWEST_BLOCKS, Block, Verdict, judge
from core.settings import Settings
from core.spans import label_wait
from core.tables import milliseconds, prediction_column, prediction_of, shadow_columns


def judge_shadow(
    examples: pa.Table,
    version: int,
    settings: Settings,
    until: int,
    *,
    role: str = CHALLENGER,
    without: Sequence[Span] = (),
    before: Sequence[Block] = (),
) -> Verdict:
    """Judge whether the blend with a shadow is better than what was served.

    For a challenger, ``superior`` is its promotion, ``inferior``, ``futile`` and ``spent`` are its end. For the
    previous champion, ``superior`` brings it back, and everything else that is final ends the watch. It is brought
    back too if by itself it is surely better than the new one (``gates.max_alone_loss``), unless the blends have
    decided before; that the blend with it gains nothing counts only once there was time for that to be seen.

    Parameters
    ----------
    examples, version, until, role, without
        See `paired_blocks`.
    settings : Settings
        ``promotion`` says how it is judged.
    before : sequence of Block
        Of a hold-out; see :func:`core.sequential.judge`.
    """
    blends = paired_blocks(examples, version, settings, until, role=role, without=without)
    verdict = judge(list(blends.values()), settings.promotion, before)
    if role != PREVIOUS:
        return verdict
    models = paired_blocks(examples, version, settings, until, role=role, without=without, alone=True)
    return _watched(blends, verdict, models, settings)


def _watched(blends: Mapping[int, Block], verdict: Verdict, models: Mapping[int, Block], settings: Settings) -> Verdict:
    """Return the verdict on the blends or on the models, whichever ends the watch first; undecided while none does."""
    margin = max(0.0, 1.0 - 1.0 / settings.gates.max_alone_loss)
    alone = replace(judge(list(models.values()), settings.promotion, margin=margin), alone=True)
    end = _end_of_watch(blends, verdict)
    if alone.conclusion == "superior":
        at = _last(models, alone)
        if at < end or (at == end and verdict.conclusion != "inferior"):
            return alone
    return replace(verdict, conclusion="undecided") if end == math.inf else verdict


def _end_of_watch(blends: Mapping[int, Block], verdict: Verdict) -> float:
    """Return the number of the block at which the blends end a watch; infinite while they do not."""
    if verdict.conclusion in {"superior", "inferior"}:
        return _last(blends, verdict)
    if not verdict.is_final or len(blends) < FEWEST_BLOCKS:
        return math.inf
    return max(_last(blends, verdict), list(blends)[FEWEST_BLOCKS - 1])


def _last(blocks: Mapping[int, Block], verdict: Verdict) -> int:
    return list(blocks)[verdict.blocks - 1]


def paired_blocks(
    examples: pa.Table,
    version: int,
    settings: Settings,
    until: int,
    *,
    role: str = CHALLENGER,
    without: Sequence[Span] = (),
    alone: bool = False,
) -> dict[int, Block]:
    """Return the blocks that have ended and whose labels are due, in their order, by number: time over their length.

    Parameters
    ----------
    examples : pyarrow.Table
        Rows of the examples table (of every partition), with ``event_time``, ``label_clock``, ``label``, ``p_served``
        and the columns of the shadow; in any order.
    version : int
        The shadow's.
    until : int
        The stream's clock: labels up to it are in the rows, ms.
    role : {'challenger', 'previous'}
        In which it shadows.
    without : sequence of Span
        Windows whose labels are not to be trusted, ms.
    alone : bool
        Compare the shadow with the champion, each by itself, rather than what was served with the blend.
    """
    version_column, own, blended = shadow_columns(role)
    both = (prediction_column(CHAMPION), own) if alone else (prediction_column("served"), blended)
    rows = examples.filter(pc.equal(examples[version_column], version))
    rows = rows.filter(pc.and_(*(pc.is_valid(rows[column]) for column in both)))
    if without:
        rows = rows.filter(pa.array(outside(milliseconds(rows["event_time"]), without)))
    times = milliseconds(rows["event_time"])
    wait = label_wait(
        times,
        milliseconds(rows["label_clock"]),
        until=until,
        horizon=settings.label.horizon,
        implied=settings.label.missing is not None,
    )
    span = settings.promotion.block
    losses = [_losses(rows, column) for column in both]
    blocks = {}
    numbers = times // span
    for number in np.unique(numbers[(numbers + 1) * span <= until - wait]).tolist():
        places = np.flatnonzero(numbers == number).tolist()
        # summed without rounding: the order of rows, which partitions share, must not matter
        sums = [math.fsum(each[place] for place in places) for each in losses]
        blocks[int(number)] = Block(len(places), *sums)
    return blocks


def _losses(rows: pa.Table, column: str) -> list[float]:
    made = [prediction_of(cell) for cell in rows[column].to_pylist()]
    outcomes = rows["label"].to_pylist()
    return [loss(one, outcome) for one, outcome in zip(made, outcomes, strict=True) if one is not None]
