"""What every page is wrapped in. Pure."""

from __future__ import annotations

from core.markup import Markup, element, whole_page
from monitoring.page.style import STYLE


def shell(title: str, *content: object) -> str:
    """Return a whole page that runs no script and loads nothing."""
    return whole_page(title, STYLE, element("main", *content))


def wide(head: list[Markup], rows: list[Markup], class_: str | None = None) -> Markup:
    """Return a table that scrolls by itself where the screen is narrow."""
    table = element("table", element("thead", element("tr", head)), element("tbody", rows), class_=class_)
    return element("div", table, class_="wide", tabindex=0)


def heads(*titles: str, numbers: tuple[str, ...] = ()) -> list[Markup]:
    """Return the heads of a table's columns; those of numbers are on their right."""
    return [element("th", title, scope="col", class_="n" if title in numbers else None) for title in titles]
