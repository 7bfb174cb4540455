"""Step 2: the project's feature function, run once an event, at prediction.

Its result travels with the prediction: the learner and batch training read that and never compute it
again, so training and serving cannot disagree.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from core.errors import ProjectCodeError
from core.generated import Generator, interaction_kinds
from core.predictions import MAX_CATEGORY_LENGTH, MAX_MAGNITUDE, Features, FeatureValue, Outcome
from core.project import Project
from core.setting_types import Kind
from core.settings import Settings

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
    generator : Generator, optional
        Adds what is made of these features and the event time.
    """

    def __init__(
        self,
        function: Callable[..., Any] | None,
        kinds: dict[str, Kind],
        *,
        wants_time: bool = False,
        generator: Generator | None = None,
    ) -> None:
        self._function = function
        self._generator = generator
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
        features = fields if self._function is None else self._returned(fields, time)
        return features if self._generator is None else self._generator(features, time)

    def _returned(self, fields: dict[str, FeatureValue], time: int) -> Features:
        assert self._function is not None
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

    settings, made = project.settings, project.settings.features
    generated = made is not None and (made.calendar or made.interactions)
    generator = Generator(made.calendar, made.time_zone, made.interactions) if made and generated else None
    if made is None or made.function is None:
        return FeatureFunction(None, settings.base_kinds, generator=generator)
    function = project.load_function(made.function)
    parameters = len(inspect.signature(function).parameters)
    if parameters not in (1, 2):
        raise ProjectCodeError(f"{made.function}: must take (fields) or (fields, time_ms)")
    return FeatureFunction(function, settings.base_kinds, wants_time=parameters == 2, generator=generator)


class Vocabulary:
    """Bounds what a stream may name: categories beyond the bound are read as ``<other>``, classes are refused.

    Parameters
    ----------
    fields, features : dict of str to int
        Most distinct values of each category field, and of each category that the feature function makes.
    classes : int, optional
        Most distinct classes of labels; without it they are not looked at.

    Examples
    --------
    >>> vocabulary = Vocabulary({"carrier": 1}, classes=1)
    >>> vocabulary.bound({"carrier": "AA"}), vocabulary.bound({"carrier": "UA"})
    ({'carrier': 'AA'}, {'carrier': '<other>'})
    >>> vocabulary.admits("late"), vocabulary.admits("early"), vocabulary.admits("late")
    (True, False, True)
    """

    def __init__(
        self, fields: dict[str, int], features: dict[str, int] | None = None, classes: int | None = None
    ) -> None:
        self._fields = _known(fields)
        self._features = _known(features or {})
        self._max_classes = classes
        self._classes: dict[Outcome, None] = {}
        self.overflowed = 0

    @classmethod
    def of(cls, settings: Settings) -> Vocabulary:
        """Build it from the project file; the class of a missing label is there from the beginning."""
        fields = {n: f.max_categories for n, f in settings.kept_fields.items() if f.type == "category"}
        made, label = settings.features, settings.label
        bounded = {**made.outputs, **interaction_kinds(made.interactions, settings.event_kinds)} if made else {}
        features = {n: made.max_categories for n, kind in bounded.items() if kind == "category"} if made else {}
        learned = settings.task == "multiclass" and not label.classes
        vocabulary = cls(fields, features, label.max_classes if learned else None)
        if label.missing is not None:
            vocabulary.admits(str(label.missing))
        return vocabulary

    def resume(self, earlier: Vocabulary) -> None:
        """Go on with what another vocabulary knows of the same fields, as far as this one's bounds allow."""
        for mine, others in ((self._fields, earlier._fields), (self._features, earlier._features)):
            for name, (limit, known) in mine.items():
                earlier_values = others[name][1] if name in others else {}
                known.update(dict.fromkeys(list(earlier_values)[:limit]))
        for outcome in earlier._classes:
            self.admits(outcome)
        self.overflowed = earlier.overflowed

    def bound(self, fields: dict[str, FeatureValue]) -> dict[str, FeatureValue]:
        """Replace values beyond a field's bound, in place, and return `fields`."""
        return self._bound(fields, self._fields)

    def bound_features(self, features: Features) -> Features:
        """Replace categories beyond the bound in what the feature function made, in place, and return `features`."""
        return self._bound(features, self._features)

    def admits(self, outcome: Outcome) -> bool:
        """Tell whether a label of this class can be learned: its class is known, or there is room for it."""
        if self._max_classes is None or outcome in self._classes:
            return True
        if len(self._classes) >= self._max_classes:
            return False
        self._classes[outcome] = None
        return True

    def _bound(
        self, values: dict[str, FeatureValue], vocabulary: dict[str, tuple[int, dict[str, None]]]
    ) -> dict[str, FeatureValue]:
        for name, (limit, known) in vocabulary.items():
            value = values[name]
            if value is None or value in known:
                continue
            if len(known) < limit:
                known[str(value)] = None
            else:
                values[name] = OTHER
                self.overflowed += 1
        return values


def _known(limits: dict[str, int]) -> dict[str, tuple[int, dict[str, None]]]:
    return {name: (limit, {}) for name, limit in limits.items()}


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


def _text(value: Any) -> str:
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("has half a surrogate pair in it, which is no text") from error
    return text


def _category(value: Any) -> str:
    text = _text(value)
    if len(text) > MAX_CATEGORY_LENGTH:
        raise ValueError(f"is longer than {MAX_CATEGORY_LENGTH} characters, which no category may be")
    return text


def _flag(value: Any) -> bool:
    if value not in (0, 1):
        raise ValueError("is not true or false")
    return bool(value)


_CHECKS: dict[Kind, Callable[[Any], FeatureValue]] = {
    "number": _number,
    "category": _category,
    "text": _text,
    "bool": _flag,
}
