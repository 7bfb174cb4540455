"""The search: defaults first, reproducible, within its budget, and nothing of a fold's future in its training."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from flows_lab import examples, write_project
from hypothesis import given
from hypothesis import strategies as st

from core.errors import HeadraceError
from core.project import Project
from flows.candidates import defaults
from flows.examples import Examples, as_examples
from flows.fitting import fit
from flows.search import search
from flows.spaces import families
from flows.splits import folds, inner_split
from flows.study import Study
from flows.trials import described

OWN = '''
from sklearn.base import BaseEstimator, ClassifierMixin
import numpy as np

class Constant(ClassifierMixin, BaseEstimator):
    def __init__(self, chance=0.5):
        self.chance = chance
    def fit(self, frame, outcomes):
        self.classes_ = np.array([0, 1])
        return self
    def predict_proba(self, frame):
        return np.tile([1 - self.chance, self.chance], (len(frame), 1))

class Witness(Constant):
    """Fails where what it is asked about began before all that it was fitted on was known."""
    def fit(self, frame, outcomes):
        self.known_ = frame["n1"].max()
        return super().fit(frame, outcomes)
    def predict_proba(self, frame):
        if frame["n2"].min() <= self.known_:
            raise ValueError("the future was seen")
        return super().predict_proba(frame)

def constant(task, kinds, draw, *, chance=0.5):
    return Constant(chance)

def same(task, kinds, draw):
    return Constant()

def drawn(task, kinds, draw):
    return Constant(draw.uniform(0.2, 0.8))

def witness(task, kinds, draw):
    return Witness(draw.uniform(0.4, 0.6))
'''

SMALL = "{family: gradient_boosting, space: {max_iter: {low: 5, high: 20}, min_samples_leaf: {low: 5, high: 60}}}"
ALL = f"batch: {{trials: 3, candidates: [{SMALL}, linear, {{family: forest, params: {{n_estimators: 10}}}}]}}\n"
FEW = "histories: []"


def write(folder: Path, batch: str, task: str = "binary", rows: int = 600) -> tuple[Project, Examples]:
    """A project with a search of its own, and rows for it."""
    project = write_project(folder, task, batch)
    (folder / "models.py").write_text(OWN)
    return project, as_examples(examples(project, rows), project.settings)


def own(name: str, **batch: object) -> str:
    """The batch section with one function of the project."""
    return "batch: " + json.dumps({"candidates": [name], "histories": [], **batch}) + "\n"


def constants(low: float, high: float, **batch: object) -> str:
    entry = {"family": "models.py:constant", "space": {"chance": {"low": low, "high": high}}}
    return "batch: " + json.dumps({"candidates": [entry], "histories": [], **batch}) + "\n"


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_every_default_is_tried_the_best_is_no_worse_and_all_comes_again_the_same(tmp_path: Path, task: str):
    project, rows = write(tmp_path, ALL, task)
    found = search(project, rows)
    first = found.trials[:3]
    assert [trial.candidate for trial in first] == defaults(project)
    assert all(len(trial.folds) == 3 and trial.loss is not None for trial in first), "a default is never given up"
    assert found.best.loss == min(trial.loss for trial in found.trials if trial.loss is not None and trial.folds)
    assert len(found.trials) > 3
    assert [described(trial) for trial in search(project, rows).trials] == [described(trial) for trial in found.trials]


def test_another_seed_tries_other_settings(tmp_path: Path):
    project, rows = write(tmp_path / "a", "batch: {trials: 3, candidates: [linear]}\n")
    other, _ = write(tmp_path / "b", "batch: {trials: 3, candidates: [linear], seed: 5}\n")
    tried = [[trial.candidate.params for trial in search(one, rows).trials] for one in (project, other)]
    assert tried[0][0] == tried[1][0]
    assert tried[0][1] != tried[1][1]


def test_a_narrower_space_is_kept_to_and_fixed_parameters_stay(tmp_path: Path):
    entry = "{family: gradient_boosting, params: {max_iter: 7}, space: {max_leaf_nodes: {low: 2, high: 5}}}"
    project, rows = write(tmp_path, f"batch: {{trials: 5, candidates: [{entry}], {FEW}}}\n")
    tried = [trial.candidate.params for trial in search(project, rows).trials]
    assert len(tried) == 5
    assert tried[0]["max_leaf_nodes"] == 5, "the family's default is 31"
    assert tried[0]["learning_rate"] == 0.06
    assert all(params["max_iter"] == 7 and 2 <= params["max_leaf_nodes"] <= 5 for params in tried)
    assert len({params["learning_rate"] for params in tried}) == 5


def test_a_setting_is_not_tried_twice(tmp_path: Path):
    entry = "{family: linear, space: {strength: [1.0, 0.1]}, params: {min_frequency: 20}}"
    project, rows = write(tmp_path, f"batch: {{trials: 12, candidates: [{entry}], {FEW}}}\n")
    assert sorted(trial.candidate.params["strength"] for trial in search(project, rows).trials) == [0.1, 1.0]


def test_a_family_without_anything_to_vary_is_tried_once(tmp_path: Path):
    fixed = "{family: linear, params: {strength: 0.5, min_frequency: 20}}"
    project, rows = write(tmp_path, f"batch: {{trials: 4, candidates: [{fixed}, 'models.py:drawn'], {FEW}}}\n")
    names = [trial.candidate.family for trial in search(project, rows).trials]
    assert names == ["linear", *["models.py:drawn"] * 4]


def test_a_function_of_the_project_draws_by_itself_or_gets_what_the_file_varies(tmp_path: Path):
    project, rows = write(tmp_path / "a", own("models.py:drawn", trials=4))
    tried = search(project, rows).trials
    assert [trial.candidate.trial for trial in tried] == [0, 1, 2, 3]
    assert len({trial.folds[0] for trial in tried}) == 4, "each trial draws anew"
    project, rows = write(tmp_path / "b", constants(0.4, 0.9, trials=4))
    tried = search(project, rows).trials
    assert tried[0].candidate.params == {"chance": 0.5}, "the function's own default"
    assert fit(project, tried[1].candidate, rows).predict([{}]) == [tried[1].candidate.params["chance"]]


def test_what_is_given_up_is_recorded_with_the_reason(tmp_path: Path):
    project, rows = write(tmp_path, constants(0.5, 0.999, trials=12))
    found = search(project, rows)
    given_up = [described(trial) for trial in found.trials if trial.loss is None]
    assert given_up
    for entry in given_up:
        assert entry["reason"].startswith(f"given up after {len(entry['folds'])} of 3 folds: not among the better")
        assert 1 <= len(entry["folds"]) < 3
        assert entry["folds"][0] > found.best.folds[0]
    assert json.loads(json.dumps(given_up)) == given_up


class Clock:
    """Each look at it takes a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_the_seconds_end_the_search_but_never_before_every_default_was_tried(tmp_path: Path):
    project, rows = write(tmp_path / "a", ALL.replace("trials: 3", "trials: 50, seconds: 0.1"))
    tried = search(project, rows, clock=Clock()).trials
    assert [trial.candidate for trial in tried if trial.folds] == defaults(project)
    assert all(len(trial.folds) == 3 for trial in tried if trial.folds)
    project, rows = write(tmp_path / "b", own("models.py:same", trials=50, seconds=4.5))
    tried = search(project, rows, clock=Clock()).trials
    assert [len(trial.folds) for trial in tried] == [3, 3, 1]
    assert tried[-1].reason == "given up after 1 of 3 folds: batch.seconds were over"


