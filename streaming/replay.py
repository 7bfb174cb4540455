"""``headrace replay``: publish a recorded stream in the order of its own times.

The project names a function (``replay.source``) that yields ``(time_ms, kind, id, payload)``, kind being
``"event"`` or ``"label"``, in time order. Each record gets its own time as Kafka time stamp.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from core.durations import DAY, EARLIEST, LATEST
from core.errors import HeadraceError, SourceError
from core.project import Project
from core.settings import Settings
from streaming.ordering import CLOCK_HEADER
from streaming.recorded_file import read_file
from streaming.transport import OutRecord, Producer

Item = tuple[int, str, str, Any]
_REPORT_EVERY_S = 1.0
_encoder = msgspec.json.Encoder()


@dataclass
class Published:
    """How far a replay is: records of each kind, and the time of the last one, ms."""

    events: int = 0
    labels: int = 0
    time: int = 0


SayTime = Callable[[int], None]


class Pace(Protocol):
    """Decides when the next record may be published."""

    def wait_for(self, item_time: int, say_time: SayTime) -> None:
        """Return when a record of `item_time`, ms, may go; `say_time` publishes how far time has come."""

    def finish(self, last_time: int, say_time: SayTime) -> None:
        """Return when all is done that follows from the records published."""


class RealPace:
    """Event time passes `speed` times as fast as the clock on the wall; None is as fast as possible."""

    def __init__(self, speed: float | None, stop: threading.Event) -> None:
        self._speed = speed
        self._stop = stop
        self._start: tuple[float, int] | None = None

    def wait_for(self, item_time: int, say_time: SayTime) -> None:
        """Sleep until `item_time`, ms, is due."""
        if self._speed is None:
            return
        if self._start is None:
            self._start = (time.monotonic(), item_time)
        began, first = self._start
        pause = began + (item_time - first) / 1000 / self._speed - time.monotonic()
        if pause > 0:
            self._stop.wait(pause)

    def finish(self, last_time: int, say_time: SayTime) -> None:
        """Say that the time after the last record has been reached, so that nothing waits for more."""
        say_time(last_time + 1)


def source_name(project: Project) -> str:
    """Return the function or the file that the project names as its recorded stream.

    Raises
    ------
    SourceError
        If it names none.
    """
    replay = project.settings.replay
    if replay is None:
        raise SourceError(
            f"{project.folder}: headrace.yaml names no recorded stream; add 'replay: {{source: file.py:function}}' or "
            "'replay: {file: data.csv}'"
        )
    return replay.source or str(replay.file)


def read_source(
    project: Project,
    days: float | None,
    resume_after: int | None = None,
    change: Callable[[Iterable[Item]], Iterable[Item]] = lambda items: items,
) -> Iterator[Item]:
    """Yield the project's recorded stream, its first `days` days, in time order.

    Parameters
    ----------
    days : float, optional
        All if left out.
    resume_after : int, optional
        Leave out what lies before this time, ms.
    change : callable, optional
        Returns the stream with something injected (:func:`streaming.injection.inject`); it is given all of those days.

    Raises
    ------
    SourceError
        If no source is named, or it yields something else than promised.
    """
    for item in change(_first_days(project, days)):
        if resume_after is None or item[0] >= resume_after:
            yield item


def _first_days(project: Project, days: float | None) -> Iterator[Item]:
    reference = source_name(project)
    end: float | None = None
    last = -1
    from_file = project.settings.replay is not None and project.settings.replay.file is not None
    items = read_file(project) if from_file else _items(project.load_function(reference), reference)
    for item in items:
        item_time = _checked(item, last, reference)
        last = item_time
        end = (item_time + days * DAY if days is not None else float("inf")) if end is None else end
        if item_time >= end:
            return
        yield item


def publish(
    items: Iterable[Item],
    settings: Settings,
    producer: Producer,
    partitions: int,
    pace: Pace,
    stop: threading.Event,
    report: Callable[[Published], None] = lambda published: None,
) -> Published:
    """Publish `items` at the given pace until they end or `stop` is set.

    Raises
    ------
    BrokerError
        If the broker does not take them.
    """
    published = Published()
    topics = {"event": settings.events_topic, "label": settings.labels_topic}
    reported = time.monotonic()

    def say_time(reached: int) -> None:
        _say_time(reached, settings, producer, partitions)

    for item_time, kind, identifier, payload in items:
        pace.wait_for(item_time, say_time)
        if stop.is_set():
            break
        value = encode_payload(payload, identifier)
        producer.send(OutRecord(topics[kind], identifier.encode(), value, item_time))
        published.events += kind == "event"
        published.labels += kind == "label"
        published.time = item_time
        if time.monotonic() - reported > _REPORT_EVERY_S:
            reported = time.monotonic()
            report(published)
    producer.flush()
    if not stop.is_set():
        pace.finish(published.time, say_time)
    report(published)
    return published


def encode_payload(payload: Any, identifier: str) -> bytes:
    """Return a payload as the value of a record; bytes stay as they are.

    Raises
    ------
    SourceError
        If it cannot be written as JSON.
    """
    if isinstance(payload, bytes):
        return payload
    try:
        return _encoder.encode(payload)
    except (TypeError, ValueError, RecursionError, UnicodeError) as error:
        raise SourceError(f"the payload of {identifier!r} cannot be written as JSON: {error}") from error


def _say_time(reached: int, settings: Settings, producer: Producer, partitions: int) -> None:
    """Publish a clock record to every input partition: all before `reached`, ms, has been published."""
    for topic in settings.input_topics:
        for partition in range(partitions):
            producer.send(OutRecord(topic, CLOCK_HEADER.encode(), None, reached, partition, ((CLOCK_HEADER, b"1"),)))
    producer.flush()


def _items(source: Callable[[], Iterable[Any]], reference: str) -> Iterator[Any]:
    """Yield what the project's source yields; whatever it raises is the user's to mend."""
    try:
        yield from source()
    except HeadraceError:
        raise
    except Exception as error:
        raise SourceError(f"{reference}: {type(error).__name__}: {error}") from error


def _checked(item: Any, last: int, reference: str) -> int:
    if not (isinstance(item, tuple) and len(item) == 4 and item[1] in ("event", "label") and isinstance(item[2], str)):
        raise SourceError(f"{reference}: must yield (time_ms, 'event' or 'label', id, payload), not {item!r:.200}")
    if not isinstance(item[0], int) or not EARLIEST <= item[0] <= LATEST:
        raise SourceError(f"{reference}: yields the time {item[0]!r}; it must be a whole number of milliseconds")
    if item[0] < last:
        raise SourceError(f"{reference}: yields {item[0]} after {last}; it must yield in time order")
    return int(item[0])
