"""Whole retrainings that exactly one gate refuses: nothing is promoted, and the reason says why."""

from __future__ import annotations

import json
import pickle
import shutil
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil
import pyarrow as pa
import pytest
import yaml
from flows_lab import BATCH, HEAD, Toy, examples, later, make_toy

from core.model_files import digest_of
from core.models import CHAMPION
from core.project import load_project
from core.registry import Registry
from core.store import TableStore
from core.tables import EVENTS, EXAMPLES, events_schema
from flows import apart

MODELS = '''
import time
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

class Odd(ClassifierMixin, BaseEstimator):
    """Predicts the base rate; and does what its kind does."""

    def __init__(self, kind="plain"):
        self.kind = kind

    def fit(self, frame, outcomes):
        self.classes_, self.rate_ = np.array([0, 1]), float(np.mean(outcomes))
        return self

    def predict_proba(self, frame):
        if self.kind == "slow":
            time.sleep(1.0)
        chance = 1 / (1 + np.exp(-1.5 * frame["n0"].to_numpy()))
        if self.kind == "nan":
            chance = np.where(frame["n2"].to_numpy() > 50, np.nan, chance)
        return np.column_stack([1 - chance, chance])

    def __getstate__(self):
        return {**self.__dict__, "ballast": b"x" * 300_000_000} if self.kind == "big" else self.__dict__

    def __setstate__(self, state):
        if state["kind"] == "ending":
            import os
            os._exit(3)
        self.__dict__.update(state)

def slow(kinds, draw, trial): return Odd("slow")
def nan(kinds, draw, trial): return Odd("nan")
def big(kinds, draw, trial): return Odd("big")
def ending(kinds, draw, trial): return Odd("ending")
'''


def odd_toy(folder: Path, kind: str) -> Toy:
    folder.mkdir(parents=True)
    (folder / "models.py").write_text(MODELS)
    return make_toy(folder, extra=f'batch: {{trials: 1, folds: 1, candidates: ["models.py:{kind}"]}}\n')


def refused(toy: Toy, gate: str) -> str:
    """Expect that this gate alone refuses, and that nothing serves; return its reason."""
    (reason,) = toy.bodies("gate")[-1]["reasons"]
    assert [entry["name"] for entry in toy.bodies("gate")[-1]["results"] if not entry["passed"]] == [gate]
    assert Registry(toy.project).alias(CHAMPION) is None
    assert toy.bodies("promotion") == []
    return reason


def test_a_model_that_sleeps_a_second_is_not_promoted(tmp_path: Path):
    toy = odd_toy(tmp_path / "slow", "slow")
    assert toy.retrain()["outcome"] == "gated"
    assert "ms for a single one, 500 ms allowed (gates.max_call_ms)" in refused(toy, "latency")


def test_a_model_that_predicts_nan_lately_is_not_promoted(tmp_path: Path):
    toy = odd_toy(tmp_path / "nan", "nan")
    fresh = later(toy.project)
    values = fresh["f_n2"].to_pylist()
    values[700] = 99.0
    toy.append(fresh.set_column(fresh.column_names.index("f_n2"), "f_n2", pa.array(values, pa.float64())))
    assert toy.retrain()["outcome"] == "gated"
    assert refused(toy, "finite") == "finite: 1 predictions are not finite"


def test_a_model_that_learned_wrong_labels_is_not_promoted_on_wrong_labels(tmp_path: Path):
    toy = make_toy(tmp_path / "noisy")
    assert toy.retrain()["outcome"] == "promoted"
    fresh = later(toy.project)
    wrong = np.random.default_rng(1).random(len(fresh)) < 0.35
    labels = np.where(wrong, 1 - fresh["label"].to_numpy(), fresh["label"].to_numpy())
    toy.append(
        fresh.set_column(
            fresh.column_names.index("label"),
            fresh.schema.field("label"),
            pa.array(labels, fresh.schema.field("label").type),
        )
    )

    assert toy.retrain("r2", "drift")["outcome"] == "gated"
    (reason,) = toy.bodies("gate")[-1]["reasons"]
    assert reason.startswith("skill: of a skill of 0.")
    assert Registry(toy.project).alias(CHAMPION).version == 1


def test_the_process_that_was_to_load_a_version_ends_with_an_attempt_that_never_makes_one(tmp_path: Path):
    seen = []

    @contextmanager
    def watched(project):
        with apart.another_process(project) as ask:
            seen.extend(one for one in psutil.Process().children() if "flows.apart" in one.cmdline())
            yield ask

    toy = odd_toy(tmp_path / "big", "big")
    assert toy.retrain(apart=watched)["outcome"] == "gated"
    (process,) = seen
    assert not process.is_running()


