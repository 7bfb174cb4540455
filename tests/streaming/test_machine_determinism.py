"""The same records give the same bits: in any batches, in every process, and after a state was kept."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_lab import (
    MINUTE,
    TASKS,
    FakeChampion,
    as_raw,
    digest,
    easy_stream,
    make_machine,
    make_project,
)

from streaming.experts import build_experts
from streaming.machine import Machine

HOUR = 60 * MINUTE
PIECES = st.lists(st.integers(1, 40), min_size=1, max_size=20)


def run_in_pieces(machine: Machine, records, sizes):
    outputs, at, turn = [], 0, 0
    while at < len(records):
        size = sizes[turn % len(sizes)]
        outputs += machine.process(records[at : at + size])
        at, turn = at + size, turn + 1
    return outputs


def flaky(row):
    """A champion that fails, or answers nonsense, on some rows."""
    if row["x"] > 0.9:
        raise ArithmeticError
    return math.nan if row["x"] < -0.9 else 0.5 + 0.4 * row["x"]


@pytest.mark.parametrize("task", TASKS)
def test_the_same_records_give_the_same_bits_in_any_batches(tmp_path, task):
    project = make_project(tmp_path, task, online=["linear", "prior", "no_change"])
    records = as_raw(easy_stream(task, 120))
    answer = (lambda row: {"low": 0.2, "mid": 0.5, "high": flaky(row)}) if task == "multiclass" else flaky

    def run(sizes):
        machine = make_machine(project)
        machine.swap(FakeChampion(answer=answer))
        outputs = run_in_pieces(machine, records, sizes)
        return digest(machine.state), digest(outputs), machine.models.champion_failures

    expected = run([1])
    assert expected[2] > 0

    @settings(max_examples=8, deadline=None)
    @given(PIECES)
    def check(sizes):
        assert run(sizes) == expected

    check()


@pytest.mark.parametrize("expert", ["tree", "forest"])
def test_trees_are_deterministic_too(tmp_path, expert):
    project = make_project(tmp_path, online=[expert])
    records = as_raw(easy_stream("binary", 150))
    machines = [make_machine(project) for _ in range(2)]
    runs = [run_in_pieces(machine, records, [size]) for machine, size in zip(machines, (1, 64), strict=True)]
    assert digest(runs[0]) == digest(runs[1])
    assert digest(machines[0].state) == digest(machines[1].state)


@pytest.mark.parametrize("task", TASKS)
def test_a_state_that_was_kept_goes_on_as_if_nothing_had_happened(tmp_path, task):
    project = make_project(tmp_path, task, online=["linear", "tree", "prior", "no_change"])
    records = as_raw(easy_stream(task, 200))
    whole, first = make_machine(project), make_machine(project)
    expected = whole.process(records)[len(first.process(records[:170])) :]
    kept = pickle.loads(pickle.dumps(first.state))
    for expert, fresh in zip(kept.experts, build_experts(project), strict=True):
        expert.attach(fresh)
    second = Machine(project.settings, first._features, kept)
    assert digest(second.process(records[170:])) == digest(expected)
    assert digest(second.state) == digest(whole.state)


IN_A_PROCESS = """
import sys, tempfile, pickle, pathlib
sys.path[:0] = sys.argv[1:3]
from stream_lab import *
from streaming.machine import Machine
from streaming.join import Predicted
online = ["linear", "tree", "forest", "prior", "no_change"]
project = make_project(pathlib.Path(sys.argv[3]), "multiclass", online=online)
records, machine = as_raw(easy_stream("multiclass", 150)), make_machine(project)
outputs = machine.process(records[:170])
kept = pickle.loads(pickle.dumps(machine.state))
outputs += Machine(project.settings, machine._features, kept).process(records[170:])
print(digest([(o.predictions, o.served) for o in outputs if isinstance(o, Predicted)]))
"""


def test_the_same_bits_in_every_process_whatever_its_hash_seed(tmp_path):
    here = Path(__file__)
    command = [sys.executable, "-c", IN_A_PROCESS, str(here.parent), str(here.parents[2])]
    processes = [
        subprocess.Popen(
            [*command, str(tmp_path / seed)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        for seed in ("1", "12", "77")
    ]
    assert len({process.communicate(timeout=100)[0] for process in processes}) == 1
    assert [process.returncode for process in processes] == [0, 0, 0]


def test_the_digest_sees_a_single_bit(tmp_path):
    machine = make_machine(make_project(tmp_path))
    machine.process(as_raw(easy_stream("binary", 30)))
    before = digest(machine.state)
    assert digest(pickle.loads(pickle.dumps(machine.state))) == before
    weights = machine.state.blend._mixtures._now.weights
    weights[0, 0] = math.nextafter(weights[0, 0], 2)
    assert digest(machine.state) != before
