"""Snapshots of a partition's state: authenticated before they are unpickled, stamped, atomic, the newest first.

A snapshot's header (:mod:`streaming.snapshot_file`) says where the partition goes on. Two sections follow: ``models``
holds what learned (River's pickles among it), ``portable`` everything else, so that an upgrade of River takes away
the first only, which ``headrace rebuild-state`` learns again.

A name carries term, step and clock: so the snapshot of a worker that lost the partition never counts as newer than that
of the one that took it over, and the last one before a window is found when that is to be unlearned.
"""

from __future__ import annotations

import gc
import logging
import pickle
from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any

from core.errors import CheckpointError, FencedError
from core.project import Project
from core.spans import window_origin
from streaming.books import Books
from streaming.phases import Phases
from streaming.snapshot_file import SnapshotFile, load_key
from streaming.snapshot_names import SUFFIX, age, clock_of, name_of, partition_of, stem
from streaming.stamp import stamp_of
from streaming.state import State
from streaming.state_store import open_store

_KEPT = 2
_MOST_WINDOWS_BACK = 8
_IN_HEADER = (
    *("positions", "topic_clocks", "step", "clock", "first_event"),
    *("champion_version", "champion_since", "unlearned", "following", "erased"),
)
_MODELS = ("experts", "blend", "plausible", "shadows", "keyed", "learned_at")
_log = logging.getLogger("headrace.checkpoint")


@dataclass(frozen=True)
class Snapshot:
    """A partition's state, and where in which log it goes on.

    Attributes
    ----------
    state : State
        All that the partition knows.
    cluster_id : str
        The broker whose offsets the state names.
    journal : int
        Offset of the next journal entry to read.
    term : int
        How often the partition had been taken over when this was made.
    owner : str
        Whose entries count in the journal from there on.
    rebuilt : bool
        Whether the learners were relearned from the tables: journal entries from `journal` on may have been predicted
        by others.
    """

    state: State
    cluster_id: str
    journal: int = 0
    term: int = 0
    owner: str = ""
    rebuilt: bool = False


