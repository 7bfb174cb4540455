"""``headrace dead-letters`` against the embedded broker."""

from __future__ import annotations

import json
import sys

import pytest

import headrace
from core.records import BadRecord
from streaming.embedded import EmbeddedBroker
from streaming.kafka_client import KafkaBroker
from streaming.messages import dead_letter_message
from streaming.outputs import DeadLetter
from streaming.transport import RawRecord, TopicPartition

PROJECT = "name: tiny\nid: id\ntime: t\nfields: {x: number}\nlabel: {path: y}\n"
STAMP = 1_700_000_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A project whose dead-letter topic has three letters, on a broker of its own."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "headrace.yaml").write_text(PROJECT)
    with EmbeddedBroker(folder / ".headrace") as process:
        broker = KafkaBroker(process.bootstrap_servers)
        broker.create_topics({"tiny.events": 1, "tiny.labels": 1, "tiny.dead-letters": 2})
        producer = broker.producer()
        for offset, (reason, value) in enumerate(
            [("malformed", b"\x1b[2J\xff"), ("wrong_type", b'{"id": "e1", "x": "1"}'), ("oversized_batch", None)]
        ):
            record = RawRecord("tiny.events", 0, offset, STAMP + offset, b"k", value)
            producer.send(
                dead_letter_message(DeadLetter(record, BadRecord("event", reason, "so\nit is")), "tiny.dead-letters")
            )
        producer.close()
        yield folder


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["headrace", "dead-letters", *arguments])
    with pytest.raises(SystemExit) as ended:
        headrace.main()
    return int(ended.value.code or 0)


def listed(monkeypatch, capsys, folder, *arguments: str) -> dict:
    assert run(monkeypatch, "list", str(folder), "--json", "-", *arguments) == 0
    return json.loads(capsys.readouterr().out)


def place_of(monkeypatch, capsys, folder, reason: str) -> str:
    return listed(monkeypatch, capsys, folder, "--reason", reason)["single"][0]["place"]


@pytest.mark.broker
def test_the_list_counts_by_reason_and_shows_single_letters(folder, monkeypatch, capsys):
    content = listed(monkeypatch, capsys, folder, "--limit", "2")
    assert content["letters"] == 3
    assert {row["reason"] for row in content["reasons"]} == {"malformed", "wrong_type", "oversized_batch"}
    assert [entry["offset"] for entry in content["single"]] == [1, 2]
    assert (content["single"][0]["id"], content["single"][0]["time"]) == ("e1", "2023-11-14T22:13:20.001Z")
    assert run(monkeypatch, "list", str(folder), "--reason", "malformed") == 0
    out = capsys.readouterr().out
    assert "malformed" in out
    assert "so\\nit is" in out


@pytest.mark.broker
def test_show_prints_bytes_safely_and_raw_on_demand(folder, monkeypatch, capsysbinary):
    monkeypatch.setattr(sys, "argv", ["headrace", "dead-letters", "list", str(folder), "--json", "-", "--limit", "9"])
    with pytest.raises(SystemExit):
        headrace.main()
    places = {entry["reason"]: entry["place"] for entry in json.loads(capsysbinary.readouterr().out)["single"]}
    assert run(monkeypatch, "show", str(folder), places["malformed"]) == 0
    out = capsysbinary.readouterr().out
    assert b"\x1b" not in out
    assert b"\\x1b[2J\\xff" in out
    assert run(monkeypatch, "show", str(folder), places["malformed"], "--raw") == 0
    assert capsysbinary.readouterr().out == b"\x1b[2J\xff"


@pytest.mark.broker
def test_a_letter_is_replayed_once(folder, monkeypatch, capsys):
    place = place_of(monkeypatch, capsys, folder, "wrong_type")
    for arguments, said in [
        ((place, "--dry-run"), "1 of 3 dead letters would be replayed"),
        ((place,), "1 of 3 dead letters replayed"),
        (("--reason", "wrong_type"), "0 of 3 dead letters replayed"),
        (("--reason", "oversized_batch"), "0 of 3 dead letters replayed"),
        ((), "1 of 3 dead letters replayed"),
        ((), "0 of 3 dead letters replayed"),
    ]:
        assert run(monkeypatch, "replay", str(folder), *arguments) == 0
        assert said in capsys.readouterr().out
    consumer = KafkaBroker(json.loads((folder / ".headrace/broker.json").read_text())["bootstrap_servers"]).consumer(
        "g"
    )
    consumer.assign({TopicPartition("tiny.events", 0): 0})
    found = []
    while len(found) < 2:
        found += consumer.poll(1_000, 10)
    consumer.close()
    assert [record.value for record in found] == [b'{"id": "e1", "x": "1"}', b"\x1b[2J\xff"]
    assert listed(monkeypatch, capsys, folder)["replayed"] == 2


@pytest.mark.broker
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "{folder}", "7"], "PARTITION:OFFSET"),
        (["show", "{folder}", "0:99"], "no dead letter at 0:99"),
        (["replay", "{folder}", "1:99"], "no dead letter at 1:99"),
        (["replay", "{folder}", "0:0", "--reason", "empty"], "not both"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(folder, monkeypatch, capsys, arguments, said):
    assert run(monkeypatch, *(argument.format(folder=folder) for argument in arguments)) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert len(error.splitlines()) == 1


@pytest.mark.broker
def test_nothing_there_is_said_and_no_failure(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "headrace.yaml").write_text(PROJECT.replace("tiny", "other"))
    address = json.loads((folder / ".headrace/broker.json").read_text())["bootstrap_servers"]
    assert run(monkeypatch, "list", str(tmp_path), "--bootstrap", address) == 0
    assert "no dead letters in other.dead-letters" in capsys.readouterr().out
    assert run(monkeypatch, "replay", str(tmp_path), "--bootstrap", address) == 0
    assert "0 of 0" in capsys.readouterr().out
