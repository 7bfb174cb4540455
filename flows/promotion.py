"""Promotion: the alias moves under the lease, the ledger says so, and a crash between the two is repaired."""

from __future__ import annotations

from core.audit import Ledger, RetrainRequest
from core.errors import RegistryError
from core.registry import CHAMPION, PREVIOUS, ModelVersion, Registry
from flows.lease import Lease, find


def promote(lease: Lease, registry: Registry, version: ModelVersion, expected: int | None) -> None:
    """Make a version the champion, if this run still has its request.

    The ledger is locked meanwhile, so the request cannot be given away between check and alias.

    Raises
    ------
    LeaseLostError
        If another run has the request; nothing has moved then.
    RegistryError
        If the alias cannot be moved, or another version became champion.
    """
    with lease.ledger.transaction():
        lease.check()
        registry.promote(version.version, expected=expected)
        write_promotion(lease.ledger, version, expected)


def write_promotion(ledger: Ledger, version: ModelVersion, previous: int | None) -> bool:
    """Write that a version became champion; return False if it was written before."""
    effective_at = version.number("effective_at")
    body = {
        "version": version.version,
        "previous": previous,
        "effective_at": effective_at,
        "request": version.tags.get("request"),
        "trigger": version.tags.get("trigger"),
        "mlflow_run": version.run_id,
    }
    return ledger.record("promotion", str(version.version), event_time=effective_at, body=body)


def repair_promotion(ledger: Ledger, registry: Registry) -> str | None:
    """Write down a promotion whose run died right after it moved the alias; return what was repaired.

    Only a version that a request of this ledger made is taken up; a champion set by hand is not ours.

    Raises
    ------
    RegistryError
        If MLflow cannot be reached.
    """
    champion = registry.alias(CHAMPION)
    if champion is None:
        return None
    request = find(ledger, champion.tags.get("request", ""))
    if request is None:
        return None
    closing = {**request.body, "version": champion.version}
    with ledger.transaction():
        written = write_promotion(ledger, champion, _previous(registry, champion.version))
        if written:
            _write_retraining(ledger, champion, request)
        closed = ledger.advance(
            request.id, expect=("requested", "submitted", "running"), status="promoted", body=closing
        )
    if not (written or closed):
        return None
    return f"version {champion.version} had become champion before its run ended: written down now"


def _write_retraining(ledger: Ledger, champion: ModelVersion, request: RetrainRequest) -> None:
    body = {
        "request": request.id,
        "trigger": request.trigger,
        "table_version": champion.number("table_version"),
        "rows": champion.number("rows"),
        "promoted": True,
        "reasons": ["the run ended right after the promotion; written down later"],
        "mlflow_run": champion.run_id,
        "version": champion.version,
        "metrics": None,
        "seconds": None,
    }
    key = f"{request.id}/{champion.number('attempt')}"
    ledger.record("retraining", key, event_time=request.event_time, body=body)


def _previous(registry: Registry, champion: int) -> int | None:
    try:
        previous = registry.alias(PREVIOUS)
    except RegistryError:
        return None
    return None if previous is None or previous.version == champion else previous.version
