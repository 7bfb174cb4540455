"""Step 10, its memory: versions of the batch model and the alias that serves. The only mlflow import.

The registered model is named like the project. ``champion`` is the version that serves, ``previous`` the one before,
``challenger`` one that predicts in shadow. MLflow is imported when a `Registry` is made (1 to 3 s), never earlier.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from core.batch_model import FittedModel, used_features
from core.errors import RegistryError
from core.locks import FileLock
from core.model_files import FORMAT, check_model_files, digest_of, project_code_by_value, requirements
from core.model_versions import PREFIX, SERVES_FROM, WATCHED, ModelVersion, Registration
from core.models import CHALLENGER, CHAMPION, PREVIOUS, SHADOWS
from core.packaging import FILES as PACKAGING
from core.packaging import Packaging, packaging_of
from core.project import Project

if TYPE_CHECKING:
    import pandas as pd

_LOCK_WAIT_S = 60.0
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}

P = ParamSpec("P")
R = TypeVar("R")


def _translated(
    method: Callable[Concatenate[Registry, P], R],
) -> Callable[Concatenate[Registry, P], R]:
    """Let only :class:`RegistryError` out of a method."""

    def inner(self: Registry, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except RegistryError:
            raise
        except Exception as error:
            lines = str(error).replace(self._project.tracking_uri, self.address).strip().splitlines()
            raise RegistryError(
                f"MLflow at {self.address}: {method.__name__}: {type(error).__name__}: {lines[0] if lines else ''}; "
                "is it running, and is MLFLOW_TRACKING_URI right?"
            ) from error

    inner.__name__, inner.__doc__ = method.__name__, method.__doc__
    return inner


class Registry:
    """The project's models in MLflow; safe to use from several processes.

    Parameters
    ----------
    project : Project
        Names the model (``settings.name``), MLflow's address and the state folder.

    Raises
    ------
    RegistryError
        If MLflow cannot be reached.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._name = project.settings.name
        self._lock_file = project.state / "mlflow.lock"
        self._connect()

    @property
    def address(self) -> str:
        """MLflow's address, without a password."""
        scheme, _, rest = self._project.tracking_uri.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}"

    @_translated
    def _connect(self) -> None:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        with self._locked():
            self._client = MlflowClient(self._project.tracking_uri, self._project.tracking_uri)
            self._client.search_registered_models(max_results=1)

    @_translated
    def alias(self, alias: str) -> ModelVersion | None:
        """Return the version that an alias names, or None if there is no such alias; takes milliseconds.

        Raises
        ------
        RegistryError
            If MLflow cannot be reached, or the alias names a version that is not there.
        """
        version = self._aliases().get(alias)
        return None if version is None else self._named(alias, version)

    def _named(self, alias: str, version: int) -> ModelVersion:
        try:
            return ModelVersion.of(self._client.get_model_version(self._name, str(version)))
        except Exception as error:
            if getattr(error, "error_code", "") != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise RegistryError(
                f"alias {alias!r} of model {self._name!r} names version {version}, which is not there; "
                "point the alias to another version in MLflow"
            ) from error

    @_translated
    def followed(self) -> dict[str, tuple[int, int]]:
        """Return (version, effective_at in ms) of each alias that a worker follows, as they stand at one moment.

        That is the champion, a challenger, and the previous champion while the one that serves is watched.

        Raises
        ------
        RegistryError
            If MLflow cannot be reached, or the champion alias names a version that is not there.
        """
        aliases, followed = self._aliases(), {}
        champion = self._named(CHAMPION, aliases[CHAMPION]) if CHAMPION in aliases else None
        if champion is not None:
            followed[CHAMPION] = champion.version, champion.serves_from
        if champion is None or not champion.is_watched:
            aliases.pop(PREVIOUS, None)
        for alias in SHADOWS:
            if alias in aliases and aliases[alias] != aliases.get(CHAMPION):  # as they are in the middle of a promotion
                with suppress(RegistryError):  # of a version that headrace did not make, or that is gone: no shadow
                    entry = self._named(alias, aliases[alias])
                    followed[alias] = entry.version, entry.number("effective_at")
        return followed

    @_translated
    def challenge(self, version: int) -> None:
        """Let a version predict in shadow, as challenger; another that did is one no more."""
        with self._locked():
            self._client.set_registered_model_alias(self._name, CHALLENGER, str(version))

    @_translated
    def withdraw(self, version: int | None = None) -> None:
        """End the challenger's time in shadow; nothing happens where there is none, or another than this version."""
        with self._locked():
            challenger = self._aliases().get(CHALLENGER)
            if challenger is not None and version in (None, challenger):
                self._client.delete_registered_model_alias(self._name, CHALLENGER)

    @_translated
    def trust(self, version: int) -> None:
        """End the time in which a champion is watched: the one before it predicts in shadow no more."""
        self._client.set_model_version_tag(self._name, str(version), f"{PREFIX}{WATCHED}", "false")

    @_translated
    def versions(self) -> list[ModelVersion]:
        """Return every version, oldest first."""
        found, token = [], None
        while True:
            page = self._client.search_model_versions(f"name='{self._name}'", page_token=token)
            found += [ModelVersion.of(entry) for entry in page]
            token = page.token
            if not token:
                return sorted(found, key=lambda entry: entry.version)

    @_translated
    def load(self, version: int, digest: str | None = None) -> FittedModel:
        """Load a version after its files were checked; nothing of it runs before.

        Parameters
        ----------
        version : int
            Which.
        digest : str, optional
            What its files must have; what is recorded with the version if left out.

        Raises
        ------
        RegistryError
            If MLflow cannot be reached, the version or its files are not there, its files were changed, or
            they are not what headrace writes.
        """
        from mlflow import sklearn as flavour
        from mlflow.artifacts import download_artifacts

        entry = ModelVersion.of(self._client.get_model_version(self._name, str(version)))
        source = self._client.get_model_version_download_uri(self._name, str(version))
        with tempfile.TemporaryDirectory(prefix="headrace-model-") as folder:
            # Without a place of ours MLflow makes one that nobody removes, or names its own files, which may change.
            private = Path(
                download_artifacts(artifact_uri=source, dst_path=folder, tracking_uri=self._project.tracking_uri)
            )
            try:
                check_model_files(private, digest or entry.tags.get("digest"))
            except RegistryError as error:
                raise RegistryError(f"model version {version} cannot be trusted: {error}") from error
            pipeline = flavour.load_model(str(private))
        return self.wrap(pipeline, version)

    def wrap(self, pipeline: Any, version: int = 0) -> FittedModel:
        """Return a fitted pipeline as this project's model."""
        settings = self._project.settings
        return FittedModel(pipeline, settings.batch_kinds, settings.task, version)

    @_translated
    def register(self, pipeline: Any, registration: Registration) -> ModelVersion:
        """Log a run and register its pipeline as a new version; no alias moves.

        Raises
        ------
        RegistryError
            If MLflow cannot be reached, or the pipeline cannot be written.
        """
        run = self._client.create_run(self._experiment(), run_name=f"retrain-{registration.tags['request']}")
        run_id = run.info.run_id
        try:
            entry = self._register_run(run, pipeline, registration)
        except BaseException:
            self._client.set_terminated(run_id, "FAILED")
            raise
        self._client.set_terminated(run_id)
        return entry

    def _register_run(self, run: Any, pipeline: Any, registration: Registration) -> ModelVersion:
        run_id = run.info.run_id
        with tempfile.TemporaryDirectory(prefix="headrace-model-") as folder:
            model = Path(folder) / "model"
            self._save(pipeline, registration.example, model)
            digest = digest_of(model)
            self._client.log_artifacts(run_id, str(model), "model")
        self._log(run_id, registration)
        tags = {f"{PREFIX}{key}": str(value) for key, value in {**registration.tags, "digest": digest}.items()}
        self._ensure_model()
        entry = self._client.create_model_version(
            self._name, f"{run.info.artifact_uri}/model", run_id=run_id, tags=tags
        )
        made = ModelVersion.of(self._client.get_model_version(self._name, entry.version))
        return replace(made, tags={**made.tags, "digest": digest})  # what was written here, whatever MLflow says now

    @_translated
    def record_run(self, registration: Registration) -> str:
        """Log a run that registers nothing, and return its id: a challenger that a gate stopped."""
        run = self._client.create_run(self._experiment(), run_name=f"gated-{registration.tags['request']}")
        run_id = str(run.info.run_id)
        self._log(run_id, registration)
        self._client.set_terminated(run_id)
        return run_id

    @_translated
    def log_file(self, run_id: str, path: Path, folder: str) -> None:
        """Add a file to the artifacts of a run."""
        self._client.log_artifact(run_id, str(path), folder)

    @_translated
    def log_folder(self, run_id: str, path: Path, folder: str) -> None:
        """Add all files of a folder to the artifacts of a run."""
        self._client.log_artifacts(run_id, str(path), folder)

    @_translated
    def packaging(self, run_id: str) -> Packaging:
        """Return how the model that was registered with a run can be loaded elsewhere, as its files say."""
        from mlflow.artifacts import download_artifacts

        with tempfile.TemporaryDirectory(prefix="headrace-model-") as folder:
            parts = [
                download_artifacts(
                    run_id=run_id,
                    artifact_path=f"model/{name}",
                    dst_path=folder,
                    tracking_uri=self._project.tracking_uri,
                )
                for name in PACKAGING
            ]
            return packaging_of(*map(Path, parts))

    @_translated
    def project_of(self, run_id: str) -> str | None:
        """Return whose run it is, as the name of its experiment says; None if there is no such run."""
        try:
            run = self._client.get_run(run_id)
        except Exception as error:
            if getattr(error, "error_code", "") in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise
        return str(self._client.get_experiment(run.info.experiment_id).name)

    @_translated
    def document(self, run_id: str, name: str) -> Any:
        """Return a JSON document that was logged with a run, None if it has none of that name."""
        from mlflow.artifacts import download_artifacts

        if name not in [entry.path for entry in self._client.list_artifacts(run_id)]:
            return None
        with tempfile.TemporaryDirectory(prefix="headrace-run-") as folder:
            path = download_artifacts(
                run_id=run_id, artifact_path=name, dst_path=folder, tracking_uri=self._project.tracking_uri
            )
            return json.loads(Path(path).read_text(encoding="utf-8"))

    @_translated
    def aliases(self) -> dict[str, int]:
        """Return the version of each alias."""
        return self._aliases()

    @_translated
    def promote(
        self, version: int, *, expected: int | None, serves_from: int | None = None, watched: bool = False
    ) -> None:
        """Make a version the champion, and the champion so far `previous`; it is challenger no more.

        Parameters
        ----------
        version : int
            The new champion.
        expected : int or None
            The champion that the decision was made against.
        serves_from : int, optional
            Event time from which lockstep lets it serve, ms; as registered if left out. A version that was in shadow
            was registered for an earlier time.
        watched : bool
            Whether the champion so far goes on in shadow.

        Raises
        ------
        RegistryError
            If another version became champion meanwhile; nothing has moved then.
        """
        with self._locked():
            aliases = self._aliases()
            current = aliases.get(CHAMPION)
            if current not in (version, expected):
                raise RegistryError(
                    f"model {self._name!r}: version {current} is champion, not {expected}: "
                    f"version {version} was to replace the other, and is not promoted"
                )
            if current != version:
                self._serve(version, current, serves_from, watched=watched)
            if aliases.get(CHALLENGER) == version:
                self._client.delete_registered_model_alias(self._name, CHALLENGER)

    def _serve(self, version: int, before: int | None, serves_from: int | None, *, watched: bool) -> None:
        tags = {WATCHED: str(watched).lower(), **({} if serves_from is None else {SERVES_FROM: str(serves_from)})}
        for tag, value in tags.items():
            self._client.set_model_version_tag(self._name, str(version), f"{PREFIX}{tag}", value)
        if before is not None:
            self._client.set_registered_model_alias(self._name, PREVIOUS, str(before))
        self._client.set_registered_model_alias(self._name, CHAMPION, str(version))

    def _aliases(self) -> dict[str, int]:
        try:
            model = self._client.get_registered_model(self._name)
        except Exception as error:
            if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise
        return {alias: int(version) for alias, version in model.aliases.items()}

    def _experiment(self) -> str:
        with self._locked():
            found = self._client.get_experiment_by_name(self._name)
            if found is not None:
                return str(found.experiment_id)
            # A database as tracking address has no artifact store of its own: the default would be ./mlruns.
            remote = self._project.tracking_uri.startswith(("http://", "https://"))
            folder = None if remote else (self._project.state / "mlflow-artifacts").as_uri()
            return str(self._client.create_experiment(self._name, artifact_location=folder))

    def _ensure_model(self) -> None:
        with self._locked():
            try:
                self._client.get_registered_model(self._name)
            except Exception as error:
                if getattr(error, "error_code", "") != "RESOURCE_DOES_NOT_EXIST":
                    raise
                self._client.create_registered_model(self._name)

    def _log(self, run_id: str, registration: Registration) -> None:
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        self._client.log_batch(
            run_id,
            metrics=[Metric(name, value, now, 0) for name, value in registration.metrics.items()],
            params=[Param(name, str(value)) for name, value in registration.params.items()],
            tags=[RunTag(f"{PREFIX}{name}", str(value)) for name, value in registration.tags.items()],
        )
        for name, document in registration.documents.items():
            self._client.log_dict(run_id, document, name)

    def _save(self, pipeline: Any, example: pd.DataFrame, folder: Path) -> None:
        from mlflow import sklearn as flavour

        classifies = self._project.settings.task != "regression"
        with project_code_by_value():
            flavour.save_model(
                pipeline,
                str(folder),
                serialization_format=FORMAT,
                signature=self._signature(pipeline),
                input_example=example,
                pip_requirements=requirements(pipeline),
                pyfunc_predict_fn="predict_proba" if classifies else "predict",
            )

    def _signature(self, pipeline: Any) -> Any:
        import numpy as np
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, Schema, TensorSpec

        kinds = used_features(self._project.settings.batch_kinds)
        columns = [ColSpec("string" if kind == "category" else "double", name) for name, kind in kinds.items()]
        shape = (-1,) if self._project.settings.task == "regression" else (-1, len(pipeline.classes_))
        return ModelSignature(Schema(columns), Schema([TensorSpec(np.dtype(np.float64), shape)]))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes of this state folder out; MLflow's own first start is not safe for two."""
        lock, until = FileLock(self._lock_file), time.monotonic() + _LOCK_WAIT_S
        while not lock.acquire("the registry"):
            if time.monotonic() > until:
                raise RegistryError(
                    f"another process has held {self._lock_file} for {_LOCK_WAIT_S:g} s: it stands still; end it"
                )
            time.sleep(0.02)
        try:
            yield
        finally:
            lock.release()
