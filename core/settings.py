"""The project file: every setting, its default and its meaning.

Everything has a default but ``name``, ``id``, ``time``, ``fields`` and ``label``. What is wrong is
reported by :mod:`core.project` with the line, the key and the fix. Durations are written ``28d``,
``6h``, ``90m`` and held in milliseconds. Minima and maxima keep out what would stop the loop without an error.
"""

from __future__ import annotations

from math import isnan
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from core.durations import DAY, HOUR, LONGEST, MINUTE, SECOND, WEEK, parse_duration
from core.recorded import filled_in

Task = Literal["binary", "multiclass", "regression"]
Kind = Literal["number", "category", "bool", "text"]


AS_WRITTEN = {"as_written": True}
"""Validation context of what a person wrote: a duration needs its unit there."""

LARGEST_SEED = 2**32 - 1
"""What numpy and scikit-learn take."""


def _duration(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, int) or isinstance(value, bool):
        return parse_duration(value)
    if (info.context or {}).get("as_written"):
        raise ValueError(f"a duration needs a unit; write {abs(value)}d, {abs(value)}h or {abs(value)}s")
    return value


Duration = Annotated[int, BeforeValidator(_duration), Field(ge=0, le=LONGEST)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(ge=0.0, le=10.0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=64)]


class Section(BaseModel):
    """A part of the project file: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Bounded(Section):
    """What has a smallest and a largest value."""

    minimum: float | None = None
    maximum: float | None = None

    @model_validator(mode="after")
    def _bounds_leave_something(self) -> Self:
        if any(bound is not None and isnan(bound) for bound in (self.minimum, self.maximum)):
            raise ValueError("minimum or maximum is not a number, so that nothing would be refused; write a number")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError("minimum is larger than maximum; swap them")
        return self


class FieldSettings(_Bounded):
    """One field of the event."""

    type: Kind = Field(description="number, category, bool or text")
    path: str | None = Field(None, description="where it is in the JSON, as a.b.c; its own name if left out")
    nullable: bool = Field(True, description="whether it may be missing or null")
    minimum: float | None = Field(None, description="the smallest number accepted")
    maximum: float | None = Field(None, description="the largest number accepted")
    max_categories: PositiveInt = Field(200, description="distinct categories kept; every later one is read as <other>")


class LabelSettings(_Bounded):
    """The outcome, and how long it may take."""

    path: str = Field("label", description="where the outcome is in the label's JSON")
    id: str | None = Field(None, description="where the event's id is in the label's JSON; as in the event if left out")
    time: str | None = Field(None, description="where the label's time is; the record's own time stamp if left out")
    horizon: Duration = Field(7 * DAY, ge=1, description="how long after the event a label may come")
    missing: bool | int | float | str | None = Field(
        None, description="the outcome an event gets when no label came by the horizon; none if left out"
    )
    positive: bool | int | float | str = Field(True, description="binary: the outcome that counts as 1")
    negative: bool | int | float | str = Field(False, description="binary: the outcome that counts as 0")
    classes: list[str] = Field([], description="multiclass: all the classes there are; learned from labels if left out")
    max_classes: int = Field(
        200,
        ge=2,
        description="multiclass without classes: distinct ones learned; a label of a later one is dead-lettered",
    )
    minimum: float | None = Field(None, description="regression: the smallest outcome accepted")
    maximum: float | None = Field(None, description="regression: the largest outcome accepted")

    @field_validator("classes")
    @classmethod
    def _classes_to_tell_apart(cls, value: list[str]) -> list[str]:
        if len(value) == 1 or len(set(value)) < len(value):
            raise ValueError("needs two classes or more, each once; leave it out to have them learned from labels")
        return value


class OneTopicSettings(Section):
    """How to tell events and labels apart when both are in one topic."""

    path: str = Field(description="the field that says what a record is")
    event: str = Field("event", description="its value for an event")
    label: str = Field("label", description="its value for a label")


class TopicSettings(Section):
    """The topics, all partitioned by the event's id."""

    events: str | None = Field(None, description="the events topic; <name>.events if left out")
    labels: str | None = Field(None, description="the labels topic; <name>.labels if left out")
    predictions: str | None = Field(None, description="served predictions; <name>.predictions if left out")
    dead_letters: str | None = Field(None, description="bad records; <name>.dead-letters if left out")
    journal: str | None = Field(None, description="the order that was decided; <name>.journal if left out")
    kind: OneTopicSettings | None = Field(None, description="for events and labels in one topic")
    partitions: PositiveInt = Field(1, description="partitions of topics that headrace creates")
    create: bool = Field(True, description="whether missing topics are created")
    max_bytes: PositiveInt = Field(1_000_000, description="the largest record value that is decoded, in bytes")


