"""All that a card says, worked out once; the page, the plots and the JSON are made of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from core.packaging import Packaging
from core.project import Project
from core.setting_types import Task
from flows.card.answers import Answers
from flows.card.curves import Curves, curves_of
from flows.card.importance import Ranking
from flows.card.limits import Known, limits_of
from flows.card.slices import CardSlices, card_slices, shown
from flows.checks.report import DataReport
from flows.evaluation import Evaluation, trivial
from flows.examples import Examples
from flows.gates import GateResult
from flows.recipe import Recipe
from flows.records import data_cut, finite


@dataclass(frozen=True, eq=False)
class Material:
    """What a card is made of.

    Attributes
    ----------
    version : int
        The registered version.
    run : str
        Its MLflow run.
    answers : Answers
        What the candidate as it was judged, fitted on the training rows only, says of the rows held out.
    rows : Examples
        All mature rows: what the registered version was fitted on.
    holdout : Examples
        Those of them that the challenger has not seen.
    train_outcomes : sequence
        The labels of the rows before the hold-out.
    gates : sequence of GateResult
        All that were asked.
    """

    version: int
    run: str
    trigger: str
    answers: Answers
    rows: Examples
    holdout: Examples
    train_outcomes: Sequence[Any]
    checks: DataReport
    evaluation: Evaluation
    gates: Sequence[GateResult]
    recipe: Recipe


@dataclass(frozen=True, eq=False)
class Card:
    """What is known of a version.

    Attributes
    ----------
    project : str
    task : {'binary', 'multiclass', 'regression'}
    version, run, trigger
        As in :class:`Material`.
    trained : (int, int)
        The first and the last event that it was fitted on, ms.
    recipe : Recipe
        Which rows, which parameters, which code.
    checks : DataReport
        Rows, spans, and what was measured of each feature.
    importance : Ranking or None
        Of the challenger; None with `importance_problem`, if it could not be measured.
    limits : list of str
        Where it should not be trusted.
    packaging : Packaging or None
        How the registered version can be loaded elsewhere; None as long as that was not looked at.
    onnx : str
        Whether there is an ONNX file, and why not, if there is none.
    """

    project: str
    task: Task
    version: int
    run: str
    trigger: str
    trained: tuple[int, int]
    recipe: Recipe
    checks: DataReport
    evaluation: Evaluation
    gates: Sequence[GateResult]
    slices: CardSlices
    curves: Curves
    importance: Ranking | None
    importance_problem: str
    limits: list[str]
    packaging: Packaging | None = None
    onnx: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        known = self.importance
        content = {
            "project": self.project,
            "task": self.task,
            "version": self.version,
            "mlflow_run": self.run,
            "trigger": self.trigger,
            "trained": {"from": self.trained[0], "to": self.trained[1], **self._recipe_json()},
            "data": {"rows": dict(self.checks.rows), "spans": {k: list(v) for k, v in self.checks.spans.items()}},
            "features": {name: dict(facts) for name, facts in self.checks.features.items()},
            "evaluation": {k: v for k, v in self.evaluation.as_json().items() if k != "slices"},
            "gates": [result.as_json() for result in self.gates],
            "slices": asdict(self.slices),
            "curves": asdict(self.curves),
            "importance": None if known is None else _importance_json(known),
            "importance_problem": self.importance_problem or None,
            "limits": self.limits,
            "packaging": None if self.packaging is None else asdict(self.packaging),
            "onnx": self.onnx or None,
        }
        found: dict[str, Any] = finite(content)
        return found

    def _recipe_json(self) -> Mapping[str, Any]:
        content = self.recipe.as_json()
        return {name: value for name, value in content.items() if name not in ("project", "settings")}


def card_of(project: Project, material: Material) -> Card:
    """Work out a card."""
    settings, evaluation = project.settings, material.evaluation
    rows, predictions = material.answers.rows, material.answers.predictions
    baseline = trivial(settings.task, material.train_outcomes)
    slices = card_slices(rows, predictions, baseline, evaluation.slices, settings)
    found = material.answers.importance
    trained = _trained(material)
    used = material.rows.take(material.rows.event_time >= trained[0])
    without = material.recipe.candidate.get("without") or ()
    known = Known(settings, used.outcomes, trained, material.checks, evaluation, slices, found, without)
    return Card(
        project=settings.name,
        task=settings.task,
        version=material.version,
        run=material.run,
        trigger=material.trigger,
        trained=trained,
        recipe=material.recipe,
        checks=material.checks,
        evaluation=evaluation,
        gates=[replace(gate, reason=shown(gate.reason, settings)) for gate in material.gates],
        slices=slices,
        curves=curves_of(settings.task, predictions, rows.outcomes),
        importance=found,
        importance_problem=material.answers.problem,
        limits=limits_of(known),
    )


def _trained(material: Material) -> tuple[int, int]:
    first = int(material.rows.event_time.min())
    return max(first, material.recipe.candidate["start"] or first), data_cut(material.rows) - 1


def _importance_json(found: Ranking) -> dict[str, Any]:
    features = [{**asdict(one), "mean": one.mean, "spread": one.spread, "sure": one.is_sure} for one in found.features]
    return {**asdict(found), "features": features}
