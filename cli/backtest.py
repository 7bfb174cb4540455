"""``headrace backtest``: which retraining policy would have been best on a recorded stream."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from cli.options import (
    Days,
    check_writable,
    inject_option,
    injected_line,
    json_option,
    log_to_stderr,
    project_argument,
    write_file,
    write_json,
)
from core.clocks import Clock
from core.errors import UsageError
from core.project import Project, load_project, settings_file
from core.wording import counted

if TYPE_CHECKING:
    from backtest.outcome import Outcome
    from backtest.tape import Tape
    from backtest.unused import Unused
    from core.settings import Settings

_SAY_EVERY_S = 5.0


@click.command(epilog="Example: headrace backtest examples/flights --policies never,every:28d,drift --json out.json")
@project_argument
@click.option(
    "--policies",
    show_default="never,every:28d,online-only,drift; every:4000rows for a file without times",
    help="Policies to compare: never, always, every:PERIOD, online-only, batch-only, drift (the project's own), or "
    "NAME{section.setting=value,...}.",
)
@click.option("--days", type=Days(), help="Only the first days of the stream.")
@inject_option
@json_option
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Processes that run policies side by side; as many as cores (at most 4) if left out, 1 for a short stream.",
)
@click.option("--html", "html_file", metavar="FILE", help="Write the result as one HTML page to read in a browser.")
def backtest(
    project: Path,
    policies: str | None,
    days: float | None,
    specs: tuple[str, ...],
    json_file: str | None,
    jobs: int | None,
    html_file: str | None,
) -> None:
    """Replay the project's recorded stream under several retraining policies, and say which would have been best.

    The same parts as in production on a virtual clock: no broker, no Prefect, no MLflow. What does not depend on the
    policy runs once. Two runs give the same result, in however many processes.
    """
    log_to_stderr()
    check_writable(json_file)
    check_writable(html_file, "--html")
    if json_file and html_file and Path(json_file).resolve() == Path(html_file).resolve():
        raise UsageError(f"--json and --html are both {html_file}; name two files")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin make a fit slower where cores are few
    from backtest.page.document import page
    from backtest.policies import STREAM, parse_policies, usual_policies
    from backtest.results import result
    from backtest.side_by_side import run_policies, usual_jobs
    from backtest.tape import record
    from streaming.injection import inject, make_injectors
    from streaming.replay import read_source

    loaded = load_project(project)
    _keep_recorded(loaded, {"--json": json_file, "--html": html_file})
    file = settings_file(project)
    injectors = make_injectors(specs, loaded.settings)
    wanted = usual_policies(loaded.settings) if policies is None else policies
    chosen = parse_policies(wanted, yaml.safe_load(file.read_text(encoding="utf-8")), str(file))
    seconds: dict[str, float] = {}
    began = time.monotonic()
    items = read_source(loaded, days, change=partial(inject, injectors=injectors))
    tell = Telling(loaded.settings.clock)
    tape = record(loaded, items, tell.records)
    tape = replace(tape, recorded_until=max([tape.recorded_until, *(one.last_event or 0 for one in injectors)]))
    if unused := [message for injector in injectors if (message := injector.nothing_changed())]:
        raise UsageError(unused[0])
    seconds[STREAM] = time.monotonic() - began
    outcomes = []
    for outcome, took in run_policies(loaded, tape, chosen, jobs or usual_jobs(len(tape.online), len(chosen)), tell):
        outcomes.append(outcome)
        seconds[outcome.policy.name] = took
    found = result(tape, outcomes, loaded.settings, seconds)
    if injectors:
        found["injected"] = [injector.summary() for injector in injectors]
    with redirect_stdout(sys.stderr) if json_file == "-" else nullcontext():
        _show(found, loaded.settings, outcomes, tape)
    if json_file:
        write_json(found, json_file)
    if html_file:
        write_file(page(found), html_file, "--html")


def _keep_recorded(project: Project, files: Mapping[str, str | None]) -> None:
    """Refuse a result that would overwrite the recorded stream."""
    replay = project.settings.replay
    if replay is None or replay.file is None:
        return
    recorded = (project.folder / replay.file).resolve()
    for option, file in files.items():
        if file is not None and Path(file).resolve() == recorded:
            raise UsageError(f"{option} {file}: that is the recorded stream, and would be lost; name another file")


@dataclass
class Telling:
    """Says how far the stream, or a policy, is, now and then."""

    clock: Clock
    said_at: float = field(default_factory=time.monotonic)

    def __call__(self, name: str, moment: int) -> None:
        """Say that a policy has reached an event time, ms."""
        self._say(f"{name}: {self.clock.moment(moment)}")

    def records(self, count: int) -> None:
        """Say how many records of the stream are done."""
        self._say(f"the stream: {count:,} records")

    def _say(self, text: str) -> None:
        if time.monotonic() - self.said_at >= _SAY_EVERY_S:
            self.said_at = time.monotonic()
            click.echo(text, err=True)


def _show(found: dict[str, Any], settings: Settings, outcomes: Sequence[Outcome], tape: Tape) -> None:
    """Print what the stream holds, what the policies are worth and cost, and what was left out."""
    from backtest.results import INCOMPARABLE, never_judged

    _show_stream(found, settings.clock, tape)
    if not found["rows"]["common"]:
        click.echo(f"\n{INCOMPARABLE}")
    _show_metrics(found)
    _show_without_champion(outcomes)
    _show_unused(tape.unused, settings)
    for told in never_judged(tape, [one.policy for one in outcomes]):
        click.echo(f"\n{told}")


def _show_stream(found: dict[str, Any], clock: Clock, tape: Tape) -> None:
    """Print how much there is, from when to when, and what was injected."""
    first, last = clock.moment(tape.first_event), clock.moment(tape.last_event)
    rows = found["rows"]
    click.echo(f"{counted(rows['events'], 'event')} from {first} to {last}, {counted(rows['labels'], 'label')}")
    for injected in found.get("injected", []):
        click.echo(injected_line(injected))


def _show_metrics(found: dict[str, Any]) -> None:
    """Print each metric, its mean over the periods for served and every expert, a line a policy; then what it cost."""
    for metric in _metrics_of(found):
        click.echo(f"\n{metric}, mean of {found['periods']} periods, on {found['rows']['common']:,} common rows")
        for name, policy in found["policies"].items():
            values = policy["mean_monthly"].get(metric, {})
            columns = "  ".join(f"{expert} {_number(value)}" for expert, value in values.items())
            click.echo(f"  {name:<14} {columns}")
    click.echo("\nwhat it cost")
    for name, policy in found["policies"].items():
        click.echo(
            f"  {name:<14} {policy['retrains']} retrainings, {policy['promoted']} promoted, "
            f"{policy['rows_trained']:,} rows, {policy['train_seconds']:.0f} s; {policy['alerts']} alerts"
        )


def _show_unused(unused: Unused, settings: Settings) -> None:
    """Print how many records of the stream could not be used, and why."""
    if unused.repeated["events"]:
        _show_repeated(unused.repeated)
    if unused.refused:
        click.echo(f"\nrefused {sum(unused.refused.values()):,} records: {unused.refused_told()}")
    if told := unused.unjoined_told(settings):
        click.echo(f"\nnot learned: {told}")


def _show_repeated(repeated: Mapping[str, int]) -> None:
    """Print how many events were left out because of their id, and what that may mean."""
    events, labels = counted(repeated["events"], "event"), counted(repeated["labels"], "label")
    click.echo(
        f"\nleft out {events} with the id of an earlier one; {labels} changed that of their event: if these are events "
        "of their own, name as id what tells them apart, or, for a stream in a file, leave id out"
    )


def _show_without_champion(outcomes: Sequence[Outcome]) -> None:
    """Print why a policy that fits a batch model never got a champion, a line a policy."""
    for outcome in outcomes:
        done = outcome.retrainings
        if not outcome.policy.batch or any(one.attempt.version is not None for one in done):
            continue
        why = "; ".join(done[-1].attempt.reasons) if done else "no retraining was due"
        click.echo(f"  {outcome.policy.name:<14} never got a champion: {why}")


def _metrics_of(found: dict[str, Any]) -> list[str]:
    return list(next(iter(found["policies"].values()))["mean_monthly"])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
