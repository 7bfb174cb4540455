"""Both blends on the same labels: from the examples table to blocks, and to the verdict on a shadow. Pure.

A worker writes with every event what was served and what would have been served with each shadow. Here their losses are
added up in blocks of event time. A block counts once it has ended and its labels are due: fast labels are not like
slow ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.metrics import loss
from core.models import CHALLENGER
from core.quarantine import Span, outside
from core.sequential import Block, Verdict, judge
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
    previous champion, ``superior`` brings it back, and everything else that is final ends the watch.

    Parameters
    ----------
    examples, version, until, role, without
        See `paired_blocks`.
    settings : Settings
        ``promotion`` says how it is judged.
    before : sequence of Block
        Of a hold-out; see :func:`core.sequential.judge`.
    """
    blocks = paired_blocks(examples, version, settings, until, role=role, without=without)
    return judge(blocks, settings.promotion, before)


def paired_blocks(
    examples: pa.Table,
    version: int,
    settings: Settings,
    until: int,
    *,
    role: str = CHALLENGER,
    without: Sequence[Span] = (),
) -> list[Block]:
    """Return the blocks that have ended and whose labels are due, in their order.

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
    """
    version_column, _, blended_column = shadow_columns(role)
    served_column = prediction_column("served")
    rows = examples.filter(pc.equal(examples[version_column], version))
    rows = rows.filter(pc.and_(pc.is_valid(rows[served_column]), pc.is_valid(rows[blended_column])))
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
    both = _losses(rows, served_column), _losses(rows, blended_column)
    blocks = []
    numbers = times // span
    for number in np.unique(numbers[(numbers + 1) * span <= until - wait]).tolist():
        places = np.flatnonzero(numbers == number).tolist()
        # summed without rounding: the order of rows, which partitions share, must not matter
        sums = [math.fsum(losses[place] for place in places) for losses in both]
        blocks.append(Block(len(places), *sums))
    return blocks


def _losses(rows: pa.Table, column: str) -> list[float]:
    made = [prediction_of(cell) for cell in rows[column].to_pylist()]
    outcomes = rows["label"].to_pylist()
    return [loss(one, outcome) for one, outcome in zip(made, outcomes, strict=True) if one is not None]
