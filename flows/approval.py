"""Approval: a version that may become champion waits for a person, who passes or rejects it, in Prefect or by command.

The question is in the ledger, one at a time; a run of Prefect that is suspended is only its face (`flows.approve`), and
is made again where it is lost. The answer is written down with who and why, and leads to a move (`flows.moves`), in one
transaction.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.audit import QUESTION, Ledger
from core.errors import UsageError
from core.models import CHALLENGER
from core.progress import stream_of
from core.project import Project
from core.status import read_status
from flows.moves import Move, decide
from flows.prefect_api import ENDED, PrefectApi

_RUN = "promotion.approval.run"


@dataclass(frozen=True)
class Question:
    """What waits for approval.

    Attributes
    ----------
    move : Move
        What is done once it is approved.
    since : float
        When it was asked, wall clock, s.
    """

    move: Move
    since: float

    @property
    def version(self) -> int:
        """The version that would become champion."""
        return int(self.move.body["version"])

    @property
    def text(self) -> str:
        """The question as a sentence."""
        why = (self.move.body.get("approved") or {}).get("why") or "It passed every gate."
        return f"Version {self.version} waits for approval to replace champion {self.move.body['previous']}. {why}"


def question(ledger: Ledger) -> Question | None:
    """Return what waits for approval, if anything does."""
    kept = ledger.recall(QUESTION)
    return None if kept is None else Question(Move.from_json(kept), float(kept["at"]))


def ask(ledger: Ledger, move: Move) -> None:
    """Let a move wait for approval, with an alert; one that waited before waits no more."""
    with ledger.transaction():
        asked = Question(move, time.time())
        ledger.remember(QUESTION, {**move.as_json(), "at": asked.since, "text": asked.text})
        body = {"reasons": [asked.text, f"Answer it in Prefect, or with: headrace approve PROJECT {asked.version}"]}
        key = f"approval-{move.key}-{round(asked.since * 1000):x}"
        ledger.record("alert", key, event_time=move.body["effective_at"], body=body)


def drop(ledger: Ledger) -> None:
    """Let nothing wait: what did has ended."""
    ledger.forget(QUESTION)


def answer(
    project: Project, ledger: Ledger, version: int | None, *, by: str, why: str | None, passed: bool
) -> dict[str, Any]:
    """Pass or reject what waits, and return what was recorded; `flows.moves.finish` then moves the alias.

    Parameters
    ----------
    version : int, optional
        Which; whatever waits if left out.

    Raises
    ------
    UsageError
        If nothing waits, or another version does, or a move of the champion is under way.
    """
    stream = stream_of(read_status(project.status, "worker"))
    with ledger.transaction():
        asked = question(ledger)
        if asked is None:
            raise UsageError(f"nothing of {project.settings.name!r} waits for approval; see 'headrace history'")
        if version not in (None, asked.version):
            raise UsageError(f"version {version} does not wait for approval: version {asked.version} does")
        moment = asked.move.body["effective_at"] if stream is None else stream.progress
        if not decide(ledger, _approved(asked.move, moment, by, why) if passed else _rejected(asked, moment, by, why)):
            raise UsageError("a move of the champion is under way at this very moment; try again")
        body = {"version": asked.version, "passed": passed, "by": by, "why": why, "reasons": [asked.text]}
        ledger.record("approval", f"{asked.move.key}-{time.time_ns() // 1_000_000:x}", event_time=moment, body=body)
        drop(ledger)
    return body


def _approved(move: Move, moment: int, by: str, why: str | None) -> Move:
    before: Mapping[str, Any] = move.body.get("approved") or {}
    approved = {"by": by, "why": why, "after": before.get("by"), "found": before.get("why")}
    body = {**move.body, "effective_at": moment, "serves_from": moment, "approved": approved}
    return Move(move.kind, move.key, body, move.alert, of_shadow=move.of_shadow)


def _rejected(asked: Question, moment: int, by: str, why: str | None) -> Move:
    about = {"version": asked.version, "role": CHALLENGER, "end": "rejected", "champion": asked.move.body["previous"]}
    reasons = [f"Version {asked.version} is rejected by {by}: {why or 'no reason given'}."]
    body = {**about, "effective_at": moment, "reasons": reasons, "verdict": asked.move.body.get("verdict")}
    return Move("withdrawal", f"{asked.version}-rejected-{moment}", body, of_shadow=True)


def show(project: Project, ledger: Ledger, api: PrefectApi) -> None:
    """Keep one suspended run in Prefect while a question waits, and none when it does not.

    Raises
    ------
    PrefectError
        If Prefect cannot be reached, or lacks the deployment.
    """
    asked, run = question(ledger), ledger.recall(_RUN)
    if run is not None and (asked is None or run["since"] != asked.since):
        api.end(run["id"])
        ledger.forget(_RUN)
        run = None
    if asked is None or (run is not None and api.state(run["id"]) not in (None, *ENDED)):
        return
    attempt = 1 if run is None else int(run["attempt"]) + 1
    key = f"approve-{asked.version}-{round(asked.since * 1000):x}/{attempt}"
    flow_run = api.submit(f"approve/{project.settings.name}", {"version": asked.version, "question": asked.text}, key)
    ledger.remember(_RUN, {"id": flow_run, "since": asked.since, "attempt": attempt})
