"""A recorded stream in a file: one row an event with its outcome."""

from __future__ import annotations

import gzip
import json
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import yaml

from core.durations import parse_iso
from core.errors import SettingsError, SourceError
from core.project import load_project
from core.recorded import FIRST_ROW
from core.records import BadRecord, Decoder, Event, Label
from streaming.replay import encode_payload, read_source

ROWS = "x,kind,y\n1.5,a,1\n,b,0\n-2,,1\n7,a,\n"


def project_of(folder, replay, **changes):
    content = {"name": "file", "fields": {"x": "number", "kind": "category"}, "label": "y", "replay": replay, **changes}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "headrace.yaml").write_text(yaml.safe_dump(content))
    return load_project(folder)


def decoded(project):
    """What the stream's records mean to a worker: (seconds since the first, event or label)."""
    decoder, first = Decoder(project.settings), None
    for time, kind, identifier, payload in read_source(project, None):
        first = time if first is None else first
        read = decoder.event if kind == "event" else decoder.label
        yield (time - first) // 1000, read(encode_payload(payload, identifier), time)


def test_without_id_and_time_rows_are_both_and_labels_come_after_their_delay(tmp_path):
    (tmp_path / "rows.csv").write_text(ROWS)
    project = project_of(tmp_path, {"file": "rows.csv", "label_delay": "2 rows"})
    found = list(decoded(project))
    events = [(at, e.id, e.fields) for at, e in found if isinstance(e, Event)]
    assert events == [
        (0, "0", {"x": 1.5, "kind": "a"}),
        (1, "1", {"x": None, "kind": "b"}),
        (2, "2", {"x": -2.0, "kind": None}),
        (3, "3", {"x": 7.0, "kind": "a"}),
    ]
    assert [(at, one.id, one.outcome) for at, one in found if isinstance(one, Label)] == [
        (2, "0", 1),
        (3, "1", 0),
        (4, "2", 1),
    ]
    kinds = ["event" if isinstance(one, Event) else "label" for _, one in found]
    assert kinds == ["event", "event", "event", "label", "event", "label", "label"]
    assert next(iter(read_source(project, None)))[0] == FIRST_ROW
    assert project.settings.label.horizon == 3_000
    assert project.settings.retrain.bootstrap_after == 2_006_000, "the search and the hold-out leave out late labels"


@pytest.mark.parametrize("times", [("2", "1", "soon", "4"), ("2020-01-02", "2020-01-01", "20200132", "2020-01-03")])
@pytest.mark.parametrize("column", ["at", "known"])
def test_a_bad_time_blames_its_own_row(tmp_path, times, column):
    cells = {"at": ("4", "3", "2", "1"), "known": ("5", "6", "7", "8")} | {column: times}
    rows = [",".join(["1.5", "a", str(row % 2), *(cells[name][row] for name in cells)]) for row in range(4)]
    (tmp_path / "rows.csv").write_text("\n".join(["x,kind,y,at,known", *rows]) + "\n")
    project = project_of(tmp_path, {"file": "rows.csv", "label_time": "known"}, time="at", time_unit="s")
    with pytest.raises(SourceError, match=f"row 2, counted from 0: {column} '{times[2]}' is no time"):
        list(read_source(project, None))


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz", "rows.parquet"])
def test_columns_for_id_time_and_label_time_are_used(tmp_path, name):
    table = pd.DataFrame(
        {
            "x": [1.0, 2.0],
            "kind": ["a", "b"],
            "y": [0, 1],
            "key": ["late", "early"],
            "at": ["2020-01-02T00:00:00Z", "2020-01-01T00:00:00Z"],
            "known": ["2020-01-02T06:00:00Z", "2020-01-03T00:00:00Z"],
        }
    )
    path = tmp_path / name
    table.to_parquet(path) if name.endswith("parquet") else path.write_bytes(
        gzip.compress(table.to_csv(index=False).encode()) if name.endswith("gz") else table.to_csv(index=False).encode()
    )
    project = project_of(tmp_path, {"file": name, "label_time": "known"}, id="key", time="at")
    found = [(time, kind, identifier) for time, kind, identifier, _ in read_source(project, None)]
    assert found == [
        (parse_iso("2020-01-01T00:00:00Z"), "event", "early"),
        (parse_iso("2020-01-02T00:00:00Z"), "event", "late"),
        (parse_iso("2020-01-02T06:00:00Z"), "label", "late"),
        (parse_iso("2020-01-03T00:00:00Z"), "label", "early"),
    ]
    assert all(isinstance(one, (Event, Label)) for _, one in decoded(project))


