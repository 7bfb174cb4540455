"""Steps 12 and 13: shadows are judged as each block ends, and what follows is done: promoted, dropped, brought back.

Beside the monitor, because a window in quarantine must not count: a moment is judged once the monitor has judged it.
The tables and the ledger give the verdict, and nothing else does: whoever looks, and however late, finds the same.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from core.audit import Ledger, LedgerRecord, RetrainRequest
from core.errors import HeadraceError
from core.line_up import InShadow, LineUp, line_up
from core.models import CHALLENGER, CHAMPION, PREVIOUS
from core.paired import judge_shadow
from core.project import Project
from core.quarantine import Span, quarantined
from core.registry import Registry
from core.sequential import Verdict
from core.settings import Settings
from core.status import read_status, write_status
from core.store import TableStore
from core.tables import EXAMPLES, ReadsTables, milliseconds, prediction_column, shadow_columns
from flows.approval import ask, drop, question
from flows.moves import Move, about, decide, decided, finish
from flows.verdicts import change_to, end_of, said
from monitoring.agreement import agreement
from monitoring.days import AGREES, CONTRADICTS

SERVICE = "shadows"
"""Name of the status file."""

_MAX_PAUSE_S = 60.0
_log = logging.getLogger("headrace.shadows")


@dataclass(frozen=True)
class Judged:
    """A shadow's verdict, and its sentence."""

    shadow: InShadow
    verdict: Verdict
    sentence: str

    def as_json(self) -> dict[str, Any]:
        """Return it as the status gets it."""
        return {**vars(self.shadow), "verdict": self.verdict.as_json(), "said": self.sentence}


def rows_of(store: ReadsTables, settings: Settings, shadow: InShadow, until: int) -> pa.Table:
    """Read the examples on which a shadow is compared: predicted beside the same champion, labels known before `until`.

    Raises
    ------
    StoreError
        If the table cannot be read.
    """
    version, own, blended = shadow_columns(shadow.role)
    known = ["event_time", "label_clock", "label", *map(prediction_column, ("served", CHAMPION))]
    begin = first_block(shadow.since, settings.promotion.block)
    since, end = (datetime.fromtimestamp(moment / 1000, UTC) for moment in (begin, until))
    return store.read(
        EXAMPLES,
        columns=[*known, version, own, blended],
        where=[
            (version, "=", shadow.version),
            ("champion_version", "=", shadow.against),
            ("event_time", ">=", since),
            ("label_clock", "<", end),
        ],
    )


