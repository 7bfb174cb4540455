"""The steps of a retraining: pin, validate, split, check, search, fit, evaluate, gate, refit, register, promote.

A :class:`Retraining` holds what passes from step to step; each step does one thing and says in one
line what it did. A step that ends the run early raises :class:`NotPromoted` with the reasons.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from core.audit import CHALLENGER_BLEND, Ledger, Outcome
from core.batch_model import FittedModel
from core.errors import CheckpointError, RegistryError, StoreError
from core.model_versions import ModelVersion, Registration
from core.models import CHAMPION
from core.project import Project
from core.quarantine import Span, quarantined, released
from core.registry import Registry
from core.store import TableStore
from core.tables import CORRECTIONS, EXAMPLES
from flows.apart import Ask, predictions_apart
from flows.checks import page
from flows.checks.report import DataReport, refusal
from flows.checks.run import check_data
from flows.cost import FitCost
from flows.digests import rows_digest
from flows.energy import Meter
from flows.evaluation import Evaluation, evaluate
from flows.examples import DataVersion, Examples, LeftOut, only_mature, read_counted, unfit_columns
from flows.gates import (
    GateResult,
    champion_gate,
    check_gates,
    labels_gate,
    passed,
    reasons,
    reference_gate,
    rows_gate,
    servable_gate,
)
from flows.lease import Lease
from flows.parity import parity_gate
from flows.promotion import ENDS, Becomes, Bodies, carry_out, decide, pin_owner
from flows.provenance import code_version
from flows.recipe import Recipe, recipe_of, sampled_digest
from flows.records import data_cut, records_of, registration
from flows.references import Validation, volume_of, write_reference
from flows.search import SearchResult, fit, rows_of, search
from flows.splits import Split, split_by_time
from flows.validation import column_problems, data_problems
from monitoring.calibration import calibrations
from monitoring.reference import load_reference

_log = logging.getLogger("headrace.retrain")

Step = tuple[str, Callable[[], str]]


class NotPromoted(Exception):  # noqa: N818 - an outcome, not an error
    """The run ends without a promotion, for these reasons."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


