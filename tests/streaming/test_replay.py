from __future__ import annotations

import threading

import pytest
from stream_lab import EVENTS, LABELS, START, make_project

from core.durations import DAY
from core.errors import SourceError
from streaming.memory_broker import MemoryBroker
from streaming.ordering import is_clock
from streaming.replay import Published, RealPace, publish, read_source

GOOD = [(START, "event", "a", {"id": "a"}), (START, "label", "a", b"raw"), (START + DAY, "event", "b", {"id": "b"})]


def project_of(folder, code: str):
    return make_project(folder, code=code, replay={"source": "code.py:stream"})


def yielding(folder, *items):
    return project_of(folder, f"def stream():\n    yield from {list(items)!r}\n")


def broker(partitions=1):
    made = MemoryBroker()
    made.create_topics({EVENTS: partitions, LABELS: partitions})
    return made


def test_it_publishes_in_order_with_each_records_own_time(tmp_path):
    project, to, reports = yielding(tmp_path, *GOOD), broker(), []
    stop = threading.Event()
    done = publish(
        read_source(project, None), project.settings, to.producer(), 1, RealPace(None, stop), stop, reports.append
    )
    assert done == Published(2, 1, START + DAY)
    assert reports[-1] == done
    assert [(r.timestamp, r.key, r.value) for r in to.records(LABELS) if not is_clock(r)] == [(START, b"a", b"raw")]
    assert [r.value for r in to.records(EVENTS) if not is_clock(r)] == [b'{"id":"a"}', b'{"id":"b"}']


def test_at_its_end_every_partition_hears_that_time_has_passed(tmp_path):
    project, to, stop = yielding(tmp_path, *GOOD), broker(2), threading.Event()
    publish(read_source(project, None), project.settings, to.producer(), 2, RealPace(None, stop), stop)
    clocks = [r for topic in (EVENTS, LABELS) for r in to.records(topic) if is_clock(r)]
    assert [(r.topic, r.partition, r.timestamp) for r in clocks] == [
        (topic, partition, START + DAY + 1) for topic in (EVENTS, LABELS) for partition in (0, 1)
    ]
    assert all(r.key for r in clocks)


def test_when_stopped_it_ends_without_a_word_about_time(tmp_path):
    project, to, stop = yielding(tmp_path, *GOOD), broker(), threading.Event()

    class StopAtSecond(RealPace):
        def wait_for(self, item_time, say_time):
            if to.records(EVENTS):
                stop.set()

    done = publish(read_source(project, None), project.settings, to.producer(), 1, StopAtSecond(None, stop), stop)
    assert done == Published(1, 0, START)
    assert len(to.records(EVENTS)) + len(to.records(LABELS)) == 1


def test_only_the_first_days_or_what_is_left(tmp_path):
    project = yielding(tmp_path, *GOOD)
    assert len(list(read_source(project, 1))) == 2
    assert len(list(read_source(project, 1.5))) == 3
    assert [item[2] for item in read_source(project, None, resume_after=START + 1)] == ["b"]
    assert list(read_source(project, 1, resume_after=START + 1)) == []


def test_speed_is_event_seconds_a_second(monkeypatch):
    waits, stop = [], threading.Event()
    monkeypatch.setattr(stop, "wait", waits.append)
    pace = RealPace(3600.0, stop)
    for moment in (0, 3_600_000, 36_000_000):
        pace.wait_for(moment, lambda reached: None)
    assert waits == [pytest.approx(1.0, abs=0.5), pytest.approx(10.0, abs=0.5)]


@pytest.mark.parametrize(
    "item",
    [
        (START, "event", "a"),
        [START, "event", "a", {}],
        None,
        (START, "evnt", "a", {}),
        (START, "event", 7, {}),
        (float(START), "event", "a", {}),
        ("2013", "event", "a", {}),
        (-5, "event", "a", {}),
        (10**18, "event", "a", {}),
        (START - 1, "event", "a", {}),
    ],
)
def test_a_source_that_yields_something_else_is_told_so(tmp_path, item):
    source = read_source(yielding(tmp_path, GOOD[0], item), None)
    assert next(source) == GOOD[0]
    with pytest.raises(SourceError, match=r"^code\.py:stream: ") as caught:
        next(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def stream():\n    import not_installed_at_all\n    yield 1\n", "not_installed_at_all"),
        (
            "def stream():\n    yield (0, 'event', 'a', {})\n    raise OSError('no such file: flights.csv')\n",
            "flights.csv",
        ),
        ("def stream():\n    return 5\n", "not iterable"),
        ("def stream(day):\n    yield 1\n", "day"),
    ],
)
def test_a_source_that_fails_is_told_in_one_line(tmp_path, code, said):
    with pytest.raises(SourceError, match=said) as caught:
        list(read_source(project_of(tmp_path, code), None))
    assert "\n" not in str(caught.value)


def test_a_payload_that_is_no_json_is_told(tmp_path):
    to, stop = broker(), threading.Event()
    items = [(START, "event", "a", {"x": object()})]
    with pytest.raises(SourceError, match="payload of 'a'"):
        publish(items, make_project(tmp_path).settings, to.producer(), 1, RealPace(None, stop), stop)


def test_without_a_source_it_says_what_to_add(tmp_path):
    with pytest.raises(SourceError, match=r"add 'replay: \{source:"):
        list(read_source(make_project(tmp_path), None))
