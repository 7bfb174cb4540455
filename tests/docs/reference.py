"""The settings as Markdown tables, from the models themselves; run it to write docs/settings.md anew."""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from core.durations import format_duration
from core.setting_types import Section
from core.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"
_HEAD = """# Settings

All of `headrace.yaml`. Durations are written `28d`, `6h`, `90m`, `15s`, `250ms`, never without a unit and at most
`36500d`; paths into JSON `a.b.c`. A mistake is reported with its line, its key, what is wrong and the fix. Environment
variables hold only where things are: see [Commands](commands.md).

This page is made from the code: `python tests/docs/reference.py`.
"""


def sections() -> list[tuple[str, str, list[tuple[str, str, str]]]]:
    """Return (title, what it is, rows of (key, default, meaning)) for each part of the file."""
    found: list[tuple[str, str, list[tuple[str, str, str]]]] = []
    _collect("", Settings, found)
    return found


def page() -> str:
    parts = [_HEAD]
    for title, text, rows in sections():
        parts.append(f"## {title or 'The file'}\n\n{text}\n\n| setting | default | meaning |\n|---|---|---|")
        parts[-1] += "".join(f"\n| `{key}` | {default} | {meaning} |" for key, default, meaning in rows)
    return "\n\n".join(parts) + "\n"


def _collect(prefix: str, model: type[BaseModel], found: list[Any]) -> None:
    text = (model.__doc__ or "").strip().splitlines()[0]
    rows: list[tuple[str, str, str]] = []
    found.append((prefix.rstrip("."), text, rows))
    for name, field in model.model_fields.items():
        inner = _section_in(field.annotation)
        key = f"{prefix}{name}"
        many = typing.get_origin(field.annotation) in (dict, list) and inner is not None
        if inner is not None:
            step = ".<name>." if typing.get_origin(field.annotation) is dict else "[]." if many else "."
            _collect(f"{key}{step}", inner, found)
        if inner is None or many:
            rows.append((key, _default(field, inner), (field.description or "") + _minimum(field)))


def _is_duration(field: Any) -> bool:
    return "_duration" in str(field.metadata) + str(field.annotation)


def _minimum(field: Any) -> str:
    """Say the smallest value where it is not the obvious one."""
    least = max((entry.ge for entry in field.metadata if getattr(entry, "ge", None) is not None), default=0)
    return "" if least <= 1 else f"; at least {format_duration(least) if _is_duration(field) else least}"


def _default(field: Any, inner: Any) -> str:
    if field.default is PydanticUndefined:
        return "required"
    value = field.default
    if inner is not None:
        return ", ".join(f"`{getattr(entry, 'name', None) or entry.family}`" for entry in value) or "none"
    if value is None:
        return "none"
    if isinstance(value, int) and not isinstance(value, bool) and _is_duration(field):
        return f"`{format_duration(value)}`"
    if field.annotation is int and "_period" in str(field.metadata):
        return f"`1 per {format_duration(value)}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if (
        isinstance(annotation, type)
        and not isinstance(annotation, types.GenericAlias)
        and issubclass(annotation, Section)
    ):
        return annotation
    return next((inner for argument in typing.get_args(annotation) if (inner := _section_in(argument))), None)


if __name__ == "__main__":
    (DOCS / "settings.md").write_text(page(), encoding="utf-8")
