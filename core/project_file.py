"""The project file's text: to settings, or to one line for each mistake that says where it is and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import Any, get_origin

import yaml
from pydantic import ValidationError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from core.clocks import ROW_CLOCK, UTC_CLOCK
from core.durations import parse_duration
from core.errors import SettingsError
from core.outcomes import outcome_reader
from core.setting_types import AS_WRITTEN, Section
from core.settings import Settings

FILE_NAME = "headrace.yaml"
_LIMITS = {"greater_than_equal": "must be at least", "less_than_equal": "must be at most"}


def parse_settings(text: str, where: str = FILE_NAME, *, numbered: bool = True) -> Settings:
    """Read the text of a project file.

    Parameters
    ----------
    where : str
        Its name, for messages.
    numbered : bool
        Whether its lines are those that the user sees.

    Raises
    ------
    SettingsError
        One line for each mistake: ``file:line: key: what is wrong; the fix``.
    """

    def at(line: int) -> str:
        return f"{where}:{line}" if numbered else where

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise SettingsError(f"{at(line)}: not valid YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(content, dict) or root is None:
        raise SettingsError(f"{at(1)}: expected settings as 'key: value' lines, such as 'name: flights'")
    if twice := list(_keys_given_twice(root)):
        raise SettingsError("\n".join(f"{at(line)}: {key}: is given twice; remove one" for line, key in twice))
    try:
        settings = Settings.model_validate(content, context=AS_WRITTEN)
    except ValidationError as error:
        found = [_explain(dict(item), root) for item in error.errors()]
        lines = dict.fromkeys(f"{at(line)}: {mistake}" for line, mistake in found)
        raise SettingsError("\n".join(lines)) from error
    missing = settings.label.missing
    if missing is not None and outcome_reader(settings)(missing) is None:
        line = _line_of(root, ["label", "missing"])
        raise SettingsError(f"{at(line)}: label.missing: {missing!r} is no outcome of this task; see its label values")
    return settings


def _keys_given_twice(node: Node) -> Iterator[tuple[int, str]]:
    """Yield line and key of every repetition; YAML itself would silently take the last."""
    if isinstance(node, MappingNode):
        known = set()
        for key, value in node.value:
            if isinstance(key.value, str) and key.value in known:
                yield key.start_mark.line + 1, key.value
            known.add(str(key.value))
            if value.start_mark.index > key.start_mark.index:  # an alias points back, even to itself
                yield from _keys_given_twice(value)
    elif isinstance(node, SequenceNode):
        for value in node.value:
            if value.start_mark.index > node.start_mark.index:
                yield from _keys_given_twice(value)


def _explain(item: dict[str, Any], root: Node) -> tuple[int, str]:
    """Return the line of a mistake, and what it is."""
    location = [part for part in item["loc"] if not _is_type_tag(part)]
    key = ".".join(str(part) for part in location) or "the file"
    line, node = _place_of(root, location)
    written = node.value if isinstance(node, ScalarNode) else ""
    problem = _problem(item, location, written)
    if not location:
        line = _line_spoken_of(root, problem)
    return line, f"{key}: {problem}"


def _line_spoken_of(root: Node, problem: str) -> int:
    """Return the line of the first setting that a sentence names and the file has, or of a quoted value there."""
    for name in re.findall(r"[a-z_]+(?:\.[a-z_]+)+", problem):
        line, node = _place_of(root, name.split("."))
        if node is not None:
            quoted = set(re.findall(r"'([^']+)'", problem))
            return next((one.start_mark.line + 1 for one in _scalars(node) if one.value in quoted), line)
    return 1


def _scalars(node: Node) -> Iterator[ScalarNode]:
    if isinstance(node, ScalarNode):
        yield node
        return
    inside = chain.from_iterable(node.value) if isinstance(node, MappingNode) else node.value
    for value in inside:
        if value.start_mark.index > node.start_mark.index:  # an alias points back, even to itself
            yield from _scalars(value)


def _is_type_tag(part: object) -> bool:
    return isinstance(part, str) and (part in {"bool", "int", "float", "str"} or "[" in part)


def _problem(item: dict[str, Any], location: list[Any], written: str) -> str:
    kind, message = item["type"], str(item["msg"]).removeprefix("Value error, ")
    if kind == "extra_forbidden":
        return f"unknown setting; {_nearest(location)}"
    if kind == "missing":
        return f"is missing; add '{location[-1]}: ...'"
    if kind == "too_short":
        message = f"has {item['ctx']['actual_length']} entries; give at least {item['ctx']['min_length']}"
    if kind == "string_pattern_mismatch":
        column = ", and say behind it where it is found: {type: ..., path: NAME}" if "fields" in location else ""
        return f"{item['input']!r} does not match {item['ctx']['pattern']}; rename it{column}"
    if kind == "float_parsing" and (share := re.fullmatch(r"([0-9.]+) *%", written)):
        return f"is a share, not a percentage; write {float(share[1]) / 100:g} (got {written!r})"
    if kind in _LIMITS and _is_duration(written):
        clock = ROW_CLOCK if "row" in written.lower() else UTC_CLOCK
        return f"{_LIMITS[kind]} {clock.setting(next(iter(item['ctx'].values())))} (got {written!r})"
    return (
        f"{message[:1].lower()}{message[1:]} (got {item['input']!r})"
        if not isinstance(item["input"], dict)
        else message
    )


def _is_duration(written: str) -> bool:
    try:
        parse_duration(written)
    except ValueError:
        return False
    return True


def _nearest(location: list[Any]) -> str:
    import difflib

    section: Any = Settings
    inside = False  # a dict's key or a list's index follows: it names no setting
    for part in location[:-1]:
        if inside:
            inside = False
        else:
            inside = _holds_many(section, part)
            section = _subsection(section, part)
    if section is None:
        return "remove it"
    names = list(section.model_fields)
    close = difflib.get_close_matches(str(location[-1]), names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(names)}"


def _subsection(section: Any, part: object) -> Any:
    """Return the settings class below `part`, or None where the file is free there."""
    if not (isinstance(section, type) and issubclass(section, Section)):
        return section
    field = section.model_fields.get(str(part))
    return None if field is None else _section_in(field.annotation)


def _holds_many(section: Any, part: object) -> bool:
    field = None if section is None else section.model_fields.get(str(part))
    return field is not None and get_origin(field.annotation) in (dict, list)


def _section_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    found = [_section_in(argument) for argument in getattr(annotation, "__args__", ())]
    return next((section for section in found if section is not None), None)


def _line_of(root: Node, location: list[Any]) -> int:
    return _place_of(root, location)[0]


def _place_of(root: Node, location: list[Any]) -> tuple[int, Node | None]:
    """Return the line of a setting and what is written there, or the line where it is missing."""
    node, line = root, 1
    for part in location:
        if isinstance(node, MappingNode):
            match = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if match is None:
                return line, None
            line, node = match[0].start_mark.line + 1, match[1]
        elif isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line, None
    return line, node
