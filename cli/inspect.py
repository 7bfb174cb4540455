"""``headrace status``: what is; and the records of the ledger as lines and JSON."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from cli.options import json_option, project_argument, write_json
from core.audit import DISPATCH_PROBLEM, QUESTION, Ledger, LedgerRecord
from core.clocks import Clock
from core.durations import format_time
from core.line_up import MOVES, SHADOW_ENDS, line_up
from core.project import Project, load_project
from core.status import is_alive, read_instances, read_status

_STALE_S = 30.0


@click.command(epilog="Example: headrace status examples/flights --json -")
@project_argument
@json_option
@click.option(
    "--check", type=click.Choice(["worker", "monitor"]), help="Only exit 0 if this service is alive and well."
)
def status(project: Path, json_file: str | None, check: str | None) -> None:
    """Show what runs, how the models do, and what is under way."""
    loaded = load_project(project)
    if check:
        sys.exit(_check(loaded, check))
    content = status_of(loaded)
    if json_file:
        write_json(content, json_file)
    else:
        click.echo("\n".join(_status_lines(content, loaded.settings.clock)))


def history_of(project: Project) -> list[dict[str, Any]]:
    """Return the ledger's records as JSON-ready values, oldest first."""
    if not project.ledger.exists():
        return []
    ledger = Ledger(project.ledger)
    try:
        return [as_json(record, project.settings.clock) for record in ledger.history()]
    finally:
        ledger.close()


def as_json(record: LedgerRecord, clock: Clock) -> dict[str, Any]:
    """Return one record with its times as JSON gets them."""
    return {
        "kind": record.kind,
        "key": record.key,
        "event_time": None if record.event_time is None else clock.to_json(record.event_time),
        "written_at": format_time(round(record.written_at * 1000)),
        **{name: value for name, value in record.body.items() if name not in ("kind", "key")},
    }


_ABOUT_WINDOWS = {
    "release": "are learned from after all: the break has lasted",
    "unlearn": "are unlearned: the break is over, the online experts learn again without them",
}


def history_line(entry: dict[str, Any], clock: Clock) -> str:
    """Return one record as a line: event time, kind, and its gist."""
    at = entry["event_time"]
    when = "-" if at is None else clock.brief(clock.from_json(at))
    return f"{when:17} {entry['kind']:11} {_gist(entry)}"


def _gist(entry: dict[str, Any]) -> str:
    reasons = " ".join(str(reason) for reason in entry.get("reasons", []))
    if entry["kind"] in (*MOVES, *SHADOW_ENDS, "challenge", "approval"):
        return _moved(entry, reasons)
    if entry["kind"] == "gate":
        return _gated(entry)
    if entry["kind"] == "retraining":
        ends = {"promoted": "promoted", "shadowing": "in shadow", "waiting": "waits for approval"}
        outcome = next((said for name, said in ends.items() if entry.get(name)), "not promoted")
        return f"{entry.get('trigger')}, {entry.get('rows') or 0:,} rows: {outcome}. {reasons}".strip()
    if entry["kind"] == "erasure":
        what = "an id erased" if entry.get("found") else "an id asked for, nothing found"
        return f"{what}, by {entry.get('by')} at {entry['written_at']} ({entry['id_hash'][:12]})"
    if entry["kind"] in _ABOUT_WINDOWS:
        return f"{len(entry['spans'])} windows {_ABOUT_WINDOWS[entry['kind']]}"
    return ": ".join(filter(None, [entry.get("trigger"), reasons])) or entry["key"]


def _moved(entry: dict[str, Any], reasons: str) -> str:
    if entry["kind"] in SHADOW_ENDS:
        return reasons
    if entry["kind"] == "approval":
        word = "approved" if entry["passed"] else "rejected"
        return f"version {entry['version']} {word} by {entry['by']}: {entry['why'] or 'no reason given'}"
    if entry["kind"] == "challenge":
        return f"version {entry['version']} predicts in shadow beside champion {entry.get('previous')}"
    return f"champion {entry['version']} (was {entry.get('previous') or 'none'}){_by(entry)}"


def _gated(entry: dict[str, Any]) -> str:
    if not entry.get("results"):
        return "not reached"
    failed = [gate["name"] for gate in entry["results"] if not gate["passed"]]
    return f"refused by {', '.join(failed)}" if failed else "every gate passed"


def _by(entry: dict[str, Any]) -> str:
    """Say who moved the champion, where a person or a shadow did."""
    approved = entry.get("approved") or {}
    if approved.get("by") in (None, "gates"):
        return ""
    return f" by {approved['by']}: {approved.get('why') or 'no reason given'}"


