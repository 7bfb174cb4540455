"""How numbers of things, and lists of them, are written for people. Pure."""

from __future__ import annotations

from collections.abc import Sequence

NAMED = 5
"""How many of many are named one by one."""


def counted(count: int, noun: str) -> str:
    """Write a count of something.

    Examples
    --------
    >>> counted(1, "row"), counted(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(things: Sequence[object], most: int = NAMED) -> str:
    """Write things one after the other, of many only the first.

    Examples
    --------
    >>> listed(["a"]), listed(["a", "b"]), listed("abcdefg")
    ('a', 'a and b', 'a, b, c, d, e and 2 more')
    """
    parts = [str(thing) for thing in things[:most]]
    if more := len(things) - len(parts):
        parts.append(f"{more} more")
    return " and ".join(part for part in (", ".join(parts[:-1]), *parts[-1:]) if part)


def told_apart(value: float, other: float) -> tuple[str, str]:
    """Write two numbers with two decimals, or with as many more, up to six in all, as tell them apart.

    Examples
    --------
    >>> told_apart(1.346, 0.85), told_apart(0.1104, 0.1098), told_apart(0.5, 0.5)
    (('1.35', '0.85'), ('0.1104', '0.1098'), ('0.50', '0.50'))
    """
    written = ((f"{value:.{places}f}", f"{other:.{places}f}") for places in range(2, 7))
    return next((pair for pair in written if pair[0] != pair[1]), (f"{value:.2f}", f"{other:.2f}"))
