"""What the project file may say about features: which there are, and why some keys are refused. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from core.generated import calendar_kinds, interaction_kinds
from core.keyed_settings import PerKeySettings
from core.setting_types import Kind, Task
from core.stream_settings import FeatureSettings, FieldSettings, TopicSettings


def event_kinds(made: FeatureSettings, base: dict[str, Kind]) -> dict[str, Kind]:
    """Return the features that follow from one event, and their types: `base`, calendar, interactions.

    Raises
    ------
    ValueError
        If an interaction names what there is not, or mixes numbers and categories.
    """
    known = {**base, **calendar_kinds(made.calendar)}
    return {**known, **interaction_kinds(made.interactions, known)}


def key_fields(made: FeatureSettings | None, topic_key: str | None) -> tuple[str, ...]:
    """Return the fields that are in a key, each once, in the order of their names."""
    named = {field for one in made.per_key for field in one.key} if made else set()
    return tuple(sorted(named | ({topic_key} if topic_key else set())))


def lives_in_partition(key: Sequence[str], topic_key: str | None, partitions: int) -> bool:
    """Tell whether all events of one value of a key are in one partition.

    Examples
    --------
    >>> lives_in_partition(["merchant"], None, 4), lives_in_partition(["merchant", "country"], "merchant", 4)
    (False, True)
    """
    return partitions == 1 or topic_key in key


def scattered(one: PerKeySettings, topic_key: str | None, partitions: int) -> str:
    """Explain why a feature's key is refused where topics have several partitions."""
    key = ", ".join(one.key)
    by = f"the field {topic_key}" if topic_key else "the event's id"
    return (
        f"features.per_key: {one.name}: events of one {key} are spread over {partitions} partitions, which are keyed "
        f"by {by}, and a partition knows only its own; use topics with one partition (topics.partitions), or key both "
        f"topics by a field of this key and say so with 'topics: {{key: {one.key[0]}}}'"
    )


def check_features(
    made: FeatureSettings | None,
    topics: TopicSettings,
    fields: Mapping[str, FieldSettings],
    task: Task,
    *,
    counts_rows: bool,
) -> None:
    """Refuse features that could not be computed, or would mean something else in every partition.

    Parameters
    ----------
    fields : mapping
        The fields of which something is kept.
    counts_rows : bool
        Whether the stream has no time but counts its rows.

    Raises
    ------
    ValueError
        Says what is wrong and what to do.
    """
    _check_key("topics.key", topics.key, fields)
    if made is None:
        return
    if made.calendar and counts_rows:
        raise ValueError("features.calendar: events that are counted as rows have no date; give the file's time column")
    base: dict[str, Kind] = dict(made.outputs) if made.function else {n: field.type for n, field in fields.items()}
    known = [*base, *calendar_kinds(made.calendar), *interaction_kinds(made.interactions, event_kinds(made, base))]
    known += [one.name for one in made.per_key]
    if twice := [name for name in known if known.count(name) > 1]:
        raise ValueError(f"two features have the name {twice[0]!r}; rename one")
    if unknown := [name for name in made.online_only if name not in known]:
        raise ValueError(f"features.online_only names {unknown[0]!r}, which is no feature")
    for one in made.per_key:
        for field in one.key:
            _check_key(f"features.per_key: {one.name}", field, fields)
        _check_kind(one, base, task)
        if not lives_in_partition(one.key, topics.key, topics.partitions):
            raise ValueError(scattered(one, topics.key, topics.partitions))


def _check_key(where: str, field: str | None, fields: Mapping[str, FieldSettings]) -> None:
    if field is None:
        return
    if field not in fields:
        raise ValueError(f"{where}: the key {field!r} is none of the fields of which something is kept")
    if fields[field].type != "category":
        raise ValueError(f"{where}: the key {field!r} is a {fields[field].type}; a key is a category: make it one")


def _check_kind(one: PerKeySettings, base: Mapping[str, Kind], task: Task) -> None:
    where = f"features.per_key: {one.name}"
    if one.of is not None and one.of not in base:
        raise ValueError(f"{where}: of: {one.of!r} is no feature; name one of {', '.join(base)}")
    if one.kind == "mean" and one.of is not None and base[one.of] != "number":
        raise ValueError(f"{where}: mean is of numbers, and {one.of} is a {base[one.of]}")
    if one.kind == "last" and one.of is not None and base[one.of] == "text":
        raise ValueError(f"{where}: last is not of text; make a number or category of {one.of}")
    if one.kind == "label_mean" and (task == "multiclass") != (one.outcome is not None):
        raise ValueError(f"{where}: label_mean " + ("needs 'outcome: CLASS'" if task == "multiclass" else _NO_CLASSES))


_NO_CLASSES = "is of all labels here; remove 'outcome'"
