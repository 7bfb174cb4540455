"""The registry: aliases, and that nothing of a model runs before its files were checked."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import yaml

from core.batch_model import feature_frame
from core.errors import RegistryError
from core.model_files import check_model_files, digest_of
from core.model_versions import Registration
from core.models import CHALLENGER, CHAMPION, PREVIOUS
from core.project import Project, load_project
from core.registry import Registry

YAML = """
name: toy
id: id
time: at
fields: {size: number, hub: category}
label: y
"""
ROWS = [{"size": float(value), "hub": "a"} for value in range(-10, 10)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("toy")
    (folder / "headrace.yaml").write_text(YAML)
    return load_project(folder, state=folder / "state")


@pytest.fixture(scope="module")
def registry(project: Project) -> Registry:
    return Registry(project)


def frame():
    return feature_frame(
        {name: [row[name] for row in ROWS] for name in ("size", "hub")}, {"size": "number", "hub": "category"}
    )


def fitted():
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline

    features = ColumnTransformer([("numbers", "passthrough", ["size"])])
    labels = np.array([int(row["size"] > 0) for row in ROWS])
    return Pipeline([("features", features), ("model", LogisticRegression())]).fit(frame(), labels)


def register(registry: Registry, **tags: object) -> int:
    made = Registration(
        example=frame().head(3),
        tags={"request": "r1", "effective_at": 5, **tags},
        params={"family": "linear"},
        metrics={"loss": 0.5},
        documents={"evaluation.json": {"rows": 3}},
    )
    return registry.register(fitted(), made).version


def files(project: Project, registry: Registry, version: int) -> Path:
    run = next(entry.run_id for entry in registry.versions() if entry.version == version)
    return project.state / "mlflow-artifacts" / run / "artifacts" / "model"


def restamp(registry: Registry, version: int, folder: Path) -> None:
    """What someone does who can write MLflow's tags, too."""
    registry._client.set_model_version_tag("toy", str(version), "headrace.digest", digest_of(folder))


def test_an_empty_registry_has_no_champion(tmp_path: Path):
    (tmp_path / "headrace.yaml").write_text(YAML)
    empty = Registry(load_project(tmp_path, state=tmp_path / "state"))
    assert empty.alias(CHAMPION) is None
    assert "champion" not in empty.followed()
    assert empty.versions() == []
    assert not (Path.cwd() / "mlruns").exists()


def test_a_registered_model_answers_as_the_fitted_one(registry: Registry):
    version = register(registry, table_version=7)
    loaded = registry.load(version)
    assert loaded.version == version
    assert loaded.predict(ROWS) == registry.wrap(fitted()).predict(ROWS)
    kept = registry.versions()[-1]
    assert kept.number("table_version") == 7
    assert len(kept.tags["digest"]) == 64


def test_the_signature_names_the_features_and_the_requirements_are_there(project: Project, registry: Registry):
    folder = files(project, registry, register(registry))
    about = yaml.safe_load((folder / "MLmodel").read_text())
    assert '"size"' in about["signature"]["inputs"]
    assert '"hub"' in about["signature"]["inputs"]
    assert (folder / "input_example.json").is_file()
    assert "scikit-learn==" in (folder / "requirements.txt").read_text()


def test_promotion_moves_the_former_champion_to_previous(registry: Registry):
    first, second = register(registry), register(registry, effective_at=9)
    now = registry.alias(CHAMPION)
    registry.promote(first, expected=now.version if now else None)
    registry.promote(second, expected=first)
    assert registry.followed()["champion"] == (second, 9)
    assert registry.alias(PREVIOUS).version == first


def test_a_challenger_is_followed_until_it_is_promoted_and_the_champion_before_while_that_is_watched(
    registry: Registry,
):
    first, second = register(registry, effective_at=5), register(registry, effective_at=9)
    now = registry.alias(CHAMPION)
    registry.promote(first, expected=now.version if now else None)
    registry.challenge(second)
    assert registry.followed() == {CHAMPION: (first, 5), CHALLENGER: (second, 9)}

    registry.promote(second, expected=first, serves_from=20, watched=True)
    registry.promote(second, expected=first, serves_from=20, watched=True)
    assert registry.followed() == {CHAMPION: (second, 20), PREVIOUS: (first, 5)}
    assert registry.followed()["champion"] == (second, 20)
    registry.trust(second)
    assert registry.followed() == {CHAMPION: (second, 20)}

    registry.challenge(first)
    registry.withdraw(second)
    assert registry.aliases()[CHALLENGER] == first
    registry.withdraw(first)
    registry.withdraw()
    assert registry.followed() == {CHAMPION: (second, 20)}
    assert registry.alias(PREVIOUS).version == first


def test_a_challenger_that_headrace_did_not_make_does_not_hide_the_champion(registry: Registry):
    first, second = register(registry, effective_at=5), register(registry)
    now = registry.alias(CHAMPION)
    registry.promote(first, expected=now.version if now else None)
    registry._client.delete_model_version_tag("toy", str(second), "headrace.effective_at")
    registry.challenge(second)
    assert registry.followed() == {CHAMPION: (first, 5)}
    registry.withdraw()


