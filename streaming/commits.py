"""What was stepped through since the last commit, and the commit that is on its way.

One commit at a time, in a thread that mostly waits for the broker, while more is stepped through.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from streaming.journal import Action, Entry, digest_of, journal_record
from streaming.outputs import Output
from streaming.phases import Phases
from streaming.transport import OutRecord, Publisher, TopicPartition

_MAX_UNCOMMITTED = 4_096


@dataclass
class Work:
    """Actions, and what followed from them.

    Attributes
    ----------
    step : int
        The partition's step before the first action.
    since : float
        When the first action was done, s of the monotonic clock.
    actions : list of Batch, Tick, Swap, Unlearn or Follow
        In order.
    outputs : list of Output
        For the tables.
    messages : list of OutRecord
        For the broker.
    """

    step: int
    since: float = 0.0
    actions: list[Action] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    messages: list[OutRecord] = field(default_factory=list)

    def add(self, action: Action, outputs: Sequence[Output], messages: Sequence[OutRecord]) -> None:
        """Remember an action that was done."""
        if not self.actions:
            self.since = time.monotonic()
        self.actions.append(action)
        self.outputs += outputs
        self.messages += messages


class Commits:
    """Brings work to the broker: journal, messages and offsets.

    Parameters
    ----------
    publisher : Publisher
        Has taken the partition over.
    journal : TopicPartition
        Where entries go.
    owner : str
        This worker's name in the journal.
    every_s : float
        How long work may wait for its commit, s.
    phases : Phases
        Told when a commit is waited for no more.
    """

    def __init__(
        self, publisher: Publisher, journal: TopicPartition, owner: str, every_s: float, phases: Phases
    ) -> None:
        self._publisher = publisher
        self._journal = journal
        self._owner = owner
        self._every_s = every_s
        self._phases = phases
        self._thread: threading.Thread | None = None
        self._on_its_way: tuple[Future[int], list[Output]] | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether a commit has begun and is not settled."""
        return self._on_its_way is not None

    def is_due(self, work: Work, *, at_once: bool) -> bool:
        """Tell whether work has waited long enough, or is enough.

        While the commit before is still on its way, only when it is more than should wait.
        """
        if max(len(work.messages), len(work.outputs), len(work.actions)) >= _MAX_UNCOMMITTED:
            return True
        if not work.actions or self.is_under_way:
            return False
        return at_once or time.monotonic() - work.since >= self._every_s

    def begin(self, work: Work, clocks: dict[str, int], positions: dict[TopicPartition, int]) -> None:
        """Begin to make work durable; the commit before must have been settled."""
        assert self._on_its_way is None
        entry = Entry(self._owner, work.step, work.actions, clocks, digest_of(work.messages))
        future: Future[int] = Future()
        self._on_its_way = future, work.outputs
        arguments = future, journal_record(entry, self._journal), work.messages, positions
        # a daemon: kafka-python may wait for ever for a commit, and a process must be able to end meanwhile
        self._thread = threading.Thread(
            target=self._commit, args=arguments, name=f"commit-{self._journal.partition}", daemon=True
        )
        self._thread.start()

    def _commit(
        self,
        future: Future[int],
        record: OutRecord,
        messages: Sequence[OutRecord],
        positions: dict[TopicPartition, int],
    ) -> None:
        try:
            future.set_result(self._publisher.commit(record, messages, positions))
        except BaseException as error:  # noqa: BLE001  whatever it is, `settle` raises it
            future.set_exception(error)

    def settle(self, *, wait: bool) -> tuple[int, list[Output]] | None:
        """Return the journal's offset behind a commit that has ended, and its rows; None if none has.

        Raises
        ------
        FencedError
            If another worker has taken the partition over.
        BrokerError
            If it is not known whether it was written; open the partition anew.
        """
        if self._on_its_way is None:
            return None
        future, outputs = self._on_its_way
        if not wait and not future.done():
            return None
        offset = future.result()
        self._on_its_way = None
        return offset, outputs

    def publish_again(self, work: Work, positions: dict[TopicPartition, int]) -> None:
        """Publish what the journal has and the topics may not; for brokers without transactions."""
        self._publisher.commit(None, work.messages, positions)

    def close(self) -> None:
        """Let go; a commit on its way is awaited by nobody."""
        if self._thread is not None:
            self._phases.forget(self._thread)
        self._publisher.close()
