"""The result of a run: the books, the quality of what was served beside every expert, windows and retrainings."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from core.audit import Ledger
from core.metrics import METRICS, score
from core.project import Project
from core.settings import Settings
from core.status import read_status
from core.store import TableStore
from core.tables import EXAMPLES, prediction_column
from streaming.books import Books, total


def summary_of(project: Project, seconds: float) -> dict[str, Any]:
    """Return the JSON of a demo.

    Parameters
    ----------
    project : Project
        Whose state is summed up; its services should have ended.
    seconds : float
        Wall-clock time that it took.
    """
    worker = read_status(project.status, "worker") or {}
    monitor = read_status(project.status, "monitor") or {}
    books = total(Books.from_dict(part["books"]) for part in (worker.get("partitions") or {}).values())
    busy = float(worker.get("busy_s") or 0.0)
    return {
        "project": project.settings.name,
        **books.as_dict(),
        "windows": monitor.get("windows") or {"closed": 0, "reported": 0, "alerts": 0},
        "retrains": _retrains(project),
        "shadows": _shadows(project),
        "champion": {"version": worker.get("champion")},
        "quality": quality_of(project),
        "seconds": round(seconds, 1),
        "events_per_second": round((worker.get("events") or 0) / busy, 1) if busy else None,
        "peak_memory_mb": worker.get("peak_memory_mb"),
    }


def imbalances(content: dict[str, Any]) -> list[str]:
    """Return one line for each sum of the books that does not hold."""
    return Books.from_dict({name: content[name] for name in ("events", "labels", "reasons")}).imbalances()


def quality_of(project: Project) -> dict[str, Any]:
    """Return each metric for the served prediction and every expert, on the rows that all of them predicted."""
    store, settings = TableStore(project.tables), project.settings
    if not store.exists(EXAMPLES):
        return {"rows": 0}
    names = ["served", *settings.expert_names]
    columns = [prediction_column(name) for name in names]
    rows = store.read(EXAMPLES, columns=["event_time", "label", *columns])
    names = [name for name in names if rows.column(prediction_column(name)).null_count < rows.num_rows]
    for name in names:
        rows = rows.filter(rows.column(prediction_column(name)).is_valid())
    months = [moment.strftime("%Y-%m") for moment in rows.column("event_time").to_pylist()]
    groups = {month: [i for i, own in enumerate(months) if own == month] for month in sorted(set(months))}
    return {
        **_metrics(rows, names, settings),
        "monthly": {month: _metrics(rows.take(pa.array(index)), names, settings) for month, index in groups.items()},
    }


def _metrics(rows: pa.Table, names: list[str], settings: Settings) -> dict[str, Any]:
    outcomes = rows.column("label").to_pylist()
    scores = {}
    for name in names:
        predictions = rows.column(prediction_column(name)).to_pylist()
        if settings.task == "multiclass":
            predictions = [dict(pairs) for pairs in predictions]
        scores[name] = score(settings.task, predictions, outcomes)
    by_metric = {metric: {name: scores[name][metric] for name in names} for metric in METRICS[settings.task]}
    return {"rows": len(outcomes), **by_metric}


def _retrains(project: Project) -> list[dict[str, Any]]:
    if not project.ledger.exists():
        return []
    ledger = Ledger(project.ledger)
    wanted = (
        "trigger",
        "table_version",
        "promoted",
        "shadowing",
        "reasons",
        "mlflow_run",
        "version",
        "rows",
        "seconds",
    )
    found = [
        {name: record.body.get(name) for name in wanted} | {"event_time": record.event_time}
        for record in ledger.history("retraining")
    ]
    ledger.close()
    return found


def _shadows(project: Project) -> list[dict[str, Any]]:
    """Return what became of each version that predicted in shadow as challenger, and of each rollback."""
    if not project.ledger.exists():
        return []
    ledger = Ledger(project.ledger)
    records = ledger.history()
    ledger.close()
    found: dict[int, dict[str, Any]] = {}
    for record in records:
        version = record.body.get("version")
        if record.kind == "challenge":
            found[record.body["version"]] = {"version": version, "since": record.event_time, "end": "in shadow"}
        elif record.kind in ("promotion", "withdrawal") and version in found:
            verdict = record.body.get("verdict") or {}
            end = "promoted" if record.kind == "promotion" else record.body["end"]
            numbers = {name: verdict.get(name) for name in ("blocks", "rows", "gain", "low", "high")}
            found[version] |= {"end": end, "at": record.event_time, **numbers}
    return list(found.values())


def summary_lines(content: dict[str, Any]) -> list[str]:
    """Return the summary as people read it."""
    events, labels, windows = content["events"], content["labels"], content["windows"]
    problems = imbalances(content)
    promoted, shadowing = (
        sum(bool(retrain[end]) for retrain in content["retrains"]) for end in ("promoted", "shadowing")
    )
    return [
        "",
        f"events   {events['received']:,} received = {events['predicted']:,} predicted + "
        f"{events['dead_lettered']:,} dead-lettered + {events['duplicates']:,} duplicates",
        f"labels   {labels['received']:,} received, {labels['joined']:,} joined; "
        f"{events['pending']:,} events still wait for theirs, {events['expired']:,} never got one",
        f"books    {'balance' if not problems else 'DO NOT BALANCE: ' + '; '.join(problems)}",
        f"windows  {windows['closed']} closed, {windows['reported']} reported, {windows['alerts']} alerts",
        f"retrains {len(content['retrains'])}, {promoted} promoted at once, {shadowing} in shadow first; "
        f"champion {content['champion']['version']}",
        *_shadow_lines(content["shadows"]),
        *_quality_lines(content["quality"]),
        f"{content['seconds']:.0f} s; worker: {content['events_per_second'] or 0:,.0f} events/s while busy, "
        f"at most {content['peak_memory_mb'] or 0} MB",
    ]


def _shadow_lines(shadows: list[dict[str, Any]]) -> list[str]:
    lines = []
    for shadow in shadows:
        seen = ""
        if shadow.get("blocks"):
            seen = (
                f" after {shadow['rows']:,} labels: loss {-100 * (shadow['gain'] or 0.0):+.2f} % against the champion's"
            )
        said = {"promoted": "promoted", "in shadow": "still in shadow", "replaced": "replaced by the next"}
        lines.append(
            f"shadow   version {shadow['version']} {said.get(shadow['end'], 'dropped, ' + shadow['end'])}{seen}"
        )
    return lines


def _quality_lines(quality: dict[str, Any]) -> list[str]:
    metrics = [name for name in quality if name not in ("rows", "monthly")]
    if not quality["rows"]:
        return ["quality  no row yet that every expert predicted"]
    lines = [f"quality  on the {quality['rows']:,} labelled rows that every expert predicted:"]
    names = list(quality[metrics[0]])
    width = max(len(name) for name in names)
    lines.append(" " * (11 + width) + "".join(f"{metric:>11}" for metric in metrics))
    for name in names:
        values = [quality[metric][name] for metric in metrics]
        lines.append(
            f"         {name:{width}}  " + "".join("         - " if v is None else f"{v:11.4f}" for v in values)
        )
    return lines
