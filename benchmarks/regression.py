"""How many labels it takes until a champion that turns out worse is taken back.

``python benchmarks/regression.py PROJECT [--days N] [--policy P] [--promotion N] [--wrong 0,0.1,0.3,1]``: the recorded
stream is replayed as ``headrace backtest`` does. The champion of one promotion is spoiled after its gates: so much of
each prediction is turned round. It serves and is watched; the blend around it moves with its labels, as it would.
Printed is how the watch ended, after how many labels, and how much less was lost with the former one. A binary task.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from backtest.policies import parse_policies
from backtest.simulation import Simulation
from backtest.tape import record
from backtest.training import Attempted, Trainer
from backtest.unlearning import Unlearner
from core.project import Project, load_project
from core.project_file import FILE_NAME
from core.settings import Settings
from streaming.replay import read_source


class Turned:
    """A fitted pipeline of which a share of each probability is turned round."""

    def __init__(self, pipeline: Any, wrong: float) -> None:
        self._pipeline, self._wrong = pipeline, wrong
        self.classes_ = pipeline.classes_

    def predict_proba(self, frame: Any) -> Any:
        """Return probabilities, one column a class."""
        made = np.asarray(self._pipeline.predict_proba(frame))
        return (1.0 - self._wrong) * made + self._wrong * made[:, ::-1]


class Spoiler(Trainer):
    """Trains as always, but for one promotion."""

    def __init__(self, project: Project, version: int) -> None:
        super().__init__(project)
        self._version = version
        self.wrong = 0.0

    def attempt(self, settings: Settings, *given: Any, **more: Any) -> Attempted:
        """Retrain, and spoil what becomes that version."""
        attempt, made = super().attempt(settings, *given, **more)
        if made is None or attempt.version != self._version:
            return attempt, made
        spoiled = replace(made.model, pipeline=Turned(made.model.pipeline, self.wrong))
        return attempt, replace(made, model=spoiled)


def outcome(simulation: Simulation, version: int, settings: Settings) -> Mapping[str, Any]:
    """Run a simulation and return how the watch of a version ended."""
    ran = simulation.run()
    watched = [one for one in ran.ended if one.shadow.role == "previous" and one.shadow.against == version]
    if not watched:
        return {"conclusion": "still watched"}
    (end,) = watched
    since = ran.entered[version]
    return {
        "conclusion": "rolled back" if end.conclusion == "superior" else end.conclusion,
        "compared": "models" if end.verdict.alone else "blends",
        "labels": end.verdict.rows,
        "blocks": end.verdict.blocks,
        "after": settings.clock.span(end.at - since),
        "former_lost_less": round(end.verdict.gain, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path)
    parser.add_argument("--days", type=int, default=150)
    parser.add_argument("--policy", default="every:28d")
    parser.add_argument("--promotion", type=int, default=3)
    parser.add_argument("--wrong", default="0,0.1,0.2,0.3,0.5,1")
    given = parser.parse_args()
    loaded = load_project(given.project)
    content = yaml.safe_load((given.project / FILE_NAME).read_text())
    (policy,) = parse_policies(given.policy, content, str(given.project))
    tape = record(loaded, read_source(loaded, given.days))
    trainer, unlearner, found = Spoiler(loaded, given.promotion), Unlearner(loaded, tape), {}
    for text in given.wrong.split(","):
        trainer.wrong = float(text)
        simulation = Simulation(tape, policy, trainer, unlearner)
        found[text] = outcome(simulation, given.promotion, policy.settings)
        print(json.dumps({text: found[text]}), flush=True)


if __name__ == "__main__":
    main()
