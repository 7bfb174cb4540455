"""What the page says in words and numbers. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backtest.page.axes import TimeAxis
from core.wording import counted

_NAMES = {"log_loss": "log loss", "roc_auc": "ROC AUC", "kappa": "Cohen's kappa", "mae": "MAE", "rmse": "RMSE"}


def metric_name(metric: str) -> str:
    """Return a metric's name as people write it."""
    return _NAMES.get(metric, metric.replace("_", " "))


def loss_of(result: Mapping[str, Any]) -> str:
    """Return the metric that gates compare and the chart shows: the task's first, of which smaller is better."""
    metrics: Mapping[str, str] = result["metrics"]
    return next(iter(metrics))


def loss_name(result: Mapping[str, Any]) -> str:
    """Return what that metric is the mean of, with its unit."""
    return "absolute error (in the label's unit)" if loss_of(result) == "mae" else "log loss (nats)"


def number(value: float | None) -> str:
    """Write a metric's value.

    Examples
    --------
    >>> number(0.51234), number(1234.5), number(2.5e12), number(None)
    ('0.5123', '1,234.5000', '2.5e+12', '–')
    """
    if value is None:
        return "–"
    return f"{value:,.4f}" if abs(value) < 1e6 else f"{value:.4g}"


def cost(policy: Mapping[str, Any]) -> str:
    """Say what a policy cost: its retrainings, how many of them were promoted, and the rows trained on."""
    if not policy["retrains"]:
        return "no retraining"
    return (
        f"{counted(policy['retrains'], 'retraining')} ({policy['promoted']} promoted) on "
        f"{counted(policy['rows_trained'], 'row')}"
    )


def retraining(one: Mapping[str, Any], axis: TimeAxis) -> str:
    """Say what started a retraining and what became of it."""
    if not one["promoted"]:
        return f"Retraining ({one['trigger']}), not promoted"
    serves = axis.text(axis.read(one["effective_at"]))
    return f"Retraining ({one['trigger']}), promoted; serves from {serves}"


def retraining_reasons(one: Mapping[str, Any]) -> list[str]:
    """Return why a retraining was decided, and why it was not promoted."""
    return [*one["why"], *(f"Not promoted: {reason}" for reason in one["not_promoted_because"])]


def quarantine(one: Mapping[str, Any], axis: TimeAxis) -> str:
    """Say which window nothing is learned from."""
    return f"Quarantine: the window from {axis.text(axis.read(one['from']))} is not trained on"


def alert(one: Mapping[str, Any], axis: TimeAxis) -> str:
    """Say which window an alert is about."""
    when = "the labels were due" if one["stage"] == "labels" else "it had closed"
    return f"Alert on the window from {axis.text(axis.read(one['from']))}, when {when}"
