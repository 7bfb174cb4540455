"""Inspecting one stage of one window: read its rows, compare them with the reference, report."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core.errors import HeadraceError, StoreError
from core.project import Project
from core.quarantine import Span, is_inside
from core.settings import Settings
from monitoring.breaks import Features, data_breaks, data_doubts, label_breaks, label_doubts
from monitoring.calibration import Surprise
from monitoring.comparison import LABEL, PREDICTION, DriftReport
from monitoring.detectors import Rise, rises, sentences
from monitoring.drift_report import Run, report_data, report_labels
from monitoring.judgement import Evidence, Judgement
from monitoring.reference import Reference
from monitoring.rows import Losses, Sides, WindowRows, mean_losses
from monitoring.season import Baselines, champions_surprise
from monitoring.signals import SERVED_LOSS
from monitoring.volume import missing_labels, unusual_volume
from monitoring.windows import WindowStage

_NO_LOSSES = Losses({}, 0, None, 0)


@dataclass(frozen=True)
class Inspection:
    """What was found in a window at a stage.

    Attributes
    ----------
    rows, labels : int
        Predictions of the window, and examples; `labels` is 0 before they are due.
    shortfall : float or None
        By how much the champion's loss has risen against the served one since its validation, a difference of logs;
        None where too few labels tell.
    season : tuple of int or None
        What it was compared with, event time, ms; None for the champion's reference.
    surprise : Surprise or None
        How unusual that is; None where the reference is not calibrated for this stage.
    prediction_chance : float or None
        How likely the served predictions of an unchanged window move as far; None where that is not known.
    breaks : tuple of str
        Why the window is not to be learned from.
    doubts : tuple of str
        Why it is still broken, if the window before was.
    kept_out : bool
        Whether it is in quarantine already.
    rises : tuple of Rise or None
        When the loss began to rise, as online detectors see it; None where no labels are judged.
    volume : str or None
        What is unusual in the number of its events.
    problem : str or None
        Why it could not be judged though it should be.
    sides : Sides or None
        The rows that were compared, for the page; None where they were not.
    """

    stage: WindowStage
    champion: int | None
    rows: int = 0
    labels: int = 0
    examples: int = 0
    reference: Reference | None = None
    report: DriftReport = field(default_factory=DriftReport)
    losses: Losses = _NO_LOSSES
    shortfall: float | None = None
    season: Span | None = None
    surprise: Surprise | None = None
    prediction_chance: float | None = None
    breaks: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    kept_out: bool = False
    rises: tuple[Rise, ...] | None = None
    volume: str | None = None
    problem: str | None = None
    sides: Sides | None = None

    def evidence(self, first_event: int) -> Evidence:
        """Return what the policy needs; what the ledger knows is to be added."""
        return Evidence(
            window=self.stage,
            first_event=first_event,
            champion=self.champion,
            rows=self.rows if self.stage.stage == "data" else self.labels,
            features=self.report.features,
            prediction=self.report.prediction,
            label=self.report.label,
            champion_loss=self.losses.champion,
            validation_loss=self.reference.validation_loss if self.reference else None,
            loss_rows=self.losses.champion_rows,
            season=self.season,
            surprise=self.surprise,
            prediction_chance=self.prediction_chance,
            breaks=self.breaks,
            doubts=self.doubts,
            kept_out=self.kept_out,
            detected=sentences(self.rises or (), self.stage.clock),
            volume=self.volume,
            problem=self.problem,
            examples=self.examples,
            trained_rows=self.reference.trained_rows if self.reference else 0,
            shortfall=self.shortfall,
        )

    def row(self, judgement: Judgement, report: str | None) -> dict[str, Any]:
        """Return the row of the ``windows`` table; times in microseconds."""
        judged = judgement.verdict != "not judged"
        return {
            "window_start": self.stage.start * 1000,
            "window_end": self.stage.end * 1000,
            "stage": self.stage.stage,
            "due": self.stage.due * 1000,
            "rows": self.rows,
            "labels": self.labels,
            "champion_version": self.champion,
            "reference_digest": self.reference.digest if self.reference else None,
            "season_start": None if self.season is None else self.season[0] * 1000,
            "season_end": None if self.season is None else self.season[1] * 1000,
            "judged": judged,
            "not_judged_because": None if judged else judgement.reasons[0],
            "drifted_share": judgement.drifted_share,
            "prediction_distance": self.report.prediction,
            "label_distance": self.report.label,
            "loss_rows": self.losses.rows,
            "losses": list(self.losses.mean.items()),
            "detected": None if self.rises is None else [{**vars(rise), "at": rise.at * 1000} for rise in self.rises],
            "distances": list(self.report.features.items()),
            "skipped": list(self.report.skipped.items()),
            "verdict": judgement.verdict,
            "reasons": list(judgement.reasons) if judged else [],
            "report": report,
        }


class Compare(Protocol):
    """Compares a stage's rows with the reference's."""

    def __call__(self, stage: WindowStage, current: pa.Table, reference: pa.Table) -> DriftReport:
        """Return what was found; a report may be written.

        Raises
        ------
        StoreError
            If the report cannot be written.
        HeadraceError
            If it cannot be made.
        """


class Reports:
    """Compares by Evidently's reports, written below the state folder.

    Parameters
    ----------
    project : Project
        The project.
    """

    def __init__(self, project: Project) -> None:
        self._project = project

    def __call__(self, stage: WindowStage, current: pa.Table, reference: pa.Table) -> DriftReport:
        """See :class:`Compare`."""
        settings = self._project.settings
        common: dict[str, Any] = {
            "task": settings.task,
            "drift": settings.drift,
            "sample": settings.windows.sample,
            "path": self._project.reports / stage.name,
            "run": Run(settings.name, stage.name, stage.stage, datetime.fromtimestamp(stage.due / 1000, UTC)),
        }
        if stage.stage == "labels":
            return report_labels(current, reference, **common)
        return report_data(current, reference, kinds=settings.batch_kinds, **common)


class Inspector:
    """Inspects stages of a project's windows.

    Parameters
    ----------
    settings : Settings
        The project file.
    rows : WindowRows
        Reads the windows.
    reference : callable
        Returns the reference of a champion's version; raises HeadraceError where it cannot be used.
    compare : Compare
        Compares a window with it, or with its season.
    kept_out : callable
        Returns the windows in quarantine at an event time, ms.
    """

    def __init__(
        self,
        settings: Settings,
        rows: WindowRows,
        reference: Callable[[int], Reference],
        compare: Compare,
        kept_out: Callable[[int], Sequence[Span]],
    ) -> None:
        self._settings = settings
        self._rows = rows
        self._reference = reference
        self._compare = compare
        self._kept_out = kept_out
        self._baselines = Baselines(settings, rows, kept_out)

    def inspect(self, stage: WindowStage, champion: int | None) -> Inspection:
        """Return what is found in a window; its report is written, nothing else.

        Parameters
        ----------
        champion : int or None
            Version of the champion at the stage's due time.

        Raises
        ------
        StoreError
            If a table cannot be read or the report cannot be written: to be tried again.
        """
        known, times = self._rows.examples(stage), self._rows.times(stage)
        examples, kept_out = known if stage.stage == "labels" else None, self._kept_out(stage.due)
        found = Inspection(
            stage,
            champion,
            rows=len(times),
            labels=0 if examples is None else examples.num_rows,
            examples=self._rows.count_examples(stage.due, kept_out),
            kept_out=is_inside(stage.start, kept_out),
            losses=_NO_LOSSES if examples is None else mean_losses(examples, self._settings.expert_names, champion),
        )
        if champion is None:
            return found
        try:
            reference = self._reference(champion)
            found = replace(found, reference=reference, shortfall=self._shortfall(found.losses, reference))
            found = replace(found, volume=self._volume(found, times))
            return self._judged(found, examples, known)
        except StoreError:
            raise
        except HeadraceError as error:
            return replace(found, problem=str(error))

    def _volume(self, found: Inspection, times: NDArray[np.int64]) -> str | None:
        """Look at the number of events, however few they are, when the window ends; later at that of their labels."""
        usual = None if found.reference is None else found.reference.volume
        if usual is None:
            return None
        if found.stage.stage == "labels":
            return missing_labels(usual, found.rows, found.labels)
        return unusual_volume(usual, times, found.stage, self._settings.drift)

    def _shortfall(self, losses: Losses, reference: Reference) -> float | None:
        """Return by how much the champion's loss has risen against the served one since its validation."""
        if losses.champion_rows < losses.rows or losses.rows < self._settings.drift.min_rows:
            return None
        mean = losses.mean
        compared = [mean.get("champion"), mean.get("served"), reference.validation_loss, reference.served_loss]
        if not all(compared):
            return None
        champion, served, promised, promised_served = (math.log(loss) for loss in compared if loss)
        return (champion - served) - (promised - promised_served)

    def next_event(self, moment: int) -> int | None:
        """Return the first event time at or after `moment`, ms; None if there is none."""
        return self._rows.next_event(moment)

    def _judged(self, found: Inspection, examples: pa.Table | None, known: pa.Table) -> Inspection:
        """Compare the rows with the reference, unless they are too few to be judged."""
        stage, settings = found.stage, self._settings
        assert found.reference is not None
        if (found.rows if examples is None else found.labels) < settings.drift.min_rows:
            return found
        current = self._rows.predictions(stage) if examples is None else examples
        reference = found.reference
        baseline, own = self._baselines.of(stage, reference), reference.calibrations.get(stage.stage)
        report = self._compare(stage, current, baseline.rows)
        found = replace(found, report=report, season=baseline.season)
        calibration = baseline.calibrations.get(stage.stage)
        surprise = None if calibration is None else calibration.surprise(self._signals(found, report), stage.start)
        of_breaks = surprise if baseline.season is None else champions_surprise(stage, current, reference, settings)
        breaks, doubts = self._breaks(found, current, known, {} if own is None else own.steps, of_breaks)
        usual, moved = baseline.calibrations.get("prediction"), report.prediction
        chance = None if usual is None or moved is None else usual.surprise({PREDICTION: moved}, stage.start).chance
        found = replace(found, surprise=surprise, prediction_chance=chance, rises=self._rises(found, examples))
        sides = Sides(current, baseline.rows, known)
        return replace(found, breaks=tuple(breaks), doubts=tuple(doubts), sides=sides)

    def _rises(self, found: Inspection, examples: pa.Table | None) -> tuple[Rise, ...] | None:
        """Return when the loss began to rise, once labels are judged."""
        if examples is None or found.champion is None:
            return None
        return rises(self._rows.examples(found.stage.before()), examples, found.champion)

    def _breaks(
        self,
        found: Inspection,
        current: pa.Table,
        known: pa.Table,
        steps: Mapping[str, float],
        surprise: Surprise | None,
    ) -> tuple[list[str], list[str]]:
        """Look for what is not to be learned from, but not where the project file takes no notice of a signal.

        Where nothing is, what is not either if the window before was broken comes second.
        """
        stage, settings = found.stage, self._settings
        assert found.reference is not None
        reference, skill, breaks, doubts = found.reference.sample, found.reference.skill, list[str](), list[str]()
        features = Features(current, reference, settings, steps, surprise)
        data = stage.stage == "data" and settings.drift.feature_threshold != math.inf
        labels = math.inf not in (settings.drift.label_threshold, settings.drift.quality_drop)
        if data:
            breaks += data_breaks(features, self._rows.predictions(stage.before()))
        if labels:
            breaks += label_breaks(known, reference, settings, stage.due, skill)
        if breaks:
            return breaks, []
        if data and features.unusual:
            numbers = range(2, settings.drift.quarantine_windows + 2)
            doubts += data_doubts(features, (self._rows.predictions(stage.before(number)) for number in numbers))
        if labels:
            doubts += label_doubts(known, reference, settings, skill)
        return [], doubts

    def _signals(self, found: Inspection, report: DriftReport) -> dict[str, float]:
        """Return the distances that are calibrated for this stage."""
        if found.stage.stage == "data":
            return report.features
        enough = found.losses.rows >= self._settings.drift.min_rows
        signals = {LABEL: report.label, SERVED_LOSS: found.losses.mean.get("served") if enough else None}
        return {name: value for name, value in signals.items() if value is not None}
