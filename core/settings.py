"""The project file: every setting, its default and its meaning.

Everything has a default but ``name``, ``id``, ``time``, ``fields`` and ``label``. What is wrong is
reported by :mod:`core.project` with the line, the key and the fix. Durations are written ``28d``,
``6h``, ``90m`` and held in milliseconds. Minima and maxima keep out what would stop the loop without an error.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from core.clocks import Clock, clock_of
from core.durations import WEEK
from core.feature_rules import check_features, event_kinds, key_fields
from core.gate_settings import GateSettings, check_slices
from core.history_settings import HistorySettings
from core.loop_settings import (
    AlertSettings,
    BatchSettings,
    BlendSettings,
    DriftSettings,
    ExpertSettings,
    RetrainSettings,
    StateSettings,
    ValidationSettings,
    WindowSettings,
)
from core.models import SHADOWS
from core.privacy_settings import PrivacySettings
from core.promotion_settings import PromotionSettings
from core.recorded import ROW_TIME, filled_in
from core.setting_types import Kind, Name, Section, Task
from core.stream_settings import (
    FeatureSettings,
    FieldSettings,
    LabelSettings,
    OrderSettings,
    ReplaySettings,
    TopicSettings,
)

_LONGEST_IN_A_SEASON = 26 * WEEK
"""As much to either side, a year earlier, then still ends before the window starts."""


class Settings(Section):
    """The whole project file."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="names topics, models and deployments")
    task: Task = Field("binary", description="binary, multiclass or regression")
    id: str = Field(description="where the event's id is in its JSON, as a.b.c; a recorded file may lack it")
    time: str = Field(
        description="where the event's time is: ISO 8601, or a number since the epoch; a recorded file may lack it"
    )
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
            ExpertSettings(name="no_change", factory="no_change"),
        ],
        min_length=1,
        description="the online experts",
    )
    blend: BlendSettings = BlendSettings()
    batch: BatchSettings = BatchSettings()
    windows: WindowSettings = WindowSettings()
    drift: DriftSettings = DriftSettings()
    retrain: RetrainSettings = RetrainSettings()
    validation: ValidationSettings = ValidationSettings()
    gates: GateSettings = GateSettings()
    promotion: PromotionSettings = PromotionSettings()
    alerts: AlertSettings = AlertSettings()
    state: StateSettings = StateSettings()
    privacy: PrivacySettings = PrivacySettings()
    replay: ReplaySettings | None = None
    history: dict[Name, HistorySettings] = Field({}, description="what `headrace ingest` can read, by name")

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

    @field_validator("history", mode="before")
    @classmethod
    def _one_history(cls, value: object) -> object:
        """Take a single source without a name."""
        if isinstance(value, dict) and any(isinstance(value.get(key), str) for key in ("file", "url", "url_from")):
            return {"history": value}
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [expert.name for expert in self.online]
        if len(set(names)) < len(names):
            raise ValueError("two online experts have the same name; give each its own")
        if reserved := {"champion", "served", *SHADOWS, *(f"with_{role}" for role in SHADOWS)} & {
            name.lower() for name in names
        }:
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
        if self.drift.reference == "season" and (self.time == ROW_TIME or self.windows.span > _LONGEST_IN_A_SEASON):
            raise ValueError("drift.reference is season: that takes a time, and windows.span of at most 26 weeks")
        if not self.batch_kinds:
            raise ValueError("no feature that a model can use; text must be turned into numbers or categories")
        check_slices(self.gates.slices, self.batch_kinds)
        return self

    @model_validator(mode="after")
    def _allowed_features_known(self) -> Self:
        if unknown := [name for name in self.validation.allow if name not in self.batch_kinds]:
            raise ValueError(
                f"validation.allow names {unknown[0]!r}, which is no feature of the batch model; correct it"
            )
        return self

    @model_validator(mode="after")
    def _features_fit(self) -> Self:
        check_features(self.features, self.topics, self.kept_fields, self.task, counts_rows=self.time == ROW_TIME)
        if self.topics.key is not None and self.replay is not None and self.topics.partitions > 1:
            raise ValueError(
                "a recorded stream is published by the event's id; set topics.partitions to 1, or remove topics.key"
            )
        return self

    @property
    def _event_paths(self) -> list[str]:
        kind = [self.topics.kind.path] if self.topics.kind else []
        return [self.id, self.time, *(field.path or name for name, field in self.fields.items()), *kind]

    @property
    def _label_paths(self) -> list[str]:
        return [self.label.id or self.id, self.label.path, *([self.label.time] if self.label.time else [])]

    @model_validator(mode="after")
    def _personal_everywhere(self) -> Self:
        """Refuse a path that is marked as personal and read in clear from the same JSON besides."""
        kind = {self.topics.kind.path} if self.topics.kind else set()
        marked = {field.path or name for name, field in self.fields.items() if field.pii}
        clear = {self.time, *kind, *(field.path or name for name, field in self.fields.items() if not field.pii)}
        of_label = {self.label.path, *([self.label.time] if self.label.time else []), *kind}
        label_id = self.label.id or self.id
        (marked if self.privacy.id else clear).add(self.id)
        twice = (marked & clear) | ({label_id} & of_label if self.privacy.id else set())
        if twice:
            raise ValueError(f"path {min(twice)!r} is personal in one place and not in another; mark both, or none")
        return self

    @model_validator(mode="after")
    def _retention_can_be_kept(self) -> Self:
        kept = self.privacy.retention
        if kept is not None and self.time == ROW_TIME:
            raise ValueError("privacy.retention needs a time; events that are counted as rows have no age")
        if kept is not None and kept < 2 * self.label.horizon:
            raise ValueError("privacy.retention is less than twice label.horizon: so long an id is remembered")
        return self

    @model_validator(mode="after")
    def _history_has_times(self) -> Self:
        if self.history and self.time == ROW_TIME:
            raise ValueError("history needs a time: ingested events come before those of the stream; name its column")
        return self

    @property
    def kept_fields(self) -> dict[str, FieldSettings]:
        """The fields that are read: all but those of which nothing is kept."""
        return {name: field for name, field in self.fields.items() if field.pii != "drop"}

    @property
    def is_personal(self) -> bool:
        """Whether a field or the id is marked as personal."""
        return self.privacy.id is not None or any(field.pii for field in self.fields.values())

    @property
    def clock(self) -> Clock:
        """How moments and spans of the stream are written."""
        return clock_of(self.time)

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
    def base_kinds(self) -> dict[str, Kind]:
        """What the feature function returns, or the fields without one: in the order of the project file."""
        if self.features is not None and self.features.function is not None:
            return dict(self.features.outputs)
        return {name: field.type for name, field in self.kept_fields.items()}

    @property
    def event_kinds(self) -> dict[str, Kind]:
        """The features that follow from an event alone, and their types."""
        return self.base_kinds if self.features is None else event_kinds(self.features, self.base_kinds)

    @property
    def has_function(self) -> bool:
        """Whether features come from a function of the project."""
        return self.features is not None and self.features.function is not None

    @property
    def feature_kinds(self) -> dict[str, Kind]:
        """Each feature's type: those of the event alone first, then those of its key."""
        if self.features is None or not self.features.per_key:
            return self.event_kinds
        base = self.base_kinds
        return {**self.event_kinds, **{one.name: one.type_of(base, self.task) for one in self.features.per_key}}

    @property
    def key_fields(self) -> tuple[str, ...]:
        """The fields whose values are kept with an event because they are, or are in, a key."""
        return key_fields(self.features, self.topics.key)

    @property
    def batch_kinds(self) -> dict[str, Kind]:
        """The features that batch training and drift reports use, and their types."""
        online_only = set(self.features.online_only) if self.features else set()
        return {name: kind for name, kind in self.feature_kinds.items() if kind != "text" and name not in online_only}

    @property
    def expert_names(self) -> list[str]:
        """Every expert that can appear in a prediction: the champion first."""
        return ["champion", *(expert.name for expert in self.online)]

    @property
    def blind_experts(self) -> frozenset[str]:
        """The online experts that look at labels alone, not at what an event carries."""
        return frozenset(expert.name for expert in self.online if expert.factory in ("prior", "no_change"))


def _same_but_for_case(names: list[str]) -> tuple[str, str] | None:
    known: dict[str, str] = {}
    for name in names:
        if known.setdefault(name.lower(), name) != name:
            return known[name.lower()], name
    return None


def _one_inside_the_other(paths: list[str]) -> tuple[str, str] | None:
    return next(((one, other) for one in paths for other in paths if other.startswith(f"{one}.")), None)
