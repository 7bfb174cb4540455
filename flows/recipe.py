"""The recipe of a fit: which rows, which parameters and what it was made with; enough to do it again to the bit.

It is written into the ledger with the retraining (where the chain covers it) and into the MLflow run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import ValidationError

from core.batch_model import FittedModel
from core.errors import HeadraceError
from core.project import Project
from core.quarantine import Span
from core.settings import Settings
from core.tables import ReadsTables
from flows.candidates import Candidate
from flows.digests import predictions_digest, rows_digest, sample
from flows.examples import DataVersion, Examples, read_examples
from flows.fitting import rows_of
from flows.provenance import made_with
from flows.splits import known_before, mature

DOCUMENT = "recipe.json"
_SECTIONS = {"task", "fields", "label", "features", "online", "batch"}
"""What of the project file decides a fit. Not all of it is kept: other sections may hold passwords."""


@dataclass(frozen=True)
class Recipe:
    """How a model was fitted, and what came of it.

    Attributes
    ----------
    project : str
        The project's name.
    examples : int
        Version of the examples table.
    corrections : int or None
        Version of the corrections table; None where there was none.
    until : int
        Labels known by then were used, stream time, ms.
    left_out : list of (int, int)
        Windows in quarantine whose events were not used, event time, ms.
    held_out_from : int or None
        Start of the hold-out of a challenger that was not refitted, ms; None if all mature rows were used.
    candidate : dict
        The winner of the search, as :class:`flows.candidates.Candidate`.
    settings : dict
        The sections of the project file that decide a fit.
    rows : int
        How many rows it was fitted on.
    rows_digest, predictions_digest : str
        SHA-256 of these rows, and of what the model predicts for a sample of them.
    made_with : dict
        Code, libraries and machine (:mod:`flows.provenance`).
    """

    project: str
    examples: int
    corrections: int | None
    until: int
    left_out: Sequence[Span]
    held_out_from: int | None
    candidate: Mapping[str, Any]
    settings: Mapping[str, Any]
    rows: int
    rows_digest: str
    predictions_digest: str
    made_with: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**asdict(self), "left_out": [list(span) for span in self.left_out]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Recipe:
        """Read what `as_json` gave.

        Raises
        ------
        HeadraceError
            If it is not what this headrace writes.
        """
        try:
            recipe = cls(**content)
            return replace(recipe, left_out=[(int(start), int(end)) for start, end in recipe.left_out])
        except (TypeError, ValueError) as error:
            raise _foreign(error) from error

    @property
    def fitted(self) -> Candidate:
        """The candidate that was fitted.

        Raises
        ------
        HeadraceError
            If this headrace does not know such candidates.
        """
        try:
            return Candidate(**self.candidate)
        except TypeError as error:
            raise _foreign(error) from error

    def project_then(self, project: Project) -> Project:
        """Return the project with the settings of then, where they decide a fit.

        Raises
        ------
        HeadraceError
            If this headrace does not know such settings.
        """
        try:
            settings = Settings.model_validate({**project.settings.model_dump(), **self.settings})
        except ValidationError as error:
            raise _foreign(error) from error
        return replace(project, settings=settings)


def recipe_of(
    project: Project,
    model: FittedModel,
    candidate: Candidate,
    rows: Examples,
    *,
    data: DataVersion,
    until: int,
    left_out: Sequence[Span],
    held_out_from: int | None = None,
) -> Recipe:
    """Return the recipe of a fitted model.

    Parameters
    ----------
    rows : Examples
        What :func:`flows.fitting.fit` was given.
    """
    used = rows_of(candidate, rows)
    return Recipe(
        project=project.settings.name,
        examples=data.examples,
        corrections=data.corrections,
        until=until,
        left_out=left_out,
        held_out_from=held_out_from,
        candidate=asdict(candidate),
        settings=project.settings.model_dump(mode="json", include=_SECTIONS),
        rows=len(used),
        rows_digest=rows_digest(used),
        predictions_digest=sampled_digest(model, used),
        made_with=made_with(project, model.pipeline),
    )


def rows_again(store: ReadsTables, recipe: Recipe, settings: Settings) -> Examples:
    """Read the rows of a recipe from the pinned tables.

    Raises
    ------
    VersionGoneError
        If they cannot be read any more.
    StoreError
        If a table cannot be read.
    """
    data = DataVersion(recipe.examples, recipe.corrections)
    rows = read_examples(store, data, settings, recipe.until, recipe.left_out)
    rows = rows.take(
        mature(
            rows.event_time,
            rows.label_clock,
            until=recipe.until,
            horizon=settings.label.horizon,
            implied=settings.label.missing is not None,
        )
    )
    if recipe.held_out_from is not None:
        rows = rows.take(known_before(rows.event_time, rows.label_clock, recipe.held_out_from))
    return rows_of(recipe.fitted, rows)


def sampled_digest(model: FittedModel, rows: Examples) -> str:
    """Return the digest of what a model predicts for a sample of rows."""
    return predictions_digest(model.predict_frame(rows.frame.iloc[sample(len(rows))]))


def _foreign(error: Exception) -> HeadraceError:
    return HeadraceError(
        f"the recipe was written by another version of headrace, and cannot be followed by this one: {error}; "
        "use the version that its 'made_with' names"
    )
