"""The page of a card: one HTML file that loads nothing, with the plots inside. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

from core.clocks import Clock
from core.markup import Markup, element, whole_page
from core.metrics import METRICS
from core.wording import counted
from flows.card.facts import Card
from flows.card.importance import FeatureImportance, Ranking
from flows.card.slices import CardSlice
from flows.gates import GateResult
from flows.intervals import Difference
from monitoring.page.shell import heads, wide
from monitoring.page.style import STYLE
from monitoring.page.wording import foreign, number, share

_MAX_SLICES = 60
_STYLE = (
    STYLE
    + """
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(420px,100%),1fr));gap:16px;align-items:start}
figure{margin:0}figure img{width:100%;height:auto;border-radius:6px;display:block;background:#fff}
figcaption{font-size:13px;color:var(--quiet);margin-top:4px}
.limits li{margin-bottom:4px}
"""
)
_SHOWN = {
    "importance": "What it uses. Bars are means over the shuffles, lines their spread; pale ones may be nothing.",
    "calibration": "Does a predicted probability mean what it says? Each dot is a tenth of the held-out rows.",
    "roc": "How well it tells a class from the others, whatever threshold is chosen.",
    "residuals": "What happened less what was predicted, by what was predicted.",
}
_NAMES = {
    "blend_with_challenger": "served with the challenger",
    "blend_with_champion": "served with the champion",
    "challenger": "the challenger by itself",
    "champion": "the champion by itself",
    "baseline": "always the same",
}


def page(card: Card, plots: Mapping[str, bytes], clock: Clock) -> str:
    """Return the page.

    Parameters
    ----------
    plots : mapping of name to PNG
        As :func:`flows.card.plots.plots_of` made them.
    """
    title = f"{card.project}: card of version {card.version}"
    content = element(
        "main",
        element("h1", title),
        _lead(card),
        _facts(card, clock),
        [element("h2", "Limits"), element("ul", [element("li", said) for said in card.limits], class_="limits")],
        _quality(card),
        _plots(plots),
        _importance(card),
        _slices(card),
        _gates(card.gates),
        _packaging(card),
    )
    return whole_page(title, _STYLE, content, images=True)


def _lead(card: Card) -> Markup:
    failed = [gate.name for gate in card.gates if not gate.passed]
    name = METRICS[card.task][0]
    own, trivial = card.evaluation.loss("challenger"), card.evaluation.loss("baseline")
    said = (
        f"{card.task}, {card.recipe.candidate['family']}. {name} {number(own)} on {card.evaluation.rows:,} held-out "
        f"rows; always predicting the same has {number(trivial)}."
    )
    verdict = f"refused by {', '.join(failed)}" if failed else f"{counted(len(card.gates), 'gate')} passed"
    return element("p", element("b", verdict), " ", said, class_="lead alert" if failed else "lead")


def _facts(card: Card, clock: Clock) -> Markup:
    recipe, evaluation, cost = card.recipe, card.evaluation, card.evaluation.cost
    corrections = "" if recipe.corrections is None else f", corrections at version {recipe.corrections}"
    parameters = ", ".join(f"{name} {value}" for name, value in recipe.candidate["params"].items())
    facts: list[tuple[str, object]] = [
        ("Trained on", f"{recipe.rows:,} labelled rows, events {clock.between(*card.trained)}"),
        ("Judged on", f"{evaluation.rows:,} rows, events {clock.between(evaluation.start, evaluation.end)}"),
        ("Against", "nobody: the first version" if evaluation.champion is None else f"champion {evaluation.champion}"),
        ("Why", f"{card.trigger} retraining"),
        ("Model", f"{recipe.candidate['family']}: {parameters or 'no parameters'}"),
        ("Tables", f"examples at version {recipe.examples}{corrections}"),
        ("Rows digest", element("code", recipe.rows_digest)),
        ("Predictions digest", element("code", recipe.predictions_digest)),
        ("Code", f"headrace {recipe.made_with['headrace']}"),
        ("Costs", _cost(cost.fit_seconds, cost.bytes, cost.prediction_us, cost.call_ms, cost.energy_kwh)),
        ("MLflow run", element("code", card.run)),
    ]
    return element("dl", [[element("dt", name), element("dd", said)] for name, said in facts])


def _cost(
    seconds: float | None, size: int | None, prediction_us: float, call_ms: float, energy_kwh: float | None
) -> str:
    said = [
        f"{number(seconds)} s to fit" if seconds is not None else "",
        f"{size:,} bytes pickled" if size is not None else "",
        f"{number(prediction_us)} µs a prediction in batches of 256, {number(call_ms)} ms for a single one",
        f"{number(energy_kwh)} kWh for its fit" if energy_kwh is not None else "",
    ]
    return "; ".join(filter(None, said))


def _quality(card: Card) -> list[Markup]:
    evaluation, names = card.evaluation, METRICS[card.task]
    titles = ("who", *names, "calibration error", "bias", "served with the challenger instead")
    rows = []
    order = [*_NAMES, *(who for who in evaluation.metrics if who not in _NAMES)]
    for who in [who for who in order if who in evaluation.metrics]:
        metrics = evaluation.metrics[who]
        calibration = evaluation.calibration.get(who)
        cells = [element("td", number(metrics.get(name)), class_="n") for name in names]
        cells += [
            element("td", number(calibration.error if calibration else None), class_="n"),
            element("td", number(calibration.bias if calibration else None), class_="n"),
            element("td", _over(evaluation.over.get(who)), class_="n"),
        ]
        rows.append(element("tr", element("th", _NAMES.get(who, f"online expert {who}"), scope="row"), cells))
    said = (
        f"On the same {evaluation.rows:,} held-out rows. The last column is how much more ({names[0]}, relative) what "
        "would be served with the challenger loses than this one, with the bounds that gates use; below 0 is better."
    )
    alone = "" if evaluation.alone is None else f" By itself against the champion: {_over(evaluation.alone)}."
    table = wide(heads(*titles, numbers=titles[1:]), rows)
    return [element("h2", "Quality"), table, element("p", said, alone, class_="quiet")]


def _over(over: Difference | None) -> str:
    """Write a relative difference with its bounds.

    Examples
    --------
    >>> _over(Difference(100, 7, 0.01, -0.0213, -0.03, 0.004)), _over(None)
    ('-2.1 % (-3.0 to +0.4)', '–')
    """
    if over is None or over.relative is None:
        return "–"
    said = f"{100 * over.relative:+.1f} %"
    if over.low is None or over.high is None:
        return said
    return f"{said} ({100 * over.low:+.1f} to {100 * over.high:+.1f})"


def _plots(plots: Mapping[str, bytes]) -> list[Markup]:
    figures = [
        element(
            "figure",
            element("img", src=f"data:image/png;base64,{base64.b64encode(content).decode()}", alt=_SHOWN[name]),
            element("figcaption", _SHOWN[name]),
        )
        for name, content in plots.items()
    ]
    return [element("h2", "Plots"), element("div", figures, class_="plots")] if figures else []


def _importance(card: Card) -> list[Markup]:
    found, title = card.importance, element("h2", "Features")
    if found is None:
        return [title, element("p", f"What it uses is not known: {card.importance_problem}")]
    said = (
        f"Each feature was shuffled {found.repeats} times among {found.rows:,} held-out rows: by how much does the "
        f"loss rise, from {number(found.loss)}? It says what the model uses, not what causes the outcome; features "
        "that say the same share it. Spread is over the shuffles of these rows; other rows would move it, too. The "
        "last columns are of the rows before the hold-out."
    )
    titles = ("feature", "rise", "spread", "relative", "missing", "1 %", "median", "99 %")
    rows = [_feature(one, found, card.checks.features.get(one.feature, {})) for one in found.features]
    return [title, wide(heads(*titles, numbers=titles[1:]), rows), element("p", said, class_="quiet")]


def _feature(one: FeatureImportance, found: Ranking, facts: Mapping[str, float | None]) -> Markup:
    relative = f"{100 * one.mean / found.loss:+.1f} %" if found.loss > 0.0 else "–"
    numbers = [number(one.mean), number(one.spread), relative, share(facts.get("missing") or 0.0)]
    cells = [element("td", said, class_="n") for said in numbers]
    if "categories" in facts:
        cells.append(element("td", counted(int(facts["categories"] or 0), "value"), class_="n", colspan=3))
    else:
        cells += [element("td", number(facts.get(what)), class_="n") for what in ("1 %", "median", "99 %")]
    return element("tr", element("th", foreign(one.feature), scope="row"), cells)


def _slices(card: Card) -> list[Markup]:
    judged = card.slices.judged
    if not judged:
        return []
    blends = any(one.over_champion is not None for one in judged)
    titles = ("slice", "rows", "loss", "trivial", "over trivial", *(("over the champion",) if blends else ()))
    rows = [_slice(one, blends) for one in judged[:_MAX_SLICES]]
    more = f" The worst {_MAX_SLICES} of {len(judged)}; all are in card.json." if len(judged) > _MAX_SLICES else ""
    said = (
        "The challenger by itself, against always predicting the same; and what would be served with it, against what "
        "is served with the champion. Bounds are so sure that all of them together are right."
    )
    table = wide(heads(*titles, numbers=titles[1:]), rows)
    return [element("h2", "Slices"), table, element("p", said, more, class_="quiet")]


def _slice(one: CardSlice, blends: bool) -> Markup:
    numbers = [f"{one.rows:,}", number(one.loss), number(one.trivial), _over(one.over_trivial)]
    numbers += [_over(one.over_champion)] if blends else []
    worse = (one.over_trivial.relative or 0.0) >= 0.0
    cells = [element("td", said, class_="n") for said in numbers]
    return element("tr", element("th", foreign(one.name), scope="row"), cells, class_="over" if worse else None)


def _gates(gates: Sequence[GateResult]) -> list[Markup]:
    titles = ("gate", "verdict", "value", "limit", "why")
    rows = [
        element(
            "tr",
            element("th", gate.name, scope="row"),
            element("td", "passed" if gate.passed else element("b", "refused")),
            element("td", number(gate.value), class_="n"),
            element("td", number(gate.limit), class_="n"),
            element("td", foreign(gate.reason, 1_000)),
            class_=None if gate.passed else "over",
        )
        for gate in gates
    ]
    return [element("h2", "Gates"), wide(heads(*titles, numbers=("value", "limit")), rows)]


def _packaging(card: Card) -> list[Markup]:
    about = card.packaging
    if about is None:
        return []
    columns = ", ".join(f"{name} ({kind})" for name, kind in about.inputs.items())
    facts: list[tuple[str, object]] = [
        ("Takes", columns),
        ("Returns", about.output),
        ("Needs", element("code", ", ".join(about.requirements))),
        ("ONNX", card.onnx),
    ]
    listed = element("dl", [[element("dt", name), element("dd", said)] for name, said in facts])
    return [element("h2", "Packaging"), listed]
