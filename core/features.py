"""Step 2: the project's feature function, run once an event, at prediction.

Its result travels with the prediction: the learner and batch training read that and never compute it
again, so training and serving cannot disagree.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from core.errors import ProjectCodeError
from core.predictions import MAX_MAGNITUDE, Features, FeatureValue
from core.project import Project
from core.settings import Kind, Settings

OTHER = "<other>"


class FeatureError(Exception):
    """The feature function failed on one event; the record is dead-lettered, the stream goes on."""


class FeatureFunction:
    """Checks what the project's function returns against ``features.outputs``.

    Parameters
    ----------
    function : callable or None
        Takes the event's fields (``dict``) and returns its features; None: the fields are the features.
    kinds : dict of str to kind
        The declared features.
    wants_time : bool
        Whether `function` takes the event time (ms) as second argument.
    """

    def __init__(
        self, function: Callable[..., Any] | None, kinds: dict[str, Kind], *, wants_time: bool = False
    ) -> None:
        self._function = function
        self._wants_time = wants_time
        self._checks = [(name, _CHECKS[kind]) for name, kind in kinds.items()]
        self._names = frozenset(kinds)

    def __call__(self, fields: dict[str, FeatureValue], time: int) -> Features:
        """Return the features of one event.

        Raises
        ------
        FeatureError
            If the function raises, or returns other features or types than declared.

        Examples
        --------
        >>> double = FeatureFunction(lambda fields: {"x2": 2 * fields["x"]}, {"x2": "number"})
        >>> double({"x": 1.5}, 0)
        {'x2': 3.0}
        """
        if self._function is None:
            return fields
        try:
            result = self._function(dict(fields), time) if self._wants_time else self._function(dict(fields))
        except (Exception, SystemExit) as error:  # the project's code may raise anything
            raise FeatureError(f"the feature function raised {type(error).__name__}: {error}") from error
        if not isinstance(result, dict) or result.keys() != self._names:
            raise FeatureError(f"the feature function must return exactly {sorted(self._names)}")
        return {name: _checked(name, check, result[name]) for name, check in self._checks}


def load_features(project: Project) -> FeatureFunction:
    """Load the project's feature function.

    Raises
    ------
    ProjectCodeError
        If it is named but cannot be loaded, or takes neither (fields) nor (fields, time).
    """
    import inspect

    settings = project.settings
    if settings.features is None:
        return FeatureFunction(None, settings.feature_kinds)
    function = project.load_function(settings.features.function)
    parameters = len(inspect.signature(function).parameters)
    if parameters not in (1, 2):
        raise ProjectCodeError(f"{settings.features.function}: must take (fields) or (fields, time_ms)")
    return FeatureFunction(function, settings.feature_kinds, wants_time=parameters == 2)


class Vocabulary:
    """Bounds the distinct values of every category field; later ones are read as ``<other>``.

    Examples
    --------
    >>> vocabulary = Vocabulary({"carrier": 1})
    >>> vocabulary.bound({"carrier": "AA"}), vocabulary.bound({"carrier": "UA"})
    ({'carrier': 'AA'}, {'carrier': '<other>'})
    """

    def __init__(self, limits: dict[str, int]) -> None:
        self._limits = limits
        self._known: dict[str, dict[str, None]] = {name: {} for name in limits}
        self.overflowed = 0

    @classmethod
    def of(cls, settings: Settings) -> Vocabulary:
        """Build it from the category fields of the project file."""
        return cls({n: f.max_categories for n, f in settings.fields.items() if f.type == "category"})

    def resume(self, earlier: Vocabulary) -> None:
        """Go on with what another vocabulary knows of the same fields, as far as this one's bounds allow."""
        for name, known in self._known.items():
            known.update(dict.fromkeys(list(earlier._known.get(name, ()))[: self._limits[name]]))
        self.overflowed = earlier.overflowed

    def bound(self, fields: dict[str, FeatureValue]) -> dict[str, FeatureValue]:
        """Replace values beyond a field's bound, in place, and return `fields`."""
        for name, known in self._known.items():
            value = fields[name]
            if value is None or value in known:
                continue
            if len(known) < self._limits[name]:
                known[str(value)] = None
            else:
                fields[name] = OTHER
                self.overflowed += 1
        return fields


def _checked(name: str, check: Callable[[Any], FeatureValue], value: Any) -> FeatureValue:
    try:
        return None if value is None else check(value)
    except Exception as error:  # an object of the project's code may raise anything when it is looked at
        raise FeatureError(f"feature {name}: a {type(value).__name__} {error}") from error


def _number(value: Any) -> float:
    if isinstance(value, str):
        raise TypeError("is text, not a number")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("is not finite; return None for a missing number")
    if abs(number) > MAX_MAGNITUDE:
        raise ValueError(f"is larger than {MAX_MAGNITUDE:g}")
    return number


def _category(value: Any) -> str:
    return str(value)


def _flag(value: Any) -> bool:
    if value not in (0, 1):
        raise ValueError("is not true or false")
    return bool(value)


_CHECKS: dict[Kind, Callable[[Any], FeatureValue]] = {
    "number": _number,
    "category": _category,
    "text": _category,
    "bool": _flag,
}
