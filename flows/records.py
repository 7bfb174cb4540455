"""What a retraining leaves behind: its records in the ledger, its run in MLflow."""

from __future__ import annotations

from typing import Any

from core.model_versions import Registration
from flows.checks.report import DataReport
from flows.evaluation import Evaluation
from flows.examples import DataVersion, Examples
from flows.gates import GateResult
from flows.lease import Lease
from flows.promotion import Bodies
from flows.recipe import DOCUMENT, Recipe
from flows.search import SearchResult
from flows.trials import described


def records_of(
    lease: Lease, *, gates: list[GateResult], evaluation: Evaluation | None, summary: dict[str, Any]
) -> Bodies:
    """Return the gate and the retraining of an attempt as the ledger gets them.

    Parameters
    ----------
    summary : dict
        The retraining's record: table version, rows, promoted, reasons, version, MLflow run, seconds.
    """
    request = lease.request
    gate = {
        "request": request.id,
        "passed": summary["promoted"] or summary["shadowing"] or summary["waiting"],
        "bootstrap": evaluation is not None and evaluation.champion is None,
        "champion": evaluation.champion if evaluation else None,
        "version": summary["version"],
        "results": [result.as_json() for result in gates],
        "reasons": summary["reasons"],
    }
    retraining = {
        "request": request.id,
        "attempt": request.attempt,
        "trigger": request.trigger,
        "metrics": evaluation.metrics if evaluation else None,
        **summary,
    }
    return [("gate", finite(gate)), ("retraining", finite(retraining))]


def registration(
    lease: Lease,
    *,
    data: DataVersion,
    rows: Examples,
    found: SearchResult,
    evaluation: Evaluation,
    checks: DataReport | None,
    gates: list[GateResult],
    recipe: Recipe,
) -> Registration:
    """Return what is written into MLflow with a challenger."""
    best, request = found.best, lease.request
    content = finite(evaluation.as_json())
    return Registration(
        example=rows.frame.tail(5).reset_index(drop=True),
        tags={
            "request": request.id,
            "attempt": request.attempt,
            "trigger": request.trigger,
            "effective_at": request.effective_at,
            "event_time": request.event_time,
            "table_version": data.examples,
            "corrections_version": data.corrections,
            "rows": len(rows),
            "data_from": max(int(rows.event_time.min()), best.candidate.start or 0),
            "data_cut": data_cut(rows),
            "bootstrap": evaluation.champion is None,
            "code_version": recipe.made_with["headrace"],
            "rows_digest": recipe.rows_digest,
            "predictions_digest": recipe.predictions_digest,
            "ledger_head": lease.ledger.head(),
        },
        params={
            "family": best.candidate.family,
            **best.candidate.params,
            "start": best.candidate.start,
            "seed": recipe.settings["batch"]["seed"],
            "threads": recipe.settings["batch"]["threads"],
        },
        metrics={
            f"{name}.{metric}": value
            for name, values in content["metrics"].items()
            for metric, value in values.items()
            if value is not None
        },
        documents={
            "evaluation.json": content,
            "data.json": finite(None if checks is None else checks.as_json()),
            "gates.json": finite([result.as_json() for result in gates]),
            DOCUMENT: recipe.as_json(),
            "search.json": finite([described(trial) for trial in found.trials]),
        },
    )


def data_cut(rows: Examples) -> int:
    """Return the end of the data, event time, ms: later events were not trained on."""
    return int(rows.event_time.max()) + 1


def finite(value: Any) -> Any:
    """Return a JSON value with None for every number that is not finite.

    Examples
    --------
    >>> finite({"loss": float("nan"), "rows": [1, 2.5]})
    {'loss': None, 'rows': [1, 2.5]}
    """
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [finite(entry) for entry in value]
    if isinstance(value, float):
        return value if value - value == 0.0 else None
    return value