class Checkpoints:
    """The snapshots of one project's partitions: of each the newest two, and the last before each late window.

    Parameters
    ----------
    project : Project
        Says where they are, and what they must agree with.
    phases : Phases, optional
        Told about each part of a write.
    """

    FORMAT = 13

    def __init__(self, project: Project, phases: Phases | None = None) -> None:
        self._project = project
        self._store = open_store(project.checkpoints, phases or Phases())
        self._key = load_key(project.state)
        self._stamp = stamp_of(project, self.FORMAT)

    def save(self, partition: int, snapshot: Snapshot) -> str:
        """Write a snapshot, drop the oldest, and return where it is.

        Raises
        ------
        FencedError
            If there is a snapshot of a later term: another worker has taken the partition over.
        StoreError, OSError
            If it cannot be written; the one before stays.
        """
        self._refuse_fenced(partition, snapshot.term)
        name = _name(partition, snapshot)
        self._store.write(name, self._file(snapshot).signed(self._key))
        names = self._names(partition)
        for old in {*names[_KEPT:]} - {*self._anchors(names, snapshot.state)}:
            self._store.remove(old)
        self._refuse_fenced(partition, snapshot.term, written=name)
        return self._store.where(name)

    def load(self, partition: int, *, before: tuple[int, int] | None = None) -> Snapshot | None:
        """Return the newest snapshot that can be trusted; None only if there never was one.

        Parameters
        ----------
        before : (term, step), optional
            Only an older one than this counts.

        Raises
        ------
        CheckpointError
            If snapshots exist and none can be trusted, or it was made under other versions or settings.
        """
        found = self._newest(partition, before)
        if found is None:
            return None
        name, file = found
        where = self._store.where(name)
        self._refuse_other_stamp(file.header, where)
        self._import_project_code()
        try:
            parts = _unpickled(file, "portable", "models")
            state = State(**goes_on(file.header), **parts)
        except Exception as error:  # unpickling may raise anything
            raise CheckpointError(
                f"{where}: does not fit the code of this project any more: {type(error).__name__}: {error}; "
                f"{self._remedy()}"
            ) from error
        return _snapshot(file.header, state)

    def inspect(self, partition: int) -> SnapshotFile | None:
        """Return the newest snapshot that is authentic, whatever versions and settings made it; None if there is none.

        Raises
        ------
        CheckpointError
            If snapshots exist and none is authentic.
        """
        found = self._newest(partition, None)
        return None if found is None else found[1]

    def replace(self, partition: int, snapshot: Snapshot) -> str:
        """Write a snapshot in place of one of the same term and step, which is kept under another name."""
        name = _name(partition, snapshot)
        if name in self._names(partition):
            self._store.write(f"{name.removesuffix(SUFFIX)}.before-rebuild", self._store.read(name))
        return self.save(partition, snapshot)

    def step_before(self, partition: int, moment: int) -> int:
        """Return the step of the newest snapshot whose clock had not reached `moment`, ms; 0 if there is none.

        One that is damaged, or was made under other versions or settings, is none.
        """
        for name in self._names(partition):
            if clock_of(name) < moment and self._usable(name) is not None:
                return age(name)[1]
        return 0

    def learners_at(self, partition: int, step: int) -> dict[str, Any] | None:
        """Return what had learned by a step, by name, from its snapshot; None if there is none that can be used."""
        for name in self._names(partition):
            if age(name)[1] == step and (file := self._usable(name)) is not None:
                self._import_project_code()
                return _unpickled(file, "models")
        return None

    def forget_others(self, partition: int, erased: Collection[str]) -> int:
        """Remove every older file of a partition that may hold one of the ids that were `erased`; return how many.

        The newest stays, and so does one that was made after all of them were erased.
        """
        newest = self._names(partition)[0]
        gone = 0
        for name in self._store.names(stem(partition)):
            if name != newest and not {*erased} <= self._erased_in(name):
                self._store.remove(name)
                gone += 1
        return gone

    def _erased_in(self, name: str) -> set[str]:
        """Return what had been erased when a file was written; nothing if it does not tell."""
        try:
            file = SnapshotFile.read(self._store.read(name), self._key, self._store.where(name))
        except CheckpointError:
            return set()
        return set(file.header.get("erased", {}))

    def partitions(self) -> list[int]:
        """Return the partitions that have snapshots."""
        return sorted({partition_of(name) for name in self._store.names("partition-") if name.endswith(SUFFIX)})

    def differences(self, header: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Return what differs between a header's stamp and this installation's: name to (its, mine)."""
        return {name: (header.get(name), mine) for name, mine in self._stamp.items() if header.get(name) != mine}

    def _names(self, partition: int) -> list[str]:
        """Return the snapshots' names, the newest first."""
        names = self._store.names(stem(partition))
        return sorted((name for name in names if name.endswith(SUFFIX)), key=age, reverse=True)

    def _anchors(self, names: list[str], state: State) -> Iterator[str]:
        """Yield the last snapshot before each of the windows that may still have to be unlearned."""
        if state.first_event is None:
            return
        settings = self._project.settings
        span, origin = settings.windows.span, window_origin(state.first_event, settings.windows.span)
        newest = origin + max(state.clock - origin, 0) // span * span
        count = min(settings.drift.quarantine_windows + 1 + -(-settings.label.horizon // span), _MOST_WINDOWS_BACK)
        for number in range(count + 1):
            start = newest - number * span
            yield from islice((name for name in names if clock_of(name) < start), 1)

    def _usable(self, name: str) -> SnapshotFile | None:
        """Return a snapshot that is authentic and of this installation."""
        try:
            file = SnapshotFile.read(self._store.read(name), self._key, self._store.where(name))
        except CheckpointError as error:
            _log.error("%s; it is passed over", error)
            return None
        return None if self.differences(file.header) else file

    def _refuse_fenced(self, partition: int, term: int, *, written: str | None = None) -> None:
        newest = next(iter(self._names(partition)), None)
        if newest is None or age(newest)[0] <= term:
            return
        if written is not None:
            self._store.remove(written)
        raise FencedError(
            f"partition {partition}: {self._store.where(newest)} is of a later term than {term}: another worker has "
            "taken the partition over"
        )

    def _newest(self, partition: int, before: tuple[int, int] | None) -> tuple[str, SnapshotFile] | None:
        """Return the newest authentic snapshot; set those aside that are newer and damaged."""
        problems: dict[str, str] = {}
        for name in self._names(partition):
            if before is not None and age(name) >= before:
                continue
            try:
                file = SnapshotFile.read(self._store.read(name), self._key, self._store.where(name))
            except CheckpointError as error:
                _log.error("%s; trying the one before", error)
                problems[name] = str(error)
                continue
            for refused in problems:  # else it counted as the newest for ever
                self._store.rename(refused, refused.removesuffix(SUFFIX) + ".refused")
            return name, file
        if problems:
            raise CheckpointError(
                f"no snapshot of partition {partition} can be used:\n  " + "\n  ".join(problems.values()) + "\n"
                "restore the state folder from a back-up; or, to start learning anew, move it away and delete the "
                f"topic {self._project.settings.journal_topic}"
            )
        return None

    def _file(self, snapshot: Snapshot) -> SnapshotFile:
        state = snapshot.state
        header = {
            **self._stamp,
            "cluster_id": snapshot.cluster_id,
            "journal": snapshot.journal,
            "term": snapshot.term,
            "owner": snapshot.owner,
            "rebuilt": snapshot.rebuilt,
            **{name: getattr(state, name) for name in _IN_HEADER},
            "books": state.books.as_dict(),
        }
        models = {name: getattr(state, name) for name in _MODELS}
        known = {*_IN_HEADER, *_MODELS, "books"}
        portable = {entry.name: getattr(state, entry.name) for entry in fields(state) if entry.name not in known}
        sections = {"portable": portable, "models": models}
        return SnapshotFile(header, {name: pickle.dumps(part, protocol=5) for name, part in sections.items()})

    def _refuse_other_stamp(self, header: dict[str, Any], where: str) -> None:
        differ = self.differences(header)
        if differ:
            made = ", ".join(f"{name} {its}" for name, (its, _) in differ.items())
            mine = ", ".join(f"{name} {here}" for name, (_, here) in differ.items())
            raise CheckpointError(f"{where}: made with {made}, this is {mine}; {self._remedy()}")

    def _remedy(self) -> str:
        return (
            "go back to what it was made with, or learn again from the tables: "
            f"headrace rebuild-state {self._project.folder}"
        )

    def _import_project_code(self) -> None:
        """Import the files whose classes the experts of a snapshot may be of."""
        for entry in self._project.settings.online:
            if ":" in entry.factory:
                self._project.load_function(entry.factory)


def goes_on(header: dict[str, Any]) -> dict[str, Any]:
    """Return what of a state is in the header of its snapshot."""
    kept = {name: header[name] for name in _IN_HEADER if name in header}
    kept["unlearned"] = [(start, end) for start, end in header.get("unlearned", [])]  # there is none before format 8
    kept["erased"] = {name: (until, was) for name, (until, was) in header.get("erased", {}).items()}
    return {**kept, "books": Books.from_dict(header["books"])}


def portable_part(file: SnapshotFile) -> dict[str, Any]:
    """Return what of a state neither learned nor is in the header: join, vocabulary, scores and such.

    Parameters
    ----------
    file : SnapshotFile
        As read by `Checkpoints.inspect`, of this format.

    Raises
    ------
    CheckpointError
        If it does not fit this version of headrace.
    """
    try:
        return _unpickled(file, "portable")
    except Exception as error:  # unpickling may raise anything
        raise CheckpointError(f"what waits does not fit this version: {type(error).__name__}: {error}") from error


def _unpickled(file: SnapshotFile, *sections: str) -> dict[str, Any]:
    """Return the parts in some sections; without the collector, which would look at every object of a forest anew."""
    parts: dict[str, Any] = {}
    collects = gc.isenabled()
    gc.disable()
    try:
        for section in sections:
            parts |= pickle.loads(file.sections[section])  # noqa: S301
    finally:
        if collects:
            gc.enable()
    return parts


def _snapshot(header: dict[str, Any], state: State) -> Snapshot:
    return Snapshot(state, header["cluster_id"], header["journal"], header["term"], header["owner"], header["rebuilt"])


def _name(partition: int, snapshot: Snapshot) -> str:
    return name_of(partition, snapshot.term, snapshot.state.step, snapshot.state.clock)
