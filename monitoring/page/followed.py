"""What the ledger knows of retrainings: what was decided, its runs, and the version that came of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from core.audit import OPEN, LedgerRecord, RetrainRequest
from monitoring.windows import WindowStage


@dataclass(frozen=True)
class Followed:
    """A retraining, as far as it is known.

    Attributes
    ----------
    key : str
        Of its decision in the ledger.
    status : str
        requested, submitted, running, promoted, gated or failed.
    window : str, float or None
        Start of the window that it was decided on, as in JSON; None where a person or the schedule asked for it.
    flow_run, mlflow_run : str or None
        The Prefect flow run, and the MLflow run, once there are.
    version : int or None
        What it was registered as.
    """

    key: str
    status: str
    window: str | float | None = None
    flow_run: str | None = None
    mlflow_run: str | None = None
    version: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is still on its way."""
        return self.status in OPEN


def followed(requests: Iterable[RetrainRequest], records: Iterable[LedgerRecord]) -> list[Followed]:
    """Return every retraining, oldest first.

    Parameters
    ----------
    records : iterable of LedgerRecord
        Of kind ``retraining``.
    """
    done: dict[Any, dict[str, Any]] = {record.body.get("request"): record.body for record in records}
    return [
        Followed(
            request.id,
            request.status,
            request.body.get("window", {}).get("start"),
            request.flow_run,
            done.get(request.id, {}).get("mlflow_run"),
            done.get(request.id, {}).get("version"),
        )
        for request in requests
    ]


def of_window(known: Iterable[Followed], stage: WindowStage) -> list[Followed]:
    """Return the retrainings that either stage of a window decided."""
    return [one for one in known if one.window == stage.clock.to_json(stage.start)]


def maker_of(known: Iterable[Followed], version: int | None) -> Followed | None:
    """Return the retraining that a champion came of; None where that is not known."""
    return next((one for one in known if version is not None and one.version == version), None)
