"""The whole loop over personal values, then a search for them in everything that headrace has written."""

from __future__ import annotations

import base64
import gzip
import json
import logging
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from loop_lab import Loop, make_loop_project

from core.audit import Ledger
from core.store import TableStore
from core.tables import EXAMPLES, PREDICTIONS
from headrace import cli
from monitoring.reference import load_reference
from streaming.memory_broker import MemoryBroker
from streaming.transport import OutRecord

MARK = "Zq7xMarkerK93wV"
START = 1_700_006_400_000
_FEATURES = """
def features(fields):
    if fields["x"] > 2.5:
        raise ValueError(f"cannot do {fields}")
    return {"x": fields["x"], "hub": fields["hub"], "mail": fields["mail"], "said": fields["said"]}
"""
_SOURCE = """
from plain import stream as plain

MARK = "MARKER"


def stream():
    for number, (time, kind, identifier, payload) in enumerate(plain()):
        name = f"{MARK}-{identifier}"
        payload = {**payload, "id": name}
        if kind == "event":
            payload |= {"who": {"mail": f"{MARK}-{number % 5}"}, "said": f"{MARK} says", "note": f"{MARK} note"}
            payload["more"] = MARK
            if number % 50 == 7:
                payload["x"] = {"was": MARK}
            if number % 50 == 17:
                payload["who"] = MARK
            if number % 50 == 27:
                payload["said"] = {MARK: MARK}
            if number % 50 == 37:
                payload["at"] = None
        elif number % 50 == 9:
            payload |= {"y": 7, "who": {"mail": MARK}}
        yield time, kind, name, payload
"""
FIELDS = {
    "x": "number",
    "hub": {"type": "category", "path": "where.hub"},
    "mail": {"type": "category", "path": "who.mail", "pii": "hash"},
    "said": {"type": "text", "pii": "hash"},
    "note": {"type": "text", "pii": "drop"},
}
OUTPUTS = {"x": "number", "hub": "category", "mail": "category", "said": "text"}
BAD = [
    b'{"id": "' + MARK.encode(),
    b"\xff" + MARK.encode(),
    MARK.encode("utf-16"),
    b'["' + MARK.encode() + b'"]',
    b'{"id": "a", "id": "' + MARK.encode() + b'"}',
    b'{"' + MARK.encode() + b'": NaN}',
    b"{" * 500 + MARK.encode(),
]


def make(folder: Path, monkeypatch, *, personal: bool):
    monkeypatch.setenv("HEADRACE_PII_KEY", "the key of a test, of some length")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("HEADRACE_STATE", str(folder / "state"))
    fields = FIELDS
    if not personal:
        fields = {
            name: {k: v for k, v in f.items() if k != "pii"} if isinstance(f, dict) else f for name, f in FIELDS.items()
        }
    project = make_loop_project(
        folder,
        "binary",
        events=700,
        turns_at=450,
        fields=fields,
        features={"function": "features.py:features", "outputs": OUTPUTS},
        privacy={"id": "hash"} if personal else {},
    )
    (folder / "source.py").rename(folder / "plain.py")
    (folder / "source.py").write_text(_SOURCE.replace("MARKER", MARK))
    (folder / "features.py").write_text(_FEATURES)
    return project


def run(project) -> MemoryBroker:
    broker, settings = MemoryBroker(), project.settings
    broker.create_topics(dict.fromkeys(settings.input_topics, 1))
    for topic in settings.input_topics:
        for value in BAD:
            header = (("trace", MARK.encode()),)
            broker.append(OutRecord(topic, MARK.encode(), value, START, 0, header))
    Loop(project, broker).replay()
    return broker