def test_a_promotion_against_another_champion_is_refused(registry: Registry):
    first, second = register(registry), register(registry)
    now = registry.alias(CHAMPION)
    registry.promote(first, expected=now.version if now else None)
    with pytest.raises(RegistryError, match="is not promoted"):
        registry.promote(second, expected=first - 1)
    assert registry.alias(CHAMPION).version == first


def test_an_alias_to_a_version_that_is_gone_is_an_error(registry: Registry, monkeypatch: pytest.MonkeyPatch):
    version = register(registry)
    monkeypatch.setattr(registry, "_aliases", lambda: {CHAMPION: version + 100})
    with pytest.raises(RegistryError, match="which is not there"):
        registry.alias(CHAMPION)


@pytest.mark.parametrize("fails", [False, True])
def test_a_model_that_came_from_afar_leaves_nothing_behind(
    project: Project, registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fails: bool
):
    """An artifact store that is not this machine's: what it sends is put where MLflow is told, or where it likes."""
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry as stores
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    class Afar(LocalArtifactRepository):
        download_artifacts = ArtifactRepository.download_artifacts

        def __init__(self, address: str, *_: object, **__: object) -> None:
            super().__init__(address.removeprefix("afar:"))

        def _download_file(self, *where: str, **there: str) -> None:
            if fails:
                raise OSError("connection lost")
            super()._download_file(*where, **there)

    version = register(registry)
    monkeypatch.setitem(stores._registry, "afar", Afar)
    address = f"afar:{files(project, registry, version)}"
    monkeypatch.setattr(registry._client, "get_model_version_download_uri", lambda *_: address)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if fails:
        with pytest.raises(RegistryError, match="while downloading"):
            registry.load(version)
    else:
        assert registry.load(version).predict(ROWS) == registry.wrap(fitted()).predict(ROWS)
    assert list(tmp_path.iterdir()) == []


def test_changed_files_are_not_loaded(project: Project, registry: Registry):
    version = register(registry)
    model = files(project, registry, version) / "model.pkl"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(bytes(content))
    with pytest.raises(RegistryError, match="changed after registration"):
        registry.load(version)


def test_an_added_file_is_a_change(project: Project, registry: Registry):
    version = register(registry)
    (files(project, registry, version) / "extra.py").write_text("print('hello')")
    with pytest.raises(RegistryError, match="changed after registration"):
        registry.load(version)


def test_a_model_without_a_digest_is_not_loaded(registry: Registry):
    version = register(registry)
    registry._client.delete_model_version_tag("toy", str(version), "headrace.digest")
    with pytest.raises(RegistryError, match="no digest"):
        registry.load(version)


@pytest.mark.parametrize(
    ("flavour", "change"),
    [
        ("python_function", {"loader_module": "hostile"}),
        ("python_function", {"code": "code"}),
        ("python_function", {"model_path": "../model.pkl"}),
        ("python_function", {"data": "x"}),
        ("sklearn", {"code": "code"}),
        ("sklearn", {"pickled_model": "/tmp/other.pkl"}),
        ("sklearn", {"serialization_format": "skops"}),
        ("pytorch", {"code": "x"}),
    ],
)
def test_a_hostile_mlmodel_runs_nothing_even_with_a_fitting_digest(
    project: Project, registry: Registry, flavour: str, change: dict[str, str], monkeypatch, tmp_path: Path
):
    (tmp_path / "hostile.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    monkeypatch.syspath_prepend(str(tmp_path))
    version = register(registry)
    folder = files(project, registry, version)
    about = yaml.safe_load((folder / "MLmodel").read_text())
    about["flavors"].setdefault(flavour, {}).update(change)
    (folder / "MLmodel").write_text(yaml.safe_dump(about))
    restamp(registry, version, folder)
    with pytest.raises(RegistryError, match="cannot be trusted"):
        registry.load(version)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", ["", "[]", "flavors: 3", "a: [", "flavors: {sklearn: 1}"])
def test_a_damaged_mlmodel_is_refused(tmp_path: Path, content: str):
    (tmp_path / "MLmodel").write_text(content)
    with pytest.raises(RegistryError):
        check_model_files(tmp_path, digest_of(tmp_path))


def test_a_link_is_refused(tmp_path: Path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").symlink_to("/etc/hostname")
    with pytest.raises(RegistryError, match="plain file"):
        digest_of(tmp_path / "model")


def test_files_that_are_gone_are_a_registry_error(project: Project, registry: Registry):
    version = register(registry)
    folder = files(project, registry, version)
    folder.rename(folder.with_name("moved"))
    with pytest.raises(RegistryError):
        registry.load(version)


def test_an_unknown_version_is_a_registry_error(registry: Registry):
    with pytest.raises(RegistryError, match="is it running"):
        registry.load(10_000)


def test_an_unreachable_mlflow_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tmp_path / "headrace.yaml").write_text(YAML)
    with pytest.raises(RegistryError) as caught:
        Registry(load_project(tmp_path, state=tmp_path / "state"))
    assert "http://127.0.0.1:9" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_may_open_a_new_registry_at_once(tmp_path: Path):
    (tmp_path / "headrace.yaml").write_text(YAML)
    project = load_project(tmp_path, state=tmp_path / "state")
    opened: list[Registry] = []
    threads = [threading.Thread(target=lambda: opened.append(Registry(project))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [entry.versions() for entry in opened] == [[], []]
