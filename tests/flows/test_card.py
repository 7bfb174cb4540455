"""The card of a version: each fact on it, for each task; what it must not show; and that every version has one."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from flows_lab import BATCH, HEAD, Toy, examples, later, make_toy

from cli.inspect import history_of, status_of
from cli.trail import about, version_lines
from core.batch_model import FittedModel
from core.features import OTHER
from core.project import load_project
from core.registry import Registry
from core.status import write_status
from core.tables import feature_column
from flows.candidates import defaults
from flows.card.curves import curves_of
from flows.card.importance import FeatureImportance, Ranking, ranked
from flows.card.plots import plots_of
from flows.examples import as_examples
from flows.fitting import fit

PLOTS = {
    "binary": {"importance", "calibration", "roc"},
    "multiclass": {"importance", "calibration", "roc"},
    "regression": {"importance", "residuals"},
}
HOSTILE = '<img src=x onerror="alert(1)">'
PNG = b"\x89PNG\r\n\x1a\n"


def artifacts(toy: Toy, run: str) -> Path:
    return toy.project.state / "mlflow-artifacts" / run / "artifacts"


def card_of(toy: Toy, ended: dict[str, Any]) -> tuple[dict[str, Any], str]:
    folder = artifacts(toy, ended["mlflow_run"]) / "card"
    return json.loads((folder / "card.json").read_text()), (folder / "card.html").read_text()


@pytest.fixture(scope="module", params=["binary", "multiclass", "regression"])
def two_versions(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A bootstrap, then a version that was compared with it."""
    extra = BATCH + "gates: {max_relative_loss: 1.05, min_slice_rows: 100}\n"
    toy = make_toy(tmp_path_factory.mktemp("project"), request.param, extra=extra)
    first = toy.retrain("r1")
    toy.append(later(toy.project))
    second = toy.retrain("r2", "drift")
    assert (first["outcome"], second["outcome"]) == ("promoted", "promoted"), second["reasons"]
    return toy, first, second


def test_a_registered_version_carries_its_card(two_versions: Any):
    toy, *ended = two_versions
    for one in ended:
        folder = artifacts(toy, one["mlflow_run"]) / "card"
        plots = {path.stem: path for path in folder.glob("*.png")}
        assert plots.keys() == PLOTS[toy.project.settings.task]
        assert all(path.read_bytes().startswith(PNG) for path in plots.values())
        page = (folder / "card.html").read_text()
        assert page.count("data:image/png;base64,") == len(plots)
        assert "http" not in page.replace("http-equiv", ""), "it loads nothing"
        assert page == (toy.project.cards / f"{one['version']}.html").read_text()


def test_the_ledger_says_where_the_card_is_and_how_long_it_took(two_versions: Any):
    toy, _, second = two_versions
    body = toy.bodies("retraining")[-1]
    assert (toy.project.state / body["card"]) == toy.project.cards / f"{second['version']}.html"
    assert body["steps"]["describe"] > 0.0


def test_history_and_status_say_where_it_is(two_versions: Any):
    toy = two_versions[0]
    entries = history_of(toy.project)
    lines = version_lines(2, about(2, entries), toy.project.settings.clock)
    assert any(line.strip() == "card        cards/2.html in the state folder" for line in lines)
    serves = {"version": 2, "card": str(toy.project.cards / "2.html")}
    assert status_of(toy.project)["champion"] == serves, "as the ledger says, where no worker runs"
    write_status(toy.project.status, "worker", {"state": "running", "champion": 2, "partitions": {}})
    assert status_of(toy.project)["champion"] == {"version": 2, "card": str(toy.project.cards / "2.html")}


def test_the_facts_are_those_of_the_retraining(two_versions: Any):
    toy, first, second = two_versions
    facts, page = card_of(toy, second)
    body = toy.bodies("retraining")[-1]
    assert (facts["project"], facts["task"], facts["version"]) == (toy.project.settings.name, body_task(toy), 2)
    assert (facts["mlflow_run"], facts["trigger"]) == (second["mlflow_run"], "drift")
    for name in ("rows", "examples", "rows_digest", "predictions_digest", "candidate", "made_with"):
        assert facts["trained"][name] == body["recipe"][name]
    assert facts["evaluation"]["metrics"] == body["metrics"]
    assert facts["evaluation"]["champion"] == first["version"]
    assert [gate["name"] for gate in facts["gates"]] == [gate["name"] for gate in toy.bodies("gate")[-1]["results"]]
    assert facts["data"]["rows"] == body["data"]["rows"]
    assert facts["evaluation"]["cost"]["bytes"] > 0
    assert 0 < facts["trained"]["from"] < facts["trained"]["to"]
    for said in (
        f"{facts['trained']['rows']:,} labelled rows",
        facts["trained"]["rows_digest"],
        "champion 1",
        "linear",
    ):
        assert said in page
    for name in body["metrics"]:
        if name in ("linear", "prior"):
            assert f"online expert {name}" in page


