"""What a registered model's files may be, checked before anything in them is executed.

MLflow imports whatever module a model's ``MLmodel`` file names, even where pickles are forbidden, and a
pickle is code. So the files are read as data first: their digest must be the one recorded at
registration, and ``MLmodel`` may name only the two flavours that headrace writes.
"""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from core.errors import RegistryError
from core.libraries import libraries_of

MODEL_FILE = "model.pkl"
FORMAT = "cloudpickle"
_LOAD_IT = ("cloudpickle", "numpy", "pandas", "scikit-learn", "scipy")
_FLAVOURS = {"sklearn", "python_function"}
_SKLEARN_KEYS = {"code", "pickled_model", "serialization_format", "skops_trusted_types", "sklearn_version"}
_PYFUNC_KEYS = {"code", "env", "loader_module", "model_path", "predict_fn", "python_version"}


def digest_of(folder: Path) -> str:
    """Return the SHA-256 over names and contents of all files below a folder.

    Raises
    ------
    RegistryError
        If the folder holds anything but files and folders, such as a link.
    """
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise RegistryError(f"{path}: is not a plain file; a registered model must not hold links")
        if path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            total.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return total.hexdigest()


def check_model_files(folder: Path, digest: str | None) -> None:
    """Refuse a model whose files changed since registration, or that would run foreign code.

    Parameters
    ----------
    folder : Path
        The model's files: a private copy, so that they cannot change after the check.
    digest : str or None
        What was recorded at registration.

    Raises
    ------
    RegistryError
        If there is no digest, it differs, or ``MLmodel`` names another flavour, loader, code or format.
    """
    if not digest:
        raise RegistryError("no digest was recorded when the model was registered; register it with headrace")
    found = digest_of(folder)
    if found != digest:
        raise RegistryError(
            f"the files changed after registration: digest {found[:12]} instead of {digest[:12]}; "
            "promote another version, or retrain"
        )
    flavours = _flavours(folder / "MLmodel")
    if set(flavours) != _FLAVOURS:
        raise RegistryError(f"flavours {sorted(flavours)} instead of {sorted(_FLAVOURS)}")
    _check_flavour(flavours["sklearn"], _SKLEARN_KEYS, pickled_model=MODEL_FILE, serialization_format=FORMAT)
    _check_flavour(flavours["python_function"], _PYFUNC_KEYS, loader_module="mlflow.sklearn", model_path=MODEL_FILE)


def _flavours(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RegistryError(f"MLmodel cannot be read: {error}") from error
    flavours = content.get("flavors") if isinstance(content, dict) else None
    if not isinstance(flavours, dict) or not all(isinstance(entry, dict) for entry in flavours.values()):
        raise RegistryError("MLmodel names no flavours")
    return flavours


def _check_flavour(entry: dict[str, Any], allowed: set[str], **required: str) -> None:
    if unknown := sorted(set(entry) - allowed):
        raise RegistryError(f"MLmodel has unknown entries {unknown}")
    if entry.get("code") is not None:
        raise RegistryError(f"MLmodel names code to run: {entry['code']!r}")
    for key, value in required.items():
        if entry.get(key) != value:
            raise RegistryError(f"MLmodel has {key} {entry.get(key)!r} instead of {value!r}")


def pickled_bytes(pipeline: Any) -> int | None:
    """Return how many bytes a pipeline takes when it is written; None where it cannot be."""
    import cloudpickle  # type: ignore[import-untyped]

    counter = _Counter()
    try:
        with project_code_by_value():
            cloudpickle.dump(pipeline, counter)
    except Exception:  # noqa: BLE001  an estimator may be the project's own, and raise anything
        return None
    return counter.count


class _Counter(io.RawIOBase):
    """Takes what is written, and keeps its length only."""

    def __init__(self) -> None:
        self.count = 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self.count += (size := memoryview(content).nbytes)
        return size


def requirements(pipeline: Any = None) -> list[str]:
    """Name what loads a model, with the versions that it was made with; MLflow would take 15 s to find it out."""
    return [f"{name}=={number}" for name, number in libraries_of(pipeline, _LOAD_IT).items()]


@contextmanager
def project_code_by_value() -> Iterator[None]:
    """While inside, write the project's own classes into the pickle: a worker may not have imported that file."""
    import cloudpickle

    modules = [module for name, module in sys.modules.items() if name.startswith("headrace_project_")]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)