def test_a_line_is_said_of_each_trial(tmp_path: Path):
    project, rows = write(tmp_path, "batch: {trials: 2, candidates: [linear, 'models.py:gone'], histories: [0.9]}\n")
    (tmp_path / "models.py").write_text("def gone(task, kinds, draw):\n    return 3\n")
    lines: list[str] = []
    found = search(project, rows, progress=lines.append)
    assert len(lines) == len(found.trials)
    assert lines[0] == f"trial 1 of 4: linear 0: loss {found.trials[0].loss:.5f}"
    assert "without fit" in lines[1]
    assert lines[-1].startswith("on the latest rows: linear") and " from 20" in lines[-1]


def test_a_search_over_part_of_the_rows_sees_all_of_their_time(tmp_path: Path):
    project, rows = write(tmp_path, own("models.py:same", trials=1, search_rows=200), rows=2_000)
    early = [1 if row < 1_000 else outcome for row, outcome in enumerate(rows.outcomes)]
    changed = Examples(rows.table, rows.frame, early, rows.event_time, rows.clock, rows.label_clock)
    folds_of = [len(search(project, one).best.folds) for one in (rows, changed)]
    assert folds_of == [3, 2], "a fold that begins before the half way saw one class only"


def _witnessed(rows: Examples, delays: np.ndarray) -> Examples:
    """Rows that carry when they were, and when their label was known, as features."""
    clocks = rows.event_time + delays.astype(np.int64)
    frame = rows.frame.assign(n1=clocks.astype(float), n2=rows.event_time.astype(float))
    return Examples(rows.table, frame, rows.outcomes, rows.event_time, rows.clock, clocks)


