"""A retraining on the virtual clock: the flow's own steps, without Prefect, MLflow and files."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from core.audit import CHALLENGER_BLEND
from core.batch_model import FittedModel
from core.errors import HeadraceError
from core.project import Project
from core.quarantine import Span
from core.settings import Settings
from core.tables import CORRECTIONS, ReadsTables, anew_column, prediction_column
from flows.checks.report import DataReport
from flows.checks.run import check_data
from flows.digests import columns_digest
from flows.evaluation import evaluate
from flows.examples import DataVersion, Examples, LeftOut, only_mature, read_counted
from flows.fitting import fit
from flows.gates import GateResult, check_gates, labels_gate, passed, reasons, rows_gate
from flows.records import data_cut
from flows.references import reference_rows, volume_of
from flows.search import search
from flows.splits import Split, split_by_time
from flows.validation import data_problems
from monitoring.calibration import Calibrations, calibrations
from monitoring.gain import measured_gain
from monitoring.reference import Reference

_ANY_LATENCY = {"max_latency_ms": math.inf, "max_call_ms": math.inf}
"""Two runs give the same result, on whatever machine."""


@dataclass(frozen=True)
class Champion:
    """A promoted model, its reference, and the end of the data it was fitted on, ms."""

    model: FittedModel
    reference: Reference
    data_cut: int


@dataclass(frozen=True)
class Attempt:
    """What became of a retraining.

    Attributes
    ----------
    version : int or None
        The version that passed its gates; None if none did.
    reasons : list of str
        Why not.
    rows : int
        Rows that the models were fitted on, or would have been.
    seconds : float
        What the fits took when they were made, s; 0 if it was stopped before.
    gain : float or None
        By how much, relatively, the blend's loss on the hold-out was lower than with the former champion.
    """

    version: int | None
    reasons: list[str]
    rows: int
    seconds: float
    gain: float | None = None


Attempted = tuple[Attempt, Champion | None]


@dataclass(frozen=True, eq=False)
class _Fitted:
    challenger: FittedModel
    final: FittedModel
    seconds: float


class _Stopped(Exception):  # noqa: N818 - an outcome, not an error
    def __init__(self, why: list[str], rows: int) -> None:
        super().__init__("; ".join(why))
        self.why = why
        self.rows = rows


class Trainer:
    """Trains for all policies; the same rows, of which the same was predicted, are fitted once with the same settings.

    Parameters
    ----------
    project : Project
        For the candidates' code.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._fitted: dict[Any, _Fitted] = {}
        self._usual: dict[Any, Calibrations] = {}
        self._reports: dict[Any, DataReport] = {}

    def attempt(
        self,
        settings: Settings,
        tables: ReadsTables,
        until: int,
        champion: Champion | None,
        version: int,
        without: Sequence[Span] = (),
        accepted: Sequence[Span] = (),
    ) -> Attempted:
        """Retrain with what is known at `until`, ms; the new champion, if it passes, is of that version.

        Events of the windows `without` are left out; `accepted` are those whose break has lasted.
        """
        project = replace(self._project, settings=settings)
        try:
            return self._attempt(project, tables, until, champion, version, without, accepted)
        except _Stopped as stopped:
            return Attempt(None, stopped.why, stopped.rows, 0.0), None
        except HeadraceError as error:
            return Attempt(None, [str(error)], 0, 0.0), None

    def _attempt(
        self,
        project: Project,
        tables: ReadsTables,
        until: int,
        champion: Champion | None,
        version: int,
        without: Sequence[Span],
        accepted: Sequence[Span],
    ) -> Attempted:
        settings = project.settings
        data = _data(settings, tables, until, champion, without)
        rows, split = data.rows, data.split
        train = rows.take(split.train)
        _stop_for(data_problems(train.outcomes, settings), len(rows))
        _stop_for(reasons(_enough(rows, split, champion, settings)), len(rows))
        key = (
            until,
            champion.data_cut if champion else None,
            settings.batch.model_dump_json(),
            settings.blend.model_dump_json(),
            settings.retrain.min_examples,
            len(rows),
            tuple(without),
            columns_digest(rows, _online_columns(settings)),
        )
        checked = self._checked(key, data, settings, accepted)
        _stop_for(checked.problems, len(rows))
        fitted = self._fitted.get(key)
        if fitted is None:
            fitted = self._fitted[key] = _fit(project, rows, train)
        old = None if champion is None else champion.model
        promised = None if champion is None else champion.reference.skill
        holdout = rows.take(split.holdout)
        evaluation = evaluate(settings, holdout, train.outcomes, fitted.challenger, old, promised=promised)
        gain = measured_gain(evaluation.metrics, settings.task)
        gates = check_gates(evaluation, settings.gates.model_copy(update=_ANY_LATENCY))
        if not passed(gates):
            return Attempt(None, reasons(gates), len(rows), fitted.seconds, gain), None
        sample = reference_rows(rows, settings.batch.seed)
        reference = Reference(
            version,
            "",
            sample,
            evaluation.loss("challenger"),
            evaluation.loss(CHALLENGER_BLEND),
            len(rows),
            self._calibrations(key, rows, settings),
            volume_of(tables, rows, settings, until),
            evaluation.skill("challenger"),
        )
        made = Champion(replace(fitted.final, version=version), reference, data_cut(rows))
        return Attempt(version, [], len(rows), fitted.seconds, gain), made

    def _checked(self, key: Any, data: _Data, settings: Settings, accepted: Sequence[Span]) -> DataReport:
        whole = (key, data.split.start, settings.validation.model_dump_json(), tuple(accepted))
        if whole not in self._reports:
            self._reports[whole] = check_data(
                data.rows, data.split, data.left_out, settings, wait=data.wait, accepted=accepted
            )
        return self._reports[whole]

    def _calibrations(self, fitted: Any, rows: Examples, settings: Settings) -> Calibrations:
        key = (fitted, settings.windows, columns_digest(rows, [prediction_column("served")]))
        if key not in self._usual:
            self._usual[key] = calibrations(rows.table, settings)
        return self._usual[key]