@pytest.mark.parametrize(
    ("task", "values", "expected"),
    [
        ("binary", ["1", "0"], [1, 0]),
        ("multiclass", ["5", "2"], ["5", "2"]),
        ("regression", ["1.5", "2"], [1.5, 2.0]),
    ],
)
def test_outcomes_are_read_for_each_task(tmp_path, task, values, expected):
    (tmp_path / "rows.csv").write_text("x,kind,y\n" + "".join(f"1,a,{value}\n" for value in values))
    project = project_of(tmp_path, {"file": "rows.csv"}, task=task)
    assert [one.outcome for _, one in decoded(project) if isinstance(one, Label)] == expected


def test_numbers_that_are_codes_are_categories(tmp_path):
    table = pd.DataFrame({"x": [1, 2], "kind": [3, 4], "y": [0, 1]})
    table.to_parquet(tmp_path / "rows.parquet")
    project = project_of(tmp_path, {"file": "rows.parquet"})
    assert [one.fields["kind"] for _, one in decoded(project) if isinstance(one, Event)] == ["3", "4"]


def test_a_column_that_is_not_there_is_said(tmp_path):
    (tmp_path / "rows.csv").write_text("x,y\n1,1\n")
    with pytest.raises(SourceError, match=r"has no column 'kind', which headrace.yaml names; it has x, y$"):
        list(read_source(project_of(tmp_path, {"file": "rows.csv"}), None))
    with pytest.raises(SourceError, match=r"has no column 'key' and none 'kind', which"):
        list(read_source(project_of(tmp_path, {"file": "rows.csv"}, id="key"), None))
    with pytest.raises(SourceError, match="cannot be read as a recorded stream"):
        list(read_source(project_of(tmp_path, {"file": "none.csv"}), None))


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_a_row_without_an_id_is_refused_by_itself(tmp_path, name):
    table = pd.DataFrame({"key": ["a", None, "c"], "x": [1.0, 2.0, 3.0], "kind": ["k", "k", "k"], "y": [0, 1, 1]})
    table.to_csv(tmp_path / name, index=False) if name.endswith("csv") else table.to_parquet(tmp_path / name)
    found = [one for _, one in decoded(project_of(tmp_path, {"file": name}, id="key"))]
    assert [(one.kind, one.reason) for one in found if isinstance(one, BadRecord)] == [
        ("event", "bad_id"),
        ("label", "bad_id"),
    ]
    assert [one.id for one in found if isinstance(one, Event)] == ["a", "c"]


def test_the_label_is_no_field(tmp_path):
    (tmp_path / "rows.csv").write_text("x,kind,y\n1,a,1\n")
    fields = {"x": "number", "was": {"type": "number", "path": "y"}}
    with pytest.raises(SourceError, match=r"'y' as the label and among the fields, .* take 'was' out of the fields"):
        list(read_source(project_of(tmp_path, {"file": "rows.csv"}, fields=fields), None))


