"""``headrace approve``: a person passes or rejects the version that waits; who and why is kept."""

from __future__ import annotations

from pathlib import Path

import click

from cli.aliases import await_champion
from cli.options import (
    check_writable,
    json_option,
    keep_from_demo,
    log_to_stderr,
    project_argument,
    user,
    who_option,
    why_option,
    write_json,
)
from core.audit import Ledger
from core.project import load_project


@click.command(epilog='Example: headrace approve examples/flights 3 --who anna --why "the winter is in it now"')
@project_argument
@click.argument("version", type=click.IntRange(min=1), required=False)
@who_option
@why_option
@click.option("--reject", is_flag=True, help="It does not become champion.")
@json_option
def approve(
    project: Path, version: int | None, who: str | None, why: str | None, json_file: str | None, *, reject: bool
) -> None:
    """Pass the version that waits for approval (promotion.approval), or reject it.

    The same can be done in Prefect, by resuming the suspended run "approve". Without VERSION, whatever waits is meant.
    """
    check_writable(json_file)
    log_to_stderr()
    loaded = load_project(project)
    keep_from_demo(loaded.state)
    from core.registry import Registry
    from flows.approval import answer
    from flows.moves import finish

    ledger = Ledger(loaded.ledger)
    try:
        done = answer(loaded, ledger, version, by=who or user(), why=why, passed=not reject)
        said = finish(ledger, Registry(loaded))
    finally:
        ledger.close()
    click.echo(f"{said}, by {done['by']}", err=bool(json_file))
    is_champion = said == f"version {done['version']} is champion"
    served = await_champion(loaded, done["version"], quiet=bool(json_file)) if is_champion else None
    if json_file:
        write_json({**done, "said": said, "served_after_s": served}, json_file)
