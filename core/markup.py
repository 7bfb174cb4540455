"""HTML and SVG elements as text; what they hold is escaped here, and nowhere else. Pure."""

from __future__ import annotations

import base64
import hashlib
import html
import re

_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


_ALLOWED = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def element(tag: str, *content: object, **attributes: object) -> Markup:
    """Return an element; text in it is escaped, markup and lists of markup are not.

    A trailing or inner ``_`` of an attribute's name stands for nothing and for ``-``: ``class_``, ``stroke_width``.
    One that is None is left out. An element without content ends itself, which HTML allows for void elements and
    in SVG only.

    Examples
    --------
    >>> element("p", "a < b ", element("b", "c"), class_="x")
    '<p class="x">a &lt; b <b>c</b></p>'
    """
    given = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items() if value is not None}
    opening = tag + "".join(f' {name}="{escaped(value)}"' for name, value in given.items())
    return Markup(f"<{opening}>{joined(content)}</{tag}>" if content else f"<{opening}/>")


def whole_page(title: str, style: str, *body: object, script: str | None = None, images: bool = False) -> str:
    """Return a whole page that loads nothing, and runs no script but its own, at its end.

    Parameters
    ----------
    images : bool
        Whether it may show pictures that it holds itself (``data:``).
    """
    allowed = _ALLOWED + ("; img-src data:" if images else "")
    if script is not None:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        allowed += f"; script-src 'sha256-{digest}'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=allowed),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        Markup(f"<style>{style}</style>"),
    )
    end = "" if script is None else Markup(f"<script>{script}</script>")
    return f"<!DOCTYPE html>\n{element('html', head, element('body', body, end), lang='en')}\n"


def joined(content: object) -> Markup:
    """Return content as markup: lists one after the other, text escaped."""
    if isinstance(content, Markup):
        return content
    if isinstance(content, (list, tuple)):
        return Markup("".join(joined(part) for part in content))
    return escaped(content)


def escaped(value: object) -> Markup:
    """Return a value as text that is safe in elements and attributes; what no page may hold becomes U+FFFD.

    Examples
    --------
    >>> escaped('<a href="x">')
    '&lt;a href=&quot;x&quot;&gt;'
    """
    return Markup(html.escape(_UNFIT.sub("\ufffd", str(value))))
