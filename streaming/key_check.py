"""Whether the first events lie where their id belongs: a foreign partitioner is noticed, and explained once."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from core.settings import Settings
from streaming.join import Predicted
from streaming.machine import Output
from streaming.topics import foreign_key
from streaming.transport import RawRecord

_CHECKED = 1_000
_log = logging.getLogger("headrace.worker")


class KeyCheck:
    """Looks at a partition's first events, not at later ones.

    Attributes
    ----------
    found : str or None
        What is wrong with the first key or partition that does not fit.
    """

    def __init__(self, settings: Settings, partition: int, partitions: int) -> None:
        self.found: str | None = None
        self._topic = settings.events_topic
        self._partition = partition
        self._partitions = partitions
        self._unchecked = _CHECKED

    def look(self, records: Sequence[RawRecord], outputs: Sequence[Output]) -> None:
        """Compare the keys of `records` with the ids that were read from them."""
        if self._unchecked <= 0:
            return
        keys = {record.offset: record.key for record in records if record.topic == self._topic}
        for output in outputs:
            if not isinstance(output, Predicted) or output.offset not in keys:
                continue
            self._unchecked -= 1
            self.found = foreign_key(keys[output.offset], output.id, self._partition, self._partitions)
            if self.found is not None:
                _log.warning("%s", self.found)
                self._unchecked = 0
            if self._unchecked <= 0:
                return
