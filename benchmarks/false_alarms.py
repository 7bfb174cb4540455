"""How often an unchanged stream alerts, and how soon a changed one does: calibrated, by Evidently, by ADWIN.

Streams are made from the recorded one of a project by putting its days into random order: whatever a season or a week
did is gone, what belongs to a day stays. A change is put on top where delay and power are measured.

    PYTHONPATH=. python benchmarks/false_alarms.py examples/flights --streams 200 --span 12h --windows 40
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
from river.drift import ADWIN
from scipy.stats import chi2

from core.durations import DAY, parse_duration
from core.errors import UsageError
from core.project import load_project
from core.settings import Settings
from core.tables import EXAMPLES, feature_column, milliseconds, prediction_column
from monitoring.calibration import Calibrations, calibrations
from monitoring.rows import losses_of
from monitoring.signals import Signals
from monitoring.windows import Stage

STAGES: tuple[Stage, ...] = ("data", "labels")
EVIDENTLY_SHARE, EVIDENTLY_DISTANCE = 0.5, 0.1
"""Evidently's defaults: a dataset has drifted if half of its columns have, by a distance of 0.1."""


@click.command()
@click.argument("project", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--rows", "rows_file", type=click.Path(path_type=Path), help="Keep the examples here between runs.")
@click.option("--streams", default=200, show_default=True)
@click.option("--span", default="7d", show_default=True, help="Length of a window.")
@click.option("--reference", default="28d", show_default=True, help="What the champion was trained on.")
@click.option("--windows", default=30, show_default=True, help="Windows judged of each stream, at most.")
@click.option("--rate", default="1 per 90 days", show_default=True, help="The rate of false alarms that is set.")
@click.option("--change", multiple=True, help="FIELD:SIZE[:gradual]: standard deviations added behind the reference.")
@click.option("--seed", default=1, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(project: Path, rows_file: Path | None, streams: int, span: str, reference: str, windows: int, rate: str,
         change: tuple[str, ...], seed: int, json_file: Path | None) -> None:  # fmt: skip
    """Measure the rate of false alarms, or delay and power of a change."""
    loaded = load_project(project)
    settings = _with(loaded.settings, span, rate)
    source = _examples(loaded, rows_file)
    began, trained = time.monotonic(), parse_duration(reference)
    changes, length = [_parsed(one) for one in change], trained + windows * settings.windows.span
    found = []
    for number in range(streams):
        rows = _reordered(source, np.random.default_rng([seed, number]), length)
        found.append(_one(rows, settings, trained, windows, changes))
    summary = _summary(found, settings) | {"streams": streams, "seconds": round(time.monotonic() - began, 1)}
    click.echo(json.dumps(summary, indent=1))
    if json_file:
        json_file.write_text(json.dumps(summary), encoding="utf-8")


def _with(settings: Settings, span: str, rate: str) -> Settings:
    content = settings.model_dump()
    content["windows"]["span"], content["drift"]["false_alarms"] = parse_duration(span), rate
    return Settings.model_validate(content)


def _examples(loaded: Any, file: Path | None) -> pa.Table:
    """Return the examples of the recorded stream, as the online experts alone would have served them."""
    import pyarrow.parquet as pq

    from backtest.tape import record
    from streaming.replay import read_source

    if file is not None and file.is_file():
        return pq.read_table(file)
    table = record(loaded, read_source(loaded, None)).tables.whole(EXAMPLES)
    features = [feature_column(name) for name in loaded.settings.batch_kinds]
    table = table.select(["id", "event_time", "label", prediction_column("served"), *features]).sort_by("event_time")
    if file is not None:
        pq.write_table(table, file)
    return table


def _reordered(rows: pa.Table, draw: np.random.Generator, span: int) -> pa.Table:
    """Return the rows with their days in random order, dated one after the other; of the first `span` ms."""
    times = milliseconds(rows["event_time"])
    days = times // DAY
    numbers = np.unique(days)
    place = dict(zip(draw.permutation(numbers).tolist(), numbers.tolist(), strict=True))
    moved = times % DAY + np.array([place[day] for day in days.tolist()]) * DAY
    at = rows.column_names.index("event_time")
    field = rows.schema.field(at)
    rows = rows.set_column(at, field, pa.array(moved * 1000).cast(field.type))
    order = np.argsort(moved, kind="stable")
    return rows.take(pa.array(order[moved[order] < numbers[0] * DAY + span + DAY]))


def _parsed(text: str) -> tuple[str, float, bool]:
    field, _, rest = text.partition(":")
    size, _, how = rest.partition(":")
    if how not in ("", "gradual"):
        raise UsageError(f"--change {text}: write FIELD:SIZE or FIELD:SIZE:gradual")
    return field, float(size), how == "gradual"


def _one(
    rows: pa.Table, settings: Settings, reference: int, windows: int, changes: list[tuple[str, float, bool]]
) -> dict[str, list[Any]]:
    """Return of each window whether each way of judging alarms."""
    times, span = milliseconds(rows["event_time"]), settings.windows.span
    first = int(times[0]) // DAY * DAY
    split = first + reference
    behind = int(np.searchsorted(times, split))
    rows = _changed(rows, behind, changes)
    usual = calibrations(rows.slice(0, behind), settings)
    signals = {stage: Signals.of(rows, settings, stage) for stage in STAGES}
    draw = np.random.default_rng(settings.batch.seed)
    kept = _sample(np.arange(behind), 20_000, draw)
    compared = _sample(kept, settings.windows.sample, draw)
    detector, judged = ADWIN(), []
    losses = losses_of(rows[prediction_column("served")].to_pylist(), rows["label"].to_pylist())
    for number in range(min(windows, int((times[-1] - split) // span))):
        start, end = np.searchsorted(times, [split + number * span, split + (number + 1) * span])
        window = _sample(np.arange(start, end), settings.windows.sample, draw)
        if len(window) < settings.drift.min_rows // 2:
            continue
        judged.append(_judged(usual, signals, window, compared, split + number * span, settings))
        adwin = False
        for loss in losses[start:end]:
            detector.update(loss or 0.0)
            adwin |= detector.drift_detected
        judged[-1]["adwin"] = adwin
    return {name: [one[name] for one in judged] for name in judged[0]} if judged else {}


def _judged(
    usual: Calibrations,
    signals: dict[Stage, Signals],
    window: Any,
    compared: Any,
    start: int,
    settings: Settings,
) -> dict[str, bool]:
    limit = settings.windows.span / settings.drift.false_alarms / len(STAGES)
    found = {stage: signals[stage].distances(window, compared) for stage in STAGES}
    alarms = {stage: stage in usual and usual[stage].surprise(found[stage], start).chance < limit for stage in STAGES}
    far = [distance >= EVIDENTLY_DISTANCE for distance in found["data"].values()]
    return {
        "calibrated": any(alarms.values()),
        **{f"calibrated {stage}": alarm for stage, alarm in alarms.items()},
        "evidently": float(np.mean(far)) >= EVIDENTLY_SHARE,
    }


def _changed(rows: pa.Table, behind: int, changes: list[tuple[str, float, bool]]) -> pa.Table:
    for field, size, gradual in changes:
        column = feature_column(field)
        values = rows[column].to_numpy().astype(float)
        step = size * float(np.nanstd(values[:behind]))
        later = np.arange(len(values)) >= behind
        share = (
            np.clip((np.arange(len(values)) - behind) / max(len(values) - behind, 1) * 2, 0, 1) if gradual else later
        )
        at = rows.column_names.index(column)
        rows = rows.set_column(at, rows.schema.field(at), pa.array(values + step * share * later, from_pandas=True))
    return rows


def _sample(rows: Any, most: int, draw: np.random.Generator) -> Any:
    return rows if len(rows) <= most else np.sort(draw.choice(rows, most, replace=False))


def _summary(found: list[dict[str, list[Any]]], settings: Settings) -> dict[str, Any]:
    span = settings.windows.span
    count = sum(len(one["calibrated"]) for one in found if one)
    per_window = min(span / settings.drift.false_alarms, 1.0)
    result: dict[str, Any] = {"windows": count, "set": {"rate_per_window": per_window, "alarms": per_window * count}}
    for name in found[0]:
        alarms = sum(sum(one[name]) for one in found if one)
        low = chi2.ppf(0.025, 2 * alarms) / 2 if alarms else 0.0
        high = chi2.ppf(0.975, 2 * (alarms + 1)) / 2
        delays = [one[name].index(True) + 1 for one in found if one and True in one[name]]
        result[name] = {
            "alarms": alarms,
            "interval_95": [round(low, 1), round(high, 1)],
            "rate_per_window": round(alarms / count, 5),
            "interval_of_rate": [round(low / count, 5), round(high / count, 5)],
            "streams_alarmed": len(delays),
            "median_delay_windows": float(np.median(delays)) if delays else None,
        }
    return result


if __name__ == "__main__":
    main()