@dataclass(frozen=True, eq=False)
class _Data:
    """The mature rows known at a time, how they are split in time, and what was left out of them."""

    rows: Examples
    split: Split
    left_out: LeftOut
    wait: int


def _data(
    settings: Settings, tables: ReadsTables, until: int, champion: Champion | None, without: Sequence[Span]
) -> _Data:
    corrections = 0 if tables.exists(CORRECTIONS) else None
    rows, left_out = read_counted(tables, DataVersion(0, corrections), settings, until, without)
    _stop_for(data_problems(rows.outcomes, settings), len(rows))
    rows, left_out, wait = only_mature(rows, left_out, settings, until)
    after = None if champion is None else champion.data_cut
    split = split_by_time(rows.event_time, rows.label_clock, span=settings.batch.holdout, after=after)
    return _Data(rows, split, left_out, wait)


def _enough(rows: Examples, split: Split, champion: Champion | None, settings: Settings) -> list[GateResult]:
    since = None if champion is None else champion.data_cut
    fresh = len(rows) if since is None else int((rows.event_time >= since).sum())
    version = None if champion is None else champion.model.version
    return [labels_gate(fresh, version, settings.gates), rows_gate(int(split.holdout.sum()), settings.gates)]


def _fit(project: Project, rows: Examples, train: Examples) -> _Fitted:
    began = time.perf_counter()
    best = search(project, train).best.candidate
    challenger, final = fit(project, best, train), fit(project, best, rows)
    return _Fitted(challenger, final, time.perf_counter() - began)


def _online_columns(settings: Settings) -> list[str]:
    return [column(expert.name) for expert in settings.online for column in (prediction_column, anew_column)]


def _stop_for(why: list[str], rows: int) -> None:
    if why:
        raise _Stopped(why, rows)