class Retraining:
    """One attempt of one request.

    Parameters
    ----------
    project, lease, ledger, store
        What to retrain, and the right to do it.
    connect : callable
        Makes the registry; called in a thread, because MLflow takes its time.
    ask : callable
        Asks a registered version what it predicts; see :func:`flows.apart.predictions_apart`.
    """

    def __init__(
        self,
        project: Project,
        lease: Lease,
        store: TableStore,
        connect: Callable[[Project], Registry] = Registry,
        ask: Ask = predictions_apart,
    ) -> None:
        self._ask = ask
        self.project, self.lease, self.store = project, lease, store
        self.request = lease.request
        self.gates: list[GateResult] = []
        self.evaluation: Evaluation | None = None
        self.version: ModelVersion | None = None
        self.run_id: str | None = None
        self.seconds: dict[str, float] = {}
        self.outcome: Outcome = "promoted"
        self._judged: dict[str, str] | None = None
        self._kept_out: list[Span] = []
        self._recipe: Recipe | None = None
        self._data: DataVersion | None = None
        self.data: DataReport | None = None
        self._page: Path | None = None
        self._left_out: LeftOut
        self._wait: int
        self._rows: Examples
        self._split: Split
        self._champion: FittedModel | None = None
        self._champion_cut: int | None = None
        self._meter = Meter()
        self._found: SearchResult
        self._challenger: FittedModel
        self._final: FittedModel
        pool = ThreadPoolExecutor(1, "registry")
        self._registry: Future[Registry] = pool.submit(connect, project)
        pool.shutdown(wait=False)

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
            self.promote,
        ]
        return [(step.__name__, self._timed(step.__name__, step)) for step in order]

    def pin(self) -> str:
        """Fix the table versions, so that they stay readable."""
        while True:
            examples, corrections = self.store.version(EXAMPLES), self.store.version(CORRECTIONS)
            if examples is None:
                raise NotPromoted([f"table {EXAMPLES!r} does not exist yet: no label has been joined"])
            self._data = DataVersion(examples, corrections)
            self._pin(self.request.id)
            # Maintenance asks for pins between compacting and vacuum: it knows of one on what still is the latest.
            if (examples, corrections) == (self.store.version(EXAMPLES), self.store.version(CORRECTIONS)):
                return f"examples at version {examples}"
            self.ledger.unpin(self.request.id)

    def validate(self) -> str:
        """Read the examples and refuse data that nothing should be fitted on."""
        settings, data = self.project.settings, self._pinned
        self._refuse("schema", column_problems(*unfit_columns(self.store, data, settings)))
        self._kept_out = quarantined(self.ledger.history(), self.request.event_time)
        self._rows, self._left_out = read_counted(self.store, data, settings, self.request.event_time, self._kept_out)
        self._refuse("labels", data_problems(self._rows.outcomes, settings))
        return f"{len(self._rows)} labelled examples"

    def split(self) -> str:
        """Drop what is not mature, hold out the latest span that the champion has not seen."""
        settings = self.project.settings
        self._rows, self._left_out, self._wait = only_mature(
            self._rows, self._left_out, settings, self.request.event_time
        )
        self._split = split_by_time(
            self._rows.event_time,
            self._rows.label_clock,
            span=settings.batch.holdout,
            after=self._load_champion(),
        )
        train, held = int(self._split.train.sum()), int(self._split.holdout.sum())
        self._refuse("labels", data_problems(self._train.outcomes, settings))
        if not (enough := rows_gate(held, settings.gates)).passed:
            self._fail_gate(enough)
        self._pass_gate(self._new_labels())
        self._pass_gate(parity_gate(self.project, self.store, self._rows))
        return f"{train} rows to train, {held} held out from {self.project.settings.clock.moment(self._split.start)}"

    def check(self) -> str:
        """Check the data itself, write what was found, and stop for what nothing should be fitted on."""
        project, now = self.project, self.request.event_time
        accepted = released(self.ledger.history("release"), now)
        report = check_data(
            self._rows, self._split, self._left_out, project.settings, wait=self._wait, accepted=accepted
        )
        self._keep(report)
        self._stop_for(report.problems)
        return "; ".join([f"{len(report.checks)} checks passed", *report.warnings])

    def search(self) -> str:
        """Try the candidates."""
        self._found = search(self.project, self._train, lambda line: _log.info("search: %s", line))
        best = self._found.best
        history = (
            ""
            if best.candidate.start is None
            else f", fitted from {self.project.settings.clock.moment(best.candidate.start)} on"
        )
        return f"{best.candidate.family} of {len(self._found.trials)} trials, loss {best.loss:.5f}{history}"

    def fit(self) -> str:
        """Fit the best candidate on all training rows: the challenger."""
        with self._meter:
            self._challenger = fit(self.project, self._found.best.candidate, self._train)
        return f"challenger fitted on {int(self._split.train.sum())} rows"

    def evaluate(self) -> str:
        """Compare with the champion, alone and in the blend."""
        try:
            self.evaluation = evaluate(
                self.project.settings,
                self._rows.take(self._split.holdout),
                self._train.outcomes,
                self._challenger,
                self._champion,
                FitCost(self._meter.seconds, self._meter.energy_kwh),
            )
        except RegistryError as error:
            self._fail_gate(champion_gate(str(error)))
            raise
        return f"compared on {self.evaluation.rows} rows"

    def gate(self) -> str:
        """Judge the challenger."""
        assert self.evaluation is not None
        self.gates = [*self.gates, *check_gates(self.evaluation, self.project.settings.gates)]
        if not passed(self.gates):
            self._write_recipe(self._challenger, self._train, held_out_from=self._split.start)
            self.run_id = self.registry.record_run(self._registration())
            self._stop_for(reasons(self.gates))
        return f"{len(self.gates)} gates passed"

    def refit(self) -> str:
        """Fit the challenger's candidate again, on all mature rows."""
        used = rows_of(self._found.best.candidate, self._train)
        self._judged = {
            "rows_digest": rows_digest(used),
            "predictions_digest": sampled_digest(self._challenger, used),
        }
        self._final = fit(self.project, self._found.best.candidate, self._rows)
        return f"fitted on {len(self._rows)} rows up to {self.project.settings.clock.moment(data_cut(self._rows))}"

    def register(self) -> str:
        """Register the refitted model with what it was made from."""
        self._write_recipe(self._final, self._rows)
        self.version = self.registry.register(self._final.pipeline, self._registration())
        self.run_id = self.version.run_id
        self._pin(pin_owner(self.version.version))
        return f"version {self.version.version}"

    def verify(self) -> str:
        """Have another process load the version as a worker would, and write its reference."""
        assert self.version is not None
        frame = self._rows.frame.tail(self.project.settings.gates.min_holdout_rows)
        expected = self._final.predict_frame(frame)
        loaded, problem = self._ask(self.project, self.version, frame)
        self.gates = [*self.gates, servable_gate(expected, loaded, problem)]
        self._stop_for(reasons(self.gates))
        for path in self._write_reference(self.version.version):
            self.registry.log_file(self.version.run_id, path, "reference")
        return "loads from the registry and answers the same"

    def promote(self) -> str:
        """Decide in the ledger what it becomes, then move the alias and close the request."""
        assert self.version is not None
        rules, previous = self.project.settings.promotion, None if self._champion is None else self._champion.version
        becomes: Becomes = "promotion"
        if not self.bootstrap and (rules.shadow or rules.approval):
            becomes = "challenge" if rules.shadow else "approval"
        outcome = ENDS[becomes]
        note = ["bootstrap: no champion yet, compared with the trivial baseline"] if self.bootstrap else []
        if becomes == "approval":
            note = [f"version {self.version.version} waits for approval: headrace approve"]
        if becomes == "challenge":
            note = [f"version {self.version.version} predicts in shadow beside champion {previous} until it is decided"]
        decide(
            self.lease,
            self.version,
            previous,
            self.records(promoted=becomes == "promotion", reasons=note, outcome=outcome),
            note,
            aliases=self.registry.aliases(),
            becomes=becomes,
            watched=rules.watch and previous is not None,
        )
        self.outcome = outcome
        return carry_out(self.ledger, self.registry, self.request.id) or "it was carried out already"

    def records(self, *, promoted: bool, reasons: list[str], outcome: Outcome = "gated") -> Bodies:
        """Return the gate and the retraining of this attempt for the ledger."""
        summary = {
            "table_version": None if self._data is None else self._data.examples,
            "rows": len(self._rows) if hasattr(self, "_rows") else 0,
            "data": self._data_found(),
            "promoted": promoted,
            "shadowing": outcome == "shadowing",
            "waiting": outcome == "waiting",
            "reasons": reasons,
            "mlflow_run": self.run_id,
            "version": self.version.version if self.version else None,
            "code": code_version(),
            "recipe": self._recipe.as_json() if self._recipe else None,
            "judged": self._judged,
            "seconds": round(sum(self.seconds.values()), 2),
            "steps": {name: round(value, 2) for name, value in self.seconds.items()},
        }
        return records_of(self.lease, gates=self.gates, evaluation=self.evaluation, summary=summary)

    def write_records(self, *, promoted: bool, reasons: list[str]) -> None:
        """Write them, once."""
        for kind, body in self.records(promoted=promoted, reasons=reasons):
            self.ledger.record(kind, self.lease.key, event_time=self.request.event_time, body=body)

    def _data_found(self) -> dict[str, Any] | None:
        """Return what the ledger gets of the data's checks: all of them, and where the page is in the state folder."""
        if self.data is None:
            return None
        where = None if self._page is None else self._page.relative_to(self.project.state).as_posix()
        return {"page": where, **self.data.as_json()}

    @property
    def _pinned(self) -> DataVersion:
        assert self._data is not None
        return self._data

    @property
    def _train(self) -> Examples:
        return self._rows.take(self._split.train)

    def _timed(self, name: str, step: Callable[[], str]) -> Callable[[], str]:
        def timed() -> str:
            begin = time.perf_counter()
            try:
                return step()
            finally:
                self.seconds[name] = time.perf_counter() - begin

        return timed

    def _keep(self, report: DataReport) -> None:
        """Write what was found in the data, for the ledger and as a page."""
        self.data = report
        self._page = page.write(self.project.reports, report, self.project.settings, self.lease.key)

    def _refuse(self, check: str, problems: list[str]) -> None:
        """Stop for data that cannot even be checked, with a page as well."""
        if problems:
            self._keep(refusal(check, problems))
            raise NotPromoted(problems)

    def _stop_for(self, reasons: list[str]) -> None:
        if reasons:
            raise NotPromoted(reasons)

    def _fail_gate(self, result: GateResult) -> None:
        self.gates = [*self.gates, result]
        raise NotPromoted(reasons([result]))

    def _pass_gate(self, result: GateResult) -> None:
        self.gates = [*self.gates, result]
        self._stop_for(reasons([result]))

    def _new_labels(self) -> GateResult:
        """Judge how many examples the champion was not trained on; all count at the bootstrap."""
        limits, since = self.project.settings.gates, self._champion_cut
        if self._champion is None or since is None:
            return labels_gate(len(self._rows), None, limits)
        return labels_gate(int((self._rows.event_time >= since).sum()), self._champion.version, limits)

    def _pin(self, owner: str) -> None:
        self.ledger.pin(EXAMPLES, self._pinned.examples, owner)
        if self._pinned.corrections is not None:
            self.ledger.pin(CORRECTIONS, self._pinned.corrections, owner)

    def _load_champion(self) -> int | None:
        """Load the champion and return its data cut; None if none was ever promoted."""
        alias = self.registry.alias(CHAMPION)  # an MLflow that is down is no verdict on the champion: tried again
        if alias is not None:
            try:
                load_reference(self.project.state / "references", alias.version)
            except CheckpointError as error:
                self._fail_gate(reference_gate(str(error)))
            try:
                self._champion = self.registry.load(alias.version)
            except RegistryError as error:
                self._fail_gate(champion_gate(str(error)))
            self._champion_cut = alias.number("data_cut")
            return self._champion_cut
        if self.ledger.history("promotion"):
            self._fail_gate(champion_gate("the alias 'champion' is gone; set it again in MLflow"))
        return None

    def _write_recipe(self, model: FittedModel, rows: Examples, held_out_from: int | None = None) -> None:
        """Write down what the model was made from, so that it can be made again (:mod:`flows.reproduction`)."""
        self._recipe = recipe_of(
            self.project,
            model,
            self._found.best.candidate,
            rows,
            data=self._pinned,
            until=self.request.event_time,
            left_out=self._kept_out,
            held_out_from=held_out_from,
        )

    def _registration(self) -> Registration:
        assert self.evaluation is not None
        assert self._recipe is not None
        return registration(
            self.lease,
            data=self._pinned,
            rows=self._rows,
            found=self._found,
            evaluation=self.evaluation,
            checks=self.data,
            gates=self.gates,
            recipe=self._recipe,
        )

    def _write_reference(self, version: int) -> list[Path]:
        assert self.evaluation is not None
        loss, served = self.evaluation.loss("challenger"), self.evaluation.loss(CHALLENGER_BLEND)
        if loss is None or served is None:
            raise StoreError(f"reference of version {version}: the hold-out losses are not known")
        return write_reference(
            self.project.state / "references",
            version,
            self._rows,
            validation=Validation(loss, served if self.evaluation.experts else None),
            data_cut=data_cut(self._rows),
            table_version=self._pinned.examples,
            calibrations=calibrations(self._rows.table, self.project.settings),
            volume=volume_of(self.store, self._rows, self.project.settings, self.request.event_time),
            seed=self.project.settings.batch.seed,
        )
