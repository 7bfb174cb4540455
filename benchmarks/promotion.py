"""How often a challenger that gains nothing is promoted, and how soon one that gains: core.sequential on real blends.

Pairs of equally built models are fitted on resampled days of the project's recorded stream. On the days after, each is
blended with the online experts as they predicted at the time, in the order of the stream; the two blends' losses are
paired and added up by the day. Who is which is then drawn by lot, day by day: so neither is better, and whoever is
promoted is promoted falsely. For the power the days' differences are shifted to the gain asked for.

    PYTHONPATH=. python benchmarks/promotion.py examples/flights --pairs 8 --streams 1000
"""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
from scipy.stats import beta

from core.batch_model import FittedModel
from core.blend import Blend
from core.durations import DAY
from core.metrics import loss
from core.project import Project, load_project
from core.promotion_settings import PromotionSettings
from core.sequential import Block, Verdict, judge
from core.settings import Settings
from core.tables import EXAMPLES
from flows.examples import Examples, as_examples

Losses = dict[str, np.ndarray[Any, np.dtype[np.float64]]]


@click.command()
@click.argument("project", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--tape", "tape_file", type=click.Path(path_type=Path), help="Keep the recorded stream here between runs."
)
@click.option("--losses", "losses_file", type=click.Path(path_type=Path), help="Keep the paired losses here.")
@click.option("--fitted-on", default=90, show_default=True, help="Days that models are fitted on, resampled.")
@click.option("--days", default=120, show_default=True, help="Days after them on which they are compared.")
@click.option("--pairs", default=8, show_default=True)
@click.option("--streams", default=1000, show_default=True)
@click.option("--challengers", default=200, show_default=True, help="Truly better ones, for the power.")
@click.option("--gain", "gains", multiple=True, type=float, default=(0.005, 0.01, 0.02), show_default=True)
@click.option("--holdout", default=7, show_default=True, help="Days before, of which only the scale is known.")
@click.option("--seed", default=1, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(project: Path, tape_file: Path | None, losses_file: Path | None, fitted_on: int, days: int, pairs: int,
         streams: int, challengers: int, gains: tuple[float, ...], holdout: int, seed: int,
         json_file: Path | None) -> None:  # fmt: skip
    """Measure false promotions and power."""
    loaded = load_project(project)
    losses = dict(np.load(losses_file)) if losses_file is not None and losses_file.is_file() else {}
    if f"blends_{2 * pairs - 1}" not in losses:
        rows = _examples(loaded, tape_file)
        for found in paired_losses(loaded, rows, fitted_on, days, pairs, seed, losses):
            losses |= found
            if losses_file is not None:
                np.savez_compressed(losses_file, **losses)
    draw, settings = np.random.default_rng(seed), loaded.settings.promotion
    result: dict[str, Any] = {}
    for kind in ("blends", "models"):
        compared = [_blocks(losses, kind, pair) for pair in range(pairs)]
        by_lot = [_by_lot(compared[draw.integers(pairs)], draw) for _ in range(streams)]
        result[kind] = {
            "spread_of_a_day": [round(float(np.std([b.gain / b.champion for b in pair])), 5) for pair in compared],
            "false_promotions": _summary(by_lot, settings, holdout),
            "without_end": _summary(by_lot, settings.model_copy(update={"max_labels": 10**9}), holdout),
        }
        for gain in gains:
            better = [_shifted(compared[draw.integers(pairs)], gain, draw) for _ in range(challengers)]
            result[kind][f"gain_{gain:g}"] = _summary(better, settings, holdout)
            result[kind][f"gain_{gain:g}_without_holdout"] = _summary(better, settings, 0)
    click.echo(json.dumps(result, indent=1))
    if json_file:
        json_file.write_text(json.dumps(result), encoding="utf-8")


def paired_losses(
    project: Project, rows: Examples, fitted_on: int, days: int, pairs: int, seed: int, known: Losses
) -> Iterator[Losses]:
    """Yield each model's losses, alone and blended, on the rows of the days compared; not those that are known."""
    day = rows.event_time // DAY - int(rows.event_time.min()) // DAY
    train, later = rows.take(day < fitted_on), rows.take((day >= fitted_on) & (day < fitted_on + days))
    later = later.take(np.argsort(later.clock, kind="stable"))
    train_day = train.event_time // DAY
    online = {expert.name: later.predictions(expert.name) for expert in project.settings.online}
    for number in range(2 * pairs):
        if f"blends_{number}" in known:
            continue
        draw = np.random.default_rng([seed, number])
        chosen = draw.choice(np.unique(train_day), fitted_on)
        places = np.concatenate([np.flatnonzero(train_day == one) for one in chosen])
        own = _fitted(train, places, project.settings, number).predict_frame(later.frame)
        alone = np.array([loss(p, y) for p, y in zip(own, later.outcomes, strict=True)])
        blended = _blended(project.settings, {"champion": own, **online}, later)
        click.echo(f"model {number}: {alone.mean():.4f}, blended {blended.mean():.4f}", err=True)
        yield {"day": later.event_time // DAY, f"models_{number}": alone, f"blends_{number}": blended}


def _examples(project: Project, file: Path | None) -> Examples:
    """Return the examples of the recorded stream, with what the online experts predicted at the time."""
    from backtest.tape import record
    from streaming.replay import read_source

    if file is not None and file.is_file():
        tape = pickle.loads(file.read_bytes())  # the caller's own file
    else:
        tape = record(project, read_source(project, None))
        if file is not None:
            file.write_bytes(pickle.dumps(tape))
    table: pa.Table = tape.tables.whole(EXAMPLES)
    return as_examples(table.sort_by([("event_time", "ascending"), ("id", "ascending")]), project.settings)


def _fitted(rows: Examples, places: Any, settings: Settings, seed: int) -> FittedModel:
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    names = [name for name, kind in settings.batch_kinds.items() if kind == "category"]
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, max_categories=250)
    features = make_column_transformer((codes, names), remainder="passthrough")
    model = HistGradientBoostingClassifier(
        learning_rate=0.06, max_iter=150, min_samples_leaf=40, max_features=0.5, random_state=seed,
        early_stopping=False, categorical_features=list(range(len(names))),
    )  # fmt: skip
    pipeline = make_pipeline(features, model)
    pipeline.fit(rows.frame.iloc[places], [rows.outcomes[place] for place in places])
    return FittedModel(pipeline, settings.batch_kinds, settings.task)


def _blended(settings: Settings, members: dict[str, Any], rows: Examples) -> Any:
    """Return the losses of the blend, mixed when each event was predicted and moved when its label was known."""
    moments = [(int(clock), 0, row) for row, clock in enumerate(rows.clock)]
    moments += [(int(clock), 1, row) for row, clock in enumerate(rows.label_clock)]
    anew = {expert.name: rows.anew(expert.name) for expert in settings.online}
    blend = Blend.of(settings)
    made_at, found = [0] * len(rows), np.zeros(len(rows))
    for step, (_, is_label, row) in enumerate(sorted(moments)):
        predictions = {name: values[row] for name, values in members.items() if values[row] is not None}
        if is_label:
            now = {name: said for name, values in anew.items() if (said := values[row]) is not None}
            blend.update(predictions, rows.outcomes[row], made_at[row], anew=now)
        else:
            made_at[row] = step
            found[row] = loss(blend.mix(predictions, step), rows.outcomes[row])
    return found


def _blocks(losses: Losses, kind: str, pair: int) -> list[Block]:
    one, other = losses[f"{kind}_{2 * pair}"], losses[f"{kind}_{2 * pair + 1}"]
    days = [losses["day"] == day for day in np.unique(losses["day"])]
    return [Block(int(day.sum()), float(one[day].sum()), float(other[day].sum())) for day in days]


def _by_lot(blocks: list[Block], draw: np.random.Generator) -> list[Block]:
    """Return the blocks from a random day on, with sides changed by lot."""
    begin = int(draw.integers(len(blocks)))
    lots = draw.random(len(blocks)) < 0.5
    return [b.swapped if lot else b for b, lot in zip([*blocks[begin:], *blocks[:begin]], lots, strict=True)]


def _shifted(blocks: list[Block], gain: float, draw: np.random.Generator) -> list[Block]:
    """Return blocks by lot in which the challenger saves `gain` of the loss in the mean."""
    mixed = _by_lot(blocks, draw)
    off = gain - sum(block.gain for block in mixed) / sum(block.champion for block in mixed)
    return [Block(b.rows, b.champion, max(b.challenger - off * b.champion, 0.0)) for b in mixed]


def _summary(found: list[list[Block]], settings: PromotionSettings, holdout: int) -> dict[str, Any]:
    verdicts: list[Verdict] = [judge(blocks[holdout:], settings, blocks[:holdout]) for blocks in found]
    counts = Counter(verdict.conclusion for verdict in verdicts)
    promoted, total = counts["superior"], len(verdicts)
    labels = [verdict.rows for verdict in verdicts if verdict.conclusion == "superior"]
    low = float(beta.ppf(0.025, promoted, total - promoted + 1)) if promoted else 0.0
    high = float(beta.ppf(0.975, promoted + 1, total - promoted)) if promoted < total else 1.0
    return {
        "conclusions": dict(counts),
        "promoted": promoted / total,
        "interval_95": [round(low, 4), round(high, 4)],
        "labels_of_the_promoted": [int(value) for value in np.quantile(labels, [0.1, 0.5, 0.9])] if labels else None,
        "blocks_of_all": float(np.median([verdict.blocks for verdict in verdicts])),
    }


if __name__ == "__main__":
    main()
