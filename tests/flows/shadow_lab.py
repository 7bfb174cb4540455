"""A project with a shadow, a monitor that has judged up to a moment, and a registry that can fail and die."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from flows_lab import START, stamps

from core.audit import Ledger
from core.durations import DAY, HOUR
from core.errors import RegistryError
from core.model_versions import ModelVersion
from core.project import Project
from core.status import write_status
from core.store import TableStore
from core.tables import EXAMPLES, examples_schema
from flows.shadowing import Shadowing

FIRST = START // DAY * DAY + DAY
DAYS = 30


class Models:
    """A registry that is a dict of aliases; `down` says that it is not reached, `dies` that its caller dies after."""

    def __init__(self, **aliases: int) -> None:
        self.moves: list[tuple[Any, ...]] = []
        self.named, self.known, self.down, self.dies = dict(aliases), [1, 2, 3], False, False

    def aliases(self) -> dict[str, int]:
        if self.down:
            raise RegistryError("MLflow does not answer")
        return dict(self.named)

    def versions(self) -> list[ModelVersion]:
        return [ModelVersion(number, f"run{number}", {"trigger": "drift", "request": "r"}) for number in self.known]

    def promote(self, version: int, *, expected: int, serves_from: int, watched: bool) -> None:
        self._done("promote", version, expected, serves_from, watched)
        self.named = {"champion": version, "previous": expected}

    def withdraw(self, version: int) -> None:
        self._done("withdraw", version)
        self.named.pop("challenger", None)

    def trust(self, version: int) -> None:
        self._done("trust", version)

    def _done(self, *move: Any) -> None:
        self.moves.append(move)
        if self.dies:
            self.dies = False
            raise KeyboardInterrupt


def rows(
    project: Project,
    role: str,
    served: float,
    with_shadow: float,
    *,
    versions: tuple[int, int],
    champion: float | None = None,
) -> pa.Table:
    """Thirty days of fifty labels: what was served, and what would have been, are these probabilities of the label."""
    draw, count = np.random.default_rng(3), DAYS * 50
    times = FIRST + np.sort(draw.integers(0, DAYS * DAY, count))
    labels = draw.integers(0, 2, count)
    noise = draw.normal(0.0, 0.02, count) if with_shadow != served else np.zeros(count)
    columns: dict[str, Any] = {
        "id": [str(number) for number in range(count)],
        "event_time": stamps(times),
        "label_clock": stamps(times + HOUR),
        "label": labels.tolist(),
        "champion_version": [versions[0]] * count,
        "p_champion": towards(labels, served if champion is None else champion),
        "p_served": towards(labels, served),
        f"{role}_version": [versions[1]] * count,
        f"p_{role}": towards(labels, with_shadow),
        f"p_with_{role}": towards(labels, np.clip(with_shadow + noise, 0.05, 0.95)),
    }
    schema = examples_schema(project.settings)
    filled = {field.name: columns.get(field.name, [None] * count) for field in schema}
    return pa.table(filled, schema=schema)


def towards(labels: Any, right: Any) -> list[float]:
    """Probabilities of 1 that give each label this probability."""
    return np.where(labels == 1, right, 1.0 - right).tolist()


class Lab:
    """A project with a shadow, and a monitor that has judged up to a moment."""

    def __init__(
        self, project: Project, role: str, served: float, with_shadow: float, champion: float | None = None
    ) -> None:
        self.project, self.store, self.ledger = project, TableStore(project.tables), Ledger(project.ledger)
        first = {"version": 1, "previous": None, "effective_at": FIRST - DAY, "watched": False}
        self.ledger.record("promotion", "1", event_time=FIRST - DAY, body=first)
        self.models = Models(champion=1, challenger=2)
        if role == "challenger":
            begun = {"version": 2, "previous": 1, "effective_at": FIRST, "evidence": {"gate": "r/1"}}
            self.ledger.record("challenge", "2", event_time=FIRST, body=begun)
        else:
            second = {"version": 2, "previous": 1, "effective_at": FIRST, "watched": True}
            self.ledger.record("promotion", "2", event_time=FIRST, body=second)
            self.models = Models(champion=2, previous=1)
        versions = (1, 2) if role == "challenger" else (2, 1)
        table = rows(project, role, served, with_shadow, versions=versions, champion=champion)
        self.store.append(EXAMPLES, table, app="test", sequence=1)
        self.shadowing = self.anew()

    def anew(self) -> Shadowing:
        return Shadowing(self.project, self.ledger, self.store, connect=lambda _: self.models)

    def look_at(self, moment: int) -> None:
        write_status(self.project.status, "monitor", {"state": "running", "evaluated_through": moment})
        self.shadowing.run_once()

    def look_every_day(self) -> None:
        for day in range(1, DAYS + 2):
            self.look_at(FIRST + day * DAY)

    def ends(self) -> list[Any]:
        kinds = ("promotion", "rollback", "withdrawal", "trust")
        return [record for record in self.ledger.history() if record.kind in kinds and record.body.get("verdict")]