def test_a_model_that_is_too_large_is_not_promoted(tmp_path: Path):
    toy = odd_toy(tmp_path / "big", "big")
    assert toy.retrain()["outcome"] == "gated"
    assert "268,435,456 allowed (gates.max_bytes)" in refused(toy, "size")


def test_a_model_that_ends_the_process_that_loads_it_is_not_promoted_and_ends_nothing_else(tmp_path: Path):
    toy = odd_toy(tmp_path / "ending", "ending")
    assert toy.retrain(apart=apart.another_process)["outcome"] == "gated"
    assert "ended with exit code 3" in refused(toy, "servable")


class Tampered(Registry):
    """Lets somebody at the files of each version right after it was registered."""

    def register(self, pipeline, registration):
        made = super().register(pipeline, registration)
        source = self._client.get_model_version_download_uri(self._project.settings.name, str(made.version))
        self.tamper(Path(urlsplit(source).path))
        return made

    def stamp(self, folder: Path, made_version: int = 1) -> None:
        """Record the digest of what lies there now, as somebody can who may write to MLflow."""
        name = self._project.settings.name
        self._client.set_model_version_tag(name, str(made_version), "headrace.digest", digest_of(folder))


class Changed(Tampered):
    def tamper(self, folder: Path) -> None:
        with (folder / "model.pkl").open("ab") as file:
            file.write(b"x")


class Hostile(Tampered):
    """The pickle leaves a mark where it is loaded; the recorded digest is made to fit."""

    def tamper(self, folder: Path) -> None:
        class Mark:
            def __reduce__(self):
                return (exec, (f"open({str(mark_of(self_project.state))!r}, 'w').close()",))

        self_project = self._project
        (folder / "model.pkl").write_bytes(pickle.dumps(Mark()))
        self.stamp(folder)


class Loader(Tampered):
    """MLmodel names a loader that would run code, and brings it."""

    def tamper(self, folder: Path) -> None:
        about = yaml.safe_load((folder / "MLmodel").read_text())
        about["flavors"]["python_function"] |= {"loader_module": "evil", "code": "code"}
        (folder / "MLmodel").write_text(yaml.safe_dump(about))
        (folder / "code").mkdir()
        (folder / "code" / "evil.py").write_text(f"open({str(mark_of(self._project.state))!r}, 'w').close()")
        self.stamp(folder)


def mark_of(state: Path) -> Path:
    return state / "somebody-was-here"


@pytest.mark.parametrize("registry", [Changed, Hostile, Loader])
def test_files_that_are_not_those_registered_are_not_promoted_and_never_run(toy: Toy, registry: type[Tampered]):
    assert toy.retrain(connect=registry, apart=apart.another_process)["outcome"] == "gated"
    assert "the files changed after registration" in refused(toy, "servable")
    assert not mark_of(toy.project.state).exists()


def test_a_loader_that_is_not_allowed_does_not_run_though_its_digest_fits(toy: Toy):
    toy.retrain()
    registry = Loader(toy.project)
    source = registry._client.get_model_version_download_uri(toy.project.settings.name, "1")
    registry.tamper(Path(urlsplit(source).path))
    version = registry.versions()[0]
    with apart.another_process(toy.project) as ask:
        predictions, problem = ask(version, toy_frame(toy))
    assert predictions is None
    assert "MLmodel names code to run" in problem
    assert not mark_of(toy.project.state).exists()


def toy_frame(toy: Toy):
    from flows.examples import as_frame

    return as_frame(toy.table.slice(0, 5), toy.project.settings)


def test_a_process_that_does_not_answer_is_ended(toy: Toy):
    toy.retrain()
    version = Registry(toy.project).versions()[0]
    with apart.another_process(toy.project, timeout_s=0.05) as ask:
        predictions, problem = ask(version, toy_frame(toy))
    assert (predictions, problem) == (None, "the process that loads it had not answered after 0.05 s")


def test_a_champion_without_its_reference_blocks_promotion(toy: Toy):
    toy.retrain("r1")
    (toy.project.state / "references" / "1.parquet").unlink()
    toy.append(later(toy.project))
    second = toy.retrain("r2", "drift")
    assert second["outcome"] == "gated"
    assert second["reasons"][0].startswith("reference: reference of champion version 1")
    assert Registry(toy.project).alias(CHAMPION).version == 1


