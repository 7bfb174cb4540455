"""The data of a retraining: pinned, read, split, checked. The first steps of :mod:`flows.training`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.project import Project
from core.quarantine import Span, quarantined, released
from core.store import TableStore
from core.tables import CORRECTIONS, EXAMPLES
from flows.champion import Champion
from flows.checks import page
from flows.checks.report import DataReport, refusal
from flows.checks.run import check_data
from flows.examples import DataVersion, Examples, LeftOut, only_mature, read_counted, unfit_columns
from flows.gates import labels_gate, rows_gate
from flows.lease import Lease
from flows.parity import parity_gate
from flows.splits import Split, split_by_time
from flows.stops import GatesPassed, NotPromoted
from flows.validation import column_problems, data_problems


class TrainingData:
    """What one attempt learns from and is judged on.

    Parameters
    ----------
    project, lease, store
        What to retrain, and the right to do it.
    gates : GatesPassed
        Those of the attempt: some are about the data.

    Attributes
    ----------
    rows : Examples
        The mature ones, once they are split; before, all that were read.
    kept_out : list of Span
        The windows in quarantine, ms.
    split : Split
        Over `rows`.
    report : DataReport or None
        What the checks found.
    """

    rows: Examples
    split: Split

    def __init__(self, project: Project, lease: Lease, store: TableStore, gates: GatesPassed) -> None:
        self._project, self._lease, self._store, self._gates = project, lease, store, gates
        self._request, self._settings = lease.request, project.settings
        self._version: DataVersion | None = None
        self._left_out = LeftOut()
        self._wait = 0
        self._page: Path | None = None
        self.kept_out: list[Span] = []
        self.report: DataReport | None = None

    @property
    def version(self) -> DataVersion:
        """The pinned versions of the tables."""
        assert self._version is not None
        return self._version

    @property
    def train(self) -> Examples:
        """The rows to train on."""
        return self.rows.take(self.split.train)

    @property
    def holdout(self) -> Examples:
        """The rows that neither model has seen."""
        return self.rows.take(self.split.holdout)

    def pin(self) -> str:
        """Fix the table versions, so that they stay readable.

        Raises
        ------
        NotPromoted
            If there is no table yet.
        """
        while True:
            examples, corrections = self._store.version(EXAMPLES), self._store.version(CORRECTIONS)
            if examples is None:
                raise NotPromoted([f"table {EXAMPLES!r} does not exist yet: no label has been joined"])
            self._version = DataVersion(examples, corrections)
            self.pin_for(self._request.id)
            # Maintenance asks for pins between compacting and vacuum: it knows of one on what still is the latest.
            if (examples, corrections) == (self._store.version(EXAMPLES), self._store.version(CORRECTIONS)):
                return f"examples at version {examples}"
            self._lease.ledger.unpin(self._request.id)

    def pin_for(self, owner: str) -> None:
        """Keep the pinned versions readable for somebody else, too."""
        self._lease.ledger.pin(EXAMPLES, self.version.examples, owner)
        if self.version.corrections is not None:
            self._lease.ledger.pin(CORRECTIONS, self.version.corrections, owner)

    def read(self) -> str:
        """Read the examples and refuse data that nothing should be fitted on.

        Raises
        ------
        NotPromoted
            If a column or the labels are of no use.
        """
        settings, until = self._settings, self._request.event_time
        self._refuse("schema", column_problems(*unfit_columns(self._store, self.version, settings)))
        self.kept_out = quarantined(self._lease.ledger.history(), until)
        self.rows, self._left_out = read_counted(self._store, self.version, settings, until, self.kept_out)
        self._refuse("labels", data_problems(self.rows.outcomes, settings))
        return f"{len(self.rows)} labelled examples"

    def divide(self, champion: Champion | None) -> str:
        """Drop what is not mature, hold out the latest span that the champion has not seen.

        Raises
        ------
        NotPromoted
            If too little is left, or the stored features are not those of the events.
        """
        settings = self._settings
        self.rows, self._left_out, self._wait = only_mature(
            self.rows, self._left_out, settings, self._request.event_time
        )
        self.split = split_by_time(
            self.rows.event_time,
            self.rows.label_clock,
            span=settings.batch.holdout,
            after=champion.data_cut if champion else None,
        )
        train, held = int(self.split.train.sum()), int(self.split.holdout.sum())
        self._refuse("labels", data_problems(self.train.outcomes, settings))
        if not (enough := rows_gate(held, settings.gates)).passed:
            self._gates.require([enough])
        self._gates.require([labels_gate(*self._new_labels(champion), settings.gates)])
        self._gates.require([parity_gate(self._project, self._store, self.rows)])
        return f"{train} rows to train, {held} held out from {settings.clock.moment(self.split.start)}"

    def check(self) -> str:
        """Check the data itself, write what was found, and stop for what nothing should be fitted on.

        Raises
        ------
        NotPromoted
            If a check failed.
        """
        accepted = released(self._lease.ledger.history("release"), self._request.event_time)
        report = check_data(self.rows, self.split, self._left_out, self._settings, wait=self._wait, accepted=accepted)
        self._keep(report)
        if report.problems:
            raise NotPromoted(report.problems)
        return "; ".join([f"{len(report.checks)} checks passed", *report.warnings])

    def summary(self) -> dict[str, Any]:
        """Return what the ledger gets: table version, rows, all checks, and where the page is in the state folder."""
        return {
            "table_version": None if self._version is None else self._version.examples,
            "rows": len(self.rows) if hasattr(self, "rows") else 0,
            "data": None if self.report is None else {"page": self._where(), **self.report.as_json()},
        }

    def _where(self) -> str | None:
        return None if self._page is None else self._page.relative_to(self._project.state).as_posix()

    def _new_labels(self, champion: Champion | None) -> tuple[int, int | None]:
        """Return how many examples the champion was not trained on, and its version; all count at the bootstrap."""
        if champion is None or champion.data_cut is None:
            return len(self.rows), None
        return int((self.rows.event_time >= champion.data_cut).sum()), champion.version

    def _keep(self, report: DataReport) -> None:
        """Write what was found in the data, for the ledger and as a page."""
        self.report = report
        self._page = page.write(self._project.reports, report, self._settings, self._lease.key)

    def _refuse(self, check: str, problems: list[str]) -> None:
        """Stop for data that cannot even be checked, with a page as well."""
        if problems:
            self._keep(refusal(check, problems))
            raise NotPromoted(problems)
