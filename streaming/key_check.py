"""Whether the first events lie where their id belongs: a foreign partitioner is noticed, and explained once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from core.pseudonyms import Pseudonyms
from core.settings import Settings
from streaming.join import Predicted
from streaming.outputs import Output
from streaming.topics import foreign_key
from streaming.transport import RawRecord

_CHECKED = 1_000
_UNQUOTED = (
    "a record of an event has a key that is not the event's id, or another partition than Kafka's default partitioner "
    "gives to it (neither is shown, as the project has personal values): its label is joined only if it is in the same "
    "partition; key both topics by the event's id"
)
_log = logging.getLogger("headrace.worker")


class KeyCheck:
    """Looks at a partition's first events, not at later ones.

    Attributes
    ----------
    found : str or None
        What is wrong with the first key or partition that does not fit.
    """

    def __init__(
        self, settings: Settings, partition: int, partitions: int, pseudonyms: Pseudonyms | None = None
    ) -> None:
        self.found: str | None = None
        self._topic = settings.events_topic
        self._partition = partition
        self._partitions = partitions
        self._unchecked = _CHECKED
        self._is_personal = settings.is_personal
        self._key_field = settings.topics.key
        self._hide = _hider(settings, pseudonyms)

    def look(self, records: Sequence[RawRecord], outputs: Sequence[Output]) -> None:
        """Compare the keys of `records` with the ids that were read from them."""
        if self._unchecked <= 0:
            return
        keys = {record.offset: record.key for record in records if record.topic == self._topic}
        for output in outputs:
            if not isinstance(output, Predicted) or output.offset not in keys:
                continue
            self._unchecked -= 1
            named = output.id if self._key_field is None else (output.keys or {}).get(self._key_field)
            self.found = None if named is None else self._foreign(keys[output.offset], named)
            if self.found is not None:
                _log.warning("%s", self.found)
                self._unchecked = 0
            if self._unchecked <= 0:
                return

    def _foreign(self, key: bytes | None, named: str) -> str | None:
        """Explain a foreign key; of personal records without quoting it."""
        if self._hide is None:
            of = "the event's id" if self._key_field is None else f"its {self._key_field} (topics.key)"
            found = foreign_key(key, named, self._partition, self._partitions, of)
            return _UNQUOTED if found and self._is_personal else found
        text = (key or b"").decode("utf-8", "surrogateescape")
        if key is None or self._hide(text) != named:
            return _UNQUOTED
        return _UNQUOTED if foreign_key(key, text, self._partition, self._partitions) else None


def _hider(settings: Settings, pseudonyms: Pseudonyms | None) -> Callable[[str], str] | None:
    """Return how what is in a key is hashed; None where it is in clear."""
    field = settings.topics.key
    if pseudonyms is None:
        return None
    if field is None:
        return pseudonyms.of_id if settings.privacy.id else None
    return partial(pseudonyms.of_field, field) if settings.fields[field].pii == "hash" else None
