"""Promotion: decided in the ledger under the lease, then carried out by whoever comes, until it is done.

1. `decide`, one ledger transaction: the lease is checked, and what is to be promoted, with the records that
   say so, is kept in the request. From here on the promotion is done; before, nothing has happened.
2. `carry_out`: the alias moves, only from the champion that the decision was made against.
3. One ledger transaction: the records, the request closed, its own pins released; those of the version stay
   (`flows.upkeep` says how long).

A run that dies behind 1 is followed by the dispatcher, which does 2 and 3 again: both may be repeated. The
ledger is never locked while MLflow is waited for: a run that stalls there would stall every service.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from core.audit import Ledger, LedgerRecord, RecordKind, RetrainRequest
from core.model_versions import ModelVersion
from core.models import CHALLENGER, CHAMPION, PREVIOUS
from core.registry import Registry
from flows.lease import PROMOTING, Lease, alert_failure, beat_name, find

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
) -> None:
    """Decide that a version becomes the champion in place of `expected`.

    Parameters
    ----------
    records : list of (kind, body)
        The gate and the retraining, to be written when it is done.
    aliases : mapping of alias to version, optional
        As they are; only the champion's if left out.
    approved : mapping, optional
        Who or what let it pass, ``by`` and ``why``; the gates if left out.

    Raises
    ------
    LeaseLostError
        If another run has the request; nothing is decided then.
    """
    request = lease.request
    promotion = {
        "version": version.version,
        "previous": expected,
        "effective_at": version.number("effective_at"),
        "request": request.id,
        "trigger": request.trigger,
        "mlflow_run": version.run_id,
        "rows_digest": version.tags.get("rows_digest"),
        "aliases": moved(aliases or ({} if expected is None else {CHAMPION: expected}), version.version),
        "approved": dict(approved or {"by": "gates", "why": None}),
        "evidence": evidence_of(lease.ledger.history(), request),
    }
    decided = {"promotion": promotion, "records": [list(record) for record in records], "reasons": reasons}
    with lease.ledger.transaction():
        lease.check()
        lease.ledger.advance(
            request.id, expect=("running",), status="running", body={**request.body, PROMOTING: decided}
        )


def moved(before: Mapping[str, int], champion: int) -> dict[str, dict[str, int]]:
    """Return the aliases before and after a version becomes champion; challenger it is no more.

    Examples
    --------
    >>> moved({"champion": 2, "previous": 1}, 3)
    {'before': {'champion': 2, 'previous': 1}, 'after': {'champion': 3, 'previous': 2}}
    >>> moved({"champion": 2, "challenger": 3}, 3)["after"]
    {'champion': 3, 'previous': 2}
    """
    after = {alias: version for alias, version in before.items() if (alias, version) != (CHALLENGER, champion)}
    if CHAMPION in before:
        after[PREVIOUS] = before[CHAMPION]
    after[CHAMPION] = champion
    return {"before": dict(before), "after": after}


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
    promotion = request.body[PROMOTING]["promotion"]
    version, expected = promotion["version"], promotion["previous"]
    champion = registry.alias(CHAMPION)
    current = None if champion is None else champion.version
    if current not in (version, expected):
        return _close(ledger, request, f"version {current} became champion meanwhile: {version} is not promoted")
    if version not in [entry.version for entry in registry.versions()]:
        ledger.unpin(pin_owner(version))
        return _close(ledger, request, f"version {version} was deleted in MLflow before it was promoted")
    registry.promote(version, expected=expected)
    return _close(ledger, request, None)


def _close(ledger: Ledger, request: RetrainRequest, refusal: str | None) -> str | None:
    """Write the end of a decided promotion, once."""
    body = {name: value for name, value in request.body.items() if name != PROMOTING}
    decided = request.body[PROMOTING]
    promotion, reasons = decided["promotion"], [refusal] if refusal else decided["reasons"]
    end = "failed" if refusal else "promoted"
    closing = {**body, "reasons": reasons, "version": None if refusal else promotion["version"]}
    with ledger.transaction():
        if not ledger.advance(request.id, expect=("running",), attempt=request.attempt, status=end, body=closing):
            return None
        for kind, record in decided["records"]:
            said = {**record, "promoted": False, "reasons": reasons} if refusal and kind == "retraining" else record
            ledger.record(kind, f"{request.id}/{request.attempt}", event_time=request.event_time, body=said)
        ledger.unpin(request.id)
        if refusal:
            alert_failure(ledger, request, reasons)
        else:
            key = str(promotion["version"])
            ledger.record("promotion", key, event_time=promotion["effective_at"], body=promotion)
        ledger.forget(beat_name(request))
    return refusal or f"version {promotion['version']} is champion"
