"""The index of pages, newest first. Pure.

It stays cheap however many windows there are: the newest stages are on the index, the older ones on pages of
their own that are written once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from core.clocks import Clock
from core.markup import Markup, element
from monitoring.page.followed import Followed
from monitoring.page.shell import heads, shell, wide

SHEET = 250
"""Stages on a page of older ones; the index shows up to twice as many."""

_LOUD = {"retrain", "quarantine", "alert"}


@dataclass(frozen=True)
class Entry:
    """A stage on the index; file names are those of its page and of Evidently's report.

    Where an alert was sent for it besides what was decided, `also` is what that says and the sentence does not.
    """

    name: str
    start: int
    end: int
    stage: str
    verdict: str
    action: str
    sentence: str
    page: str | None
    report: str | None
    retraining: str | None = None
    alerted: bool = False
    also: str = ""


@dataclass(frozen=True)
class Index:
    """The stages on the index, oldest first, and how many pages of older ones there are."""

    entries: tuple[Entry, ...] = ()
    sheets: int = 0

    def with_entry(self, entry: Entry) -> Index:
        """Return the index with a stage; one that is repeated is there once."""
        others = tuple(known for known in self.entries if known.name != entry.name)
        return replace(self, entries=(*others, entry))

    def divided(self) -> tuple[Index, tuple[Entry, ...]]:
        """Return the index, and the stages that go to the next page of older ones; none while there is room."""
        if len(self.entries) <= 2 * SHEET:
            return self, ()
        return Index(self.entries[SHEET:], self.sheets + 1), self.entries[:SHEET]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Index:
        """Read what :meth:`to_json` wrote."""
        return cls(tuple(Entry(**entry) for entry in body["entries"]), int(body["sheets"]))


def sheet_file(number: int) -> str:
    """Return the file name of a page of older stages, counted from 1.

    Examples
    --------
    >>> sheet_file(7)
    'index-0007.html'
    """
    return f"index-{number:04d}.html"


def index_page(project: str, index: Index, retrainings: Sequence[Followed], clock: Clock) -> str:
    """Return the index."""
    return _page(f"{project}: windows", index.entries, index.sheets, retrainings, clock)


def sheet_page(
    project: str, number: int, entries: Sequence[Entry], retrainings: Sequence[Followed], clock: Clock
) -> str:
    """Return a page of older stages."""
    return _page(f"{project}: older windows, page {number}", entries, number - 1, retrainings, clock)


def _page(title: str, entries: Sequence[Entry], older: int, retrainings: Sequence[Followed], clock: Clock) -> str:
    known = {one.key: one for one in retrainings}
    rows = [_row(entry, known.get(entry.retraining or ""), clock) for entry in reversed(entries)]
    more = element("p", element("a", "Older windows", href=sheet_file(older))) if older else ""
    table = wide(heads(f"window ({clock.name})", "stage", "decision", "why", "pages"), rows, class_="index")
    return shell(title, element("h1", title), table, more)


def _row(entry: Entry, retraining: Followed | None, clock: Clock) -> Markup:
    start, end = map(clock.brief, (entry.start, entry.end))
    action, _, why = entry.sentence.partition(": ")
    links: list[object] = []
    if entry.page is not None:
        links.append(element("a", "page", href=entry.page))
    if entry.report is not None:
        links += [" · " if links else "", element("a", "Evidently", href=entry.report)]
    if entry.alerted and action != "alert":
        action = f"{action}, alert"
    said: list[object] = [why]
    if entry.also:
        said.append(element("div", f"alert: {entry.also}"))
    if retraining is not None:
        said.append(element("div", element("small", _became(retraining))))
    return element(
        "tr",
        element("td", start, element("br"), element("small", f"to {end}"), class_="t"),
        element("td", entry.stage),
        element("td", action, element("br"), element("small", entry.verdict), class_="t"),
        element("td", said),
        element("td", links, class_="t"),
        id=entry.name,
        class_="loud" if entry.action in _LOUD else None,
    )


def _became(one: Followed) -> str:
    said = [f"retraining {one.key}: {one.status}"]
    said += [f"Prefect flow run {one.flow_run}"] * (one.flow_run is not None)
    said += [f"MLflow run {one.mlflow_run}"] * (one.mlflow_run is not None)
    said += [f"version {one.version}"] * (one.version is not None)
    return ", ".join(said)
