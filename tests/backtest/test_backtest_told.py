"""What a backtest says of a stream that it cannot use, and of policies that it cannot compare."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from turning_stream import ROWS, invoke, run, write, write_times

from core.errors import SourceError, UsageError
from headrace import cli


def test_events_that_repeat_an_id_are_told(tmp_path):
    folder = write(tmp_path, id="number")
    lines = (folder / "rows.csv").read_text().splitlines()
    numbered = [f"{line},{row // 2}" for row, line in enumerate(lines[1:])]
    (folder / "rows.csv").write_text("\n".join([f"{lines[0]},number", *numbered]))
    result, output = run(folder, "never")
    assert (result["rows"]["events"], result["repeated"]["events"]) == (ROWS // 2, ROWS // 2)
    assert 0 < result["repeated"]["labels"] < ROWS // 2
    assert f"left out {ROWS // 2:,} events with the id of an earlier one; " in output
    assert "leave id out" in output
    assert f"({ROWS // 2:,} events with the id of an earlier one left out)" in (folder / "out.html").read_text()


def test_policies_that_never_got_a_champion_are_compared_by_what_they_served(tmp_path):
    result, output = run(write(tmp_path, retrain={"min_examples": 400_000}), "never,online-only")
    never, online = (result["policies"][name] for name in ("never", "online-only"))
    assert result["rows"]["common"] > 0.9 * ROWS
    assert never["log_loss"] == online["log_loss"] and "champion" not in never["log_loss"]
    assert "never got a champion" in output


def test_without_common_rows_it_is_said_why_nothing_is_compared(tmp_path, monkeypatch):
    monkeypatch.setattr("turning_stream.TURNS_AT", ROWS)
    folder = write(tmp_path, retrain={"min_examples": 3_400, "every": None, "growth": None})
    lines = (folder / "rows.csv").read_text().splitlines()
    (folder / "rows.csv").write_text("\n".join([*lines[:3_950], *(line[:-1] for line in lines[3_950:])]))
    result, output = run(folder, "never,online-only")
    assert result["policies"]["never"]["promoted"] == 1 and result["rows"]["common"] == 0
    assert "there is no row whose label came that every expert of every policy predicted. Take more" in output


def test_two_results_do_not_go_to_one_file(tmp_path):
    folder = write(tmp_path)
    ran = CliRunner().invoke(cli, ["backtest", str(folder), "--json", "out", "--html", "out"])
    assert isinstance(ran.exception, UsageError) and "name two files" in str(ran.exception)


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_a_result_does_not_overwrite_the_recorded_stream(tmp_path, option):
    folder = write(tmp_path)
    before = (folder / "rows.csv").read_bytes()
    ran = CliRunner().invoke(cli, ["backtest", str(folder), option, str(folder / "rows.csv")])
    assert isinstance(ran.exception, UsageError) and "is the recorded stream, and would be lost" in str(ran.exception)
    assert (folder / "rows.csv").read_bytes() == before


def test_json_on_standard_output_stands_there_alone(tmp_path):
    ran = CliRunner().invoke(cli, ["backtest", str(write(tmp_path)), "--policies", "online-only", "--json", "-"])
    assert ran.exit_code == 0
    assert json.loads(ran.stdout)["rows"]["events"] == ROWS
    assert "5,000 events from row 0 to row 4,999" in ran.stderr and "what it cost" in ran.stderr


def test_labels_that_come_too_late_are_told(tmp_path):
    label = {"path": "y", "horizon": "100 rows"}
    folder = write(tmp_path, label=label)
    after = [20 if row % 2 else 150 if row % 4 else 1_000 for row in range(ROWS)]
    result, output = run(write_times(folder, label_times=after), "online-only")
    assert result["rows"]["labels"] == ROWS // 2
    assert result["unjoined"] == {"late": ROWS // 4, "no_event": ROWS // 4}
    assert "not learned: 1,250 labels came later than label.horizon (" in output
    assert "1,250 labels had an id of no event that was remembered" in output


def test_where_no_window_has_rows_enough_it_is_said(tmp_path):
    _, output = run(write(tmp_path, drift={"min_rows": 600}), "never,online-only,a{drift.min_rows=400}")
    said = "never: no window was judged: the largest holds 500 events, drift.min_rows is 600; take longer windows"
    assert said in output and output.count("no window was judged") == 1


def test_a_stream_that_cannot_be_predicted_says_of_its_first_event_why(tmp_path):
    folder = write(tmp_path)
    (folder / "rows.csv").write_text("x,z,kind,y\n1,abc,a,1\n2,def,b,0\n")
    ran = invoke(folder, "never")
    assert isinstance(ran.exception, SourceError) and ran.exception.exit_code == 2
    said = str(ran.exception)
    assert "2 x wrong_type; the first, '0': " in said and said.endswith("at `$.z`: it is 'abc'")
    bounded = {"x": {"type": "number", "minimum": 5}, "z": "number", "kind": "category"}
    (write(folder, fields=bounded) / "rows.csv").write_text("x,z,kind,y\n1,2,a,1\n")
    assert "'0': x: 1.0 is not between 5 and " in str(invoke(folder, "never").exception)


def test_a_stream_without_a_usable_label_says_of_the_first_why(tmp_path):
    folder = write(tmp_path)
    (folder / "rows.csv").write_text("x,z,kind,y\n" + "1,2,a,fraud\n" * 50)
    said = str(invoke(folder, "never").exception)
    assert "no event of the recorded stream has a label that could be learned; 50 x bad_label; the first, '0': " in said


def test_what_was_refused_says_nothing_personal(tmp_path):
    folder = write(tmp_path, fields={"x": "number", "z": "number", "kind": {"type": "category", "pii": "drop"}})
    (folder / "rows.csv").write_text("x,z,kind,y\n" + "1,2,a,fraud\n" * 50)
    assert str(invoke(folder, "never").exception).endswith("could be learned; 50 x bad_label")


def test_one_bad_label_costs_one_label(tmp_path):
    folder = write(tmp_path)
    lines = (folder / "rows.csv").read_text().splitlines()
    lines[3_000] = lines[3_000][:-1] + "maybe"
    (folder / "rows.csv").write_text("\n".join(lines))
    result, output = run(folder, "never")
    assert (result["rows"]["events"], result["rows"]["labels"]) == (ROWS, ROWS - 1)
    assert result["policies"]["never"]["promoted"] == 1
    assert "never got a champion" not in output
    assert result["refused"] == {"bad_label": 1}
    assert "refused 1 records: 1 x bad_label; the first, '2999': " in output
    assert f"{ROWS - 1:,} labels (1 record could not be used)" in (folder / "out.html").read_text()


def test_why_a_policy_never_got_a_champion_is_said(tmp_path):
    folder = write(tmp_path)
    lines = (folder / "rows.csv").read_text().splitlines()
    (folder / "rows.csv").write_text("\n".join([lines[0], *(line[:-1] + "1" for line in lines[1:])]))
    _, output = run(folder, "never,online-only,drift")
    said = [line.split() for line in output.splitlines() if "never got a champion" in line]
    assert [line[0] for line in said] == ["never", "drift"]
    why = "never got a champion: every label is 1: there is nothing to learn"
    assert all(why in " ".join(line[1:]) for line in said)
