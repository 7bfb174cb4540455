"""The monitor: takes each due stage once, judges it, writes down what follows, and only then tells."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa

from core.audit import DISPATCH_PROBLEM, Ledger, RecordKind, RetrainRequest
from core.errors import AlreadyRunningError, HeadraceError
from core.line_up import line_up
from core.locks import FileLock
from core.progress import Stream, stream_of
from core.project import Project
from core.quarantine import quarantined
from core.status import read_status, refuse_second, write_status
from core.store import TableStore
from core.tables import WINDOWS
from monitoring.alerts import TIMEOUT_S, AlertOutbox, SendAlert
from monitoring.cursor import Cursor, Due
from monitoring.decision import Decision, PolicyState
from monitoring.gain import gains
from monitoring.inspection import Inspection, Inspector, Reports
from monitoring.judgement import Evidence, judge
from monitoring.page.document import page_file
from monitoring.page.files import Pages
from monitoring.policy import decide
from monitoring.reference import champion_at, load_reference
from monitoring.rows import WindowRows
from monitoring.windows import WindowStage, due_stages, start_progress, windows_schema

log = logging.getLogger(__name__)

APP = "monitor"
CURSOR = "monitor.cursor"
POLICY = "monitor.policy"
LONGEST_BACKOFF_S = 60.0
NOTHING_EVALUATED = -1
"""``evaluated_through`` before the worker says how far the stream is."""

LONG_GAP = 100
"""Windows without an event that are passed over in one step; fewer are recorded one by one."""


class Monitor:
    """Judges a project's windows as they become due; one process a project does, whoever asks for it.

    Parameters
    ----------
    project : Project
    ledger : Ledger
        Alerts, decisions and requests go here, in one transaction a stage.
    store : TableStore
        The project's tables.
    send_alert : callable
        Sends one alert that was written; see :func:`monitoring.alerts.make_sender`.
    """

    def __init__(self, project: Project, ledger: Ledger, store: TableStore, *, send_alert: SendAlert) -> None:
        self._project = project
        self._settings = project.settings
        self._ledger = ledger
        self._store = store
        references = project.state / "references"
        self._inspector = Inspector(
            project.settings,
            WindowRows(store, project.settings),
            lambda version: load_reference(references, version),
            Reports(project),
            lambda moment: quarantined(ledger.history(), moment),
        )
        self._pages = Pages(project, ledger)
        self._outbox = AlertOutbox(ledger, send_alert)
        self._turn = FileLock(project.status / "monitor.lock")
        self._has_columns = False

    def run_once(self) -> int | None:
        """Process every stage that is due; return how many, None while another process is at it.

        Raises
        ------
        HeadraceError
            If a stage cannot be processed now. What was processed before stays so; the next call
            goes on with the stage that failed.
        """
        if not self._turn.acquire("drift check"):
            return None
        try:
            self._outbox.flush()
            done = self._pass(lambda: False)
            self._outbox.flush()
            self._say("stopped")  # a monitor may start at once, and the next check need not take this one for one
        finally:
            self._turn.release()
        return done

    def take_turn(self, stop: threading.Event, poll_s: float = 1.0) -> bool:
        """Become the process that judges, once a drift check that is at it has ended; False if told to stop before.

        Raises
        ------
        AlreadyRunningError
            If another monitor runs on the same state.
        StoreError
            If the state folder's file system knows no locks.
        """
        refuse_second(self._project.status, "monitor")
        waits_for = ""
        while not self._turn.acquire(APP):
            what, who = self._turn.holder()
            if what == APP:
                raise AlreadyRunningError(
                    f"monitor already runs on {self._project.state} ({who}); "
                    "stop it first, or give another folder with HEADRACE_STATE"
                )
            if who != waits_for:
                log.info("a drift check (%s) judges windows; this monitor follows", who)
                waits_for = who
            if stop.wait(poll_s):
                return False
        return True

    def run(self, stop: threading.Event, poll_s: float = 1.0) -> None:
        """Process stages until `stop` is set, looking every `poll_s` seconds; errors are retried.

        Raises
        ------
        AlreadyRunningError
            If another monitor runs on the same state.
        """
        if not self.take_turn(stop, poll_s):
            return
        try:
            self._run(stop, poll_s)
        finally:
            self._turn.release()

    def _run(self, stop: threading.Event, poll_s: float) -> None:
        sender = threading.Thread(target=self._outbox.run, args=(stop, poll_s), name="alerts", daemon=True)
        sender.start()
        failures = 0
        while not stop.is_set():
            try:
                self._pass(stop.is_set)
                failures, wait = 0, poll_s
            except Exception as error:
                failures += 1
                wait = min(poll_s * 2.0**failures, LONGEST_BACKOFF_S)
                log.exception("monitoring is held up; trying again in %.1f s", wait)
                self._say("retrying", str(error) or type(error).__name__)
            stop.wait(wait)
        sender.join(timeout=2 * TIMEOUT_S)
        self._say("stopped")

    def _pass(self, stopped: Callable[[], bool]) -> int:
        done = 0
        while not stopped() and (due := self._next()) is not None:
            done += self._process(due)
            self._say("running")
        self._say("running")
        return done

    def _next(self) -> Due | None:
        """Return the next stage that is due."""
        remembered, cursor = self._where()
        stream = self._stream()
        if stream is None or cursor is None:
            return None
        stage = next(self._due(cursor, stream), None)
        return None if stage is None else Due(stage, cursor, remembered)

    def _due(self, cursor: Cursor, stream: Stream) -> Iterator[WindowStage]:
        span, horizon = self._settings.windows.span, self._settings.label.horizon
        return due_stages(cursor.progress, span, horizon, stream.progress, self._settings.clock)

    def _process(self, due: Due) -> bool:
        """Take one stage from its rows to its records; return False, with nothing changed, if another process did it.

        Its row comes first, under the number that its cursor says: appended by two, or again after the records were
        lost, it is there once. The records come in one transaction that finds the cursor where the stage began, so that
        the policy sees each window once.
        """
        stage, cursor = due.stage, due.cursor
        inspection = self._inspector.inspect(stage, champion_at(self._ledger.history(), stage.due))
        evidence = inspection.evidence(cursor.first_event)
        html, judgement = inspection.report.html, judge(evidence, self._settings.drift)
        row = inspection.row(judgement, html.relative_to(self._project.state).as_posix() if html else None)
        table = pa.Table.from_pylist([row], schema=windows_schema())
        self._append(table, cursor.appended + 1)
        moved = self._moved(cursor, inspection)
        with self._ledger.transaction():
            if self._ledger.recall(CURSOR) != due.remembered:
                log.warning("window %s: another process judged it meanwhile", stage.name)
                return False
            decision = self._decide(evidence)
            alerted = bool(decision.alert) and self._record_alert(evidence, decision)
            self._record_breaks(evidence, decision)
            if decision.trigger is not None:
                self._request(evidence, decision)
            self._ledger.remember(CURSOR, asdict(replace(moved, alerts=moved.alerts + alerted)))
        log.info("window %s: %s; %s", stage.name, judgement.verdict, decision.sentence)
        self._pages.write(inspection, judgement, decision)
        if alerted:
            log.warning("alert %s: %s", stage.name, " ".join(decision.alert))
        return True

    def _append(self, row: pa.Table, sequence: int) -> None:
        """Append a window's row, to a table of an older headrace too."""
        if not self._has_columns and self._store.exists(WINDOWS):
            self._store.widen(WINDOWS, row.schema)
        self._has_columns = True
        self._store.append(WINDOWS, row, app=APP, sequence=sequence)

    def _decide(self, evidence: Evidence) -> Decision:
        """Ask the policy with what the ledger knows; to be called in the stage's transaction."""
        stage, requests = evidence.window, self._ledger.requests()
        sibling = stage.sibling("labels" if stage.stage == "data" else "data")
        challenger = line_up(
            self._ledger.history(), stage.due - 1
        ).challenger  # what happens at that moment comes after
        evidence = replace(
            evidence,
            in_shadow=None if challenger is None else challenger.version,
            alerted=any(record.key == sibling for record in self._ledger.history("alert")),
            open_retraining=any(request.is_open or stage.due < request.effective_at for request in requests),
            retrainings=tuple(request.event_time for request in requests),
            past=gains(
                requests,
                self._ledger.history("retraining"),
                self._ledger.history("withdrawal"),
                self._settings.task,
                stage.due,
            ),
        )
        state = PolicyState.from_json(self._ledger.recall(POLICY))
        decision, state = decide(evidence, state, self._settings)
        self._ledger.remember(POLICY, state.to_json())
        return decision

    def _record_alert(self, evidence: Evidence, decision: Decision) -> bool:
        stage = evidence.window
        report = (self._project.reports / page_file(stage.name)).relative_to(self._project.state).as_posix()
        body = {**_about(evidence), "reasons": list(decision.alert), "report": report}
        return self._ledger.record("alert", stage.name, event_time=stage.due, body=body)

    def _record_breaks(self, evidence: Evidence, decision: Decision) -> None:
        """Write down which windows are kept out of learning, unlearned, or learned from after all."""
        stage, span = evidence.window, self._settings.windows.span
        if decision.quarantine:
            body = {**_about(evidence), "span": [stage.start, stage.end], "reasons": list(decision.quarantine)}
            self._ledger.record("quarantine", stage.sibling("data"), event_time=stage.due, body=body)
        said: list[tuple[RecordKind, tuple[int, ...]]] = [("release", decision.release), ("unlearn", decision.unlearn)]
        for kind, starts in said:
            if starts:
                body = {**_about(evidence), "spans": [[start, start + span] for start in starts]}
                self._ledger.record(kind, stage.name, event_time=stage.due, body=body)

    def _request(self, evidence: Evidence, decision: Decision) -> None:
        assert decision.trigger is not None
        due = evidence.window.due
        key = f"{decision.trigger}-{self._settings.clock.key(due)}"
        effective_at = due + self._settings.retrain.duration
        body = {**_about(evidence), "trigger": decision.trigger, "reasons": list(decision.reasons)}
        if decision.prospect is not None:
            body |= {"prospect": asdict(decision.prospect), "expected_gain": decision.gain}
        request = RetrainRequest(key, decision.trigger, due, effective_at, body=body)
        if self._ledger.request_retrain(request):
            self._ledger.record("decision", key, event_time=due, body={**body, "effective_at": effective_at})

    def _moved(self, cursor: Cursor, inspection: Inspection) -> Cursor:
        """Return the cursor after a stage, a long gap in the stream passed over."""
        stage, span = inspection.stage, self._settings.windows.span
        progress = cursor.progress.after(stage)
        stream = self._stream()
        if inspection.rows == 0 and stream is not None:
            following = self._inspector.next_event(stage.end)
            until = min(stream.progress - (stage.due - stage.end), following or 0)
            if until - stage.end >= LONG_GAP * span:
                progress = progress.skip_to(stage.stage, until, span)
        data = stage.stage == "data"
        first_report = inspection.report.html is not None and (data or not self._has_report(stage.sibling("data")))
        return replace(
            cursor,
            progress=progress,
            appended=cursor.appended + 1,
            closed=cursor.closed + data,
            reported=cursor.reported + first_report,
        )

    def _has_report(self, name: str) -> bool:
        return (self._project.reports / f"{name}.html").is_file()

    def _where(self) -> tuple[dict[str, Any] | None, Cursor | None]:
        """Return what the ledger holds of the cursor, and the cursor: the first one once the stream has begun."""
        body = self._ledger.recall(CURSOR)
        if body is not None:
            return body, Cursor.from_json(body)
        stream = self._stream()
        if stream is None or stream.first_event is None:
            return None, None
        progress = start_progress(stream.first_event, self._settings.windows.span)
        last = self._store.last_sequence(WINDOWS, APP) or 0
        if last <= 1:  # 1: stopped between the first row and its records; that row is repeated
            return None, Cursor(progress, stream.first_event)
        if self._ledger.recall(CURSOR) is not None:  # another process has judged the first stages meanwhile
            return self._where()
        log.warning("the ledger has lost the monitor's cursor; every window is judged again")
        return None, Cursor(progress, stream.first_event, appended=last)

    def _stream(self) -> Stream | None:
        """Return how far the worker says the stream is; None while it does not say."""
        return stream_of(read_status(self._project.status, "worker"))

    def _say(self, state: str, problem: str | None = None) -> None:
        """Write the status; what cannot be written is logged, it is for people and for lockstep."""
        try:
            stream, cursor = self._stream(), self._where()[1]
            counts = asdict(cursor) if cursor is not None else {}
            windows = {name: counts.get(name, 0) for name in ("closed", "reported", "alerts")}
            through = NOTHING_EVALUATED if stream is None else stream.progress
            if stream is not None and cursor is not None:
                waiting = next(self._due(cursor, stream), None)
                through = stream.progress if waiting is None else waiting.due - 1
            waits = (self._ledger.recall(DISPATCH_PROBLEM) or {}).get("problem")
            problems = {"problem": problem, "dispatch_problem": waits}
            body = {"state": state, "evaluated_through": through, "windows": windows}
            body |= {name: said for name, said in problems.items() if said}
            write_status(self._project.status, APP, body)
        except (OSError, ValueError, HeadraceError) as error:
            log.warning("the monitor's status cannot be written: %s", error)


def _about(evidence: Evidence) -> dict[str, Any]:
    stage = evidence.window
    start, end = map(stage.clock.to_json, (stage.start, stage.end))
    return {
        "window": {"start": start, "end": end, "stage": stage.stage},
        "champion": evidence.champion,
    }
