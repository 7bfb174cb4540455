"""The monitor: takes each due stage once, judges it, writes down what follows, and only then tells."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from core.audit import Ledger, RetrainRequest
from core.durations import format_time
from core.errors import HeadraceError
from core.project import Project
from core.status import read_status, refuse_second, write_status
from core.store import TableStore
from core.tables import WINDOWS
from monitoring.alerts import TIMEOUT_S, AlertOutbox, SendAlert
from monitoring.inspection import Inspection, Inspector
from monitoring.policy import Decision, Evidence, PolicyState, decide, judge
from monitoring.reference import champion_at
from monitoring.windows import Progress, WindowStage, due_stages, start_progress, windows_schema

log = logging.getLogger(__name__)

APP = "monitor"
CURSOR = "monitor.cursor"
POLICY = "monitor.policy"
LONGEST_BACKOFF_S = 60.0
NOTHING_EVALUATED = -1
"""``evaluated_through`` before the worker says how far the stream is."""

LONG_GAP = 100
"""Windows without an event that are passed over in one step; fewer are recorded one by one."""


@dataclass(frozen=True)
class Cursor:
    """What the monitor remembers between stages; durable in the ledger.

    Attributes
    ----------
    progress : Progress
        Which stages are done.
    first_event : int
        Event time of the stream's first event, ms, as known when monitoring began.
    appended : int
        Rows appended to the ``windows`` table: the number of the latest append.
    closed, reported, alerts : int
        Windows whose data stage is done, of which a report was made, that alerted.
    """

    progress: Progress
    first_event: int
    appended: int = 0
    closed: int = 0
    reported: int = 0
    alerts: int = 0

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Cursor:
        """Read a cursor from the ledger."""
        return cls(**{**body, "progress": Progress(**body["progress"])})


@dataclass(frozen=True)
class Stream:
    """How far the stream is, in event time, ms."""

    progress: int
    first_event: int | None


class Monitor:
    """Judges a project's windows as they become due; one process a project.

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
        self._inspector = Inspector(project, store)
        self._outbox = AlertOutbox(ledger, send_alert)

    def run_once(self) -> int:
        """Process every stage that is due; return how many.

        Raises
        ------
        HeadraceError
            If a stage cannot be processed now. What was processed before stays so; the next call
            goes on with the stage that failed.
        """
        self._outbox.flush()
        done = self._pass(lambda: False)
        self._outbox.flush()
        return done

    def run(self, stop: threading.Event, poll_s: float = 1.0) -> None:
        """Process stages until `stop` is set, looking every `poll_s` seconds; errors are retried.

        Raises
        ------
        AlreadyRunningError
            If another monitor runs on the same state.
        """
        refuse_second(self._project.status, "monitor")
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
        while not stopped() and (stage := self._next()) is not None:
            self._process(stage)
            done += 1
            self._say("running")
        self._say("running")
        return done

    def _next(self) -> WindowStage | None:
        """Return the next stage that is due."""
        stream, cursor = self._stream(), self._cursor()
        if stream is None or cursor is None:
            return None
        return next(self._due(cursor, stream), None)

    def _due(self, cursor: Cursor, stream: Stream) -> Iterator[WindowStage]:
        span, horizon = self._settings.windows.span, self._settings.label.horizon
        return due_stages(cursor.progress, span, horizon, stream.progress)

    def _process(self, stage: WindowStage) -> None:
        """Take one stage from its rows to its records; done twice, it is the same as once."""
        cursor = self._cursor()
        assert cursor is not None
        inspection = self._inspector.inspect(stage, champion_at(self._ledger.history(), stage.due))
        evidence = inspection.evidence(cursor.first_event)
        html = inspection.report.html
        report = html.relative_to(self._project.state).as_posix() if html else None
        row = inspection.row(judge(evidence, self._settings.drift), report)
        table = pa.Table.from_pylist([row], schema=windows_schema())
        self._store.append(WINDOWS, table, app=APP, sequence=cursor.appended + 1)
        moved = self._moved(cursor, inspection)
        with self._ledger.transaction():
            decision = self._decide(evidence)
            alerted = bool(decision.alert) and self._record_alert(evidence, decision, report)
            if decision.trigger is not None:
                self._request(evidence, decision)
            self._ledger.remember(CURSOR, asdict(replace(moved, alerts=moved.alerts + alerted)))
        log.info("window %s: %s, %s", stage.name, row["verdict"], decision.action)
        if alerted:
            log.warning("alert %s: %s", stage.name, " ".join(decision.alert))

    def _decide(self, evidence: Evidence) -> Decision:
        """Ask the policy with what the ledger knows; to be called in the stage's transaction."""
        stage, requests = evidence.window, self._ledger.requests()
        sibling = stage.sibling("labels" if stage.stage == "data" else "data")
        evidence = replace(
            evidence,
            alerted=any(record.key == sibling for record in self._ledger.history("alert")),
            open_retraining=any(request.is_open for request in requests),
            last_retraining=max((request.event_time for request in requests), default=None),
        )
        state = PolicyState.from_json(self._ledger.recall(POLICY))
        decision, state = decide(evidence, state, self._settings)
        self._ledger.remember(POLICY, state.to_json())
        return decision

    def _record_alert(self, evidence: Evidence, decision: Decision, report: str | None) -> bool:
        stage = evidence.window
        body = {**_about(evidence), "reasons": list(decision.alert), "report": report}
        return self._ledger.record("alert", stage.name, event_time=stage.due, body=body)

    def _request(self, evidence: Evidence, decision: Decision) -> None:
        assert decision.trigger is not None
        due = evidence.window.due
        key = f"{decision.trigger}-{format_time(due)}"
        effective_at = due + self._settings.retrain.duration
        body = {**_about(evidence), "trigger": decision.trigger, "reasons": list(decision.reasons)}
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

    def _cursor(self) -> Cursor | None:
        """Return the durable cursor, or the first one once the stream has begun."""
        body = self._ledger.recall(CURSOR)
        if body is not None:
            return Cursor.from_json(body)
        stream = self._stream()
        if stream is None or stream.first_event is None:
            return None
        progress = start_progress(stream.first_event, self._settings.windows.span)
        last = self._store.last_sequence(WINDOWS, APP) or 0
        if last <= 1:  # 1: stopped between the first row and its records; that row is repeated
            return Cursor(progress, stream.first_event)
        log.warning("the ledger has lost the monitor's cursor; every window is judged again")
        return Cursor(progress, stream.first_event, appended=last)

    def _stream(self) -> Stream | None:
        """Return how far the worker says the stream is; None while it does not say."""
        partitions = list(((read_status(self._project.status, "worker") or {}).get("partitions") or {}).values())
        flushed = [partition.get("flushed_through") for partition in partitions]
        if not flushed or None in flushed:
            return None
        first = [moment for entry in partitions if (moment := entry.get("first_event")) is not None]
        return Stream(min(flushed), min(first, default=None))

    def _say(self, state: str, problem: str | None = None) -> None:
        """Write the status; what cannot be written is logged, it is for people and for lockstep."""
        try:
            stream, cursor = self._stream(), self._cursor()
            counts = asdict(cursor) if cursor is not None else {}
            windows = {name: counts.get(name, 0) for name in ("closed", "reported", "alerts")}
            through = NOTHING_EVALUATED if stream is None else stream.progress
            if stream is not None and cursor is not None:
                waiting = next(self._due(cursor, stream), None)
                through = stream.progress if waiting is None else waiting.due - 1
            body = {"state": state, "evaluated_through": through, "windows": windows}
            write_status(self._project.status, "monitor", body | ({"problem": problem} if problem else {}))
        except (OSError, ValueError, HeadraceError) as error:
            log.warning("the monitor's status cannot be written: %s", error)


def _about(evidence: Evidence) -> dict[str, Any]:
    stage = evidence.window
    return {
        "window": {"start": format_time(stage.start), "end": format_time(stage.end), "stage": stage.stage},
        "champion": evidence.champion,
    }
