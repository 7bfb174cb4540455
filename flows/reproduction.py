"""A recorded fit, done again: the same rows, and the same predictions to the bit, or what differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from core.audit import Ledger, LedgerRecord
from core.errors import CannotReproduceError, UsageError, VersionGoneError
from core.project import Project
from core.registry import Registry
from core.tables import ReadsTables
from flows.digests import rows_digest
from flows.fitting import fit
from flows.provenance import differences, made_with
from flows.recipe import DOCUMENT, Recipe, rows_again, sampled_digest

_LONGEST_VERSION = 9


@dataclass(frozen=True)
class Recorded:
    """A recipe and where it was found: its MLflow run, and the version that came of it, if one did."""

    recipe: Recipe
    mlflow_run: str
    version: int | None


@dataclass(frozen=True)
class Reproduction:
    """What came of doing a fit again.

    Attributes
    ----------
    rows, rows_then : int
        How many rows it was fitted on.
    rows_digest, rows_digest_then, predictions_digest, predictions_digest_then : str
        SHA-256 now and then.
    differences : list of str
        What is not as it was: code, libraries, machine, settings.
    """

    rows: int
    rows_then: int
    rows_digest: str
    rows_digest_then: str
    predictions_digest: str
    predictions_digest_then: str
    differences: list[str]

    @property
    def same_rows(self) -> bool:
        """Whether the rows are the same."""
        return self.rows_digest == self.rows_digest_then

    @property
    def same_predictions(self) -> bool:
        """Whether the predictions are, to the bit."""
        return self.predictions_digest == self.predictions_digest_then

    @property
    def equal(self) -> bool:
        """Whether both are."""
        return self.same_rows and self.same_predictions

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        said = {"equal": self.equal, "same_rows": self.same_rows, "same_predictions": self.same_predictions}
        return {**said, **asdict(self)}


def recorded(project: Project, ledger: Ledger, run: str, connect: Callable[[Project], Registry] = Registry) -> Recorded:
    """Return the recipe of an MLflow run or a version: from the ledger, else from MLflow.

    Parameters
    ----------
    run : str
        The id of an MLflow run, or the number of a version.

    Raises
    ------
    UsageError
        If there is no such run or version of this project.
    CannotReproduceError
        If no recipe was written with it.
    RegistryError
        If the ledger does not know it, and MLflow cannot be reached.
    """
    for record in reversed(ledger.history("retraining")):
        if run in _names(record):
            if not record.body.get("recipe"):
                raise _without_recipe(run)
            return _found(record.body["recipe"], record.body["mlflow_run"], record.body["version"], project)
    return _from_registry(project, run, connect(project))


def reproduce(project: Project, store: ReadsTables, recipe: Recipe) -> Reproduction:
    """Fit the recorded candidate on the pinned rows, with the recorded settings and threads.

    Raises
    ------
    CannotReproduceError
        If the rows cannot be read any more, or none is left.
    HeadraceError
        If it cannot be fitted, or the recipe is of another headrace.
    StoreError
        If a table cannot be read.
    """
    then = recipe.project_then(project)
    try:
        rows = rows_again(store, recipe, then.settings)
    except VersionGoneError as error:
        raise CannotReproduceError(
            f"the rows are not there any more: {error}; retrain.reproducible says of how many retrainings they are kept"
        ) from error
    if not len(rows):
        raise CannotReproduceError(f"no row is left of the {recipe.rows} that it was fitted on; were they erased?")
    model = fit(then, recipe.fitted, rows)
    now = made_with(project, model.pipeline)
    settings = project.settings.model_dump(mode="json", include=set(recipe.settings))
    return Reproduction(
        len(rows),
        recipe.rows,
        rows_digest(rows),
        recipe.rows_digest,
        sampled_digest(model, rows),
        recipe.predictions_digest,
        differences({**recipe.made_with, "settings": recipe.settings}, {**now, "settings": settings}),
    )


def _names(record: LedgerRecord) -> set[str]:
    return {str(name) for name in (record.body.get("mlflow_run"), record.body.get("version")) if name is not None}


def _from_registry(project: Project, run: str, registry: Registry) -> Recorded:
    """Look in MLflow: the ledger is of one state folder, and there may be another."""
    name, version = project.settings.name, None
    if run.isdigit() and len(run) <= _LONGEST_VERSION:
        known = {entry.version: entry.run_id for entry in registry.versions()}
        version = int(run)
        if version not in known:
            there = f"there are {_spoken(sorted(known))}" if known else "none is registered yet"
            raise UsageError(f"model {name!r} has no version {run}; {there}")
        run = known[version]
    owner = registry.project_of(run)
    if owner != name:
        whose = f"is of project {owner!r}" if owner else "is neither in the ledger nor in MLflow"
        raise UsageError(
            f"run {run!r} {whose}; 'headrace history PROJECT --kind retraining --json -' names those of {name!r}"
        )
    content = registry.document(run, DOCUMENT)
    if content is None:
        raise _without_recipe(run)
    return _found(content, run, version, project)


def _found(content: Mapping[str, Any], run: str, version: int | None, project: Project) -> Recorded:
    recipe = Recipe.from_json(content)
    if recipe.project != project.settings.name:
        raise UsageError(f"run {run!r} is of project {recipe.project!r}, not of {project.settings.name!r}")
    return Recorded(recipe, run, version)


def _without_recipe(run: str) -> CannotReproduceError:
    return CannotReproduceError(
        f"run {run!r}: nothing was written down to do its fit again: it ended before a model was fitted, or an older "
        "headrace made it"
    )


def _spoken(numbers: list[int]) -> str:
    """Name a few numbers.

    Examples
    --------
    >>> _spoken([1]), _spoken([1, 2, 5])
    ('1', '1 to 5')
    """
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
