"""The retraining policies that a backtest compares: the project's own, and changes of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from core.durations import SECOND, parse_duration
from core.errors import UsageError
from core.project_file import parse_settings
from core.recorded import ROW_TIME, counts_rows
from core.settings import Settings

_PARTS = re.compile(r"[^,{}]+(?:\{[^{}]*\})?")
_COMMAS_OUTSIDE_LISTS = re.compile(r",(?![^\[\]]*\])")
_NAMED = re.compile(r"([A-Za-z0-9_-]+)\{([^{}]*)\}")
_UNMOVED = {"retrain.on_drift": False, "retrain.growth": None}
_NEVER = {"retrain.every": None, **_UNMOVED}
_BUILT_IN = ("never", "always", "online-only", "batch-only")


@dataclass(frozen=True)
class Policy:
    """When to fit again, and what is served.

    Attributes
    ----------
    name : str
        As it was given.
    settings : Settings
        The project file with the policy's changes.
    opening : Settings or None
        The project file until the first retraining after the bootstrap, where that comes at another time.
    batch, online : bool
        Whether a batch champion is fitted at all; whether the online experts are served beside it.
    """

    name: str
    settings: Settings
    opening: Settings | None = None
    batch: bool = True
    online: bool = True


OF_A_POLICY = ("windows", "drift", "retrain", "batch", "gates", "blend")
"""Sections of the project file that policies may differ in."""
STREAM = "stream"
"""What the result calls the pass that all policies share."""


def parse_policies(text: str, content: Mapping[str, Any], where: str) -> list[Policy]:
    """Read a list such as ``never,every:28d,drift,eager{drift.persistence=1,retrain.every=7d}``.

    Parameters
    ----------
    content : mapping
        What the project file holds.
    where : str
        Its name, for messages.

    Raises
    ------
    UsageError
        If a policy is not known, or is named twice.
    SettingsError
        If its changes do not fit the project file.
    """
    if not set(_PARTS.sub("", text)).isdisjoint("{}"):
        raise UsageError(f"--policies: {text!r}: braces open and close behind a name: mine{{drift.persistence=1}}")
    names = [part.strip() for part in _PARTS.findall(text) if part.strip()]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"--policies: {sorted(twice)[0]!r} is named twice")
    if not names:
        raise UsageError("--policies: name at least one, such as never,drift")
    policies = [_policy(name, content, where) for name in names]
    called = [policy.name for policy in policies]
    if STREAM in called:
        raise UsageError(f"--policies: {STREAM!r} is what the result calls the recorded stream; write another name")
    if twice := {name for name in called if called.count(name) > 1}:
        raise UsageError(f"--policies: two are named {sorted(twice)[0]!r}; write another name before the braces")
    return policies


def usual_policies(settings: Settings) -> str:
    """Return the policies that are compared where none are named."""
    return f"never,every:{_usual_period(settings)},online-only,drift"


def _usual_period(settings: Settings) -> str:
    return "4000rows" if settings.time == ROW_TIME else "28d"


def _policy(text: str, content: Mapping[str, Any], where: str) -> Policy:
    if named := _NAMED.fullmatch(text):
        if named[1] in _BUILT_IN:
            raise UsageError(
                f"--policies: {text!r}: changes go to the project's own policy, which is not {named[1]}; "
                f"write another name, such as mine{{{named[2]}}}"
            )
        changes = [_change(part) for part in _COMMAS_OUTSIDE_LISTS.split(named[2]) if part.strip()]
        keys = [key for key, _ in changes]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise UsageError(f"--policies: {text!r}: {sorted(twice)[0]} is given twice")
        return Policy(named[1], _changed(content, dict(changes), f"{where} ({text})"))
    kind, _, period = text.partition(":")
    if kind == "every":
        return _periodic(text, period, content, where)
    if text == "always":
        unchanged = _changed(content, {}, where)
        span = unchanged.clock.setting(unchanged.windows.span)
        return Policy(text, _changed(content, {"retrain.every": span, **_UNMOVED}, where))
    if text in ("never", "online-only"):
        return Policy(text, _changed(content, _NEVER, where), batch=text == "never")
    if text in ("drift", "batch-only"):
        return Policy(text, _changed(content, {}, where), online=text == "drift")
    raise UsageError(
        f"--policies: {text!r} is not known; write never, always, every:28d, online-only, batch-only, drift, or "
        "a name with changes of the project file: eager{drift.persistence=1}"
    )


def _periodic(name: str, text: str, content: Mapping[str, Any], where: str) -> Policy:
    """Read the period and, behind a plus, when after the bootstrap the first of them comes."""
    period, plus, first = (part.strip() for part in text.partition("+"))
    unchanged = _changed(content, {}, where)
    usual = _usual_period(unchanged)
    write = f"write a period such as every:{usual}, or always for a retraining whenever a window closes"
    _check_period(name, period, "the period", write)
    if plus:
        _check_period(name, first, "what follows the plus", f"write every:{period}+{period}, or leave the plus out")
    if unchanged.time == ROW_TIME and not all(counts_rows(part) for part in (period, first) if part):
        raise UsageError(
            f"--policies: {name!r}: the file has no times, its rows count; write rows, such as every:{usual}"
        )
    settings, opening = (
        _changed(content, {"retrain.every": each, **_UNMOVED}, f"{where} ({name})")
        for each in (period, first if plus else period)
    )
    return Policy(name, settings, opening if plus else None)


def _check_period(name: str, text: str, what: str, write: str) -> None:
    """Refuse what is no length of time, or none that a retraining can wait.

    Raises
    ------
    UsageError
        With what to write instead.
    """
    try:
        length = parse_duration(text) if text else 0
    except ValueError as error:
        raise UsageError(f"--policies: {name!r}: {what} is no length of time; {write}") from error
    if length < SECOND:
        problem = "is too short" if length else "is no time at all" if text else "is missing"
        raise UsageError(f"--policies: {name!r}: {what} {problem}; {write}")


def _change(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--policies: {text!r} is no change; write section.setting=value")
    section, dot, _ = key.strip().partition(".")
    if section not in OF_A_POLICY or not dot:
        raise UsageError(
            f"--policies: {text!r} is nothing that policies differ in: they all see one stream, and the online experts "
            f"learn from it once; change a setting of {', '.join(OF_A_POLICY)} here, and anything else in the project "
            "file"
        )
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UsageError(f"--policies: {text!r}: the value is not valid: {error}") from error


def _changed(content: Mapping[str, Any], changes: Mapping[str, Any], where: str) -> Settings:
    made: dict[str, Any] = {key: dict(value) if isinstance(value, Mapping) else value for key, value in content.items()}
    for key, value in changes.items():
        *sections, name = key.split(".")
        place = made
        for section in sections:
            inner = place.get(section)
            place[section] = dict(inner) if isinstance(inner, Mapping) else {}
            place = place[section]
        place[name] = value
    return parse_settings(yaml.safe_dump(made, allow_unicode=True, sort_keys=False), where, numbered=False)