def test_no_trial_is_fitted_on_a_label_that_was_not_known_before_its_fold(tmp_path: Path):
    project, rows = write(tmp_path, own("models.py:witness", trials=3, folds=4, histories=[0.5]))
    late = np.random.default_rng(1).integers(0, 15 * 86_400_000, len(rows))
    found = search(project, _witnessed(rows, late))
    assert not [trial.reason for trial in found.trials if trial.reason and "future" in trial.reason]
    assert found.best.loss is not None


def test_a_fold_that_would_be_fitted_on_one_class_is_left_out(tmp_path: Path):
    project, rows = write(tmp_path, f"batch: {{trials: 1, candidates: [linear], {FEW}}}\n")
    outcomes = [0 if row < 300 else outcome for row, outcome in enumerate(rows.outcomes)]
    turned = Examples(rows.table, rows.frame, outcomes, rows.event_time, rows.clock, rows.label_clock)
    assert len(search(project, turned).best.folds) == 2


def test_an_error_of_the_sampler_is_headraces(tmp_path: Path):
    project, _ = write(tmp_path, ALL)
    study = Study(families(project), 4, 1)
    study.draw()
    study.report(0.5)
    study.complete()
    with pytest.raises(HeadraceError, match="the search could not go on: Optuna"):
        study.complete()


pairs = st.lists(st.tuples(st.integers(0, 1_000), st.integers(0, 300)), min_size=1, max_size=60)


@given(pairs, st.integers(1, 6))
def test_folds_follow_each_other_and_train_on_what_was_known_before_each(rows, count):
    events = np.array([event for event, _ in rows])
    clocks = events + np.array([delay for _, delay in rows])
    found = folds(events, clocks, count)
    assert len(found) == count
    for fold in found:
        assert np.all(events[fold.train] < fold.start)
        assert np.all(clocks[fold.train] < fold.start)
        assert np.all(events[fold.holdout] >= fold.start)
    for fold, following in pairwise(found):
        assert np.all(events[fold.holdout] < following.start)
        assert np.all(following.train[fold.train]), "nothing is forgotten"
    assert np.array_equal(np.sum([fold.holdout for fold in found], axis=0), events >= found[0].start)


@given(pairs)
def test_one_fold_is_the_inner_split(rows):
    events = np.array([event for event, _ in rows])
    clocks = events + np.array([delay for _, delay in rows])
    one, split = folds(events, clocks, 1)[0], inner_split(events, clocks)
    assert one.start == split.start
    assert np.array_equal(one.train, split.train)
    assert np.array_equal(one.holdout, split.holdout)
