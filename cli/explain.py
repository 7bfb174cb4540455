"""``headrace explain``: what each feature of an event did to the champion's prediction."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import check_writable, json_option, log_to_stderr, project_argument, write_json
from core.audit import Ledger
from core.durations import format_time
from core.errors import UsageError
from core.predictions import Prediction
from core.project import Project, load_project

if TYPE_CHECKING:
    from flows.explanation import Explanation

_HOW = {
    "shap": "shares of what is between the mean prediction of its reference and this one (Shapley values); they add up",
    "occlusion": "the prediction less the one with that feature as is typical of its reference; they need not add up: "
    "for Shapley values, which do, {install}",
}


@click.command(epilog="Example: headrace explain examples/flights --id 2013-03-01-UA-1545-EWR --json -")
@project_argument
@click.option("--id", "event_id", required=True, metavar="ID", help="The event's id, as producers write it.")
@click.option("--version", "number", type=click.IntRange(min=1), help="Ask this version instead of the one of then.")
@json_option
def explain(project: Path, event_id: str, number: int | None, json_file: str | None) -> None:
    """Say what each feature did to the batch champion's prediction of an event.

    The event is taken as the tables have it, and the version that predicted it is asked again. What was served is a
    blend; this is about the champion in it.
    """
    check_writable(json_file)
    log_to_stderr()
    loaded = load_project(project)
    from core.registry import Registry
    from core.store import TableStore
    from flows import explanation
    from streaming.privacy_guard import guard

    pseudonyms = guard(loaded)
    stored = pseudonyms.of_id(event_id) if pseudonyms and loaded.settings.privacy.id else event_id
    found = explanation.find_event(TableStore(loaded.tables), stored)
    if found is None:
        raise UsageError(_not_found(loaded, stored))
    done = explanation.explain(loaded, Registry(loaded), found, number)
    click.echo("\n".join(_lines(done, loaded)), err=bool(json_file))
    if json_file:
        at = loaded.settings.clock.to_json(found.event_time)
        write_json({"id": stored, "event_time": at, **done.as_json()}, json_file)


def _not_found(project: Project, stored_id: str) -> str:
    """Say why nothing is there: it was erased, or nothing is known of it."""
    from streaming.erasure import Erasures

    if project.ledger.exists():
        name, ledger = Erasures(project).name(stored_id), Ledger(project.ledger)
        try:
            asked = [record for record in ledger.history("erasure") if record.body.get("id_hash") == name]
            erased = [record for record in asked if record.body.get("found")]
        finally:
            ledger.close()
        if erased:
            at = format_time(round(erased[-1].written_at * 1000))
            return f"that id was erased at {at} by {erased[-1].body.get('by')}: nothing is kept that could be explained"
    return (
        "no event of that id is in the tables: it has not been predicted, or was a minute ago and is not written yet, "
        "or privacy.retention has removed it"
    )


def _lines(done: Explanation, project: Project) -> list[str]:
    from flows.shapley import INSTALL

    found, parts, clock = done.found, done.contributions, project.settings.clock
    subject = "" if parts.of is None else f" of class {parts.of}"
    lines = [
        f"event at {clock.brief(found.event_time)}: version {done.version} predicts {parts.prediction:.6g}{subject}"
    ]
    lines += [f"  then      {_then(done)}", f"  label     {'not known' if found.label is None else found.label}"]
    lines += [f"  rows      {found.rows} have this id; this is the latest"] if found.rows > 1 else []
    base = "the mean of its reference" if parts.method == "shap" else "an event that is typical throughout"
    lines.append(f"  base      {parts.base:.6g}: {base}")
    width = max((len(one.feature) for one in parts.features), default=0)
    lines += [f"    {one.contribution:+12.6f}  {one.feature:{width}}  {_value(one.value)}" for one in parts.features]
    lines += [f"    {parts.rest:+12.6f}  not told apart"] if parts.method == "occlusion" else []
    return [*lines, f"  {parts.method}: {_HOW[parts.method].format(install=INSTALL)}"]


def _then(done: Explanation) -> str:
    found = done.found
    if found.champion is None:
        return "no champion predicted it"
    same = {True: "the same", False: "not the same", None: "another version"}[done.as_then]
    return f"champion {found.champion} predicted {_said(found.predicted)} ({same}); served was {_said(found.served)}"


def _said(prediction: Prediction | None) -> str:
    if prediction is None:
        return "nothing"
    if isinstance(prediction, dict):
        return ", ".join(f"{name} {chance:.4g}" for name, chance in sorted(prediction.items(), key=lambda it: -it[1]))
    return f"{prediction:.6g}"


def _value(value: Any) -> str:
    if value is None:
        return "missing"
    return f"{value:,.10g}" if isinstance(value, float) else str(value)
