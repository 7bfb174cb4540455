"""A project: the user's folder, its settings, its code and where its state lies.

The only place that reads the environment and the project's own Python files.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from core.errors import ProjectCodeError, SettingsError
from core.project_file import FILE_NAME, parse_settings
from core.settings import Settings

OBJECT_STORES = ("s3", "gs", "abfs", "abfss")


@dataclass(frozen=True)
class Project:
    """A loaded project folder.

    Attributes
    ----------
    folder : Path
        The user's folder; holds ``headrace.yaml``.
    settings : Settings
        What the file says.
    state : Path
        Everything that headrace writes on this host: reports, ledger, MLflow, Prefect.
    shared : Path or str
        Where tables and checkpoints are, which every worker of the project reaches: a folder, or an object store's URI.
    bootstrap_servers : str or None
        Kafka's address; None where no broker was named.
    tracking_uri : str
        MLflow's address.
    """

    folder: Path
    settings: Settings
    state: Path
    shared: Path | str
    bootstrap_servers: str | None
    tracking_uri: str

    @property
    def tables(self) -> Path | str:
        return _below(self.shared, "tables")

    @property
    def reports(self) -> Path:
        return self.state / "reports"

    @property
    def cards(self) -> Path:
        return self.state / "cards"

    @property
    def checkpoints(self) -> Path | str:
        return _below(self.shared, "checkpoints")

    @property
    def ledger(self) -> Path:
        return self.state / "ledger.sqlite"

    @property
    def status(self) -> Path:
        return self.state / "status"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    def with_broker(self, bootstrap_servers: str) -> Project:
        """Return the same project on another broker."""
        return replace(self, bootstrap_servers=bootstrap_servers)

    def load_function(self, reference: str) -> Callable[..., Any]:
        """Load ``file.py:function`` from the project folder.

        Raises
        ------
        ProjectCodeError
            If there is no such file or function, or the file does not import.
        """
        file_name, _, attribute = reference.partition(":")
        path = self.folder / file_name
        if not attribute or not path.is_file():
            raise ProjectCodeError(f"{reference!r}: expected file.py:function with the file in {self.folder}")
        module_name = f"headrace_project_{self.settings.name.replace('-', '_')}_{path.stem}"
        module = sys.modules.get(module_name)
        if module is None or getattr(module, "__file__", None) != str(path):
            spec = importlib.util.spec_from_file_location(module_name, path)
            if spec is None or spec.loader is None:
                raise ProjectCodeError(f"{path}: is not a Python file")
            module = importlib.util.module_from_spec(spec)
            sys.modules[module_name] = module
            try:
                spec.loader.exec_module(module)
            except Exception as error:
                del sys.modules[module_name]
                raise ProjectCodeError(f"{path}: does not import: {type(error).__name__}: {error}") from error
        function = getattr(module, attribute, None)
        if not callable(function):
            raise ProjectCodeError(f"{path}: has no function {attribute!r}")
        return function  # type: ignore[no-any-return]


def load_project(folder: str | Path, *, bootstrap: str | None = None, state: str | Path | None = None) -> Project:
    """Read a project folder.

    Parameters
    ----------
    folder : path
        The project folder, or its ``headrace.yaml``.
    bootstrap : str, optional
        Kafka's address; else ``HEADRACE_BOOTSTRAP_SERVERS``; else none.
    state : path, optional
        The state folder; else ``HEADRACE_STATE``; else ``.headrace`` in the project folder.

    Raises
    ------
    SettingsError
        If the file is missing, is not YAML, or a setting is wrong.
    """
    path = settings_file(folder)
    if not path.is_file():
        raise SettingsError(f"{path}: no such file; give a folder that holds a {FILE_NAME}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}; it must be a text file in UTF-8") from error
    settings = parse_settings(text, str(path))
    state_folder = Path(state or os.environ.get("HEADRACE_STATE") or path.parent / ".headrace").resolve()
    if wrong := next((part for part in (state_folder, *state_folder.parents) if part.is_file()), None):
        raise SettingsError(
            f"{state_folder}: cannot be the state folder: {wrong} is a file; give a folder (HEADRACE_STATE)"
        )
    return Project(
        folder=path.parent,
        settings=settings,
        state=state_folder,
        shared=_shared(settings.state.uri, path) or state_folder,
        bootstrap_servers=bootstrap or os.environ.get("HEADRACE_BOOTSTRAP_SERVERS") or None,
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{state_folder / 'mlflow.sqlite'}",
    )


def settings_file(folder: str | Path) -> Path:
    """Return where the project file of a folder is, or the file itself if that was given."""
    path = Path(folder).resolve()
    return path if path.is_file() else path / FILE_NAME


def _below(place: Path | str, name: str) -> Path | str:
    return place / name if isinstance(place, Path) else f"{place}/{name}"


def _shared(uri: str | None, file: Path) -> Path | str | None:
    """Return where ``state.uri`` leads: a folder, relative to the project's, or an object store."""
    if not uri:
        return None
    parts = urlsplit(uri)
    if not parts.scheme:
        return (file.parent / uri).resolve()
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if parts.scheme not in OBJECT_STORES or not parts.netloc:
        known = ", ".join(f"{scheme}://" for scheme in ("file", *OBJECT_STORES))
        raise SettingsError(f"{file}: state.uri: {uri!r} leads nowhere; give a folder, or one of {known}")
    if parts.query or parts.password:
        raise SettingsError(
            f"{file}: state.uri: only bucket and path belong here; give keys and end point in the environment, "
            "such as AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL"
        )
    return uri.rstrip("/")
