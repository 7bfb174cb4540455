"""The page of a retraining's data checks, for a person who asks why nothing was fitted. Pure but for `write`."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from core.clocks import Clock
from core.markup import Markup, element
from core.setting_types import Task
from core.settings import Settings
from core.wording import counted
from flows.checks.report import DataCheck, DataReport
from monitoring.page.shell import heads, shell, wide
from monitoring.page.wording import foreign, number, share

_log = logging.getLogger("headrace.retrain")
_FIRST = {"failed": 0, "warning": 1, "passed": 2}
_ALONE = {"binary": "ROC AUC alone", "multiclass": "mistakes avoided alone", "regression": "R² alone"}
_REASONS = {
    "repeated": "id came again",
    "quarantined": "window in quarantine",
    "older": "beyond batch.max_rows",
    "immature": "labels may still come",
}


def page(report: DataReport, settings: Settings, key: str) -> str:
    """Return the page.

    Parameters
    ----------
    key : str
        Name of the attempt in the ledger.
    """
    title = f"{settings.name}: the data of retraining {key}"
    return shell(
        title,
        element("h1", title),
        _verdict(report),
        _facts(report, settings.clock) if report.rows else [],
        element("h2", "Checks"),
        _checks(report.checks),
        _about_features(report, settings.task) if report.features else [],
    )


def write(folder: Path, report: DataReport, settings: Settings, key: str) -> Path | None:
    """Write the page and the report as JSON beside it; return the page's path, None if the disk refused.

    What cannot be written is a warning: the report is in the ledger.
    """
    path = folder / f"data_{re.sub(r'[^A-Za-z0-9._-]', '-', key)}.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".json").write_text(json.dumps(report.as_json(), indent=1), encoding="utf-8")
        path.write_text(page(report, settings, key), encoding="utf-8")
    except OSError as error:
        _log.warning("the report on the data is in the ledger only: %s", error)
        return None
    return path


def _verdict(report: DataReport) -> Markup:
    failed = sum(not check.passed for check in report.checks)
    if failed:
        said = (
            f"{counted(failed, 'check')} failed: nothing is fitted or promoted on this data, the champion stays. "
            "What to do is in the last column; the next retraining checks again."
        )
        return element("p", element("b", "stopped"), " ", said, class_="lead alert")
    warned = counted(len(report.warnings), "warning")
    said = f"The data can be trained on, with {warned}." if report.warnings else "The data can be trained on."
    return element("p", element("b", "passed"), " ", said, class_="lead")


def _facts(report: DataReport, clock: Clock) -> Markup:
    facts = []
    for side in ("training", "hold-out"):
        said = counted(report.rows.get(side, 0), "row")
        if side in report.spans:
            said += f", {clock.between(*report.spans[side])}"
        facts.append((side.capitalize(), said))
    left = [f"{report.rows[name]:,} ({why})" for name, why in _REASONS.items() if report.rows.get(name)]
    facts.append(("Left out", ", ".join(left) or "nothing"))
    return element("dl", [[element("dt", name), element("dd", said)] for name, said in facts])


def _checks(checks: Sequence[DataCheck]) -> Markup:
    ranked = sorted(checks, key=lambda check: _FIRST[check.verdict])
    return wide(
        heads("check", "verdict", "measured", "limit", "what was found", numbers=("measured", "limit")),
        [_check(check) for check in ranked],
    )


def _check(check: DataCheck) -> Markup:
    return element(
        "tr",
        element("th", check.name, scope="row"),
        element("td", element("b", check.verdict) if check.verdict != "passed" else check.verdict),
        element("td", number(check.measured), class_="n"),
        element("td", number(check.limit), class_="n"),
        element("td", foreign(check.sentence, 1_000)),
        class_="over" if check.verdict != "passed" else None,
    )


def _about_features(report: DataReport, task: Task) -> list[Markup]:
    said = (
        "In each cell: before the hold-out, then in it. The numbers are quantiles (1 %, half, 99 %). The last "
        "column is what the feature alone predicts of the later labels, without any other."
    )
    return [element("h2", "Features"), _features(report, task), element("p", said, class_="quiet")]


def _features(report: DataReport, task: Task) -> Markup:
    titles = ("feature", "missing", "1 %", "median", "99 %", _ALONE[task])
    return wide(heads(*titles, numbers=titles[1:]), [_feature(name, facts) for name, facts in report.features.items()])


def _feature(name: str, facts: Mapping[str, float | None]) -> Markup:
    gone = f"{share(facts['missing'] or 0.0)} → {share(facts['missing in hold-out'] or 0.0)}"
    cells = [element("td", gone, class_="n")]
    if "categories" in facts:
        cells.append(element("td", counted(int(facts["categories"] or 0), "value"), class_="n", colspan=3))
    else:
        cells += [
            element("td", f"{number(facts[what])} → {number(facts[f'{what} in hold-out'])}", class_="n")
            for what in ("1 %", "median", "99 %")
        ]
    cells.append(element("td", number(facts.get("alone")), class_="n"))
    return element("tr", element("th", foreign(name), scope="row"), cells)