def first_block(since: int, block: int) -> int:
    """Return from when events count: a first block of which a quarter or more is missing is left out, ms.

    A part of a block is no unit beside whole ones: what it shows on few rows would be taken for their spread.

    Examples
    --------
    >>> first_block(4_100, 1_000), first_block(4_500, 1_000), first_block(4_000, 1_000)
    (4100, 5000, 4000)
    """
    return since if since % block < block / 4 else -(-since // block) * block


def verdict_at(
    store: ReadsTables, settings: Settings, records: Sequence[LedgerRecord], shadow: InShadow, moment: int
) -> Verdict:
    """Return the verdict on a shadow as of the last block that had ended at event time `moment`, ms.

    Raises
    ------
    StoreError
        If the table cannot be read.
    """
    until = moment // settings.promotion.block * settings.promotion.block
    rows = rows_of(store, settings, shadow, until)
    without = _left_out(records, moment, rows, shadow, settings)
    return judge_shadow(rows, shadow.version, settings, until, role=shadow.role, without=without)


def _left_out(
    records: Sequence[LedgerRecord], moment: int, rows: pa.Table, shadow: InShadow, settings: Settings
) -> list[Span]:
    """Return the windows that do not count: those in quarantine.

    Labels that contradict the champion put a window there. Where they agree with the former champion, it is the new
    one that is wrong, and that is what the watch is for.
    """
    spans = quarantined(records, moment)
    if shadow.role != PREVIOUS or not spans:
        return spans
    times = milliseconds(rows["event_time"])
    inside = {span: rows.filter(pa.array((times >= span[0]) & (times < span[1]))) for span in spans}
    return [span for span in spans if not _is_regression(inside[span], settings)]


def _is_regression(rows: pa.Table, settings: Settings) -> bool:
    new, former = (agreement(rows, expert, settings.task) for expert in (CHAMPION, PREVIOUS))
    return new is not None and former is not None and new <= CONTRADICTS and former >= AGREES


class Shadowing:
    """Judges the shadows of a project, and carries out what follows.

    Parameters
    ----------
    project : Project
    ledger : Ledger
    store : TableStore
    connect : callable
        Makes the registry, when something is to be moved; MLflow takes its time.
    """

    def __init__(
        self,
        project: Project,
        ledger: Ledger,
        store: TableStore,
        connect: Callable[[Project], Registry] = Registry,
    ) -> None:
        self._project, self._settings = project, project.settings
        self._ledger, self._store, self._connect = ledger, store, connect
        self._registry: Registry | None = None
        self._seen: tuple[int, int] | None = None
        self._judged: list[Judged] = []
        self._through = -1
        self._problem: str | None = None

    def announce(self) -> None:
        """Say that it begins: what an earlier process said counts no more."""
        self._say("running")

    def run(self, stop: threading.Event, poll_s: float = 1.0) -> None:
        """Judge until `stop` is set; what fails is said and tried again, ever slower."""
        pause = poll_s
        while not stop.is_set():
            try:
                self.run_once()
                pause = poll_s
            except Exception as error:  # noqa: BLE001  a thread that died would never roll back
                self._trouble(error)
                pause = min(max(pause, poll_s) * 2, _MAX_PAUSE_S)
            stop.wait(pause)
        self._say("stopped")

    def run_once(self) -> None:
        """Carry out what is decided, and judge up to where the monitor has.

        Raises
        ------
        RegistryError
            If MLflow cannot be reached; what was decided is carried out by the next call.
        StoreError
            If the ledger or a table cannot be read or written.
        """
        if (move := decided(self._ledger)) is not None and move.of_shadow:
            self._finish()
        through = _evaluated(self._project)
        while through is not None and through >= 0 and self._look(through):
            pass
        if through is not None:
            self._through = through
        self._problem = None
        self._say("running")

    def has_judged(self, request: RetrainRequest) -> bool:
        """Tell whether shadows are judged up to when a retraining was decided, so that it meets the right champion."""
        return self._through >= request.event_time or not line_up(self._ledger.history()).shadows

    def _look(self, moment: int) -> bool:
        """Judge as of a moment, unless nothing has changed; return whether somebody else serves or shadows now."""
        seen = (moment // self._settings.promotion.block, self._ledger.last_sequence())
        if seen == self._seen:
            return False
        records = self._ledger.history()
        now, self._judged = line_up(records, moment), []
        asked = question(self._ledger)
        if asked is not None and asked.move.of_shadow and _is_moot(asked.move, now):
            drop(self._ledger)
        for shadow in now.shadows:
            judged = self._judge(records, shadow, moment)
            self._judged.append(judged)
            if judged.verdict.is_final and (move := self._what_follows(judged, now, records, moment)) is not None:
                return self._carry_out(move, now, moment)
        self._seen = seen
        return False

    def _judge(self, records: Sequence[LedgerRecord], shadow: InShadow, moment: int) -> Judged:
        verdict = verdict_at(self._store, self._settings, records, shadow, moment)
        return Judged(shadow, verdict, said(verdict, shadow, self._settings.promotion, self._settings.clock))

    def _what_follows(self, judged: Judged, now: LineUp, records: Sequence[LedgerRecord], moment: int) -> Move | None:
        shadow, verdict = judged.shadow, judged.verdict
        if verdict.conclusion != "superior":
            return end_of(verdict, shadow, judged.sentence, moment)
        registry = self._connected()
        entry = next((one for one in registry.versions() if one.version == shadow.version), None)
        if entry is None:
            sentence = f"{judged.sentence} But version {shadow.version} was deleted in MLflow."
            return end_of(verdict, shadow, sentence, moment)
        known = {**about(entry, registry.aliases(), moment), "trigger": entry.tags.get("trigger")}
        known["evidence"] = _evidence(records, shadow)
        move = change_to(verdict, shadow, judged.sentence, known, self._settings.promotion)
        if move.kind == "promotion" and self._settings.promotion.approval:
            if question(self._ledger) is None:
                ask(self._ledger, move)
            return None
        return move

    def _carry_out(self, move: Move, seen: LineUp, moment: int) -> bool:
        """Decide a move if the line-up still is what was judged, and do it."""
        with self._ledger.transaction():
            if line_up(self._ledger.history(), moment) != seen:
                return True
            if not decide(self._ledger, move):
                raise HeadraceError("another move of the champion is under way; shadows are judged again after it")
        self._finish()
        return True

    def _finish(self) -> None:
        if done := finish(self._ledger, self._connected()):
            _log.warning("%s", done)

    def _connected(self) -> Registry:
        self._registry = self._registry or self._connect(self._project)
        return self._registry

    def _trouble(self, error: Exception) -> None:
        text = str(error) or type(error).__name__
        if text != self._problem:
            _log.warning("shadows wait: %s", text, exc_info=None if isinstance(error, HeadraceError) else error)
        self._problem = text
        self._say("retrying")

    def _say(self, state: str) -> None:
        """Write the status, for people and for lockstep."""
        body: dict[str, Any] = {"state": state, "judged_through": self._through, "problem": self._problem}
        body["shadows"] = {judged.shadow.role: judged.as_json() for judged in self._judged}
        write_status(self._project.status, SERVICE, body)


def _evaluated(project: Project) -> int | None:
    """Return up to which event time the monitor has judged, ms; None while it does not say."""
    found = (read_status(project.status, "monitor") or {}).get("evaluated_through")
    return None if found is None else int(found)


def _is_moot(move: Move, now: LineUp) -> bool:
    """Tell whether a challenger that waits for approval is none any more, or is compared with another champion."""
    shadow = now.challenger
    return shadow is None or (shadow.version, shadow.against) != (move.body["version"], move.body["previous"])


def _evidence(records: Sequence[LedgerRecord], shadow: InShadow) -> dict[str, Any]:
    """Return the keys of the records that led to a shadow: those of its challenge, or the move that began the watch."""
    kinds = ("challenge",) if shadow.role == CHALLENGER else ("promotion",)
    version = shadow.version if shadow.role == CHALLENGER else shadow.against
    began = [record for record in records if record.kind in kinds and record.body.get("version") == version]
    if not began:
        return {}
    known = began[-1].body.get("evidence") or {}
    return {**known, began[-1].kind: began[-1].key}
