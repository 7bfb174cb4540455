"""Learns a partition's models again from its tables, after an upgrade that a snapshot cannot follow.

Where the partition goes on, its books and its clock come from the header of its newest authentic snapshot; what waits
comes from the snapshot too, as long as that can be read; experts and blend go through every prediction and every
example of the tables in the order in which the partition did.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from core.errors import CheckpointError
from core.features import OTHER, Vocabulary
from core.project import Project
from core.records import Label
from core.store import TableStore
from streaming.checkpoint import Checkpoints, Snapshot, goes_on, portable_part
from streaming.experts import build_experts
from streaming.history import Asked, History, Learned
from streaming.relearning import Relearning
from streaming.snapshot_file import SnapshotFile
from streaming.state import State

Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Rebuilt:
    """What rebuilding one partition did.

    Attributes
    ----------
    snapshot : str
        Where the new snapshot is.
    changed : dict
        What differed: name to (the snapshot's, this installation's).
    predictions, examples : int
        Rows that the learners went through.
    pending : int
        Events that wait for their label.
    lost : list of str
        What could not be restored, a sentence each.
    """

    partition: int
    step: int
    snapshot: str
    changed: dict[str, tuple[Any, Any]]
    predictions: int
    examples: int
    pending: int
    lost: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)


def rebuild(project: Project, partition: int, checkpoints: Checkpoints, tell: Tell) -> Rebuilt:
    """Learn one partition's models again and write a snapshot that a worker can go on from.

    Parameters
    ----------
    tell : callable
        Gets the rows done and all of them, after each.

    Raises
    ------
    CheckpointError
        If there is no authentic snapshot, or it does not say where the partition goes on.
    StoreError
        If the tables cannot be read, or hold a feature under another type.
    """
    file = checkpoints.inspect(partition)
    if file is None:
        raise CheckpointError(
            f"partition {partition} has no snapshot in {project.checkpoints}: the tables tell what was learned, but "
            "not where in the topics to go on; restore the snapshots from a back-up"
        )
    if "books" not in file.header:
        raise CheckpointError(
            f"the snapshot of partition {partition} is of format {file.header.get('format')}, which does not tell "
            "where to go on without being unpickled; go back to the version of headrace that wrote it"
        )
    history = History(TableStore(project.tables), project.settings, partition, file.header["step"])
    changed = checkpoints.differences(file.header)
    rebuilding = _Rebuilding(project, file, lost=_missing_rows(file.header["books"], history))
    state = rebuilding.run(history, tell)
    header = file.header
    snapshot = Snapshot(
        state, header["cluster_id"], header["journal"], header["term"], header.get("owner", ""), rebuilt=True
    )
    return Rebuilt(
        partition=partition,
        step=state.step,
        snapshot=checkpoints.replace(partition, snapshot),
        changed=changed,
        predictions=history.predictions,
        examples=history.examples,
        pending=state.join.pending,
        lost=rebuilding.lost,
    )


def _missing_rows(books: dict[str, Any], history: History) -> list[str]:
    events = books["events"]
    absent = {
        "predictions": events["predicted"] - history.predictions,
        "examples": events["joined"] + events["implied"] - history.examples,
    }
    return [f"{count} rows are not in the table {name!r} any more" for name, count in absent.items() if count > 0]


class _Rebuilding:
    """One partition's way from its tables to a state."""

    def __init__(self, project: Project, file: SnapshotFile, lost: list[str]) -> None:
        self.lost = lost
        self._settings = project.settings
        self._file = file
        self._learner = State.fresh(project.settings, build_experts(project))
        self._restored = State.fresh(project.settings, []).join
        made = project.settings.features
        self._makes_categories = made is not None and bool(made.function or made.interactions)

    def run(self, history: History, tell: Tell) -> State:
        """Go through the history, and return the state that follows from it and from the snapshot."""
        kept = self._kept()
        waits = "join" not in kept
        total = history.predictions + history.examples
        relearning = Relearning(self._learner, goes_on(self._file.header)["unlearned"])
        for done, happened in enumerate(history, 1):
            relearning.take(happened)
            if isinstance(happened, Asked) and not self._makes_categories:
                fields = happened.predicted.features.items()
                self._learner.vocabulary.bound({name: None if value == OTHER else value for name, value in fields})
            if waits:
                self._wait(happened)
            tell(done, total)
        state = replace(self._learner, **{**kept, **goes_on(self._file.header)})
        if waits:
            self._settle(state)
        return state

    def _kept(self) -> dict[str, Any]:
        """Return the parts of the snapshot that fit the project as it is now."""
        if self._file.header["format"] != Checkpoints.FORMAT:
            return self._without("the snapshot has another format")
        try:
            kept = portable_part(self._file)
        except CheckpointError as error:
            return self._without(str(error))
        vocabulary = Vocabulary.of(self._settings)
        vocabulary.resume(kept["vocabulary"])
        kept["vocabulary"] = vocabulary
        if kept["join"].horizon != self._settings.label.horizon:
            del kept["join"]
            self._lose_waiting("label.horizon has changed")
        return kept

    def _without(self, why: str) -> dict[str, Any]:
        self._lose_waiting(why)
        if self._makes_categories:
            self.lost.append("the values known of category fields: they are learned anew")
        return {}

    def _lose_waiting(self, why: str) -> None:
        count = self._file.header["books"]["labels"]["waiting"]
        if count:
            self.lost.append(f"{count} labels that wait for their event ({why}): they count as orphaned")

    def _wait(self, happened: Asked | Learned) -> None:
        """Let events wait, as they were published, until their label or their horizon comes."""
        if isinstance(happened, Asked):
            self._restored.advance(happened.predicted.clock)
            self._restored.add_event(happened.predicted)
        else:
            label = Label(happened.id, happened.label_time, happened.outcome)
            self._restored.add_label(label, happened.label_clock)

    def _settle(self, state: State) -> None:
        """Hand over what was restored of the join, and let the books say so."""
        self._restored.advance(state.clock)
        state.join = self._restored
        events, labels = state.books.events, state.books.labels
        events.pending = self._restored.pending
        events.expired = events.predicted - events.joined - events.implied - events.pending
        labels.orphaned += labels.waiting
        labels.waiting = 0
