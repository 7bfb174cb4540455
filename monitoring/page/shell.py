"""What every page is wrapped in. Pure."""

from __future__ import annotations

from core.markup import Markup, element
from monitoring.page.style import STYLE

_ALLOWED = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def shell(title: str, *content: object) -> str:
    """Return a whole page that runs no script and loads nothing."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_ALLOWED),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        Markup(f"<style>{STYLE}</style>"),
    )
    html = element("html", head, element("body", element("main", *content)), lang="en")
    return f"<!DOCTYPE html>\n{html}\n"


def wide(head: list[Markup], rows: list[Markup], class_: str | None = None) -> Markup:
    """Return a table that scrolls by itself where the screen is narrow."""
    table = element("table", element("thead", element("tr", head)), element("tbody", rows), class_=class_)
    return element("div", table, class_="wide", tabindex=0)


def heads(*titles: str, numbers: tuple[str, ...] = ()) -> list[Markup]:
    """Return the heads of a table's columns; those of numbers are on their right."""
    return [element("th", title, scope="col", class_="n" if title in numbers else None) for title in titles]
