"""What the gates do with flipped labels: is a model promoted that is worse than the champion on clean ones?

A champion is fitted on clean labels. From its last day on, a share of the labels is flipped, by lot; a challenger is
fitted on all that is known four weeks later, and the gates judge it on the last week. Three cases: only labels trained
on are flipped (the week judged on is clean); all are, the week judged on too; and a challenger that saw nothing but
flipped days. Then both are scored on the clean labels of that week and of the two behind it, alone and in the blend.
The online experts are taken as they predicted at the time, on clean labels.

    PYTHONPATH=. python benchmarks/label_noise.py examples/flights --rows rows.parquet --json label_noise.json
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from search import _examples

from core.audit import CHALLENGER_BLEND, CHAMPION_BLEND
from core.batch_model import FittedModel
from core.durations import DAY
from core.project import Project, load_project
from flows.candidates import defaults
from flows.evaluation import evaluate
from flows.examples import Examples, as_examples
from flows.fitting import fit
from flows.gates import check_gates, passed, reasons
from flows.splits import known_before

CASES = ("training", "all", "flipped days only")


@click.command()
@click.argument("project", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--rows", "rows_file", type=click.Path(path_type=Path), help="Keep the examples here between runs.")
@click.option("--champion", "champion_days", default=62, show_default=True, help="Days that the champion is fitted on.")
@click.option("--after", default=28, show_default=True, help="Days from there to the retraining.")
@click.option("--behind", default=14, show_default=True, help="Days behind the retraining that both are scored on.")
@click.option("--share", "shares", multiple=True, type=float, default=(0.0, 0.05, 0.1, 0.3), show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(project: Path, rows_file: Path | None, champion_days: int, after: int, behind: int,
         shares: tuple[float, ...], seed: int, json_file: Path | None) -> None:  # fmt: skip
    """Measure what is promoted."""
    loaded = load_project(project)
    if loaded.settings.task != "binary":
        raise click.UsageError("flips the labels of a binary task")
    rows = as_examples(_examples(loaded, rows_file), loaded.settings)
    origin = int(rows.event_time.min()) // DAY * DAY
    first, now = origin + champion_days * DAY, origin + (champion_days + after) * DAY
    clean = rows.take(rows.event_time < now + behind * DAY)
    known = known_before(clean.event_time, clean.label_clock, first)
    champion = replace(_fitted(loaded, clean.take(known)), version=1)
    promised = _promised(loaded, clean.take(known), first)
    click.echo("case | flipped | promoted | refused by | alone | in the blend, week judged on | in the blend, after it")
    found = []
    for case in CASES:
        for share in shares:
            found.append(_measured(loaded, clean, champion, promised, first, now, case, share, seed))
            click.echo(_line(found[-1]))
    if json_file:
        json_file.write_text(json.dumps(found), encoding="utf-8")


def _measured(
    project: Project, clean: Examples, champion: FittedModel, promised: float | None, first: int, now: int,
    case: str, share: float, seed: int,
) -> dict[str, Any]:  # fmt: skip
    held_from = now - project.settings.batch.holdout
    flipped = _flipped(clean, share, seed, first, held_from if case == "training" else now)
    held = (flipped.event_time >= held_from) & (flipped.event_time < now) & (flipped.label_clock < now)
    train = known_before(flipped.event_time, flipped.label_clock, held_from)
    if case == "flipped days only":
        train &= flipped.event_time >= first
    outcomes = flipped.take(train).outcomes
    challenger = _fitted(project, flipped.take(train))
    judged = evaluate(project.settings, flipped.take(held), outcomes, challenger, champion, promised=promised)
    gates = check_gates(judged, project.settings.gates)
    later = clean.take(clean.event_time >= now)
    return {
        "case": case,
        "flipped": share,
        "promoted": passed(gates),
        "reasons": reasons(gates),
        "judged": judged.metrics,
        "clean_week": evaluate(project.settings, clean.take(held), outcomes, challenger, champion).metrics,
        "clean_later": evaluate(project.settings, later, outcomes, challenger, champion).metrics,
    }


def _promised(project: Project, rows: Examples, until: int) -> float | None:
    """Return the skill of the champion's candidate on the last week before it was fitted again on all."""
    held_from = until - project.settings.batch.holdout
    train = rows.take(known_before(rows.event_time, rows.label_clock, held_from))
    held = rows.take(rows.event_time >= held_from)
    return evaluate(project.settings, held, train.outcomes, _fitted(project, train), None).skill("challenger")


def _flipped(rows: Examples, share: float, seed: int, start: int, end: int) -> Examples:
    """Return the rows with a share of the labels of events from start until end flipped."""
    chosen = np.random.default_rng(seed).random(len(rows)) < share
    chosen &= (rows.event_time >= start) & (rows.event_time < end)
    return replace(rows, outcomes=np.where(chosen, 1 - np.array(rows.outcomes), rows.outcomes).tolist())


def _fitted(project: Project, rows: Examples) -> FittedModel:
    return fit(project, defaults(project)[0], rows)


def _line(one: dict[str, Any]) -> str:
    refused = ", ".join(reason.partition(":")[0] for reason in one["reasons"]) or "-"
    both = [("clean_later", "challenger", "champion")]
    both += [(when, CHALLENGER_BLEND, CHAMPION_BLEND) for when in ("clean_week", "clean_later")]
    losses = [f"{one[when][new]['log_loss']:.4f} ({one[when][old]['log_loss']:.4f})" for when, new, old in both]
    return " | ".join([one["case"], f"{one['flipped']:.0%}", "yes" if one["promoted"] else "no", refused, *losses])


if __name__ == "__main__":
    main()