def status_of(project: Project) -> dict[str, Any]:
    """Return what the services say of themselves, the champion and what is under way."""
    services: dict[str, Any] = {}
    for service in ("worker", "monitor"):
        found = read_status(project.status, service)
        services[service] = {**(found or {}), "alive": is_alive(found)}
    shadows = (read_status(project.status, "shadows") or {}) if services["monitor"]["alive"] else {}
    services["worker"]["instances"] = [
        {"name": name, "pid": body["pid"], "state": body["state"], "partitions": sorted(body.get("partitions") or {})}
        for name, body in read_instances(project.status, "worker").items()
    ]
    under_way: list[dict[str, Any]] = []
    waits: dict[str, Any] | None = None
    asked: str | None = None
    champion = services["worker"].get("champion")
    if project.ledger.exists():
        ledger = Ledger(project.ledger)
        if not services["worker"]["alive"]:  # what a stopped worker served last says nothing of moves since
            champion = line_up(ledger.history()).champion
        under_way = [
            {"id": request.id, "trigger": request.trigger, "status": request.status, "attempt": request.attempt}
            for request in ledger.open_requests()
        ]
        asked = (ledger.recall(QUESTION) or {}).get("text")
        if found := ledger.recall(DISPATCH_PROBLEM):
            waits = {"since": format_time(round(found["since"]) * 1000), "problem": found["problem"]}
        ledger.close()
    return {
        "project": project.settings.name,
        "state": str(project.state),
        **services,
        "champion": _champion(project, champion),
        "canary": _canary(services["worker"].get("partitions") or {}),
        "shadows": shadows.get("shadows", {}),
        "shadows_problem": shadows.get("problem"),
        "retrainings_under_way": under_way,
        "requests_wait": waits,
        "waits_for_approval": asked,
    }


def _champion(project: Project, version: int | None) -> dict[str, Any]:
    card = project.cards / f"{version}.html"
    return {"version": version, "card": str(card) if version is not None and card.exists() else None}


def _canary(partitions: dict[str, Any]) -> dict[str, Any] | None:
    """Return which challenger serves what share of the events, and how many it has served in all partitions."""
    known = [found for part in partitions.values() if (found := part.get("canary"))]
    if not known:
        return None
    newest = max(known, key=lambda one: int(one["version"]))
    return {**newest, "served": sum(one["served"] for one in known if one["version"] == newest["version"])}


def _check(project: Project, service: str) -> int:
    found = read_status(project.status, service)
    if found is None or not is_alive(found):
        click.echo(f"{service}: does not run on {project.state}", err=True)
        return 1
    age = time.time() - float(found["updated_at"])
    if found.get("state") != "running" or age > _STALE_S:
        click.echo(f"{service}: is {found.get('state')}, last heard of {age:.0f} s ago", err=True)
        return 1
    return 0


def _status_lines(content: dict[str, Any], clock: Clock) -> list[str]:
    lines = [f"{content['project']}  ({content['state']})"]
    for one in content["worker"]["instances"]:
        has = ", ".join(one["partitions"]) or "none yet"
        lines.append(f"  worker   {one['name']}{' ' * bool(one['name'])}runs, process {one['pid']}, partitions {has}")
    if not content["worker"]["instances"]:
        lines.append("  worker   does not run")
    monitor = content["monitor"]
    lines.append(f"  monitor  {'runs, process ' + str(monitor['pid']) if monitor['alive'] else 'does not run'}")
    for number, part in sorted((content["worker"].get("partitions") or {}).items()):
        lines += _partition_lines(number, part, clock)
    version = content["champion"]["version"]
    lines.append(f"  champion {version if version is not None else 'none yet'}")
    lines += [f"  card     {content['champion']['card']}"] if content["champion"]["card"] else []
    if canary := content["canary"]:
        lines.append(
            f"  canary   version {canary['version']} serves {canary['share']:.1%} of the events while it shadows: "
            f"{canary['served']:,} so far"
        )
    lines += [f"  shadow   {shadow['said']}" for shadow in content["shadows"].values()]
    if problem := content["shadows_problem"]:
        lines.append(f"  warning  shadows wait: {problem}")
    if problem := content["worker"].get("champion_problem"):
        lines.append(f"  warning  {problem}")
    if problem := content["monitor"].get("problem"):
        lines.append(f"  warning  monitoring is held up: {problem}")
    if asked := content["waits_for_approval"]:
        lines.append(f"  approve  {asked}")
    if waits := content["requests_wait"]:
        lines.append(f"  warning  requests wait since {waits['since']}: {waits['problem']}")
    lines += [
        f"  under way: {r['id']}, {r['status']}, attempt {r['attempt']}" for r in content["retrainings_under_way"]
    ]
    return lines


def _partition_lines(number: str, part: dict[str, Any], clock: Clock) -> list[str]:
    events, labels = part["books"]["events"], part["books"]["labels"]
    losses = ", ".join(f"{name} {value:.4f}" for name, value in part["loss"].items())
    weights = ", ".join(f"{name} {value:.2f}" for name, value in part["weights"].items())
    return [
        f"  partition {number}: {'at ' + clock.moment(part['clock']) if part['clock'] else 'before the first record'}",
        "    events   " + ", ".join(f"{count:,} {name}" for name, count in events.items() if count),
        "    labels   " + ", ".join(f"{count:,} {name}" for name, count in labels.items() if count),
        f"    loss     {losses or 'nothing scored yet'} ({part['scored']:,} rows)",
        f"    weights  {weights or '-'}",
    ]
