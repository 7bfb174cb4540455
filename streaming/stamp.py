"""What a snapshot must agree on with the installation that is to go on from it."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import version
from typing import Any

from core.project import Project
from core.settings import Settings


def stamp_of(project: Project, form: int) -> dict[str, Any]:
    """Return the format, the versions that unpickle it, and digests of what decides what a state means."""
    settings = project.settings
    return {
        "format": form,
        "river": version("river"),
        "python": ".".join(platform.python_version_tuple()[:2]),
        **_settings_digests(settings),
        "features": _code_digest(project),
    }


def _settings_digests(settings: Settings) -> dict[str, str]:
    """Return a digest of each part of the project file that decides what a state means."""
    shape = settings.model_dump(mode="json", include={"task", "fields", "features", "online", "blend", "label"})
    return {f"settings.{name}": _digest(json.dumps(part, sort_keys=True)) for name, part in sorted(shape.items())}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _code_digest(project: Project) -> str | None:
    """Return a digest of the file of the project's feature function, None if it has none."""
    features = project.settings.features
    if features is None or features.function is None:
        return None
    path = project.folder / features.function.partition(":")[0]
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
