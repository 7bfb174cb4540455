"""How a registered model can be loaded elsewhere: what it takes, what it returns, what has to be installed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from core.errors import RegistryError

FILES = ("MLmodel", "requirements.txt")
"""The files of a registered model that say it."""


@dataclass(frozen=True)
class Packaging:
    """What a registered model's files say.

    Attributes
    ----------
    inputs : dict of str to str
        Each column that it takes, and its type; empty without a signature.
    output : str
        What it returns, such as ``float64, 2 a row``; empty without a signature.
    requirements : list of str
        What has to be installed, with exact versions.
    """

    inputs: dict[str, str]
    output: str
    requirements: list[str]


def packaging_of(about: Path, requirements: Path) -> Packaging:
    """Read it from the two files of a model.

    Raises
    ------
    RegistryError
        If these files are not what MLflow writes.
    """
    try:
        signature = (yaml.safe_load(about.read_text(encoding="utf-8")) or {}).get("signature") or {}
        inputs = json.loads(signature.get("inputs") or "[]")
        outputs = json.loads(signature.get("outputs") or "[]")
        lines = requirements.read_text(encoding="utf-8").split()
        kinds = {str(column["name"]): str(column["type"]) for column in inputs}
        return Packaging(kinds, ", ".join(map(_tensor, outputs)), lines)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise RegistryError(f"signature and requirements cannot be read: {type(error).__name__}: {error}") from error


def _tensor(entry: dict[str, Any]) -> str:
    shape = entry["tensor-spec"]["shape"]
    return f"{entry['tensor-spec']['dtype']}, {shape[1] if len(shape) > 1 else 1} a row"
