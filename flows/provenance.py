"""What a fit was made with: code, libraries and machine. Two that are equal fit the same model on the same rows."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from core.libraries import libraries_of
from core.project import Project
from core.project_file import FILE_NAME

_LIBRARIES = ("numpy", "pandas", "pyarrow", "scikit-learn", "scipy", "threadpoolctl")


def made_with(project: Project, pipeline: Any = None) -> dict[str, Any]:
    """Return all but the data that a fit depends on, as JSON values.

    Parameters
    ----------
    pipeline : object, optional
        The fitted pipeline: the packages that its estimators come from are named, too.

    Returns
    -------
    dict
        ``headrace`` (version, commit), ``project`` (digest of each of its own files), ``libraries`` and ``machine``.
    """
    return {
        "headrace": code_version(),
        "project": project_files(project),
        "libraries": {"python": platform.python_version(), **libraries_of(pipeline, _LIBRARIES)},
        "machine": machine(),
    }


def code_version() -> str:
    """Return headrace's version, with the commit where it runs from a checkout, and whether that was changed."""
    folder = Path(__file__).resolve().parent.parent
    released = package_version("headrace")
    if not (folder / ".git").exists():  # installed: a repository further up is somebody else's
        return released
    try:
        asked = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return released
    return f"{released}+{asked.stdout.strip()}" if asked.returncode == 0 else released


def project_files(project: Project) -> dict[str, str]:
    """Return the SHA-256 of the project file, of the Python files beside it, and of those that it names."""
    settings = project.settings
    named = [
        *(candidate.family for candidate in settings.batch.candidates),
        *(expert.factory for expert in settings.online),
    ]
    named += [settings.features.function] if settings.features and settings.features.function else []
    wanted = {project.folder / reference.partition(":")[0] for reference in named if ".py:" in reference}
    wanted |= {project.folder / FILE_NAME, *project.folder.glob("*.py")}
    return {
        os.path.relpath(path, project.folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(wanted)
        if path.is_file()
    }


def machine() -> dict[str, Any]:
    """Return what decides how numbers are added up: processor, cores, libraries of linear algebra and threads."""
    from threadpoolctl import threadpool_info  # type: ignore[import-untyped]

    pools = {
        f"{pool['internal_api']} {pool.get('version') or ''} {pool.get('architecture') or ''}".strip()
        for pool in threadpool_info()
    }
    return {"processor": platform.machine(), "cores": os.cpu_count(), "pools": sorted(pools)}


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say what of `made_with` is not as it was, one line each.

    Examples
    --------
    >>> differences({"headrace": "0.1.0", "libraries": {"numpy": "2.1"}}, {"headrace": "0.1.0", "libraries": {}})
    ['libraries.numpy: was 2.1, is not there']
    """
    old, new = _flat(then), _flat(now)
    return [
        f"{name}: was {_short(old.get(name))}, is {_short(new.get(name))}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``a.b.c: value`` for all that is in nested mappings."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": entry for inner, entry in _flat(value).items()}
        else:
            flat[name] = value
    return flat


def _short(value: Any) -> str:
    text = "not there" if value is None else str(value)
    return f"{text[:12]}..." if len(text) == 64 else text
