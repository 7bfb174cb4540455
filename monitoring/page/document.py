"""The page of one judged stage: what was decided and why, what moved, example rows, and where to go on. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from core.clocks import Clock
from core.markup import Markup, element
from core.settings import Settings
from core.wording import counted
from monitoring.decision import Decision
from monitoring.inspection import Inspection
from monitoring.judgement import Judgement
from monitoring.page import tables
from monitoring.page.far_rows import far_rows
from monitoring.page.followed import Followed, maker_of, of_window
from monitoring.page.moves import Move, moves
from monitoring.page.shell import shell

INDEX = "index.html"
STAGES = {"data": "features and predictions", "labels": "labels and losses"}


@dataclass(frozen=True, eq=False)
class Contents:
    """What a page is about.

    Attributes
    ----------
    found, judgement, decision
        What was found in the stage, what the verdict was, and what the policy made of it.
    retrainings : sequence of Followed
        What the ledger knows of retrainings at this time.
    history : str
        The command that shows what came later.
    mlflow : str or None
        MLflow's address, where it is one that a browser can open.
    sibling : str or None
        File of the page of the window's other stage, where there is or will be one.
    """

    found: Inspection
    judgement: Judgement
    decision: Decision
    settings: Settings
    retrainings: Sequence[Followed] = ()
    history: str = "headrace history PROJECT"
    mlflow: str | None = None
    sibling: str | None = None


def page_file(name: str) -> str:
    """Return the file name of a stage's page.

    Examples
    --------
    >>> page_file("2013-01-01T00-00-00Z_data")
    '2013-01-01T00-00-00Z_data_page.html'
    """
    return f"{name}_page.html"


def sentence_of(judgement: Judgement, decision: Decision) -> str:
    """Return the policy's sentence; that nothing is unusual cannot be said of what was not judged."""
    if judgement.verdict == "not judged" and decision.action == "ignore":
        return f"ignore: not judged. {' '.join(judgement.reasons)}"
    return decision.sentence


def page(contents: Contents) -> str:
    """Return the page."""
    found, settings = contents.found, contents.settings
    stage = found.stage
    moved = moves(found, settings)
    title = f"{settings.name}: {STAGES[stage.stage]}, {stage.clock.between(stage.start, stage.end)}"
    return shell(
        title,
        _navigation(contents),
        element("h1", title),
        _decided(contents),
        _facts(contents),
        _moved(moved) if moved else "",
        tables.losses(found),
        _examples(contents, moved),
        _ledger(contents),
    )


def _navigation(contents: Contents) -> Markup:
    stage = contents.found.stage
    other = "labels" if stage.stage == "data" else "data"
    links: list[object] = [element("a", "All windows", href=f"{INDEX}#{stage.name}")]
    if contents.sibling is not None:
        later = " (once they are due)" if other == "labels" else ""
        links += [" · ", element("a", f"Its {STAGES[other]}", href=contents.sibling), later]
    if contents.found.report.html is not None:
        links += [
            " · ",
            element("a", "Evidently's report with every distribution", href=contents.found.report.html.name),
        ]
    return element("p", links, class_="nav quiet")


def _decided(contents: Contents) -> list[Markup]:
    """Return the policy's sentence, and what it does not say: a retraining's sentence leaves out the alert."""
    decision = contents.decision
    action, _, why = sentence_of(contents.judgement, decision).partition(": ")
    told = [*decision.quarantine, *decision.alert, *decision.watch, *decision.reasons, *contents.judgement.reasons]
    more = [reason for reason in dict.fromkeys(told) if reason not in why]
    more += _consequences(decision, contents.found.stage.clock)
    lead = element("p", element("b", action), " ", why, class_=f"lead {decision.action}")
    return [lead, element("ul", [element("li", reason) for reason in more])] if more else [lead]


def _consequences(decision: Decision, clock: Clock) -> list[str]:
    said = []
    if decision.quarantine:
        said.append("Nothing is trained on this window as long as it is in quarantine.")
    if decision.release:
        said.append(f"{_windows(decision.release, clock)} learned from after all: the break has lasted.")
    if decision.unlearn:
        said.append(f"{_windows(decision.unlearn, clock)} unlearned by the online experts: the break is over.")
    return said


