"""One specification for both places: a folder, and an object store by pyarrow's interface."""

from __future__ import annotations

import re

import pytest
from pyarrow import fs
from stream_lab import as_raw, easy_stream, make_machine, make_project

from core.errors import SettingsError, StoreError
from core.store import TableStore
from streaming.checkpoint import Checkpoints, Snapshot
from streaming.phases import Phases
from streaming.state_store import Folder, ObjectStore, open_store
from streaming.table_writer import TableWriter


@pytest.fixture(params=["folder", "object store"])
def store(request, tmp_path):
    if request.param == "folder":
        return Folder(tmp_path / "kept", Phases())
    (tmp_path / "kept").mkdir()
    return ObjectStore(fs.LocalFileSystem(), str(tmp_path / "kept"), Phases())


def test_what_is_written_is_there_under_its_name(store):
    assert store.names("a") == []
    store.write("a.1.x", b"one")
    store.write("a.2.x", b"two")
    store.write("b.1.x", b"three")
    store.write("a.1.x", b"again")
    assert sorted(store.names("a.")) == ["a.1.x", "a.2.x"]
    assert [store.read(name) for name in ("a.1.x", "a.2.x", "b.1.x")] == [b"again", b"two", b"three"]
    assert store.where("a.1.x").endswith("/kept/a.1.x")


def test_what_is_removed_or_renamed_is_not(store):
    store.write("a.1.x", b"one")
    store.write("a.2.x", b"two")
    store.rename("a.1.x", "a.1.refused")
    store.remove("a.2.x")
    store.remove("a.2.x")
    assert store.names("a") == ["a.1.refused"]
    assert store.read("a.1.refused") == b"one"


def test_an_object_store_that_fails_is_a_store_error(tmp_path):
    store = ObjectStore(fs.LocalFileSystem(), str(tmp_path / "nowhere"), Phases())
    for attempt in (lambda: store.read("a"), lambda: store.write("a", b""), lambda: store.rename("a", "b")):
        with pytest.raises(StoreError, match="nowhere/a: the object store"):
            attempt()
    with pytest.raises(StoreError, match="such://bucket"):
        open_store("such://bucket", Phases())


def test_every_part_of_a_write_is_a_phase(tmp_path):
    class Told(Phases):
        def enter(self, phase):
            told.append(phase)
            return super().enter(phase)

    told: list[str] = []
    Folder(tmp_path, Told()).write("a", b"content")
    assert told == ["snapshot write", "snapshot fsync", "snapshot rename"]
    told.clear()
    ObjectStore(fs.LocalFileSystem(), str(tmp_path), Told()).write("b", b"content")
    assert told == ["snapshot write", "snapshot rename"]


@pytest.mark.parametrize("uri", ["shared", "file://{}/shared"])
def test_a_uri_moves_snapshots_and_tables_and_nothing_else(tmp_path, uri):
    project = make_project(tmp_path, online=["prior"], state={"uri": uri.format(tmp_path)})
    machine = make_machine(project)
    writer = TableWriter(TableStore(project.tables), project.settings, 0)
    writer.add(machine.process(as_raw(easy_stream("binary", 20))))
    writer.flush(machine.state.step)
    Checkpoints(project).save(0, Snapshot(machine.state, "c"))
    assert sorted(path.name for path in (tmp_path / "shared").iterdir()) == ["checkpoints", "tables"]
    assert [path.name for path in project.state.iterdir()] == ["state.key"]
    assert Checkpoints(project).load(0).state.step == machine.state.step


def test_an_object_store_keeps_its_uri(tmp_path):
    project = make_project(tmp_path, state={"uri": "s3://bucket/some/where/"})
    assert (project.tables, project.checkpoints) == (
        "s3://bucket/some/where/tables",
        "s3://bucket/some/where/checkpoints",
    )
    assert project.ledger.parent == project.state


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://host/path", "leads nowhere; give a folder, or one of file://, s3://"),
        ("s3:///path", "leads nowhere"),
        ("s3://bucket/path?endpoint_override=x", "in the environment"),
        ("s3://key:secret@bucket/path", "in the environment"),
    ],
)
def test_a_uri_that_cannot_be_used_is_refused_at_the_start(tmp_path, uri, said):
    with pytest.raises(SettingsError, match=re.escape("state.uri")) as caught:
        make_project(tmp_path, state={"uri": uri})
    assert said in str(caught.value)
