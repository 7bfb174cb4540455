"""A policy shown one window after the other."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from core.loop_settings import DriftSettings
from core.settings import Settings
from monitoring.decision import Decision, PolicyState
from monitoring.judgement import Evidence
from monitoring.policy import decide
from monitoring.windows import due_stages, start_progress

SPAN = 10_000
LIMITS = {"feature_threshold": 0.25, "prediction_threshold": 0.2, "label_threshold": 0.2, "quality_drop": 0.1}
DRIFT = DriftSettings(**LIMITS)
INFINITE = dict.fromkeys(("feature_threshold", "prediction_threshold", "label_threshold", "quality_drop"), float("inf"))


def make_settings(drift: dict[str, Any] | None = None, **retrain: Any) -> Settings:
    return Settings.model_validate(
        {
            "name": "x",
            "id": "id",
            "time": "t",
            "fields": {"a": "number"},
            "label": "y",
            "windows": {"span": SPAN},
            "drift": {"cooldown": 35_000, **LIMITS, **(drift or {})},
            "retrain": {"bootstrap_after": 20_000, "every": None, **retrain},
        }
    )


looks = st.fixed_dictionaries(
    {
        "far": st.booleans(),
        "rows": st.sampled_from([10, 499, 500, 5_000]),
        "loss": st.sampled_from([None, 0.5, 0.9]),
        "ends": st.booleans(),
    }
)


def play(chosen: Settings, seen: list[dict[str, Any]], horizon: int = 15_000) -> list[tuple[Evidence, Decision]]:
    """Let the policy see a stream; a retraining stays open until a look says that it ends."""
    stages = due_stages(start_progress(0, SPAN), SPAN, horizon, 10**9)
    state, found, is_open, alerted, champion = PolicyState(), [], False, set(), None
    for look, stage in zip(seen, stages, strict=False):
        if is_open and look["ends"]:
            is_open, champion = False, (champion or 0) + 1
        evidence = Evidence(
            stage,
            0,
            champion=champion,
            rows=look["rows"],
            features={"a": 0.9 if look["far"] else 0.0} if stage.stage == "data" else {},
            label=0.0 if stage.stage == "labels" else None,
            champion_loss=look["loss"],
            validation_loss=0.5,
            loss_rows=look["rows"],
            breaks=("a is gone.",) if look.get("broken") and champion else (),
            examples=5_000,
            alerted=stage.start in alerted,
            open_retraining=is_open,
        )
        decision, state = decide(evidence, PolicyState.from_json(json.loads(json.dumps(state.to_json()))), chosen)
        found.append((evidence, decision))
        is_open = is_open or decision.trigger is not None
        alerted |= {stage.start} if decision.alert else set()
    return found


def stage(number: int, stage: str = "data"):
    stages = due_stages(start_progress(0, SPAN), SPAN, 1_000, 10**7)
    return [entry for entry in stages if entry.stage == stage][number]


def drifted(number: int, **more: Any) -> Evidence:
    return Evidence(stage(number), 0, champion=1, rows=900, features={"a": 0.9, "b": 0.0}, **more)
