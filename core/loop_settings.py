"""The project file's sections about what is done with it: experts, batch model, windows, drift, retraining, state."""

from __future__ import annotations

from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    Field,
    PositiveInt,
    field_validator,
    model_validator,
)

from core.durations import DAY, HOUR, MINUTE, SECOND, WEEK
from core.search_settings import CandidateSettings, as_candidates, check_candidates
from core.setting_types import LARGEST_SEED, Duration, HowOften, Name, Rate, Section, Share


class ExpertSettings(Section):
    """One online expert."""

    name: Name = Field(description="its name in predictions, tables and reports")
    factory: str = Field(
        description="linear, tree, forest, prior, no_change; or file.py:function; or river.package.Class"
    )
    params: dict[str, Any] = Field({}, description="keyword arguments of the factory")


class BlendSettings(Section):
    """How the experts are mixed; every combination runs side by side, none needs tuning."""

    rates: list[Rate] = Field(
        [0.0005, 0.002, 0.01, 0.05], min_length=1, description="learning rates; 0 is equal weights"
    )
    shares: list[Share] = Field(
        [1e-5], min_length=1, description="weight handed round at each step, so that no expert dies"
    )
    sharpness: list[Rate] | None = Field(
        None,
        min_length=1,
        description="factors on the mixed logits; null: 0.5, 1 and 2 for binary, 0.7, 1 and 1.3 for multiclass; not "
        "used for regression",
    )


class BatchSettings(Section):
    """The batch model: candidates, search and how it is judged."""

    candidates: list[CandidateSettings] = Field(
        [CandidateSettings(family="gradient_boosting"), CandidateSettings(family="linear")],
        min_length=1,
        description="model families, by name or with a space of their own: `{family: linear, space: {strength: {low: "
        "0.001, high: 10, log: true}}}`",
    )
    trials: PositiveInt = Field(
        4, description="settings that are tried, times the families: each one's default, then what promises most"
    )
    seconds: float | None = Field(
        None,
        gt=0,
        description="wall-clock seconds after which the search stops, though every family's default is tried; null for "
        "no limit: only then the same rows give the same model",
    )
    folds: PositiveInt = Field(
        3, le=10, description="spans of time on which a setting is judged, each by a fit on what was known before it"
    )
    max_rows: int = Field(500_000, ge=100, description="the latest rows that are used to train")
    search_rows: int = Field(
        30_000, ge=100, description="rows used while searching, evenly drawn from all; for `histories` the latest"
    )
    histories: list[Share] = Field(
        [0.5, 0.25, 0.125],
        description="shares of the latest rows to which training may be cut, where that is clearly better",
    )
    select: Literal["generated", "all", "none"] = Field(
        "generated",
        description="which features are left out of a batch model that does as well without them: generated ones "
        "(calendar, interactions, of a key), any, or none",
    )
    holdout: Duration = Field(WEEK, ge=SECOND, description="the latest span, kept for the comparison with the champion")
    threads: PositiveInt = Field(2, description="threads used by a fit")
    seed: int = Field(20130101, ge=0, le=LARGEST_SEED, description="seed of the search")

    @field_validator("candidates", mode="before")
    @classmethod
    def _short_candidates(cls, value: object) -> object:
        return as_candidates(value)

    @field_validator("candidates")
    @classmethod
    def _each_once(cls, value: list[CandidateSettings]) -> list[CandidateSettings]:
        check_candidates(value)
        return value


class WindowSettings(Section):
    """The spans over which drift and quality are judged."""

    span: Duration = Field(WEEK, ge=SECOND, description="length of a window, in event time")
    sample: int = Field(5_000, ge=100, description="rows of a window (and of the reference) given to Evidently")


class DriftSettings(Section):
    """When a window counts as drifted, and when drift becomes a decision."""

    false_alarms: HowOften = Field(
        90 * DAY, description="how often an unchanged stream may alert: each limit follows from the stream's own past"
    )
    reference: Literal["champion", "season"] = Field(
        "champion",
        description="what windows are compared with: the rows the champion was trained on, or those of the same season "
        "a year (52 weeks) earlier, where the tables hold them",
    )
    feature_threshold: float | None = Field(
        None, gt=0, description="a fixed limit on a feature's distance, instead of what its past says"
    )
    feature_share: float = Field(0.3, gt=0, description="fixed limit: share of such features that makes drift")
    prediction_threshold: float = Field(
        0.75,
        gt=0,
        description="distance that the served predictions must reach besides being unusual: a promotion moves them too",
    )
    label_threshold: float | None = Field(None, gt=0, description="a fixed limit on the labels' distance")
    quality_drop: float | None = Field(
        None, gt=0, description="a fixed limit on the relative rise of the champion's loss over its validation loss"
    )
    min_rows: PositiveInt = Field(500, description="rows below which a window is not judged")
    persistence: PositiveInt = Field(2, description="drifted windows needed for a retraining ...")
    of_windows: PositiveInt = Field(3, description="... among so many latest windows")
    cooldown: Duration = Field(
        2 * WEEK,
        description="event time after a retraining without another on drift or growth, and between repeated alerts",
    )
    quarantine_windows: int = Field(
        3, ge=0, description="broken windows in a row that are kept out of learning; more are how the stream is now"
    )
    relearn_rows: PositiveInt = Field(
        200_000, description="examples that the online experts learn again, at most, after a break: the latest"
    )

    @model_validator(mode="after")
    def _persistence_fits(self) -> Self:
        if self.persistence > self.of_windows:
            raise ValueError("persistence must not be larger than of_windows")
        return self