def test_too_few_new_labels_since_the_champion_block_promotion(tmp_path: Path):
    toy = make_toy(tmp_path, extra=BATCH + "gates: {min_new_labels: 900}\n")
    toy.retrain("r1")
    toy.append(later(toy.project))
    second = toy.retrain("r2", "drift")
    assert second["outcome"] == "gated"
    assert second["reasons"] == [
        "labels: 801 labelled examples since champion 1 was trained, 900 are needed (gates.min_new_labels)"
    ]


FEATURES = """
features: {function: "features.py:made", outputs: {n0: number, n1: number, n2: number, flag: bool, hub: category}}
"""
FUNCTION = """
def made(fields, time):
    return {name: fields[name] for name in ("n0", "n1", "n2", "flag", "hub")}
"""


def toy_with_features(folder: Path, keep: bool = True) -> Toy:
    """A project with a feature function, and each 40th of its events kept."""
    folder.mkdir(parents=True)
    (folder / "features.py").write_text(FUNCTION)
    (folder / "headrace.yaml").write_text(HEAD.format(name="toy-binary", task="binary") + FEATURES + BATCH)
    plain = make_toy(folder / "plain")
    shutil.copytree(plain.project.state, folder / "state")
    shutil.rmtree(folder / "state" / "tables")
    project = load_project(folder, state=folder / "state")
    table = examples(project).drop_columns(["step", "partition"])
    steps = pa.array(range(len(table)), pa.int64())
    table = table.append_column("step", steps).append_column("partition", pa.array([0] * len(table), pa.int32()))
    table = table.select(examples(project).column_names)
    toy = Toy(project, TableStore(project.tables), plain.ledger.__class__(project.ledger), table)
    toy.store.append(EXAMPLES, table, app="test", sequence=1)
    if keep:
        kept = table.take(pa.array(range(0, len(table), 40)))
        fields = {name: kept[f"f_{name}"] for name in ("n0", "n1", "n2", "flag", "hub")}
        columns = {name: kept[name] for name in ("id", "event_time", "partition", "step")}
        columns |= {f"x_{name}": values for name, values in fields.items()}
        columns["x_note"] = pa.array(["x"] * len(kept))
        schema = events_schema(project.settings)
        rows = pa.table({name: columns[name] for name in schema.names}, schema=schema)
        toy.store.append(EVENTS, rows, app="test", sequence=1)
    return toy


def test_features_that_come_out_the_same_pass(tmp_path: Path):
    toy = toy_with_features(tmp_path / "same")
    assert toy.retrain(apart=apart.another_process)["outcome"] == "promoted"
    parity = next(entry for entry in toy.bodies("gate")[0]["results"] if entry["name"] == "parity")
    assert parity["reason"].startswith("0 of ")
    assert int(parity["reason"].split()[2]) > 30


def test_features_that_come_out_otherwise_block_promotion(tmp_path: Path):
    toy = toy_with_features(tmp_path / "other")
    changed = FUNCTION.replace("fields[name] for", "fields[name] if name != 'n1' else 0.5 for")
    (toy.project.folder / "features.py").write_text(changed)
    assert toy.retrain()["outcome"] == "gated"
    reason = refused(toy, "parity")
    first = toy.table.slice(0, 1).to_pylist()[0]
    assert f"event {first['id']!r}: feature 'n1' was stored as {first['f_n1']!r} and is 0.5 now" in reason


def test_features_of_which_nothing_was_kept_block_promotion(tmp_path: Path):
    toy = toy_with_features(tmp_path / "none", keep=False)
    assert toy.retrain()["outcome"] == "gated"
    assert "no event of these" in refused(toy, "parity")


def test_the_evaluation_is_kept_whole(tmp_path: Path):
    toy = make_toy(tmp_path, extra=BATCH + "gates: {min_slice_rows: 20}\n")
    toy.retrain("r1")
    toy.append(later(toy.project))
    toy.retrain("r2", "drift")
    registry = Registry(toy.project)
    kept = registry.document(registry.versions()[-1].run_id, "evaluation.json")
    assert {"linear", "prior", "champion", "challenger", "baseline", "blend_with_champion"} == set(kept["over"])
    assert {"rows", "blocks", "mean", "relative", "low", "high"} == set(kept["over"]["champion"])
    assert {"hub=h0", "flag=true"} <= {one["name"] for one in kept["slices"]}
    assert {"error", "bias"} == set(kept["calibration"]["blend_with_challenger"])
    assert kept["cost"]["fit_seconds"] > 0.0
    assert kept["cost"]["bytes"] > 1_000
    assert json.dumps(kept["cost"]["energy_kwh"]) in ("null", str(kept["cost"]["energy_kwh"]))
    assert timedelta(milliseconds=kept["end"] - kept["start"]) <= timedelta(days=7)
