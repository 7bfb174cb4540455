"""Promotion: decided in the ledger under the lease, then carried out by whoever comes, until it is done.

1. `decide`, one ledger transaction: the lease is checked, and what is to be promoted, with the records that
   say so, is kept in the request. From here on the promotion is done; before, nothing has happened.
2. `carry_out`: the alias moves, only from the champion that the decision was made against.
3. One ledger transaction: the records, the request closed, its pins released. With a promotion all pins go but
   those of the new champion, the previous one and open requests: the data of what is retired need not be kept.

A run that dies behind 1 is followed by the dispatcher, which does 2 and 3 again: both may be repeated. The
ledger is never locked while MLflow is waited for: a run that stalls there would stall every service.
"""

from __future__ import annotations

from typing import Any

from core.audit import Ledger, RecordKind, RetrainRequest
from core.registry import CHAMPION, ModelVersion, Registry
from flows.lease import PROMOTING, Lease, alert_failure, beat_name, find

Bodies = list[tuple[RecordKind, dict[str, Any]]]


def pin_owner(version: int) -> str:
    """Return the name under which a model version pins what it was trained on."""
    return f"model-{version}"


def decide(lease: Lease, version: ModelVersion, expected: int | None, records: Bodies, reasons: list[str]) -> None:
    """Decide that a version becomes the champion in place of `expected`.

    Parameters
    ----------
    records : list of (kind, body)
        The gate and the retraining, to be written when it is done.

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
    }
    decided = {"promotion": promotion, "records": [list(record) for record in records], "reasons": reasons}
    with lease.ledger.transaction():
        lease.check()
        lease.ledger.advance(
            request.id, expect=("running",), status="running", body={**request.body, PROMOTING: decided}
        )


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
        if refusal:
            alert_failure(ledger, request, reasons)
            ledger.unpin(pin_owner(promotion["version"]))
            ledger.unpin(request.id)
        else:
            key = str(promotion["version"])
            ledger.record("promotion", key, event_time=promotion["effective_at"], body=promotion)
            _release_pins(ledger, promotion)
        ledger.forget(beat_name(request))
    return refusal or f"version {promotion['version']} is champion"


def _release_pins(ledger: Ledger, promotion: dict[str, Any]) -> None:
    serving = [version for version in (promotion["version"], promotion["previous"]) if version is not None]
    still_open = [request.id for request in ledger.open_requests()]
    ledger.unpin_all_but([*(pin_owner(version) for version in serving), *still_open])