class RetrainSettings(Section):
    """When the batch model is fitted again."""

    bootstrap_after: Duration = Field(4 * WEEK, description="event time from the first event to the first fit")
    every: Duration | None = Field(4 * WEEK, ge=SECOND, description="event time between scheduled fits; null for none")
    on_drift: bool = Field(True, description="whether drift may start a fit")
    growth: float | None = Field(
        1.5,
        gt=1,
        description="how many times the rows that the champion was trained on start a fit without drift; null for none",
    )
    min_gain: float = Field(
        0.005,
        ge=0,
        description="expected relative fall of the served loss below which neither drift nor growth starts a fit",
    )
    per_day: PositiveInt = Field(24, description="retrainings within a day of event time, at most, on drift or growth")
    cost: float = Field(0.0, ge=0, description="what a retraining costs, in any currency")
    cost_per_hour: float = Field(0.0, ge=0, description="what an hour of it costs; it takes retrain.duration")
    worth: float | None = Field(
        None,
        ge=0,
        description="what one percent of loss is worth a day; with it drift and growth retrain only where that pays",
    )
    min_examples: PositiveInt = Field(1_000, description="labelled examples below which nothing is fitted")
    duration: Duration = Field(HOUR, description="event time that a fit takes in lockstep")
    timeout: Duration = Field(30 * MINUTE, ge=MINUTE, description="wall-clock time after which a run counts as dead")
    reproducible: PositiveInt = Field(
        10,
        description="the latest fits, registered or gated out, whose rows stay readable for headrace reproduce; "
        "those of the champion and of the previous one always do",
    )


DataCheckName = Literal["schema", "missing", "constant", "shift", "leak", "absence"]


class ValidationSettings(Section):
    """What the data of a retraining has to be like; whatever fails stops it before anything is fitted."""

    max_missing: Share = Field(
        0.95,
        description="share of a feature's values that may be missing in all of the rows; in the hold-out too if it was "
        "there before",
    )
    max_duplicates: Share = Field(0.05, description="share of the labelled rows that may have the id of another one")
    min_class_rows: PositiveInt = Field(
        10, description="training rows that both classes need; of three or more at least two, the others are told"
    )
    max_auc: Share = Field(0.99, description="binary: ROC AUC that a feature alone may reach on later rows")
    max_gain: Share = Field(
        0.99, description="multiclass: share of the most common class's mistakes that a feature alone may avoid"
    )
    max_r2: Share = Field(0.999, description="regression: share of the variance that a feature alone may explain")
    max_absence: Share = Field(
        0.95, description="share of one label among the rows in which a feature is missing, or is there"
    )
    allow: dict[Name, list[DataCheckName]] = Field(
        {}, description="checks that a feature need not pass, such as `{sensor: [constant, shift]}`"
    )


class AlertSettings(Section):
    """Where alerts are sent after they are written."""

    webhook: str | None = Field(None, description="http(s) address that gets each alert as JSON by POST")

    @field_validator("webhook")
    @classmethod
    def _on_the_web(cls, value: str | None) -> str | None:
        if value is not None and not _is_web_address(value):
            raise ValueError("is no web address; write http://... or https://..., or leave it out")
        return value


class StateSettings(Section):
    """Where and how often state is made durable, and how much of it is kept in memory."""

    guarantee: Literal["exactly_once", "at_least_once"] = Field(
        "exactly_once",
        description="exactly_once: predictions, journal and offsets in one Kafka transaction; at_least_once for "
        "brokers without transactions, such as the embedded one: after a crash some predictions come again, equal",
    )
    uri: str | None = Field(
        None,
        description="folder or object store (s3://bucket/path) of the snapshots and tables, which every worker of the "
        "project must reach; the state folder if left out",
    )
    commit_every: Duration = Field(100, description="wall-clock time after which what was predicted is committed")
    snapshot_every: Duration = Field(MINUTE, ge=SECOND, description="wall-clock time between snapshots of the learners")
    recover_within: Duration = Field(
        5_000,
        description="busy time after which a snapshot is made early: about what a restart has to work through again",
    )
    flush_rows: PositiveInt = Field(50_000, description="rows after which the tables are written")
    flush_every: Duration = Field(MINUTE, ge=SECOND, description="wall-clock time after which the tables are written")
    max_pending: PositiveInt = Field(
        500_000, description="events that may wait for their label, a partition; changed by rebuild-state"
    )
    max_in_memory: PositiveInt = Field(
        50_000, description="ids that a partition keeps in memory; older ones wait on disk, in the state folder"
    )
    kept_events: PositiveInt = Field(
        50,
        description="of how many events one is kept with its fields, as the project's feature function got it: a "
        "retraining makes the features of these again and compares",
    )
    deadline: Duration = Field(
        MINUTE,
        ge=SECOND,
        description="time that one poll, commit, flush or snapshot may take before the worker gives up",
    )
    session_timeout: Duration = Field(
        10_000, ge=6_000, description="time after which the other workers take over from one that is not heard of"
    )


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    known = parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0
    return known and text.isprintable() and " " not in text
