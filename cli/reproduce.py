"""``headrace reproduce``: fit a recorded model again, and say whether it is the same to the bit."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import check_writable, json_option, log_to_stderr, project_argument, write_json
from core.audit import Ledger
from core.project import load_project

if TYPE_CHECKING:
    from flows.reproduction import Recorded, Reproduction

_NOT_EQUAL = 3


@click.command(epilog="Example: headrace reproduce examples/flights 3 --json -")
@project_argument
@click.argument("run")
@json_option
def reproduce(project: Path, run: str, json_file: str | None) -> None:
    """Fit the model of RUN again on its pinned rows: exit 0 the same to the bit, 3 not the same, 1 cannot be done.

    RUN is the id of an MLflow run, or the number of a version. Nothing is registered, and nothing changes. It works in
    a copy of the project folder too, with its own state or on the state that HEADRACE_STATE names.
    """
    check_writable(json_file)
    log_to_stderr()
    from core.store import TableStore
    from flows.reproduction import recorded
    from flows.reproduction import reproduce as fit_again

    loaded, begin = load_project(project), time.monotonic()
    ledger = Ledger(loaded.ledger)
    try:
        found, problems = recorded(loaded, ledger, run), ledger.verify().problems
    finally:
        ledger.close()
    done = fit_again(loaded, TableStore(loaded.tables), found.recipe)
    click.echo("\n".join(_lines(found, done, problems)), err=bool(json_file))
    if json_file:
        about = {"run": found.mlflow_run, "version": found.version, "ledger_problems": list(problems)}
        write_json({**about, **done.as_json(), "seconds": round(time.monotonic() - begin, 1)}, json_file)
    sys.exit(0 if done.equal else _NOT_EQUAL)


def _lines(found: Recorded, done: Reproduction, problems: tuple[str, ...]) -> list[str]:
    recipe = found.recipe
    what = "gated out" if found.version is None else f"version {found.version}"
    lines = [
        f"run {found.mlflow_run} ({what}): {recipe.fitted.family}, {recipe.settings['batch']['threads']} threads, "
        f"examples at version {recipe.examples}",
        f"  rows         {_compared(done.same_rows, done.rows_digest, done.rows_digest_then)}, {done.rows:,}"
        + ("" if done.rows == done.rows_then else f" instead of {done.rows_then:,}"),
        f"  predictions  {_compared(done.same_predictions, done.predictions_digest, done.predictions_digest_then)}",
    ]
    lines += [f"  not as then  {line}" for line in done.differences]
    if any(line.startswith("settings.") for line in done.differences):
        lines.append("               (it was fitted with the settings of then)")
    lines += [f"  ledger       {problem}" for problem in problems]
    return [*lines, "equal to the bit" if done.equal else _verdict(done)]


def _compared(same: bool, now: str, then: str) -> str:
    return f"the same ({now[:12]})" if same else f"DIFFER ({now[:12]} instead of {then[:12]})"


def _verdict(done: Reproduction) -> str:
    if not done.same_rows:
        return "not equal: the rows are not those of then; were some erased, or is this another copy of the tables?"
    if done.differences:
        return "not equal: the rows are, but it was made with something else; see what is not as then"
    return "not equal: same rows, code, libraries and machine; the model's fit itself is not repeatable"