class OrderSettings(Section):
    """How the two input topics become one order."""

    max_wait: Duration = Field(200, description="how long a record waits for the other, silent topic")
    max_ahead: Duration = Field(DAY, description="how far an event's time may lie ahead of its record's time stamp")


class FeatureSettings(Section):
    """The project's feature function; without one the fields are the features."""

    function: str = Field(description="file.py:function, in the project folder")
    outputs: dict[Name, Kind] = Field(description="each feature that the function returns, and its type")
    max_categories: PositiveInt = Field(
        200, description="distinct values kept of each category it returns; every later one becomes <other>"
    )
    online_only: list[Name] = Field(
        [],
        description="features whose values do not come back, such as a calendar day: "
        "for the online experts only, neither trained on in batch nor watched for drift",
    )

    @model_validator(mode="after")
    def _online_only_known(self) -> Self:
        unknown = [name for name in self.online_only if name not in self.outputs]
        if unknown:
            raise ValueError(f"online_only names {unknown[0]!r}, which is not among the outputs")
        return self


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
    sharpness: list[Rate] = Field(
        [1.0, 1.15, 1.3], min_length=1, description="factors on the mixed logits; not used for regression"
    )


class BatchSettings(Section):
    """The batch model: candidates, search and how it is judged."""

    candidates: list[str] = Field(
        ["gradient_boosting", "linear"],
        min_length=1,
        description="model families: gradient_boosting, linear, forest; or file.py:function",
    )
    trials: PositiveInt = Field(4, description="settings that are tried for each family")
    max_rows: int = Field(500_000, ge=100, description="the latest rows that are used to train")
    search_rows: int = Field(40_000, ge=100, description="rows used while searching")
    holdout: Duration = Field(WEEK, ge=SECOND, description="the latest span, kept for the comparison with the champion")
    threads: PositiveInt = Field(2, description="threads used by a fit")
    seed: int = Field(20130101, ge=0, le=LARGEST_SEED, description="seed of the search")


class WindowSettings(Section):
    """The spans over which drift and quality are judged."""

    span: Duration = Field(WEEK, ge=SECOND, description="length of a window, in event time")
    sample: int = Field(5_000, ge=100, description="rows of a window (and of the reference) given to Evidently")


class DriftSettings(Section):
    """When a window counts as drifted, and when drift becomes a decision."""

    feature_threshold: float = Field(0.5, gt=0, description="distance from which a feature counts as drifted")
    feature_share: float = Field(0.3, gt=0, description="share of drifted features from which a window has drifted")
    prediction_threshold: float = Field(0.75, gt=0, description="distance of the served predictions")
    label_threshold: float = Field(0.25, gt=0, description="distance of the labels")
    quality_drop: float = Field(0.25, gt=0, description="relative rise of the champion's loss over its validation loss")
    min_rows: PositiveInt = Field(500, description="rows below which a window is not judged")
    persistence: PositiveInt = Field(2, description="drifted windows needed for a retraining ...")
    of_windows: PositiveInt = Field(3, description="... among so many latest windows")
    cooldown: Duration = Field(2 * WEEK, description="event time after a retraining without another on drift")

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
    min_examples: PositiveInt = Field(1_000, description="labelled examples below which nothing is fitted")
    duration: Duration = Field(HOUR, description="event time that a fit takes in lockstep")
    timeout: Duration = Field(30 * MINUTE, ge=MINUTE, description="wall-clock time after which a run counts as dead")


