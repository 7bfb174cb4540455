"""Whether a feature knows of the future: the stream is stepped through twice, and once nothing later is there at all.

In the first run a machine is given one record at a time: what it says of an event cannot depend on anything later. In
the second it is given batches, as a worker gives them. A feature that differs has seen what came after its event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from backtest.tape import records_of
from core.features import load_features
from core.pii_key import load_pseudonyms
from core.predictions import FeatureValue
from core.project import Project
from streaming.decisions import BATCH
from streaming.join import Predicted
from streaming.machine import Machine
from streaming.replay import Item
from streaming.state import State
from streaming.transport import RawRecord

MachineOf = Callable[[Project], Machine]


@dataclass(frozen=True)
class Leak:
    """The first event at which a feature knew of what came later.

    Attributes
    ----------
    feature : str
        Its name.
    event : str
        The event's id.
    time : int
        The event's time, ms.
    alone, later : feature value
        What it is without anything later, and what it was with it.
    """

    feature: str
    event: str
    time: int
    alone: FeatureValue
    later: FeatureValue


@dataclass(frozen=True)
class Checked:
    """How many events were compared, and what was found: one leak a feature at most."""

    events: int
    leaks: list[Leak]


def machine_of(project: Project) -> Machine:
    """Return a machine without experts: features are what is looked at."""
    return Machine(
        project.settings, load_features(project), State.fresh(project.settings, []), load_pseudonyms(project)
    )


def find_leaks(project: Project, items: Iterable[Item], make: MachineOf = machine_of) -> Checked:
    """Step a recorded stream through two machines and compare the features of every event.

    Parameters
    ----------
    items : iterable
        The stream in time order, as of :func:`streaming.replay.read_source`.
    make : callable
        Makes a machine that has seen nothing.
    """
    alone, together = make(project), make(project)
    leaks: dict[str, Leak] = {}
    events = 0
    for batch in _batches(records_of(items, project.settings)):
        before = [found for record in batch for found in _predicted(alone, [record])]
        after = _predicted(together, batch)
        events += len(before)
        for one, other in zip(before, after, strict=True):
            for name, value in one.features.items():
                if other.features[name] != value and name not in leaks:
                    leaks[name] = Leak(name, one.id, one.time, value, other.features[name])
    return Checked(events, list(leaks.values()))


def _predicted(machine: Machine, records: list[RawRecord]) -> list[Predicted]:
    return [output for output in machine.process(records) if isinstance(output, Predicted)]


def _batches(records: Iterator[RawRecord]) -> Iterator[list[RawRecord]]:
    while batch := list(islice(records, BATCH)):
        yield batch
