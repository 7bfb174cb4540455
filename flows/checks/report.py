"""What the checks of a retraining's data found. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from core.settings import Settings
from flows.checks.columns import Column

Verdict = Literal["passed", "warning", "failed"]


@dataclass(frozen=True)
class DataCheck:
    """What one check said.

    Attributes
    ----------
    name : str
        schema, labels, missing, duplicates, balance, mature, quarantine, constant, shift, leak or absence.
    verdict : {'passed', 'warning', 'failed'}
        One that failed stops the retraining.
    measured, limit : float or None
        None where there is no number.
    sentence : str
        What was found, and what to do about it.
    feature : str or None
        The feature that it is about.
    """

    name: str
    verdict: Verdict
    measured: float | None
    limit: float | None
    sentence: str
    feature: str | None = None

    @property
    def passed(self) -> bool:
        """Whether it does not stop the retraining."""
        return self.verdict != "failed"

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**asdict(self), "passed": self.passed}


@dataclass(frozen=True)
class DataReport:
    """All that the checks said.

    Attributes
    ----------
    checks : sequence of DataCheck
        In the order in which they are made.
    rows : mapping of str to int
        Rows in training and hold-out, and rows left out with their reason.
    spans : mapping of str to (int, int)
        Start and end of training and hold-out, event time, ms.
    features : mapping of feature to mapping
        What was measured of each feature: shares and numbers by name.
    """

    checks: Sequence[DataCheck]
    rows: Mapping[str, int] = field(default_factory=dict)
    spans: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    features: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether nothing stops the retraining."""
        return all(check.passed for check in self.checks)

    @property
    def problems(self) -> list[str]:
        """Why the retraining stops, a sentence each.

        Examples
        --------
        >>> DataReport([DataCheck("missing", "failed", 1.0, 0.95, "x is gone.", "x")]).problems
        ['missing: x is gone.']
        """
        return [f"{check.name}: {check.sentence}" for check in self.checks if not check.passed]

    @property
    def warnings(self) -> list[str]:
        """What a person should look at; it stops nothing."""
        return [f"{check.name}: {check.sentence}" for check in self.checks if check.verdict == "warning"]

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "passed": self.passed,
            "checks": [check.as_json() for check in self.checks],
            "rows": dict(self.rows),
            "spans": {name: list(span) for name, span in self.spans.items()},
            "features": {name: dict(facts) for name, facts in self.features.items()},
        }


def refusal(check: str, problems: Sequence[str]) -> DataReport:
    """Return the report on data that cannot even be checked.

    Examples
    --------
    >>> refusal("labels", ["every label is 1"]).problems
    ['labels: every label is 1']
    """
    return DataReport([DataCheck(check, "failed", None, None, said) for said in problems])


def found(checks: Sequence[DataCheck], fine: DataCheck) -> list[DataCheck]:
    """Return what was found, or that nothing was."""
    return list(checks) or [fine]


def to_check(columns: Sequence[Column], check: str, settings: Settings) -> list[Column]:
    """Return the features that must pass a check: those to which ``validation.allow`` does not allow to fail it."""
    allowed = settings.validation.allow
    return [column for column in columns if check not in allowed.get(column.name, ())]


def allow_it(feature: str, check: str) -> str:
    """Return how to let a feature fail a check.

    Examples
    --------
    >>> allow_it("temp", "shift")
    'allow it with validation.allow: {temp: [shift]}'
    """
    return f"allow it with validation.allow: {{{feature}: [{check}]}}"
