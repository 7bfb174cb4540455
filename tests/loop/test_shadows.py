"""The whole loop in one process: a challenger earns its place or is dropped, and a regression is taken back."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

import numpy as np
import pyarrow.compute as pc
import pytest
from loop_lab import Loop, make_loop_project

from core.audit import Ledger
from core.durations import HOUR
from core.models import CHALLENGER, CHAMPION, PREVIOUS
from core.registry import Registry
from core.store import TableStore
from core.tables import EXAMPLES, PREDICTIONS, milliseconds
from flows import training
from flows.fitting import fit
from streaming.memory_broker import MemoryBroker

ONE_MORE = {"bootstrap_after": "12h", "every": None, "duration": "30m", "min_examples": 100, "growth": 1.5}
BATCH = {"trials": 1, "candidates": ["linear"], "holdout": "4h", "max_rows": 520}
DRIFT = {"min_rows": 50, "cooldown": "6h"}


def replayed(folder, monkeypatch, refits, *, shadow=True, events=1_230, **promotion):
    """Replay a stream on which the batch model is fitted twice, with online experts that do not learn the signal.

    Each time it is fitted to be judged, and then again: `refits` says how, by the number of the fit.
    """
    rules = {"shadow": shadow, "block": "1h", **promotion}
    project = make_loop_project(
        folder,
        "binary",
        events=events,
        online=["prior", "no_change"],
        promotion=rules,
        retrain={**ONE_MORE, "on_drift": False},
        batch=BATCH,
        drift=DRIFT,
    )
    calls = []

    def fitted(project, candidate, rows):
        calls.append(rows)
        refit = refits.get(len(calls))
        return fit(project, candidate, rows) if refit is None else refit(project, candidate, calls)

    monkeypatch.setattr(training, "fit", fitted)
    Loop(project, MemoryBroker()).replay()
    return project, Ledger(project.ledger).history()


def on_few_rows(project, candidate, calls):
    """A first champion that leaves much to gain."""
    return fit(project, candidate, calls[-1].take(np.arange(15)))


def as_champion(project, candidate, calls):
    """As the champion was fitted: it can gain nothing."""
    return fit(project, candidate, calls[1])


def on_flipped_labels(project, candidate, calls):
    """A fit that something went wrong with after the gates had seen it."""
    rows = calls[-1]
    return fit(project, candidate, replace(rows, outcomes=[1 - outcome for outcome in rows.outcomes]))


def on_labels_at_random(project, candidate, calls):
    """Likewise, and nothing can be made of what it says: what is turned round a second opinion turns back."""
    rows = calls[-1]
    drawn = np.random.default_rng(1).permutation(len(rows.outcomes))
    return fit(project, candidate, replace(rows, outcomes=[rows.outcomes[at] for at in drawn]))


def moves(history):
    kinds = ("challenge", "withdrawal", "promotion", "trust", "rollback")
    return [(record.kind, record.body["version"]) for record in history if record.kind in kinds]


def roles(project):
    """Who predicted as what, in the order of the stream."""
    names = ["champion_version", "challenger_version", "previous_version"]
    rows = TableStore(project.tables).read(PREDICTIONS, columns=["clock", *names]).sort_by("clock")
    found = zip(*(rows[name].to_pylist() for name in names), strict=True)
    return [who for who, _ in groupby(found)]


@pytest.mark.slow
def test_a_better_challenger_is_promoted_by_its_shadow(tmp_path, monkeypatch):
    project, history = replayed(tmp_path / "p", monkeypatch, {2: on_few_rows})
    assert moves(history)[:3] == [("promotion", 1), ("challenge", 2), ("promotion", 2)]
    assert roles(project)[:4] == [(None, None, None), (1, None, None), (1, 2, None), (2, None, 1)]
    promotion = [record.body for record in history if record.kind == "promotion"][1]
    assert promotion["approved"]["by"] == "shadow"
    assert promotion["verdict"]["conclusion"] == "superior"
    assert promotion["evidence"]["challenge"] == "2"
    rows = TableStore(project.tables).read(PREDICTIONS, columns=["clock", "champion_version"])
    served = milliseconds(rows["clock"].filter(pc.equal(rows["champion_version"], 2)))
    assert served.min() >= promotion["effective_at"] == promotion["serves_from"]
    assert promotion["effective_at"] % HOUR == 0
    fitted = [record.body for record in history if record.kind == "retraining"][1]
    assert fitted["judged"]["rows_digest"] != fitted["recipe"]["rows_digest"]
    assert Ledger(project.ledger).requests()[1].status == "shadowing"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("refit", "conclusions"), [(as_champion, ["futile", "spent"]), (on_labels_at_random, ["inferior"])]
)
def test_a_useless_challenger_is_dropped_and_nobody_served_it(tmp_path, monkeypatch, refit, conclusions):
    project, history = replayed(tmp_path / "p", monkeypatch, {4: refit}, max_labels=400)
    assert moves(history)[:3] == [("promotion", 1), ("challenge", 2), ("withdrawal", 2)]
    ended = next(record.body for record in history if record.kind == "withdrawal")
    assert ended["verdict"]["conclusion"] in conclusions
    assert roles(project)[:3] == [(None, None, None), (1, None, None), (1, 2, None)]
    assert {champion for champion, *_ in roles(project)} == {None, 1}
    aliases = Registry(project).aliases()
    assert 2 not in (aliases[CHAMPION], aliases.get(CHALLENGER))


@pytest.mark.slow
def test_a_regression_after_a_promotion_is_rolled_back_with_an_alert(tmp_path, monkeypatch):
    project, history = replayed(tmp_path / "p", monkeypatch, {4: on_flipped_labels}, shadow=False, events=1_020)
    assert moves(history) == [("promotion", 1), ("promotion", 2), ("rollback", 1)]
    back = next(record for record in history if record.kind == "rollback")
    assert (back.body["approved"]["by"], back.body["verdict"]["conclusion"]) == ("watch", "superior")
    alert = next(record for record in history if record.kind == "alert" and record.key.startswith("rollback"))
    assert "rolled back" in alert.body["reasons"][0]
    assert roles(project) == [(None, None, None), (1, None, None), (2, None, 1), (1, None, None)]
    aliases = Registry(project).aliases()
    assert (aliases[CHAMPION], aliases[PREVIOUS]) == (1, 2)
    rows = TableStore(project.tables).read(EXAMPLES, columns=["champion_version", "label_clock"])
    labels = milliseconds(rows["label_clock"].filter(pc.equal(rows["champion_version"], 2)))
    known = int((labels < back.body["effective_at"]).sum())
    print(f"rolled back after {known} labels, {back.body['verdict']['rows']} of them in blocks that had ended")
    assert known < 500


@pytest.mark.slow
def test_two_replays_with_shadows_give_the_same_rows_to_the_bit(tmp_path, monkeypatch):
    found = []
    for run in ("one", "two"):
        project, history = replayed(tmp_path / run, monkeypatch, {2: on_few_rows}, events=1_000)
        rows = TableStore(project.tables).read(EXAMPLES).sort_by("id").to_pylist()
        found.append((rows, [(r.kind, r.key, r.event_time, r.body.get("verdict")) for r in history]))
    assert found[0] == found[1]
    assert any(row["challenger_version"] == 2 for row in found[0][0])
