"""What led to a promotion or rollback, for people: alert, decision, retraining, gates, shadow, who let it pass. Pure.

Records are taken as :func:`cli.inspect.as_json` gives them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from core.clocks import Clock
from core.line_up import MOVES, SHADOW_ENDS

Entry = Mapping[str, Any]
KINDS = (*MOVES, "challenge", *SHADOW_ENDS)
"""Kinds of records that tell who served and shadowed when."""

_RULES = ("gates", "shadow", "watch")
"""What lets a version pass where no person does."""

_WIDTH = 120
_INDENT = 14


def move_line(move: Entry, entries: Sequence[Entry]) -> str:
    """Return in one line who serves, or shadows, or does no more, with what led to it.

    Examples
    --------
    >>> move_line({"kind": "rollback", "written_at": "2026-01-02T03:04:05Z", "version": 1, "previous": 2,
    ...            "approved": {"by": "anna", "why": "late on Mondays"}}, [])
    '2026-01-02 03:04  champion 1 (was 2): rolled back by anna: late on Mondays'
    """
    at = _minute(move["written_at"])
    if move["kind"] == "withdrawal":
        return f"{at}  challenger {move['version']} dropped: {_reasons(move)}"
    if move["kind"] == "trust":
        return f"{at}  champion {move['version']} is watched no more: {_reasons(move)}"
    if move["kind"] == "challenge":
        steps = [*_steps_before(move, entries), "predicts in shadow"]
        return f"{at}  challenger {move['version']} beside champion {move.get('previous')}: {' -> '.join(steps)}"
    steps = [*_steps_before(move, entries), _passed(move)]
    return f"{at}  champion {move['version']} (was {move.get('previous') or 'none'}): {' -> '.join(steps)}"


def about(version: int, entries: Sequence[Entry]) -> list[Any]:
    """Return the records about a version: what led to it, what it was made from, when it served, in their order."""
    moves = [
        entry for entry in entries if entry["kind"] in KINDS and version in (entry["version"], entry.get("previous"))
    ]
    own = [
        entry
        for entry in entries
        if entry["kind"] in ("retraining", "gate", "approval") and entry.get("version") == version
    ]
    requests = {entry.get("request") for entry in own}
    decisions = [entry for entry in entries if entry["kind"] == "decision" and entry["key"] in requests]
    windows = [entry["window"]["start"] for entry in decisions if entry.get("window")]
    alerts = [
        entry
        for entry in entries
        if entry["kind"] == "alert"
        and (entry.get("request") in requests - {None} or (entry.get("window") or {}).get("start") in windows)
    ]
    chosen = {id(entry) for entry in (*moves, *own, *decisions, *alerts)}
    return [entry for entry in entries if id(entry) in chosen]


def version_lines(version: int, entries: Iterable[Entry], clock: Clock) -> list[str]:
    """Return the records about a version as a report."""
    lines = [f"version {version}"]
    for entry in entries:
        said = {"gate": _gate_lines, "retraining": _retraining_lines, **dict.fromkeys(KINDS, _move_lines)}
        rows = said.get(entry["kind"], _reason_lines)(entry)
        lines += ["", f"{entry['kind']:{_INDENT}}{_minute(entry['written_at'])} UTC{_in_the_stream(entry, clock)}"]
        for name, text in rows:
            first = f"  {name:{_INDENT - 2}}"
            lines += textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=" " * _INDENT) or [first]
    return lines if len(lines) > 1 else []


def _steps_before(move: Entry, entries: Sequence[Entry]) -> list[str]:
    """Return alert, decision, retraining and gates of a promotion that a retraining ended with."""
    evidence, request = move.get("evidence") or {}, move.get("request")
    if move["kind"] == "rollback" or _by_hand(move):
        return []
    decision = next((e for e in entries if e["kind"] == "decision" and e["key"] == request), None)
    mine = [e for e in entries if e.get("request") == request and e.get("version") == move["version"]]
    fit = next((e for e in mine if e["kind"] == "retraining"), None)
    gate = next((e for e in mine if e["kind"] == "gate"), None)
    steps = [f"alert {', '.join(alerts)}"] if (alerts := evidence.get("alerts")) else []
    steps.append(f"{move.get('trigger')} decision" if decision else f"{move.get('trigger')} request")
    if fit is not None:
        steps.append(f"{fit.get('rows') or 0:,} rows{_short_digest(fit.get('recipe'))}")
    if gate is not None:
        results = gate.get("results") or []
        steps.append(f"{sum(result['passed'] for result in results)} of {len(results)} gates passed")
    return steps


def _passed(move: Entry) -> str:
    approved = move.get("approved") or {}
    done = "rolled back" if move["kind"] == "rollback" else "promoted"
    if approved.get("by") in (None, "gates") and not approved.get("why"):
        return f"{done} by {approved.get('by') or 'gates'}"
    found = f" ({approved['found']})" if approved.get("found") else ""
    return f"{done} by {approved['by']}: {approved.get('why') or 'no reason given'}{found}"


def _by_hand(move: Entry) -> bool:
    """Tell whether a person moved the champion by their own, not by approving what gates or a shadow let pass."""
    approved = move.get("approved") or {}
    return approved.get("by") not in (None, *_RULES) and not approved.get("after")


def _reasons(entry: Entry) -> str:
    return " ".join(map(str, entry.get("reasons") or []))


def _reason_lines(entry: Entry) -> list[tuple[str, str]]:
    rows = [("", str(reason)) for reason in entry.get("reasons", [])] or [("", str(entry["key"]))]
    return [*rows, *([("report", str(entry["report"]))] if entry.get("report") else [])]


def _gate_lines(entry: Entry) -> list[tuple[str, str]]:
    return [
        (str(result["name"]), f"{'passed' if result['passed'] else 'REFUSED'}: {result['reason']}")
        for result in entry.get("results") or []
    ] or [("", "no gate was reached")]


def _retraining_lines(entry: Entry) -> list[tuple[str, str]]:
    rows = [("", f"{entry.get('trigger')}, attempt {entry.get('attempt')}: MLflow run {entry.get('mlflow_run')}")]
    rows += [("", str(reason)) for reason in entry.get("reasons", [])]
    rows += [("card", f"{entry['card']} in the state folder")] if entry.get("card") else []
    recipe = entry.get("recipe")
    return rows if not recipe else rows + _recipe_lines(recipe)


def _recipe_lines(recipe: Mapping[str, Any]) -> list[tuple[str, str]]:
    batch, candidate, made = recipe["settings"]["batch"], recipe["candidate"], recipe["made_with"]
    corrections = "" if recipe["corrections"] is None else f", corrections at version {recipe['corrections']}"
    left_out = f", {len(recipe['left_out'])} windows in quarantine left out" if recipe["left_out"] else ""
    parameters = ", ".join(f"{name} {value}" for name, value in candidate["params"].items())
    return [
        ("rows", f"{recipe['rows']:,} of examples at version {recipe['examples']}{corrections}{left_out}"),
        ("rows digest", recipe["rows_digest"]),
        ("predictions", recipe["predictions_digest"]),
        ("model", f"{candidate['family']}, {parameters}; seed {batch['seed']}, {batch['threads']} threads"),
        ("code", f"headrace {made['headrace']}"),
        ("", ", ".join(f"{name} {digest[:12]}" for name, digest in made["project"].items())),
        ("libraries", ", ".join(f"{name} {number}" for name, number in made["libraries"].items())),
    ]


def _move_lines(entry: Entry) -> list[tuple[str, str]]:
    aliases = entry.get("aliases") or {}
    before, after = aliases.get("before", {}), aliases.get("after", {})
    moved = [f"{name} {before.get(name, 'none')} -> {version}" for name, version in after.items()]
    if entry["kind"] in MOVES:
        said = f"champion {entry['version']} (was {entry.get('previous') or 'none'}), {_passed(entry)}"
    elif entry["kind"] == "challenge":
        said = f"challenger {entry['version']} beside champion {entry.get('previous')}"
    else:
        said = _reasons(entry)
    rows = [("", said)]
    return [*rows, ("aliases", ", ".join(moved))] if moved else rows


def _in_the_stream(entry: Entry, clock: Clock) -> str:
    at = entry.get("event_time")
    return "" if at is None else f", stream at {clock.brief(clock.from_json(at))}"


def _short_digest(recipe: Mapping[str, Any] | None) -> str:
    return f" ({recipe['rows_digest'][:12]})" if recipe else ""


def _minute(time: str) -> str:
    return time[:16].replace("T", " ")