class GateSettings(Section):
    """What a challenger has to show; every gate fails closed."""

    max_relative_loss: float = Field(
        1.01, gt=0, description="loss of the blend with the challenger over that with the champion, at most"
    )
    min_holdout_rows: PositiveInt = Field(200, description="common untouched rows below which nothing is promoted")
    max_latency_ms: float = Field(5.0, gt=0, description="milliseconds a prediction may take, in batches of 256")
    baseline_margin: float = Field(
        0.0, ge=0, description="bootstrap: relative gain over the trivial baseline, at least"
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
    deadline: Duration = Field(
        MINUTE,
        ge=SECOND,
        description="time that one poll, commit, flush or snapshot may take before the worker gives up",
    )
    session_timeout: Duration = Field(
        10_000, ge=6_000, description="time after which the other workers take over from one that is not heard of"
    )


class ReplaySettings(Section):
    """The recorded stream of ``headrace replay`` and ``headrace demo``."""

    source: str | None = Field(
        None, description="file.py:function that yields (time_ms, topic kind, id, payload) in time order"
    )
    file: str | None = Field(
        None,
        description="instead of source: a CSV or Parquet file (gzip too), one row an event with its outcome; without "
        "a column for id or time, rows count as both, and durations may be written as 500 rows",
    )
    label_delay: Duration = Field(0, description="file: how long after its event a label is known")
    label_time: str | None = Field(None, description="file: the column that says when the label was known, instead")

    @model_validator(mode="after")
    def _one_stream(self) -> Self:
        if (self.source is None) == (self.file is None):
            raise ValueError("give either source or file")
        if self.label_time is not None and self.label_delay:
            raise ValueError("give either label_time or label_delay")
        return self


class Settings(Section):
    """The whole project file."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="names topics, models and deployments")
    task: Task = Field("binary", description="binary, multiclass or regression")
    id: str = Field(description="where the event's id is in its JSON, as a.b.c")
    time: str = Field(description="where the event's time is: ISO 8601, or a number since the epoch")
    time_unit: Literal["s", "ms", "us", "ns"] = Field("ms", description="unit of a time that is a number")
    fields: dict[Name, FieldSettings] = Field(min_length=1, description="what an event carries: name: type")
    label: LabelSettings
    topics: TopicSettings = TopicSettings()
    order: OrderSettings = OrderSettings()
    features: FeatureSettings | None = None
    online: list[ExpertSettings] = Field(
        [
            ExpertSettings(name="linear", factory="linear"),
            ExpertSettings(name="tree", factory="tree"),
            ExpertSettings(name="prior", factory="prior"),
        ],
        min_length=1,
        description="the online experts",
    )
    blend: BlendSettings = BlendSettings()
    batch: BatchSettings = BatchSettings()
    windows: WindowSettings = WindowSettings()
    drift: DriftSettings = DriftSettings()
    retrain: RetrainSettings = RetrainSettings()
    gates: GateSettings = GateSettings()
    alerts: AlertSettings = AlertSettings()
    state: StateSettings = StateSettings()
    replay: ReplaySettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _recorded_file(cls, value: object) -> object:
        return filled_in(value) if isinstance(value, dict) else value

    @field_validator("fields", mode="before")
    @classmethod
    def _short_fields(cls, value: object) -> object:
        if isinstance(value, dict):
            return {key: {"type": entry} if isinstance(entry, str) else entry for key, entry in value.items()}
        return value

    @field_validator("label", mode="before")
    @classmethod
    def _short_label(cls, value: object) -> object:
        return {"path": value} if isinstance(value, str) else value

    @field_validator("online", mode="before")
    @classmethod
    def _short_experts(cls, value: object) -> object:
        if isinstance(value, list):
            return [{"name": entry, "factory": entry} if isinstance(entry, str) else entry for entry in value]
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [expert.name for expert in self.online]
        if len(set(names)) < len(names):
            raise ValueError("two online experts have the same name; give each its own")
        if reserved := {"champion", "served", "previous", "challenger"} & {name.lower() for name in names}:
            raise ValueError(f"{sorted(reserved)[0]!r} is a reserved name; call the online expert something else")
        if self.task == "binary" and self.label.positive == self.label.negative:
            raise ValueError("label.positive and label.negative are the same; give each its own value")
        outputs = [self.predictions_topic, self.dead_letters_topic, self.journal_topic]
        if loop := set(outputs) & set(self.input_topics):
            raise ValueError(
                f"topic {sorted(loop)[0]!r} would be read and written; name another for what headrace writes"
            )
        if len(set(outputs)) < len(outputs):
            raise ValueError("predictions, dead_letters and journal need a topic each; give them different names")
        if clash := _same_but_for_case([*self.feature_kinds]) or _same_but_for_case(names):
            raise ValueError(
                f"{clash[0]!r} and {clash[1]!r} differ in case only, which tables do not tell apart; rename one"
            )
        if inside := _one_inside_the_other(self._event_paths) or _one_inside_the_other(self._label_paths):
            raise ValueError(f"path {inside[0]!r} is a value, so that there can be no {inside[1]!r} in it")
        if self.events_topic == self.labels_topic and self.topics.kind is None:
            raise ValueError("events and labels share a topic; say with topics.kind how to tell them apart")
        if self.retrain.min_examples > self.batch.max_rows:
            raise ValueError("retrain.min_examples is larger than batch.max_rows: nothing would ever be fitted")
        if self.gates.min_holdout_rows >= self.batch.max_rows:
            raise ValueError("gates.min_holdout_rows leaves nothing of batch.max_rows: nothing would ever be promoted")
        if not self.batch_kinds:
            raise ValueError("no feature that a model can use; text must be turned into numbers or categories")
        return self

    @property
    def _event_paths(self) -> list[str]:
        kind = [self.topics.kind.path] if self.topics.kind else []
        return [self.id, self.time, *(field.path or name for name, field in self.fields.items()), *kind]

    @property
    def _label_paths(self) -> list[str]:
        return [self.label.id or self.id, self.label.path, *([self.label.time] if self.label.time else [])]

    @property
    def events_topic(self) -> str:
        return self.topics.events or f"{self.name}.events"

    @property
    def labels_topic(self) -> str:
        return self.topics.labels or f"{self.name}.labels"

    @property
    def predictions_topic(self) -> str:
        return self.topics.predictions or f"{self.name}.predictions"

    @property
    def dead_letters_topic(self) -> str:
        return self.topics.dead_letters or f"{self.name}.dead-letters"

    @property
    def journal_topic(self) -> str:
        return self.topics.journal or f"{self.name}.journal"

    @property
    def input_topics(self) -> list[str]:
        """Events topic first, then labels; one entry when they share a topic."""
        return list(dict.fromkeys([self.events_topic, self.labels_topic]))

    @property
    def feature_kinds(self) -> dict[str, Kind]:
        """Each feature's type, in the order of the project file."""
        if self.features is not None:
            return dict(self.features.outputs)
        return {name: field.type for name, field in self.fields.items()}

    @property
    def batch_kinds(self) -> dict[str, Kind]:
        """The features that batch training and drift reports use, and their types."""
        online_only = set(self.features.online_only) if self.features else set()
        return {name: kind for name, kind in self.feature_kinds.items() if kind != "text" and name not in online_only}

    @property
    def expert_names(self) -> list[str]:
        """Every expert that can appear in a prediction: the champion first."""
        return ["champion", *(expert.name for expert in self.online)]


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    known = parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0
    return known and text.isprintable() and " " not in text


def _same_but_for_case(names: list[str]) -> tuple[str, str] | None:
    known: dict[str, str] = {}
    for name in names:
        if known.setdefault(name.lower(), name) != name:
            return known[name.lower()], name
    return None


def _one_inside_the_other(paths: list[str]) -> tuple[str, str] | None:
    return next(((one, other) for one in paths for other in paths if other.startswith(f"{one}.")), None)
