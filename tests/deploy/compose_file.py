"""docker-compose.yml, read as Compose reads it: YAML, merge keys, variables."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker-compose.yml"
VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?:(?P<kind>:?[-?+])(?P<rest>[^}]*))?\}|(?P<bare>\w+))")


class MissingVariableError(Exception):
    """A variable that is required has no value: Compose stops with its message."""


@dataclass(frozen=True)
class Variable:
    """One variable of the file: ``kind`` is ``:?`` (required), ``:-`` (with a default) or empty."""

    name: str
    kind: str
    rest: str


def raw() -> dict[str, Any]:
    """The file as it is written, variables untouched."""
    content: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return content


def variables(value: Any = None) -> list[Variable]:
    """Every variable in a part of the file, the whole of it by default."""
    found: list[Variable] = []

    def note(match: re.Match[str]) -> str:
        if name := match["name"] or match["bare"]:
            found.append(Variable(name, match["kind"] or "", match["rest"] or ""))
        return ""

    _map_strings(raw() if value is None else value, lambda text: VARIABLE.sub(note, text))
    return found


def resolved(values: Mapping[str, str]) -> dict[str, Any]:
    """The file with its variables replaced, as Compose does it."""

    def replace(match: re.Match[str]) -> str:
        name = match["name"] or match["bare"]
        if name is None:
            return "$"
        if values.get(name):
            return values[name]
        if match["kind"] == ":-":
            return match["rest"]
        raise MissingVariableError(f"{name}: {match['rest']}")

    content: dict[str, Any] = _map_strings(raw(), lambda text: VARIABLE.sub(replace, text))
    return content


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {key: _map_strings(entry, change) for key, entry in value.items()}
    if isinstance(value, list):
        return [_map_strings(entry, change) for entry in value]
    return change(value) if isinstance(value, str) else value