def body_task(toy: Toy) -> str:
    return toy.project.settings.task


def test_slices_have_their_margins_and_the_small_ones_are_counted_without_their_values(two_versions: Any):
    toy, first, second = two_versions
    (bootstrap, _), (facts, _) = card_of(toy, first), card_of(toy, second)
    judged = {one["name"]: one for one in facts["slices"]["judged"]}
    assert {"flag=true", "flag=false"} <= judged.keys()
    for one in judged.values():
        assert one["rows"] >= 100
        assert one["over_trivial"]["low"] < one["over_trivial"]["relative"] < one["over_trivial"]["high"]
        assert one["over_champion"]["rows"] == one["rows"]
    assert all(one["over_champion"] is None for one in bootstrap["slices"]["judged"])
    assert facts["slices"]["too_small"]["hub"] > 0
    assert "h3" not in json.dumps(facts["slices"]) + json.dumps(facts["limits"]), "few rows may be one person"


def test_limits_follow_from_facts(two_versions: Any):
    toy, _, second = two_versions
    limits = "\n".join(card_of(toy, second)[0]["limits"])
    assert "fitted again on all rows" in limits
    assert "more than 2d after" in limits
    assert "cannot use note" in limits
    assert "n0 -2." in limits, "what it has seen of a number"
    assert "flag" not in limits.partition("98 % between these two")[2].partition("\n")[0], "a flag has no range"
    assert "below 100: hub (" in limits
    expected = {"binary": "were positive", "multiclass": "these classes only", "regression": "98 % of the labels"}
    assert expected[body_task(toy)] in limits


def test_it_uses_the_planted_feature_and_not_the_noise(two_versions: Any):
    toy, _, second = two_versions
    found = {one["feature"]: one for one in card_of(toy, second)[0]["importance"]["features"]}
    assert next(iter(found)) == "n0"
    assert found["n0"]["sure"]
    assert found["n0"]["mean"] > 20 * abs(found["n2"]["mean"])
    assert len(found["n0"]["rises"]) == 5
    assert "note" not in found


def test_the_version_has_a_signature_and_pinned_requirements(two_versions: Any):
    toy, _, second = two_versions
    about = card_of(toy, second)[0]["packaging"]
    assert about == vars(Registry(toy.project).packaging(second["mlflow_run"]))
    kinds = {name: "string" if name == "hub" else "double" for name in ("n0", "n1", "n2", "flag", "hub")}
    assert about["inputs"] == kinds
    wide = {"binary": "float64, 2 a row", "multiclass": "float64, 3 a row", "regression": "float64, 1 a row"}
    assert about["output"] == wide[body_task(toy)]
    assert {"scikit-learn", "numpy", "pandas", "scipy", "cloudpickle"} <= {
        line.partition("==")[0] for line in about["requirements"]
    }
    assert all("==" in line for line in about["requirements"])


def test_a_version_that_is_refused_after_registration_has_a_card_that_says_so(toy: Toy):
    ended = toy.retrain("r1", apart=lambda _: nullcontext(lambda *_: (None, "it hangs")))
    assert (ended["outcome"], ended["version"]) == ("gated", 1)
    facts, page = card_of(toy, ended)
    assert not facts["gates"][-1]["passed"]
    assert "refused by servable" in page
    assert toy.bodies("retraining")[-1]["card"] == "cards/1.html"


