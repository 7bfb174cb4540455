"""What the search is worth: each family's default beside the searched model, on a later span of time.

Everything is fitted on what was known before one day and scored between that day and another. Differences are paired
and their intervals resample whole days: the flights of a day share its weather.

    PYTHONPATH=. python benchmarks/search.py examples/flights --from 2013-07-01 --until 2013-08-01
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.batch_model import FittedModel
from core.durations import DAY
from core.metrics import loss, score
from core.project import Project, load_project
from core.search_settings import FAMILIES
from core.settings import Settings
from core.tables import EXAMPLES
from flows.candidates import Candidate, defaults
from flows.examples import Examples, as_examples
from flows.fitting import fit
from flows.search import SearchResult, search
from flows.trials import described

_DRAWS = 10_000
SEARCHED = "searched"


@dataclass(frozen=True, eq=False)
class Measured:
    """A fitted model on the later rows: its metrics, each row's loss, and what it took, s (wall clock, processor)."""

    candidate: Candidate
    metrics: dict[str, float | None]
    losses: np.ndarray[Any, Any]
    fit: tuple[float, float]
    search: tuple[float, float] | None = None


@click.command()
@click.argument("project", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--from", "begin", required=True, type=click.DateTime(["%Y-%m-%d"]), help="Score from here on; UTC.")
@click.option("--until", required=True, type=click.DateTime(["%Y-%m-%d"]), help="Score up to here; UTC.")
@click.option("--rows", "rows_file", type=click.Path(path_type=Path), help="Keep the examples here between runs.")
@click.option("--larger", default='{"trials": 12, "search_rows": 80000}', show_default=True, help="batch.* as JSON.")
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(
    project: Path, begin: datetime, until: datetime, rows_file: Path | None, larger: str, json_file: Path | None
) -> None:
    """Measure the defaults and the searched models."""
    loaded = load_project(project)
    rows = as_examples(_examples(loaded, rows_file), loaded.settings)
    start, end = (int(day.replace(tzinfo=UTC).timestamp() * 1000) for day in (begin, until))
    train = rows.take((rows.event_time < start) & (rows.label_clock < start))
    test = rows.take((rows.event_time >= start) & (rows.event_time < end))
    every = _with(loaded, {"candidates": [{"family": name} for name in FAMILIES]})
    found = {f"{one.family}, default": _measured(every, one, train, test) for one in defaults(every)}
    budgets = {SEARCHED: {}, f"{SEARCHED}, larger budget": json.loads(larger)}
    results: dict[str, SearchResult] = {}
    for name, budget in budgets.items():
        found[name], results[name] = _searched(_with(loaded, budget), train, test)
    days = test.event_time // DAY
    compared = {name: _difference(one.losses - found[SEARCHED].losses, days) for name, one in found.items()}
    click.echo(f"{len(train)} rows to train, {len(test)} to score, {len(np.unique(days))} days\n")
    click.echo(_table(found, compared))
    if json_file:
        json_file.write_text(json.dumps(_as_json(found, compared, results)), encoding="utf-8")


def _with(project: Project, batch: dict[str, Any]) -> Project:
    content = project.settings.model_dump()
    content["batch"].update(batch)
    return replace(project, settings=Settings.model_validate(content))


def _examples(loaded: Project, file: Path | None) -> pa.Table:
    """Return the examples of the recorded stream in time order."""
    from backtest.tape import record
    from streaming.replay import read_source

    if file is not None and file.is_file():
        return pq.read_table(file)
    table = record(loaded, read_source(loaded, None)).tables.whole(EXAMPLES)
    table = table.sort_by([("event_time", "ascending"), ("id", "ascending")])
    if file is not None:
        pq.write_table(table, file)
    return table


def _searched(project: Project, train: Examples, test: Examples) -> tuple[Measured, SearchResult]:
    began, worked = time.perf_counter(), time.process_time()
    result = search(project, train, progress=lambda line: click.echo(line, err=True))
    took = time.perf_counter() - began, time.process_time() - worked
    return replace(_measured(project, result.best.candidate, train, test), search=took), result


def _measured(project: Project, candidate: Candidate, train: Examples, test: Examples) -> Measured:
    began, worked = time.perf_counter(), time.process_time()
    model: FittedModel = fit(project, candidate, train)
    took = time.perf_counter() - began, time.process_time() - worked
    predictions = model.predict_frame(test.frame)
    losses = np.array([loss(one, outcome) for one, outcome in zip(predictions, test.outcomes, strict=True)])
    metrics = score(project.settings.task, predictions, test.outcomes)
    click.echo(f"{candidate.family} {dict(candidate.params)}: {metrics}, {took[1]:.1f} s", err=True)
    return Measured(candidate, metrics, losses, took)


def _difference(differences: np.ndarray[Any, Any], days: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    """Return the mean difference a row and its 95 % interval; whole days are drawn anew."""
    _, place = np.unique(days, return_inverse=True)
    sums, rows = np.bincount(place, differences), np.bincount(place)
    drawn = np.random.default_rng(1).integers(0, len(rows), (_DRAWS, len(rows)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / rows[drawn].sum(axis=1), [0.025, 0.975])
    return float(differences.mean()), float(low), float(high)


def _table(found: dict[str, Measured], compared: dict[str, tuple[float, float, float]]) -> str:
    names = [name for name in next(iter(found.values())).metrics if name != "accuracy"]
    head = [
        "model",
        *names,
        f"{names[0]} over the searched one's (95 %)",
        "search: s (processor)",
        "fit: s (processor)",
    ]
    lines = [head, ["---"] * len(head)]
    for name, one in found.items():
        mean, low, high = compared[name]
        difference = "" if name == SEARCHED else f"{mean:+.4f} ({low:+.4f} to {high:+.4f})"
        values = [f"{one.metrics[metric]:.4f}" for metric in names]
        lines.append([name, *values, difference, _seconds(one.search), _seconds(one.fit)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _seconds(took: tuple[float, float] | None) -> str:
    return "" if took is None else f"{took[0]:.0f} ({took[1]:.0f})"


def _as_json(
    found: dict[str, Measured], compared: dict[str, tuple[float, float, float]], results: dict[str, SearchResult]
) -> dict[str, Any]:
    return {
        name: {
            "family": one.candidate.family,
            "params": dict(one.candidate.params),
            "start": one.candidate.start,
            "metrics": one.metrics,
            "over_searched": compared[name],
            "fit_seconds": one.fit,
            "search_seconds": one.search,
            "trials": [described(trial) for trial in results[name].trials] if name in results else None,
        }
        for name, one in found.items()
    }


if __name__ == "__main__":
    main()
