"""``headrace history``: who promoted what, when, on which evidence; and whether the ledger is as it was written."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import click

from cli.inspect import history_line, history_of
from cli.options import json_option, project_argument, write_json
from cli.trail import KINDS, about, move_line, version_lines
from core.audit import Ledger, RecordKind
from core.chain import ChainCheck
from core.clocks import Clock
from core.errors import UsageError
from core.project import Project, load_project

_SHORTEST_HEAD = 12


@click.command(epilog="Example: headrace history examples/flights --promotions")
@project_argument
@json_option
@click.option("--kind", type=click.Choice(get_args(RecordKind)), help="Only records of this kind.")
@click.option("--promotions", is_flag=True, help="One line a promotion, rollback or shadow, with what led to it.")
@click.option("--version", "number", type=click.IntRange(min=1), help="Everything about this version.")
@click.option("--verify", is_flag=True, help="Only tell whether the ledger is as it was written; exit 1 if it is not.")
@click.option("--head", metavar="HASH", help="With --verify: a head of the ledger that was noted; it must be there.")
def history(
    project: Path,
    json_file: str | None,
    kind: str | None,
    promotions: bool,
    number: int | None,
    verify: bool,
    head: str | None,
) -> None:
    """Show every alert, decision, retraining, gate, promotion and erasure, in the order they were written."""
    loaded = load_project(project)
    if verify or head:
        sys.exit(_verify(loaded, head, json_file))
    entries = history_of(loaded)
    chosen = [entry for entry in entries if kind in (None, entry["kind"])]
    if promotions:
        chosen = [entry for entry in chosen if entry["kind"] in KINDS]
    if number is not None and not (chosen := about(number, chosen)):
        raise UsageError(f"the ledger has nothing about version {number}; `headrace history` shows all that it has")
    if json_file:
        write_json(chosen, json_file)
        return
    for line in _lines(entries, chosen, promotions, number, loaded.settings.clock):
        click.echo(line)
    if not chosen:
        click.echo("nothing yet", err=True)


def _lines(
    entries: list[dict[str, Any]], chosen: list[dict[str, Any]], promotions: bool, number: int | None, clock: Clock
) -> Iterable[str]:
    if promotions:
        return [move_line(entry, entries) for entry in chosen]
    if number is not None:
        return version_lines(number, chosen, clock)
    return [history_line(entry, clock) for entry in chosen]


def _verify(project: Project, noted: str | None, json_file: str | None) -> int:
    if noted is not None and len(noted) < _SHORTEST_HEAD:
        raise UsageError(f"--head {noted}: give at least {_SHORTEST_HEAD} characters of the head that was noted")
    if not project.ledger.exists():
        raise UsageError(f"{project.ledger}: there is no ledger yet")
    ledger = Ledger(project.ledger)
    try:
        check = ledger.verify()
    finally:
        ledger.close()
    problems = list(check.problems)
    if noted is not None and not any(known.startswith(noted) for known in check.hashes):
        problems.append(f"head {noted} is not in the chain: records were taken out at its end, or it was made anew")
    if json_file:
        counts = {name: value for name, value in asdict(check).items() if name in ("records", "unsealed", "head")}
        write_json({**counts, "whole": not problems, "problems": problems}, json_file)
    else:
        click.echo("\n".join(_verdict(check, problems)))
    return 1 if problems else 0


def _verdict(check: ChainCheck, problems: list[str]) -> list[str]:
    if problems:
        return [f"{check.records:,} records; the ledger is NOT as it was written:", *(f"  {each}" for each in problems)]
    before = f" ({check.unsealed:,} of them from before the chain, sealed by what followed)" if check.unsealed else ""
    return [f"{check.records:,} records{before}, each as it was written", f"head {check.head}"]
