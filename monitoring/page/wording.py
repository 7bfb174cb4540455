"""How a page writes numbers, shares and what the stream calls things. Pure."""

from __future__ import annotations

import math

from core.markup import Markup, element

MAX_VALUE, MAX_ID = 60, 100
"""Characters of a value, and of an id, that are shown."""


def short(text: object, most: int = MAX_VALUE) -> str:
    """Shorten a text.

    Examples
    --------
    >>> short("abcdef", 4), short("abc", 4)
    ('abc…', 'abc')
    """
    said = str(text)
    return said if len(said) <= most else f"{said[: most - 1]}…"


def foreign(text: object, most: int = MAX_VALUE) -> Markup:
    """Return a value of the stream, shortened, and so that its writing direction turns nothing else round."""
    return element("bdi", short(text, most))


def number(value: float | None) -> str:
    """Write a number so that it can be compared.

    Examples
    --------
    >>> number(0.12345), number(12345.6), number(2.5e12), number(3.0), number(None)
    ('0.1235', '12,346', '2.5e+12', '3', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if value and not 1e-4 <= abs(value) < 1e9:
        return f"{value:.4g}"
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"


def distance(value: float) -> str:
    """Write a distance, and what is usual of it.

    Examples
    --------
    >>> distance(0.08261), distance(1234.5)
    ('0.0826', '1,234')
    """
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.3g}"


def loss(value: float | None) -> str:
    """Write a loss as the policy does.

    Examples
    --------
    >>> loss(0.3), loss(None)
    ('0.3000', '–')
    """
    return "–" if value is None else f"{value:,.4f}" if abs(value) < 1e6 else f"{value:.4g}"


def exact(value: float) -> str:
    """Write a number as it came, to ten digits.

    Examples
    --------
    >>> exact(1234567.891), exact(3.0), exact(float("nan"))
    ('1,234,567.891', '3', 'missing')
    """
    return "missing" if math.isnan(value) else f"{value:,.10g}"


def share(value: float) -> str:
    """Write a share; a little is not nothing, and nearly all is not all.

    Examples
    --------
    >>> share(0.0), share(0.001), share(0.254), share(0.9999), share(1.0)
    ('0 %', '0.1 %', '25 %', '100.0 %', '100 %')
    """
    percent = 100.0 * value
    return f"{percent:.1f} %" if 0.0 < percent < 9.95 or 99.0 < percent < 100.0 else f"{percent:.0f} %"
