"""What a retraining ends with, decided in the ledger under the lease and carried out by whoever comes.

1. `decide`, one ledger transaction: the lease is checked, and what is to become champion or challenger, with the
   records that say so, is kept in the request. From here on it is done; before, nothing has happened.
2. `carry_out`: the alias moves; that of the champion only from the one that the decision was made against.
3. One ledger transaction: the records, the request closed, its own pins released; those of the version stay
   (`flows.upkeep` says how long).

A run that dies behind 1 is followed by the dispatcher, which does 2 and 3 again: both may be repeated. The
ledger is never locked while MLflow is waited for: a run that stalls there would stall every service.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from core.audit import Ledger, LedgerRecord, Outcome, RecordKind, RetrainRequest
from core.line_up import MOVES, challenged, line_up, moved
from core.model_versions import ModelVersion
from core.models import CHAMPION
from core.registry import Registry
from flows.approval import ask
from flows.lease import MOVE, PROMOTING, Lease, alert_failure, beat_name, find
from flows.moves import Move

Becomes = Literal["promotion", "challenge", "approval"]
_NOTHING = dict.fromkeys(("promoted", "shadowing", "waiting"), False)
ENDS: dict[Becomes, Outcome] = {"promotion": "promoted", "challenge": "shadowing", "approval": "waiting"}
"""How a request ends by what its version becomes."""

_DONE = {"promotion": "is champion", "challenge": "is challenger", "approval": "waits for approval"}

Bodies = list[tuple[RecordKind, dict[str, Any]]]


def pin_owner(version: int) -> str:
    """Return the name under which a model version pins what it was trained on."""
    return f"model-{version}"


def decide(
    lease: Lease,
    version: ModelVersion,
    expected: int | None,
    records: Bodies,
    reasons: list[str],
    *,
    aliases: Mapping[str, int] | None = None,
    approved: Mapping[str, Any] | None = None,
    becomes: Becomes = "promotion",
    watched: bool = False,
) -> None:
    """Decide that a version becomes the champion in place of `expected`, or challenger beside it.

    Parameters
    ----------
    records : list of (kind, body)
        The gate and the retraining, to be written when it is done.
    aliases : mapping of alias to version, optional
        As they are; only the champion's if left out.
    approved : mapping, optional
        Who or what let it pass, ``by`` and ``why``; the gates if left out.
    becomes : {'promotion', 'challenge', 'approval'}
        Champion, challenger, or champion once a person has approved it.
    watched : bool
        Whether `expected` goes on in shadow once the version is champion.

    Raises
    ------
    LeaseLostError
        If another run has the request; nothing is decided then.
    """
    request = lease.request
    before = dict(aliases or ({} if expected is None else {CHAMPION: expected}))
    about = {
        "version": version.version,
        "previous": expected,
        "effective_at": version.number("effective_at"),
        "request": request.id,
        "trigger": request.trigger,
        "mlflow_run": version.run_id,
        "rows_digest": version.tags.get("rows_digest"),
        "aliases": (challenged if becomes == "challenge" else moved)(before, version.version),
        "approved": dict(approved or {"by": "gates", "why": None}),
        "evidence": evidence_of(lease.ledger.history(), request),
        **({} if becomes == "challenge" else {"watched": watched}),
    }
    decided: dict[str, Any] = {
        "kind": becomes,
        "promotion": about,
        "reasons": reasons,
    }
    decided |= {"records": [list(record) for record in records]}
    with lease.ledger.transaction():
        lease.check()
        lease.ledger.advance(
            request.id, expect=("running",), status="running", body={**request.body, PROMOTING: decided}
        )


def evidence_of(records: Iterable[LedgerRecord], request: RetrainRequest) -> dict[str, Any]:
    """Return the keys of the records that led to a request: alerts about its window, decision, retraining and gate."""
    known = list(records)
    window = request.body.get("window", {}).get("start")
    alerts = [
        record.key
        for record in known
        if record.kind == "alert" and window is not None and record.body.get("window", {}).get("start") == window
    ]
    decided = any(record.kind == "decision" and record.key == request.id for record in known)
    attempt = f"{request.id}/{request.attempt}"
    return {"alerts": alerts, "decision": request.id if decided else None, "retraining": attempt, "gate": attempt}


def carry_out(ledger: Ledger, registry: Registry, request_id: str) -> str | None:
    """Do what was decided; return what was done, None if there is nothing to do (any more).

    Raises
    ------
    RegistryError
        If MLflow cannot be reached; what is left is done by the next call.
    """
    request = find(ledger, request_id)
    if request is None or not request.is_open or PROMOTING not in request.body:
        return None
    decided = request.body[PROMOTING]
    becomes, kind = decided["promotion"], decided.get("kind", "promotion")
    version, expected = becomes["version"], becomes["previous"]
    current = registry.aliases().get(CHAMPION)
    if kind == "challenge":
        refusal = f"version {version} is champion already" if current == version else None
    else:
        meanwhile = f"version {current} became champion meanwhile: {version} is not promoted"
        refusal = None if current in (version, expected) else meanwhile
    if refusal is None and version not in [entry.version for entry in registry.versions()]:
        ledger.unpin(pin_owner(version))
        refusal = f"version {version} was deleted in MLflow before it was promoted"
    if refusal is None and kind == "challenge":
        registry.challenge(version)
    elif refusal is None and kind == "promotion":
        registry.promote(version, expected=expected, watched=bool(becomes.get("watched")))
    return _close(ledger, request, refusal)


def _close(ledger: Ledger, request: RetrainRequest, refusal: str | None) -> str | None:
    """Write the end of a decided promotion or challenge, once."""
    body = {name: value for name, value in request.body.items() if name != PROMOTING}
    decided = request.body[PROMOTING]
    kind, becomes = decided.get("kind", "promotion"), decided["promotion"]
    reasons = [refusal] if refusal else decided["reasons"]
    end = "failed" if refusal else ENDS[kind]
    closing = {**body, "reasons": reasons, "version": None if refusal else becomes["version"]}
    with ledger.transaction():
        if not ledger.advance(request.id, expect=("running",), attempt=request.attempt, status=end, body=closing):
            return None
        for name, record in decided["records"]:
            said = {**record, **_NOTHING, "reasons": reasons} if refusal and name == "retraining" else record
            ledger.record(name, f"{request.id}/{request.attempt}", event_time=request.event_time, body=said)
        ledger.unpin(request.id)
        if refusal:
            alert_failure(ledger, request, reasons)
        else:
            _record(ledger, kind, becomes)
        ledger.forget(beat_name(request))
    return refusal or f"version {becomes['version']} {_DONE[kind]}"


def _record(ledger: Ledger, kind: str, becomes: dict[str, Any]) -> None:
    key = str(becomes["version"])
    if kind == "approval":
        ask(ledger, Move("promotion", key, becomes))
        return
    if kind == "challenge":
        _replace(ledger, becomes)
    ledger.record(
        "challenge" if kind == "challenge" else "promotion", key, event_time=becomes["effective_at"], body=becomes
    )


def _replace(ledger: Ledger, becomes: Mapping[str, Any]) -> None:
    """Write down that a challenger ends with the one that comes, unless it is about to be promoted or withdrawn."""
    former, move = line_up(ledger.history()).challenger, ledger.recall(MOVE)
    if former is None or former.version == becomes["version"]:
        return
    if move is not None and move["body"]["version"] == former.version:
        return
    said = f"Challenger {former.version} is replaced by version {becomes['version']} before it was decided."
    body = {
        "version": former.version,
        "role": former.role,
        "champion": former.against,
        "end": "replaced",
        "reasons": [said],
    }
    ledger.record(
        "withdrawal",
        f"{former.version}-replaced-by-{becomes['version']}",
        event_time=becomes["effective_at"],
        body={**body, "effective_at": becomes["effective_at"]},
    )


def named_versions(records: list[LedgerRecord]) -> set[int]:
    """Return the versions that have an alias, as the ledger says."""
    moves = [record.body for record in records if record.kind in MOVES]
    if not moves:
        return set()
    last, shadow = moves[-1], line_up(records).challenger
    named = {last.get("version"), last.get("previous"), *last.get("aliases", {}).get("after", {}).values()}
    named |= set() if shadow is None else {shadow.version}
    return {version for version in named if version is not None}