def _windows(starts: Sequence[int], clock: Clock) -> str:
    subject = "The windows" if len(starts) > 1 else "The window"
    return f"{subject} from {', '.join(map(clock.brief, starts))} {'are' if len(starts) > 1 else 'is'}"


def _facts(contents: Contents) -> Markup:
    found = contents.found
    stage, reference, clock = found.stage, found.reference, found.stage.clock
    rows = counted(found.rows, "prediction")
    if stage.stage == "labels":
        rows += f", {counted(found.labels, 'label')}"
    elif found.sides is not None:
        rows += f", {counted(found.sides.known.num_rows, 'label')} known so far"
    facts: list[tuple[str, object]] = [
        ("Window", f"{clock.between(stage.start, stage.end)}, judged as it was at {clock.brief(stage.due)}"),
        ("Rows", rows),
        ("Verdict", contents.judgement.verdict),
        ("Champion", _champion(contents)),
    ]
    if reference is not None and reference.trained_rows:
        facts.append(("Reference", f"what it was trained on, {counted(reference.trained_rows, 'row')}"))
    return _listed(facts)


def _champion(contents: Contents) -> list[object]:
    version = contents.found.champion
    if version is None:
        return ["none yet"]
    said: list[object] = [f"version {version}"]
    maker = maker_of(contents.retrainings, version)
    return said if maker is None else [*said, ", made by ", _runs(replace(maker, version=None))]


def _listed(facts: Sequence[tuple[str, object]]) -> Markup:
    return element("dl", [[element("dt", name), element("dd", what)] for name, what in facts])


def _moved(moved: Sequence[Move]) -> list[Markup]:
    note = (
        "Distance: of numbers in standard deviations of the reference (Wasserstein), of categories from 0 to 0.83 "
        "(Jensen-Shannon). The line in each bar is what is usual; the bar ends at three times that."
    )
    return [element("h2", "What moved"), tables.signals(moved), element("p", note, class_="quiet")]


def _examples(contents: Contents, moved: Sequence[Move]) -> list[Markup]:
    rows = far_rows(contents.found, moved, contents.settings)
    if not rows:
        return []
    labels = contents.found.stage.stage == "labels"
    said = (
        "What a row was chosen for is marked: the largest losses, and labels far from the reference or not in it."
        if labels
        else "The values for which a row was chosen are marked: farthest from the reference, or never seen in it."
    )
    return [
        element("h2", "Example rows"),
        tables.examples(rows, contents.settings.clock),
        element("p", said, class_="quiet"),
    ]


def _ledger(contents: Contents) -> list[Markup]:
    """Return what was written down, what is known of a retraining, and how to see what came later."""
    stage, decision = contents.found.stage, contents.decision
    written: list[tuple[str, bool, str]] = [
        ("alert", bool(decision.alert), stage.name),
        ("quarantine", bool(decision.quarantine), stage.sibling("data")),
        ("release", bool(decision.release), stage.name),
        ("unlearn", bool(decision.unlearn), stage.name),
    ]
    facts: list[tuple[str, object]] = [(kind, element("code", key)) for kind, wrote, key in written if wrote]
    decided = of_window(contents.retrainings, stage)
    facts += [("retraining", _runs(one)) for one in decided]
    facts += [("under way", _runs(one)) for one in contents.retrainings if one.is_open and one not in decided]
    if contents.mlflow is not None:
        facts.append(("MLflow", element("a", contents.mlflow, href=contents.mlflow)))
    later = [
        "What came later is in ",
        element("a", "the list of all windows", href=f"{INDEX}#{stage.name}"),
        " and in ",
        element("code", contents.history),
        ".",
    ]
    return [element("h2", "In the ledger"), _listed(facts) if facts else Markup(""), element("p", later)]


def _runs(one: Followed) -> list[object]:
    """Return a retraining with its runs, as far as there are any."""
    said: list[object] = [element("code", one.key), f", {one.status}"]
    for what, run in (("Prefect flow run", one.flow_run), ("MLflow run", one.mlflow_run)):
        if run is not None:
            said += [f", {what} ", element("code", run)]
    return said if one.version is None else [*said, f", version {one.version}"]
