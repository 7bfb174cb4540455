from __future__ import annotations

import json

import pytest
from stream_lab import EVENTS, START, FakeChampion, event, make_machine, make_project, raw

from streaming.memory_broker import MemoryBroker
from streaming.messages import dead_letter_message, prediction_message
from streaming.transport import RawRecord


def test_a_prediction_is_keyed_by_its_event_and_carries_every_expert(tmp_path):
    machine = make_machine(make_project(tmp_path, online=["prior"]))
    machine.swap(FakeChampion(3, lambda row: 0.25))
    (predicted,) = machine.process([event(4, "ä-7", START)])
    message = prediction_message(predicted, "out")
    assert (message.topic, message.key, message.timestamp, message.partition) == ("out", "ä-7".encode(), START, 0)
    content = json.loads(message.value)
    assert content == {
        "id": "ä-7",
        "time": "2023-11-14T22:13:20Z",
        "prediction": predicted.served,
        "experts": {"champion": 0.25, "prior": 0.5},
        "champion_version": 3,
    }


def test_before_anybody_can_predict_it_says_so(tmp_path):
    machine = make_machine(make_project(tmp_path, "regression", online=["prior"]))
    (predicted,) = machine.process([event(0, "a", START)])
    content = json.loads(prediction_message(predicted, "out").value)
    assert (content["prediction"], content["experts"], content["champion_version"]) == (None, {}, None)


def test_a_dead_letter_is_raw_and_says_where_it_came_from(tmp_path):
    machine = make_machine(make_project(tmp_path))
    record = RawRecord(EVENTS, 0, 17, START, b"k", b'{"id": "\xff', (("trace", b"1"),))
    (letter,) = machine.process([record])
    message = dead_letter_message(letter, "dead")
    assert (message.key, message.value, message.timestamp, message.partition) == (b"k", record.value, START, None)
    headers = dict(message.headers)
    assert headers.pop("headrace-detail")
    assert headers == {
        "trace": b"1",
        "headrace-reason": b"malformed",
        "headrace-topic": EVENTS.encode(),
        "headrace-partition": b"0",
        "headrace-offset": b"17",
        "headrace-timestamp": str(START).encode(),
    }


@pytest.mark.parametrize("value", [None, b"", b"x" * 10])
@pytest.mark.parametrize("key", [None, b"k"])
@pytest.mark.parametrize("stamp", [START, -1, 2**62])
def test_every_dead_letter_can_be_sent(tmp_path, key, value, stamp):
    machine = make_machine(make_project(tmp_path))
    (letter,) = machine.process([RawRecord(EVENTS, 0, 0, stamp, key, value)])
    message = dead_letter_message(letter, "dead")
    assert message.key is not None or message.value is not None, "kafka-python refuses neither key nor value"
    assert message.timestamp is None or message.timestamp == START
    broker = MemoryBroker()
    broker.create_topics({"dead": 1})
    broker.append(message)
    assert dict(broker.records("dead")[0].headers)["headrace-timestamp"] == str(stamp).encode()


def test_a_detail_stays_short(tmp_path):
    machine = make_machine(make_project(tmp_path))
    (letter,) = machine.process([raw(EVENTS, 0, START, {"id": "a", "at": "z" * 9000})])
    assert sum(len(value) for _, value in dead_letter_message(letter, "dead").headers) < 1000
