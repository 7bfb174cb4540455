"""The topics fit together: co-partitioned by the event's id, keyed so that both halves meet.

Everything about an event has to arrive in the partition where its label arrives, because a
partition is a machine of its own: it holds the event, its features and its predictions until the
label comes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from struct import iter_unpack

from core.errors import TopicError
from core.feature_rules import lives_in_partition, scattered
from core.settings import Settings
from streaming.transport import Broker, ClusterInfo

_MASK = 0xFFFFFFFF
_FACTOR = 0x5BD1E995
_SEED = 0x9747B28C


def murmur2(data: bytes) -> int:
    """Hash as Kafka's clients do to choose a partition; unsigned, 32 bits.

    Examples
    --------
    >>> murmur2(b"flight-1")
    307188000
    """
    whole = len(data) & ~3
    state = _SEED ^ len(data)
    for (word,) in iter_unpack("<I", data[:whole]):
        mixed = word * _FACTOR & _MASK
        mixed = (mixed ^ mixed >> 24) * _FACTOR & _MASK
        state = state * _FACTOR & _MASK ^ mixed
    if rest := data[whole:]:
        state = (state ^ int.from_bytes(rest, "little")) * _FACTOR & _MASK
    state = (state ^ state >> 13) * _FACTOR & _MASK
    return state ^ state >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition that Kafka's default partitioner gives to `key`.

    Examples
    --------
    >>> partition_of(b"flight-2", 4)
    1
    """
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def foreign_key(
    record_key: bytes | None, event_id: str, partition: int, partitions: int, named: str = "the event's id"
) -> str | None:
    """Explain how a record's key is foreign to headrace; None where it is not.

    A foreign key is not yet an error: another partitioner is fine as long as events and labels
    agree on it. Meant for one warning and a counter.

    Parameters
    ----------
    record_key : bytes or None
        The record's key.
    event_id : str
        The id, or the field that is the key, found in the record's value.
    partition, partitions : int
        Where the record lies, and of how many partitions.
    named : str
        What should be the key, in words.

    Examples
    --------
    >>> foreign_key(b"7", "7", partition=0, partitions=1) is None
    True
    """
    expected = event_id.encode("utf-8", "surrogatepass")
    if record_key != expected:
        shown = "no key" if record_key is None else f"the key {_shown(record_key)}"
        return (
            f"a record for event {event_id!r} has {shown}, not {named}: "
            f"its label is joined only if it is in the same partition; key both topics by {named}"
        )
    if partitions > 1 and partition != (home := partition_of(expected, partitions)):
        return (
            f"event {event_id!r} lies in partition {partition}, not in {home} where Kafka's default "
            "partitioner puts it: another one wrote it; that works only if events and labels are written "
            "with the same partitioner"
        )
    return None


def co_partitioned(settings: Settings) -> list[str]:
    """Name the topics that must have equal partition counts: the inputs, the predictions and the journal."""
    return [*settings.input_topics, settings.predictions_topic, settings.journal_topic]


def check_partitions(topics: Sequence[str], partitions: Mapping[str, int]) -> int:
    """Return the one partition count that `topics` share; those missing in `partitions` do not count.

    Raises
    ------
    TopicError
        If the counts differ.
    """
    counts = {topic: partitions[topic] for topic in topics if topic in partitions}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{topic} has {count}" for topic, count in counts.items())
        largest = max(counts.values())
        raise TopicError(
            f"events, labels, predictions and journal need equal partition counts, so that an event meets its label: "
            f"{listed}; create the smaller ones anew with {largest} partitions and publish their records "
            "again (adding partitions alone leaves old records where they are), or name other topics under "
            "'topics' in headrace.yaml"
        )
    return next(iter(counts.values()), 0)


def ensure_topics(broker: Broker, settings: Settings) -> tuple[ClusterInfo, int]:
    """Make sure that the project's topics exist and fit together.

    Missing topics are created where ``topics.create`` allows it, with ``topics.partitions``
    partitions; where some of the co-partitioned topics exist already, the others get as many.

    Returns
    -------
    ClusterInfo
        The broker's identity and the partition count of each of the project's topics.
    int
        The partition count of events, labels and predictions.

    Raises
    ------
    TopicError
        If a topic is missing and may not be created, or the counts differ.
    BrokerError
        If the broker does not answer.
    """
    together = co_partitioned(settings)
    wanted = [*together, settings.dead_letters_topic]
    info = broker.describe(wanted)
    existing = check_partitions(together, info.partitions)
    missing = [topic for topic in wanted if topic not in info.partitions]
    if missing and not settings.topics.create:
        raise TopicError(
            f"no topic {', '.join(missing)} on cluster {info.cluster_id}; create it, "
            "or set 'topics.create: true' in headrace.yaml, or correct its name under 'topics'"
        )
    if missing:
        default = settings.topics.partitions
        counts = {t: existing or default if t in together else default for t in missing}
        # retention goes by a record's own time: what is recorded, or replayed, would be gone at once
        kept = [*counts] if settings.replay else [settings.journal_topic]
        broker.create_topics(counts, kept=kept, **_limits(settings, set(counts) - set(kept)))
        info = broker.describe(wanted)
        if unseen := [topic for topic in wanted if topic not in info.partitions]:
            raise TopicError(f"the broker accepted the topic {', '.join(unseen)} but does not show it; see its log")
    count = check_partitions(together, info.partitions)
    check_keys(settings, count)
    return info, count


def check_keys(settings: Settings, partitions: int) -> None:
    """Refuse features per key whose key does not live in one partition, now that it is known how many there are.

    Raises
    ------
    TopicError
        Says which, and what to do.
    """
    for one in settings.features.per_key if settings.features else ():
        if not lives_in_partition(one.key, settings.topics.key, partitions):
            raise TopicError(scattered(one, settings.topics.key, partitions))


def _limits(settings: Settings, topics: Collection[str]) -> dict[str, dict[str, int]]:
    """Return how long the topics that headrace writes for others may keep records, where the project says so."""
    ours = {settings.predictions_topic, settings.dead_letters_topic} & {*topics}
    kept = settings.privacy.retention
    return {} if kept is None else {"at_most": dict.fromkeys(ours, kept)}


def _shown(key: bytes) -> str:
    return repr(key if len(key) <= 40 else key[:40] + b"...")
