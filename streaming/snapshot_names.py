"""How a snapshot's file is named: partition, term, step and clock, so that names alone give the order. Pure."""

from __future__ import annotations

import math

SUFFIX = ".snapshot"


def stem(partition: int) -> str:
    """Return with what the names of a partition's snapshots begin."""
    return f"partition-{partition:04d}."


def name_of(partition: int, term: int, step: int, clock: int) -> str:
    """Return the name of a snapshot.

    Examples
    --------
    >>> name = name_of(3, 2, 700, 1_000)
    >>> name, age(name), clock_of(name), partition_of(name)
    ('partition-0003.0000000002.0000000000000700.0000000000001000.snapshot', (2, 700), 1000, 3)
    """
    return f"{stem(partition)}{term:010d}.{step:016d}.{clock:016d}{SUFFIX}"


def partition_of(name: str) -> int:
    """Return the partition of a snapshot's name."""
    return int(name.removeprefix("partition-").partition(".")[0])


def age(name: str) -> tuple[int, int]:
    """Return (term, step) of a snapshot's name."""
    _, *numbers, _ = name.split(".")  # before format 4 there were no terms, before format 8 no clocks
    return (0, int(numbers[0])) if len(numbers) == 1 else (int(numbers[0]), int(numbers[1]))


def clock_of(name: str) -> float:
    """Return the clock of a snapshot's name, ms; infinity where it does not tell."""
    _, *numbers, _ = name.split(".")
    return int(numbers[2]) if len(numbers) > 2 else math.inf
