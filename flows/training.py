"""The steps of a retraining, from pinning the data to promoting a version.

A :class:`Retraining` holds what passes from step to step; each step does one thing and says in one
line what it did. A step that ends the run early raises :class:`flows.stops.NotPromoted` with the reasons.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import ParamSpec, TypeVar

from core.audit import CHALLENGER_BLEND, Ledger, Outcome
from core.batch_model import FittedModel
from core.errors import RegistryError, StoreError
from core.model_versions import ModelVersion, Registration
from core.project import Project
from core.registry import Registry
from core.store import TableStore
from flows.apart import Apart, Ask, another_process
from flows.card.answers import Answers, answers_of
from flows.card.facts import Material
from flows.card.files import write_card
from flows.champion import Champion, load_champion
from flows.cost import FitCost
from flows.digests import rows_digest
from flows.energy import Meter
from flows.evaluation import Evaluation, evaluate
from flows.examples import Examples
from flows.fitting import fit, rows_of
from flows.gates import champion_gate, check_gates, servable_gate
from flows.lease import Lease
from flows.promotion import ENDS, Becomes, Bodies, carry_out, decide, pin_owner
from flows.provenance import code_version
from flows.recipe import Recipe, recipe_of, sampled_digest
from flows.records import data_cut, records_of, registration
from flows.references import Validation, volume_of, write_reference
from flows.search import SearchResult, search
from flows.stops import GatesPassed, NotPromoted
from flows.training_data import TrainingData
from monitoring.calibration import Calibrations, calibrations

_log = logging.getLogger("headrace.retrain")

Step = tuple[str, Callable[[], str]]
P = ParamSpec("P")
R = TypeVar("R")


class Retraining:
    """One attempt of one request.

    Parameters
    ----------
    project, lease, ledger, store
        What to retrain, and the right to do it.
    connect : callable
        Makes the registry; called in a thread, because MLflow takes its time.
    apart : callable
        Gives what asks a registered version what it predicts; see :func:`flows.apart.another_process`.
    """

    def __init__(
        self,
        project: Project,
        lease: Lease,
        store: TableStore,
        connect: Callable[[Project], Registry] = Registry,
        apart: Apart = another_process,
    ) -> None:
        self._apart = apart
        self.project, self.lease, self.store = project, lease, store
        self.request = lease.request
        self.gates = GatesPassed()
        self.data = TrainingData(project, lease, store, self.gates)
        self.evaluation: Evaluation | None = None
        self.version: ModelVersion | None = None
        self.run_id: str | None = None
        self.seconds: dict[str, float] = {}
        self.outcome: Outcome = "promoted"
        self._champion: Champion | None = None
        self._judged: dict[str, str] | None = None
        self._recipe: Recipe | None = None
        self._card: Path | None = None
        self._meter = Meter()
        self._open = ExitStack()
        self._ask: Ask
        self._usual: Future[Calibrations]
        self._answers: Future[Answers]
        self._found: SearchResult
        self._challenger: FittedModel
        self._final: FittedModel
        self._registry: Future[Registry] = _beside(connect, project)

    def close(self) -> None:
        """End the process that was started to load the version, if it still runs."""
        self._open.close()

    @property
    def ledger(self) -> Ledger:
        """The ledger that the request is in."""
        return self.lease.ledger

    @property
    def registry(self) -> Registry:
        """The registry; waits until MLflow is imported.

        Raises
        ------
        RegistryError
            If it cannot be reached.
        """
        return self._registry.result()

    @property
    def bootstrap(self) -> bool:
        """Whether there was no champion to compare with."""
        return self.evaluation is not None and self.evaluation.champion is None

    @property
    def steps(self) -> list[Step]:
        """The steps, in order."""
        order = [
            self.pin,
            self.validate,
            self.split,
            self.check,
            self.search,
            self.fit,
            self.evaluate,
            self.gate,
            self.refit,
            self.register,
            self.verify,
            self.describe,
            self.promote,
        ]
        return [(step.__name__, self._timed(step.__name__, step)) for step in order]

    def pin(self) -> str:
        """Fix the table versions, so that they stay readable."""
        return self.data.pin()

    def validate(self) -> str:
        """Read the examples and refuse data that nothing should be fitted on."""
        return self.data.read()

    def split(self) -> str:
        """Drop what is not mature, hold out the latest span that the champion has not seen."""
        self._champion = load_champion(self.project, self.registry, self.ledger, self.gates)
        return self.data.divide(self._champion)

    def check(self) -> str:
        """Check the data itself, write what was found, and stop for what nothing should be fitted on."""
        return self.data.check()

    def search(self) -> str:
        """Try the candidates; what drift is usual follows from the rows alone, and is found out beside it."""
        self._usual = _beside(calibrations, self.data.rows.table, self.project.settings)
        self._found = search(self.project, self.data.train, lambda line: _log.info("search: %s", line))
        best, start = self._found.best, self._found.best.candidate.start
        history = "" if start is None else f", fitted from {self.project.settings.clock.moment(start)} on"
        return f"{best.candidate.family} of {len(self._found.trials)} trials, loss {best.loss:.5f}{history}"

    def fit(self) -> str:
        """Fit the best candidate on all training rows: the challenger; another process gets ready to load it."""
        self._ask = self._open.enter_context(self._apart(self.project))
        with self._meter:
            self._challenger = fit(self.project, self._found.best.candidate, self.data.train)
        return f"challenger fitted on {int(self.data.split.train.sum())} rows"

    def evaluate(self) -> str:
        """Compare with the champion, alone and in the blend."""
        try:
            self.evaluation = evaluate(
                self.project.settings,
                self.data.holdout,
                self.data.train.outcomes,
                self._challenger,
                self._champion.model if self._champion else None,
                FitCost(self._meter.seconds, self._meter.energy_kwh),
                self._champion.skill if self._champion else None,
            )
        except RegistryError as error:
            self.gates.require([champion_gate(str(error))])
            raise
        return f"compared on {self.evaluation.rows} rows"

    def gate(self) -> str:
        """Judge the challenger."""
        assert self.evaluation is not None
        results = check_gates(self.evaluation, self.project.settings.gates)
        try:
            self.gates.require(results)
        except NotPromoted:
            self._write_recipe(self._challenger, self.data.train, held_out_from=self.data.split.start)
            self.run_id = self.registry.record_run(self._registration())
            raise
        return f"{len(self.gates.results)} gates passed"

    def refit(self) -> str:
        """Fit the challenger's candidate again, on all mature rows."""
        used = rows_of(self._found.best.candidate, self.data.train)
        self._judged = {
            "rows_digest": rows_digest(used),
            "predictions_digest": sampled_digest(self._challenger, used),
        }
        self._final = fit(self.project, self._found.best.candidate, self.data.rows)
        until = self.project.settings.clock.moment(data_cut(self.data.rows))
        return f"fitted on {len(self.data.rows)} rows up to {until}"

    def register(self) -> str:
        """Register the refitted model with what it was made from; what it uses is found out beside it."""
        seed, without = self.project.settings.batch.seed, self._found.best.candidate.without
        self._answers = _beside(answers_of, self._challenger, self.data.holdout, seed=seed, without=without)
        self._write_recipe(self._final, self.data.rows)
        self.version = self.registry.register(self._final.pipeline, self._registration())
        self.run_id = self.version.run_id
        self.data.pin_for(pin_owner(self.version.version))
        return f"version {self.version.version}"

    def verify(self) -> str:
        """Have another process load the version as a worker would, and write its reference."""
        assert self.version is not None
        frame = self.data.rows.frame.tail(self.project.settings.gates.min_holdout_rows)
        expected = self._final.predict_frame(frame)
        loaded, problem = self._ask(self.version, frame)
        try:
            self.gates.require([servable_gate(expected, loaded, problem)])
        except NotPromoted:
            self.describe()  # it is registered, and will not go away
            raise
        for path in self._write_reference(self.version.version, self._usual.result()):
            self.registry.log_file(self.version.run_id, path, "reference")
        return "loads from the registry and answers the same"

    def describe(self) -> str:
        """Write the version's card: what it learned from, how it was judged, what it uses, where not to trust it."""
        assert self.version is not None and self.evaluation is not None
        assert self._recipe is not None and self.data.report is not None
        material = Material(
            version=self.version.version,
            run=self.version.run_id,
            trigger=self.request.trigger,
            answers=self._answers.result(),
            rows=self.data.rows,
            holdout=self.data.holdout,
            train_outcomes=self.data.train.outcomes,
            checks=self.data.report,
            evaluation=self.evaluation,
            gates=self.gates.results,
            recipe=self._recipe,
        )
        self._card = write_card(self.project, self.registry, material, self._final)
        return f"card of version {self.version.version}"

    def promote(self) -> str:
        """Decide in the ledger what it becomes, then move the alias and close the request."""
        assert self.version is not None
        previous = None if self._champion is None else self._champion.version
        becomes, note = self._becomes(self.version.version, previous)
        outcome = ENDS[becomes]
        decide(
            self.lease,
            self.version,
            previous,
            self.records(outcome, note),
            note,
            aliases=self.registry.aliases(),
            becomes=becomes,
            watched=self.project.settings.promotion.watch and previous is not None,
        )
        self.outcome = outcome
        return carry_out(self.ledger, self.registry, self.request.id) or "it was carried out already"

    def _becomes(self, version: int, previous: int | None) -> tuple[Becomes, list[str]]:
        """Return what a version becomes that passed every gate, and what is to be said of it."""
        rules = self.project.settings.promotion
        if self.bootstrap:
            return "promotion", ["bootstrap: no champion yet, compared with the trivial baseline"]
        if rules.shadow:
            said = f"version {version} predicts in shadow beside champion {previous} until it is decided"
            return "challenge", [said]
        if rules.approval:
            return "approval", [f"version {version} waits for approval: headrace approve"]
        return "promotion", []

    def records(self, outcome: Outcome, reasons: list[str]) -> Bodies:
        """Return the gate and the retraining of this attempt for the ledger."""
        summary = {
            **self.data.summary(),
            "promoted": outcome == "promoted",
            "shadowing": outcome == "shadowing",
            "waiting": outcome == "waiting",
            "reasons": reasons,
            "mlflow_run": self.run_id,
            "version": self.version.version if self.version else None,
            "card": self._card.relative_to(self.project.state).as_posix() if self._card else None,
            "code": code_version(),
            "recipe": self._recipe.as_json() if self._recipe else None,
            "judged": self._judged,
            "seconds": round(sum(self.seconds.values()), 2),
            "steps": {name: round(value, 2) for name, value in self.seconds.items()},
        }
        return records_of(self.lease, gates=self.gates.results, evaluation=self.evaluation, summary=summary)

    def write_records(self, outcome: Outcome, reasons: list[str]) -> None:
        """Write them, once."""
        for kind, body in self.records(outcome, reasons):
            self.ledger.record(kind, self.lease.key, event_time=self.request.event_time, body=body)

    def _timed(self, name: str, step: Callable[[], str]) -> Callable[[], str]:
        def timed() -> str:
            begin = time.perf_counter()
            try:
                return step()
            finally:
                self.seconds[name] = time.perf_counter() - begin

        return timed

    def _write_recipe(self, model: FittedModel, rows: Examples, held_out_from: int | None = None) -> None:
        """Write down what the model was made from, so that it can be made again (:mod:`flows.reproduction`)."""
        self._recipe = recipe_of(
            self.project,
            model,
            self._found.best.candidate,
            rows,
            data=self.data.version,
            until=self.request.event_time,
            left_out=self.data.kept_out,
            held_out_from=held_out_from,
        )

    def _registration(self) -> Registration:
        assert self.evaluation is not None
        assert self._recipe is not None
        return registration(
            self.lease,
            data=self.data.version,
            rows=self.data.rows,
            found=self._found,
            evaluation=self.evaluation,
            checks=self.data.report,
            gates=self.gates.results,
            recipe=self._recipe,
        )

    def _write_reference(self, version: int, usual: Calibrations) -> list[Path]:
        assert self.evaluation is not None
        loss, served = self.evaluation.loss("challenger"), self.evaluation.loss(CHALLENGER_BLEND)
        if loss is None or served is None:
            raise StoreError(f"reference of version {version}: the hold-out losses are not known")
        validation = Validation(loss, served if self.evaluation.experts else None, self.evaluation.skill("challenger"))
        return write_reference(
            self.project.state / "references",
            version,
            self.data.rows,
            validation=validation,
            data_cut=data_cut(self.data.rows),
            table_version=self.data.version.examples,
            calibrations=usual,
            volume=volume_of(self.store, self.data.rows, self.project.settings, self.request.event_time),
            seed=self.project.settings.batch.seed,
        )


def _beside(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
    """Begin a call in a thread of its own, beside the steps."""
    pool = ThreadPoolExecutor(1, "beside")
    begun = pool.submit(function, *args, **kwargs)
    pool.shutdown(wait=False)
    return begun