def test_the_id_is_no_number(tmp_path):
    (tmp_path / "rows.csv").write_text("x,kind,y\n1,a,1\n")
    with pytest.raises(SourceError, match=r"'x' as the id, which is a text, and as the number 'x'; take 'x' out of"):
        list(read_source(project_of(tmp_path, {"file": "rows.csv"}, id="x"), None))
    assert list(read_source(project_of(tmp_path / "kind", {"file": "../rows.csv"}, id="kind"), None))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"x,y\n\x9f\xff,1\n", "is not text in UTF-8"),
        (b"x,y\n1,0\n2,1,5\n", "is not a table: Expected 2 fields in line 3, saw 3; give every line a cell"),
        (b"x,kind,y\n1,a,1,9\n2,b,0,9\n", "its lines have more cells than there are column names"),
    ],
)
def test_a_file_that_is_no_table_is_said(tmp_path, content, said):
    (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(SourceError, match=said):
        list(read_source(project_of(tmp_path, {"file": "rows.csv"}), None))


@pytest.mark.parametrize("ending", ["zip", "xz", "tar", "bz2"])
def test_a_damaged_archive_is_said(tmp_path, ending):
    (tmp_path / f"rows.csv.{ending}").write_bytes(b"nothing of the kind")
    with pytest.raises(SourceError, match="cannot be read as a recorded stream"):
        list(read_source(project_of(tmp_path, {"file": f"rows.csv.{ending}"}), None))


@pytest.mark.parametrize("ends", [",", ""])
def test_a_comma_behind_each_line_is_no_column(tmp_path, ends):
    lines = ["x,kind,y", f"1,a,1{ends}", f"2,b,0{ends}"]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    found = [one for _, one in decoded(project_of(tmp_path, {"file": "rows.csv"}))]
    assert [one.fields for one in found if isinstance(one, Event)] == [{"x": 1.0, "kind": "a"}, {"x": 2.0, "kind": "b"}]
    assert [one.outcome for one in found if isinstance(one, Label)] == [1, 0]


def test_a_parquet_file_is_read_whatever_types_pandas_gave_it(tmp_path):
    plain = pd.DataFrame(
        {
            "id": ["a", "b", "c", "d"],
            "n": [1, None, 3, 4],
            "price": [Decimal("1.25"), None, Decimal("2"), Decimal("3")],
            "flag": [True, None, False, True],
            "kind": ["a", None, "b", "a"],
            "raw": [b"a", b"b", None, b"c"],
            "y": [1, 0, None, 1],
        },
        index=pd.date_range("2024-05-01", periods=4, name="at"),
    )
    nullable = plain.convert_dtypes()
    nullable["kind"] = nullable["kind"].astype("category")
    fields = {"n": "number", "price": "number", "flag": "bool", "kind": "category", "raw": "category"}
    found = []
    for name, table in {"plain.parquet": plain, "nullable.pq": nullable, "nullable.parquet.gz": nullable}.items():
        table.sample(frac=1, random_state=1).to_parquet(tmp_path / name.removesuffix(".gz"))
        if name.endswith(".gz"):
            (tmp_path / name).write_bytes(gzip.compress((tmp_path / name.removesuffix(".gz")).read_bytes()))
        project = project_of(tmp_path, {"file": name}, fields=fields, time="at", id="id")
        found.append([one for _, one in decoded(project)])
    assert found[0] == found[1] == found[2]
    assert [one.fields for one in found[0] if isinstance(one, Event)] == [
        {"n": 1.0, "price": 1.25, "flag": True, "kind": "a", "raw": "a"},
        {"n": None, "price": None, "flag": None, "kind": None, "raw": "b"},
        {"n": 3.0, "price": 2.0, "flag": False, "kind": "b", "raw": None},
        {"n": 4.0, "price": 3.0, "flag": True, "kind": "a", "raw": "c"},
    ]
    labels = [(one.id, one.outcome) for one in found[0] if isinstance(one, Label)]
    assert labels == [("a", 1), ("b", 0), ("d", 1)]


def test_rows_are_no_unit_where_there_is_a_time(tmp_path):
    with pytest.raises(SettingsError, match="'500 rows' counts rows"):
        project_of(tmp_path, {"file": "rows.csv"}, id="key", time="at", windows={"span": "500 rows"})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"windows": {"span": "1d"}}, r"yaml:\d+: .*windows.span is '1d', but the file has no 'time'"),
        ({"drift": {"false_alarms": "1 per 90 days"}}, "drift.false_alarms is '1 per 90 days'"),
        ({"label": {"path": "y", "horizon": "2h"}}, "label.horizon is '2h'"),
        ({"replay": {"file": "rows.csv", "label_delay": "1d"}}, "replay.label_delay is '1d'.* write rows"),
    ],
)
def test_time_is_no_unit_where_rows_count(tmp_path, content, said):
    with pytest.raises(SettingsError, match=said):
        project_of(tmp_path, **{"replay": {"file": "rows.csv"}, **content})


def test_wall_clock_time_stays_time_where_rows_count(tmp_path):
    project = project_of(tmp_path, {"file": "rows.csv"}, retrain={"timeout": "5m"})
    assert project.settings.retrain.timeout == 300_000


def test_a_file_and_a_function_are_not_both_the_stream(tmp_path):
    with pytest.raises(SettingsError, match="either source or file"):
        project_of(tmp_path, {"file": "rows.csv", "source": "a.py:b"})


def test_what_a_file_may_leave_out_a_stream_may_not(tmp_path):
    (tmp_path / "headrace.yaml").write_text(json.dumps({"name": "a", "fields": {"x": "number"}, "label": "y"}))
    with pytest.raises(SettingsError, match="id: is missing"):
        load_project(tmp_path)