def forms(text: str) -> list[bytes]:
    """The ways in which a text may be written: plain, UTF-16, hexadecimal, base64 at each of its three beginnings."""
    plain = text.encode()
    found = [plain, plain.lower(), text.encode("utf-16-le"), text.encode("utf-16-be"), plain.hex().encode()]
    for skipped in range(3):
        encoded = base64.b64encode(b"\0" * skipped + plain)
        found.append(encoded[4 if skipped else 0 : len(plain) * 4 // 3 - 2])
    return found


def contents(path: Path) -> Iterator[bytes]:
    """Everything that a file holds: its bytes, and what is packed in it."""
    raw = path.read_bytes()
    yield raw
    if path.suffix == ".parquet":
        yield repr(pq.ParquetFile(path).read().to_pydict()).encode()
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist())
    elif raw[:2] == b"\x1f\x8b":
        yield gzip.decompress(raw)
    elif raw[:1] == b"\x78":
        yield zlib.decompress(raw)


def found_in(project, broker: MemoryBroker, logs: str, mark: str = MARK) -> set[str]:
    """Where the marker is: of files the folder, of topics the name."""
    wanted, places = forms(mark), set()
    for path in project.state.rglob("*"):
        if path.is_file() and any(form in content for content in contents(path) for form in wanted):
            places.add(path.relative_to(project.state).parts[0])
        if mark in path.name:
            places.add(path.name)
    settings = project.settings
    for topic in (settings.predictions_topic, settings.dead_letters_topic, settings.journal_topic):
        for record in broker.records(topic):
            parts = [record.key or b"", record.value or b"", *(n.encode() + c for n, c in record.headers)]
            if any(form in part for part in parts for form in wanted):
                places.add(topic.rpartition(".")[2])
    if mark in logs:
        places.add("logs")
    return places


def erased(project, event_id: str) -> dict[str, int]:
    """Erase an id as a user does, and return how many rows of each table went."""
    asked = CliRunner().invoke(cli, ["erase", str(project.folder), "--id", event_id])
    assert asked.exit_code == 0, asked.output
    (record,) = Ledger(project.ledger).history("erasure")
    assert event_id not in asked.output + json.dumps(record.body)
    return record.body["rows"]


@pytest.mark.slow
def test_no_personal_value_is_anywhere_in_clear(tmp_path, monkeypatch, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    project = make(tmp_path / "p", monkeypatch, personal=True)

    broker = run(project)

    captured = capfd.readouterr()
    assert found_in(project, broker, caplog.text + captured.out + captured.err) == set()
    assert [r.kind for r in Ledger(project.ledger).history("promotion")], "a model was fitted, and served"
    assert list(project.reports.rglob("*.html")), "reports were written"
    store = TableStore(project.tables)
    rows = store.read(PREDICTIONS)
    assert rows.num_rows > 400
    assert len(set(rows["f_mail"].to_pylist())) == 5
    assert store.read(EXAMPLES).num_rows > 400, "labels found their events"
    reasons = [
        dict(record.headers)["headrace-reason"] for record in broker.records(project.settings.dead_letters_topic)
    ]
    assert erased(project, f"{MARK}-e437") == {"predictions": 1, "examples": 1, "corrections": 0, "events": 0}
    assert {b"malformed", b"wrong_type", b"duplicate_key", b"feature_error", b"bad_time", b"bad_label"} <= set(reasons)


@pytest.mark.slow
def test_the_search_would_have_found_it(tmp_path, monkeypatch, caplog):
    """The same without marks: else the test above could not fail."""
    project = make(tmp_path / "p", monkeypatch, personal=False)
    broker = run(project)
    assert {"tables", "checkpoints", "reports", "predictions", "dead-letters"} <= found_in(project, broker, caplog.text)
    shown = next(page for page in project.reports.glob("*.html") if f"{MARK}-e" in page.read_text())
    person = re.search(f"{MARK}-e[0-9]+", shown.read_text())[0]
    before = {path.name: path.read_bytes() for path in (project.state / "references").glob("*.parquet")}

    assert erased(project, person)["predictions"] == 1

    assert found_in(project, MemoryBroker(), "", f"{person}<") == set()  # in a page, the end of a cell
    assert found_in(project, MemoryBroker(), "", f"{person}'") == set()  # in a table's rows
    changed = [
        path.name for path in (project.state / "references").glob("*.parquet") if path.read_bytes() != before[path.name]
    ]
    content = Ledger(project.ledger).history("erasure")[0].body
    assert [f"{version}.parquet" for version in content["references"]] == changed
    for version in content["references"]:
        assert load_reference(project.state / "references", version).digest
    assert CliRunner().invoke(cli, ["erase", str(project.folder), "--id", "nobody"]).exit_code == 3


def test_each_form_of_a_text_is_known():
    for skipped in range(3):
        assert any(form in base64.b64encode(b"a" * skipped + MARK.encode() + b"bc") for form in forms(MARK))
