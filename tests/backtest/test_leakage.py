"""A planted future is caught; what the stream computes has none in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from backtest import leakage
from backtest.leakage import find_leaks, machine_of
from core.project import load_project
from core.records import Label
from headrace import cli
from streaming.machine import Machine
from streaming.replay import read_source

SOURCE = """
import random

def stream():
    draw, records = random.Random(3), []
    for number in range(900):
        shop, at = draw.choice("abcdefgh"), 1_700_000_000_000 + number * 1000
        records.append((at, "event", f"e{number}", {"id": f"e{number}", "at": at, "x": draw.random(), "shop": shop}))
        known = at + draw.randrange(1, 60) * 1000
        records.append((known, "label", f"e{number}", {"id": f"e{number}", "y": draw.random() < ord(shop) / 110 - 0.8}))
    yield from sorted(records, key=lambda record: record[0])
"""
PER_KEY = [
    {"name": "rate", "key": "shop", "kind": "label_mean", "half_life": "1h"},
    {"name": "n", "key": "shop", "kind": "count"},
    {"name": "before", "key": "shop", "kind": "last", "of": "x"},
]


@pytest.fixture
def project(tmp_path):
    content = {
        "name": "shops",
        "id": "id",
        "time": "at",
        "fields": {"x": "number", "shop": "category"},
        "label": {"path": "y", "horizon": "30s", "missing": False},
        "features": {"per_key": PER_KEY, "calendar": ["hour"], "interactions": [["shop", "event_hour"]]},
        "replay": {"source": "stream.py:stream"},
    }
    (tmp_path / "headrace.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    (tmp_path / "stream.py").write_text(SOURCE)
    return load_project(tmp_path, state=tmp_path / "state")


class Hasty(Machine):
    """Counts a label when its record is decoded: before the events of the same batch that came before it."""

    def prepare(self, records):
        prepared = super().prepare(records)
        for entry in prepared:
            content = entry.content
            if isinstance(content, Label) and (event := self.state.join.pending_event(content.id)) is not None:
                self.state.keyed.observe_label(event.keys, event.time, content.outcome)
        return prepared


def hasty(project):
    honest = machine_of(project)
    return Hasty(project.settings, honest._features, honest.state)


def test_no_feature_depends_on_what_comes_later(project):
    checked = find_leaks(project, read_source(project, None))
    assert (checked.events, checked.leaks) == (900, [])


def test_a_planted_future_value_is_caught(project):
    checked = find_leaks(project, read_source(project, None), hasty)
    assert [leak.feature for leak in checked.leaks] == ["rate"]
    assert checked.leaks[0].alone != checked.leaks[0].later


def test_a_feature_function_that_remembers_across_events_is_caught(project):
    code = "SEEN = []\ndef make(fields):\n    SEEN.append(1)\n    return {'x': fields['x'], 'seen': len(SEEN)}\n"
    (project.folder / "features.py").write_text(code)
    content = yaml.safe_load((project.folder / "headrace.yaml").read_text())
    content["features"] = {"function": "features.py:make", "outputs": {"x": "number", "seen": "number"}}
    (project.folder / "headrace.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    checked = find_leaks(load_project(project.folder), read_source(project, None))
    assert [leak.feature for leak in checked.leaks] == ["seen"]


def test_the_command_tells_by_its_exit_code(project, monkeypatch):
    command = ["check-features", str(project.folder), "--json"]
    done = CliRunner().invoke(cli, [*command, str(project.folder / "a.json")])
    assert (done.exit_code, json.loads((project.folder / "a.json").read_text())["leaks"]) == (0, [])
    with monkeypatch.context() as changed:
        changed.setattr(leakage.find_leaks, "__defaults__", (hasty,))
        done = CliRunner().invoke(cli, command[:2])
    assert done.exit_code == 3
    assert "rate" in done.output


def test_the_lineage_is_shown(project):
    done = CliRunner().invoke(cli, ["features", str(project.folder), "--json", "-"])
    found = {one["name"]: one for one in json.loads(done.stdout)["features"]}
    assert list(found) == ["x", "shop", "event_hour", "shop_x_event_hour", "rate", "n", "before"]
    assert found["rate"]["how"] == "mean of labels known by then, half-life 1h"
    assert found["before"]["of"] == ["shop", "x"]
    assert "rate" in CliRunner().invoke(cli, ["features", str(Path(project.folder))]).output
