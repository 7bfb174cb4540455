"""Example rows of an id taken out of the pages that are there."""

from __future__ import annotations

import re
from pathlib import Path

from core.markup import element
from monitoring.page.wording import MAX_ID, foreign


def without_row(page: str, event_id: str) -> str:
    """Return a page without the example rows of an id; of a long one also those of ids that look the same there.

    Examples
    --------
    >>> row = element("tr", element("th", foreign("e1", MAX_ID), scope="row"), element("td", "4.5"))
    >>> without_row(f"<table>{row}</table>", "e1"), without_row("<p>e1</p>", "e1")
    ('<table></table>', '<p>e1</p>')
    """
    head = re.escape(element("th", foreign(event_id, MAX_ID), scope="row"))
    return re.sub(rf"<tr[^>]*>{head}(?:(?!</tr>).)*</tr>", "", page, flags=re.DOTALL)


def erase_from_pages(folder: Path, event_id: str) -> int:
    """Rewrite the pages that show rows of an id, and return how many.

    Raises
    ------
    OSError
        If one cannot be read or written.
    """
    changed = 0
    for path in sorted(folder.glob("*.html")):
        text = path.read_text(encoding="utf-8")
        left = without_row(text, event_id)
        if left != text:
            part = path.with_name(f".{path.name}.part")
            part.write_text(left, encoding="utf-8")
            part.replace(path)
            changed += 1
    return changed
