"""Writes the page of a stage and the index. What cannot be written is a warning: the decision is in the ledger."""

from __future__ import annotations

import json
import logging
import shlex
from pathlib import Path

from core.audit import Ledger
from core.project import Project
from monitoring.decision import Decision
from monitoring.inspection import Inspection
from monitoring.judgement import Judgement
from monitoring.page.document import INDEX, Contents, page, page_file, sentence_of
from monitoring.page.followed import Followed, followed, of_window
from monitoring.page.index import Entry, Index, index_page, sheet_file, sheet_page

STATE = "index.json"

log = logging.getLogger(__name__)


class Pages:
    """The pages below a project's state folder.

    Parameters
    ----------
    project : Project
        The project.
    ledger : Ledger
        Knows what became of retrainings.
    """

    def __init__(self, project: Project, ledger: Ledger) -> None:
        self._project = project
        self._folder = project.reports
        self._ledger = ledger

    def write(self, found: Inspection, judgement: Judgement, decision: Decision) -> None:
        """Write the page of a stage that was judged, or of which something was decided, and the index.

        Nothing here may keep the monitor from the next stage, whatever the stream's values do to it.
        """
        try:
            retrainings = followed(self._ledger.requests(), self._ledger.history("retraining"))
            has_page = judgement.verdict != "not judged" or decision.action != "ignore"
            if has_page:
                contents = self._contents(found, judgement, decision, retrainings)
                _replace(self._folder / page_file(found.stage.name), page(contents))
            self._index(_entry(found, judgement, decision, retrainings, has_page), retrainings)
        except Exception as error:
            log.warning("window %s: its page cannot be written: %s", found.stage.name, error, exc_info=_is_ours(error))

    def _contents(
        self, found: Inspection, judgement: Judgement, decision: Decision, retrainings: list[Followed]
    ) -> Contents:
        project, stage = self._project, found.stage
        sibling = page_file(stage.sibling("labels" if stage.stage == "data" else "data"))
        expected = stage.stage == "data" or (self._folder / sibling).is_file()
        return Contents(
            found,
            judgement,
            decision,
            project.settings,
            retrainings,
            history=f"headrace history {shlex.quote(str(project.folder))}",
            mlflow=_address(project.tracking_uri),
            sibling=sibling if expected else None,
        )

    def _index(self, entry: Entry, retrainings: list[Followed]) -> None:
        """Add a stage to the index; a page of older ones is there before they leave it."""
        settings, folder = self._project.settings, self._folder
        name, clock = settings.name, settings.clock
        index, older = self._known().with_entry(entry).divided()
        if older:
            sheet = sheet_page(name, index.sheets, older, retrainings, clock)
            _replace(folder / sheet_file(index.sheets), sheet)
        _replace(folder / STATE, json.dumps(index.to_json()))
        _replace(folder / INDEX, index_page(name, index, retrainings, clock))

    def _known(self) -> Index:
        try:
            return Index.from_json(json.loads((self._folder / STATE).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return Index()
        except (ValueError, KeyError, TypeError) as error:
            log.warning("%s: is damaged (%r): the index begins again", self._folder / STATE, error)
            return Index(sheets=len(list(self._folder.glob("index-[0-9]*.html"))))


def _entry(
    found: Inspection, judgement: Judgement, decision: Decision, retrainings: list[Followed], has_page: bool
) -> Entry:
    stage, html = found.stage, found.report.html
    decided = of_window(retrainings, stage) if decision.trigger else []
    sentence = sentence_of(judgement, decision)
    return Entry(
        stage.name,
        stage.start,
        stage.end,
        stage.stage,
        judgement.verdict,
        decision.action,
        sentence,
        page_file(stage.name) if has_page else None,
        html.name if html else None,
        decided[-1].key if decided else None,
        alerted=bool(decision.alert),
        also=" ".join(reason for reason in decision.alert if reason not in sentence),
    )


def _address(uri: str) -> str | None:
    """Return an address that a browser can open; one that holds a password is shown to nobody."""
    return uri if uri.startswith(("http://", "https://")) and "@" not in uri else None


def _is_ours(error: Exception) -> bool:
    """Tell whether a traceback helps: a full disk explains itself."""
    return not isinstance(error, OSError)


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
