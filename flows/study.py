"""Which setting to try next, and whether it is worth going on with: the only file that imports Optuna.

Each family's default comes first. Then the tree-structured Parzen estimator (Bergstra et al. 2011) draws a family and
a setting from where the better of the trials so far are. After each fold a trial is given up that is not among the
better quarter of those that came through all folds. What Optuna is told are ratios to the first loss on the same fold:
some spans of time are harder than others, and that says nothing of a setting.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import TrialState

from core.errors import HeadraceError
from core.search_settings import SpaceSettings
from flows.spaces import Family, Params

_BETTER = 25.0
"""Percent of the complete trials than which a trial has to be better to go on."""

_FAMILY = "family"
_MOST_RANDOM = 10


@dataclass(frozen=True)
class Draw:
    """A setting to try: the family, all its parameters, and whether it is the family's default."""

    family: Family
    params: Params
    default: bool


class Study:
    """The trials of one search; they are drawn one after the other, and ended before the next is drawn.

    Parameters
    ----------
    families : sequence of Family
        What is searched.
    trials : int
        How many trials there will be, about: of a few, fewer are drawn at random.
    seed : int
        Same seed, families, trials and losses, same draws.

    Examples
    --------
    >>> from core.search_settings import SpaceSettings
    >>> linear = Family("linear", {"strength": SpaceSettings(low=0.1, high=10.0)}, {"strength": 1.0}, {})
    >>> study = Study([linear], trials=8, seed=1)
    >>> study.draw().params
    {'strength': 1.0}
    >>> study.report(0.7)
    >>> study.complete()
    >>> 0.1 <= study.draw().params["strength"] <= 10.0
    True
    """

    def __init__(self, families: Sequence[Family], trials: int, seed: int) -> None:
        self._families = {family.name: family for family in families}
        self._varied = [family.name for family in families if family.varies]
        self._defaults = list(families)
        self._yardstick: list[float] = []
        self._ratios: list[float] = []
        self._trial: optuna.Trial
        with _translated():
            optuna.logging.set_verbosity(optuna.logging.ERROR)
            self._study = optuna.create_study(
                sampler=optuna.samplers.TPESampler(
                    seed=seed,
                    n_startup_trials=min(max(trials // 4, len(families)), _MOST_RANDOM),
                    multivariate=True,
                    group=True,
                    constant_liar=False,
                    warn_independent_sampling=False,
                ),
                pruner=optuna.pruners.PercentilePruner(_BETTER, n_startup_trials=len(families)),
            )
            for family in families:
                self._study.enqueue_trial(_as_asked(family))

    def draw(self) -> Draw:
        """Return what to try next: first the default of each family, then what promises most.

        Raises
        ------
        HeadraceError
            If Optuna fails.
        """
        with _translated():
            self._trial, self._ratios = self._study.ask(), []
            default = bool(self._defaults)
            if default:
                family = self._defaults.pop(0)
                if family.varies:
                    self._trial.suggest_categorical(_FAMILY, self._varied)
            else:
                family = self._families[str(self._trial.suggest_categorical(_FAMILY, self._varied))]
            drawn = {name: self._value(family, name, space) for name, space in family.space.items()}
        return Draw(family, {**drawn, **family.fixed}, default)

    def report(self, loss: float) -> None:
        """Say what the drawn trial's loss on its next fold is."""
        fold = len(self._ratios)
        if fold == len(self._yardstick):
            self._yardstick.append(loss)
        known = self._yardstick[fold]
        self._ratios.append(loss / known if known > 0.0 else 1.0 + loss)
        with _translated():
            self._trial.report(self._mean, fold)

    @property
    def hopeless(self) -> bool:
        """Whether the drawn trial is not worth another fold."""
        with _translated():
            return self._trial.should_prune()

    def complete(self) -> None:
        """End the drawn trial, scored on all folds."""
        with _translated():
            self._study.tell(self._trial, self._mean)

    def give_up(self) -> None:
        """End the drawn trial before its last fold."""
        with _translated():
            self._study.tell(self._trial, state=TrialState.PRUNED)

    def fail(self) -> None:
        """End the drawn trial, which could not be fitted or scored."""
        with _translated():
            self._study.tell(self._trial, state=TrialState.FAIL)

    @property
    def _mean(self) -> float:
        return sum(self._ratios) / len(self._ratios)

    def _value(self, family: Family, name: str, space: SpaceSettings) -> Any:
        key = _key(family, name)
        if space.choices is not None:
            return space.choices[self._trial.suggest_categorical(key, range(len(space.choices)))]
        assert space.low is not None and space.high is not None
        if space.whole:
            return self._trial.suggest_int(key, int(space.low), int(space.high), log=space.log)
        return self._trial.suggest_float(key, space.low, space.high, log=space.log)


def _as_asked(family: Family) -> dict[str, Any]:
    """Return a family's default as Optuna has it: of choices, the position."""
    asked: dict[str, Any] = {_FAMILY: family.name} if family.varies else {}
    for name, space in family.space.items():
        value = family.default[name]
        asked[_key(family, name)] = value if space.choices is None else space.choices.index(value)
    return asked


def _key(family: Family, name: str) -> str:
    return f"{family.name}.{name}"


@contextmanager
def _translated() -> Iterator[None]:
    """Make Optuna's errors headrace's, and keep its notes on what is experimental to itself."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        raise HeadraceError(f"the search could not go on: Optuna: {type(error).__name__}: {error}") from error