def test_a_column_named_as_a_path_is_where_the_path_says(tmp_path):
    (tmp_path / "rows.csv").write_text("who.id,at.x,at.kind,what.y\na,1.5,b,1\n")
    fields = {"x": {"type": "number", "path": "at.x"}, "kind": {"type": "category", "path": "at.kind"}}
    changes = {"fields": fields, "id": "who.id", "label": {"path": "what.y"}}
    (event, label) = (one for _, one in decoded(project_of(tmp_path, {"file": "rows.csv"}, **changes)))
    assert (event.id, event.fields) == ("a", {"x": 1.5, "kind": "b"})
    assert (label.id, label.outcome) == ("a", 1)


def test_a_bad_cell_costs_its_own_row_or_label_and_nothing_else(tmp_path):
    (tmp_path / "rows.csv").write_text(
        "x,kind,flag,y\n0.1,1,true,1\noops,2,false,0\n-2e3,3,maybe,maybe\n,4,,true\n7,5,1,\n1e400x,6,0,0\n3,7,FALSE,0\n"
    )
    fields = {"x": "number", "kind": "category", "flag": "bool"}
    found = [one for _, one in decoded(project_of(tmp_path, {"file": "rows.csv"}, fields=fields))]
    assert {one.id: (one.fields["x"], one.fields["flag"]) for one in found if isinstance(one, Event)} == {
        "0": (0.1, True),
        "3": (None, None),
        "4": (7.0, True),
        "6": (3.0, False),
    }
    assert [one.fields["kind"] for one in found if isinstance(one, Event)] == ["1", "4", "5", "7"]
    labels = [(one.id, one.outcome) for one in found if isinstance(one, Label)]
    assert labels == [("0", 1), ("1", 0), ("3", 1), ("5", 0), ("6", 0)]
    bad = sorted((one.kind, one.reason, one.detail) for one in found if isinstance(one, BadRecord))
    assert [one[:2] for one in bad] == [("event", "wrong_type")] * 3 + [("label", "bad_label")]
    assert all(field in detail for field, (*_, detail) in zip(["$.flag", "$.x", "$.x", "maybe"], bad, strict=True))


@pytest.mark.parametrize(
    ("rows", "others"), [(200, 0), (10_000, 80)]
)  # pandas reads a large file in parts, each with types of its own
def test_the_other_numbers_of_a_column_with_a_bad_cell_are_what_they_are_without_it(tmp_path, rows, others):
    numbers = np.random.default_rng(0).normal(size=rows).tolist()
    outcomes = [row % 7 for row in range(rows)]
    found = []
    for cell in (repr(numbers[150]), "n.a. yet"):
        lines = [f"{number!r},{outcome}" for number, outcome in zip(numbers, outcomes, strict=True)]
        lines[150] = f"{cell},{cell}"
        header, zeros = "x,y" + "".join(f",other{at}" for at in range(others)), ",0" * others
        (tmp_path / "rows.csv").write_text("\n".join([header, *(line + zeros for line in lines)]))
        if others and cell == "n.a. yet":
            with pytest.warns(pd.errors.DtypeWarning):
                pd.read_csv(tmp_path / "rows.csv")
        project = project_of(tmp_path, {"file": "rows.csv"}, task="regression", fields={"x": "number"})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found.append([(kind, identifier, *p.values()) for _, kind, identifier, p in read_source(project, None)])
    whole, marred = found
    assert whole[:300] + whole[302:] == marred[:300] + marred[302:]
    assert whole[300][-1] == numbers[150] and [item[-1] for item in marred[300:302]] == ["n.a. yet", "n.a. yet"]


def test_codes_of_outcomes_that_are_text_stay_text(tmp_path):
    (tmp_path / "rows.csv").write_text("x,kind,y\n1,a,1\n2,b,none\n")
    label = {"path": "y", "positive": "1", "negative": "none"}
    found = [one for _, one in decoded(project_of(tmp_path, {"file": "rows.csv"}, label=label))]
    assert [one.outcome for one in found if isinstance(one, Label)] == [1, 0]


@pytest.mark.parametrize("kept", [5, 40, -4])
def test_a_compressed_file_that_is_cut_off_is_said(tmp_path, kept):
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress((ROWS * 50).encode())[:kept])
    with pytest.raises(SourceError, match=r"rows.csv.gz: is cut off"):
        list(read_source(project_of(tmp_path, {"file": "rows.csv.gz"}), None))


def test_a_compressed_file_that_is_damaged_is_said(tmp_path):
    content = bytearray(gzip.compress((ROWS * 50).encode()))
    content[12:30] = b"\xff" * 18
    (tmp_path / "rows.csv.gz").write_bytes(content)
    with pytest.raises(SourceError, match=r"rows.csv.gz: cannot be read"):
        list(read_source(project_of(tmp_path, {"file": "rows.csv.gz"}), None))