def test_what_the_stream_names_is_shown_as_text(tmp_path: Path):
    toy = make_toy(tmp_path / "project", "multiclass", extra=BATCH + "gates: {min_slice_rows: 20}\n")
    table = toy.table
    hostile = {"h1": HOSTILE, "h2": OTHER, "low": f"{HOSTILE}$\\frac{{", "mid": "_mid\u202e\n"}
    for name in (feature_column("hub"), "label"):
        values = [hostile.get(value, value) for value in table[name].to_pylist()]
        table = table.set_column(
            table.column_names.index(name), table.schema.field(name), pa.array(values, pa.string())
        )
    toy.store.rewrite("examples", lambda _: table)
    ended = toy.retrain("r1")
    assert ended["version"] == 1, ended["reasons"]
    facts, page = card_of(toy, ended)
    assert f"hub={HOSTILE}" in [one["name"] for one in facts["slices"]["judged"]]
    assert any("max_categories" in limit and "hub (" in limit for limit in facts["limits"])
    assert HOSTILE in json.dumps(facts["limits"]).replace('\\"', '"')
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page
    assert (artifacts(toy, ended["mlflow_run"]) / "card" / "roc.png").read_bytes().startswith(PNG)


def test_no_hash_of_a_personal_value_is_on_it(tmp_path: Path):
    personal = HEAD.replace("hub: category", "hub: {{type: category, pii: hash}}")
    toy = make_toy(tmp_path / "project", extra=BATCH + "gates: {min_slice_rows: 20}\nprivacy: {key_file: pii.key}\n")
    (toy.project.folder / "headrace.yaml").write_text(
        personal.format(name="toy-binary", task="binary") + BATCH + "gates: {min_slice_rows: 20}\n"
    )
    toy = replace(toy, project=load_project(toy.project.folder, state=toy.project.state))
    hashes = {f"h{number}": f"{number:032x}" for number in range(12)}
    column = [hashes.get(value) for value in toy.table["f_hub"].to_pylist()]
    place = toy.table.column_names.index("f_hub")
    table = toy.table.set_column(place, toy.table.schema.field("f_hub"), pa.array(column, pa.string()))
    toy.store.rewrite("examples", lambda _: table)
    ended = toy.retrain("r1")
    facts, page = card_of(toy, ended)
    assert "hub=(personal value)" in [one["name"] for one in facts["slices"]["judged"]]
    for value in hashes.values():
        assert value not in page
        assert value not in json.dumps(facts)


def rows_and_model(tmp_path: Path, task: str, rows: int = 1_000) -> tuple[Any, FittedModel]:
    toy = make_toy(tmp_path / "project", task, rows=rows)
    known = as_examples(toy.table, toy.project.settings)
    return known, fit(toy.project, defaults(toy.project)[0], known)


def test_importance_is_the_same_again_and_leaves_out_what_the_model_does_without(tmp_path: Path):
    _, model = rows_and_model(tmp_path, "binary")
    project = make_toy(tmp_path / "other").project
    unseen = as_examples(examples(project, 3_000, 5), project.settings)
    one, two = (ranked(model, unseen, 3, ["n2"]) for _ in range(2))
    assert one == two
    assert one is not None
    assert one.rows == 2_000
    assert {feature.feature for feature in one.features} == {"n0", "n1", "flag", "hub"}
    assert ranked(model, unseen.take(np.zeros(0, dtype=int)), 3) is None


def test_roc_is_drawn_from_ties_as_from_single_rows():
    draw = np.random.default_rng(1)
    happened = draw.integers(0, 2, 5_000)
    chances = np.round(np.clip(0.5 * happened + draw.random(5_000) * 0.5, 0, 1), 2)
    (roc,) = curves_of("binary", chances.tolist(), happened.tolist()).roc
    assert np.trapezoid(roc.hits, roc.false_alarms) == pytest.approx(roc.area, abs=1e-3)
    assert len(roc.hits) <= 200
    assert curves_of("binary", [0.2, 0.3], [1, 1]).roc == [], "of one class only"


def test_residuals_are_of_parts_never_of_single_rows():
    draw = np.random.default_rng(1)
    said = draw.normal(size=1_000)
    found = curves_of("regression", said.tolist(), (said + draw.normal(size=1_000)).tolist()).residuals
    assert found is not None
    assert min(found.rows) >= 10
    assert abs(np.mean(found.bands["0.5"])) < 0.2
    assert np.mean(found.bands["0.95"]) == pytest.approx(1.645, abs=0.25)


def test_a_plot_that_cannot_be_drawn_is_left_out(caplog: pytest.LogCaptureFixture):
    class Broken:
        task = "binary"
        curves = curves_of("binary", [0.2, 0.8], [0, 1])
        importance = Ranking(2, 1, 0.5, [FeatureImportance("a", ["no number"], 0.5)])  # type: ignore[list-item]

    assert plots_of(Broken()).keys() == {"calibration", "roc"}  # type: ignore[arg-type]
    assert "'importance' cannot be drawn" in caplog.text
