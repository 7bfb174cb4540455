"""The libraries that a fitted pipeline needs, with the versions that are installed."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from typing import Any

_OURS = {"builtins", "sklearn", "numpy", "scipy"}


def libraries_of(pipeline: Any, always: Iterable[str]) -> dict[str, str]:
    """Return the installed version of each library that is always needed, and of those that the estimators are from.

    Parameters
    ----------
    pipeline : object or None
        A scikit-learn estimator.
    always : iterable of str
        Names of packages; those that are not installed are left out.

    Examples
    --------
    >>> list(libraries_of(None, ["scikit-learn", "no-such-package", "numpy"]))
    ['numpy', 'scikit-learn']
    """
    names = set(always)
    roots = {type(part).__module__.partition(".")[0] for part in _parts(pipeline)}
    if foreign := roots - _OURS:
        known = packages_distributions()
        names |= {name for root in foreign for name in known.get(root, [])}
    return {name: found for name in sorted(names) if (found := _version(name))}


def _parts(pipeline: Any) -> list[Any]:
    """Return a pipeline and the estimators in it."""
    if pipeline is None or not hasattr(pipeline, "get_params"):
        return []
    return [pipeline, *(value for value in pipeline.get_params().values() if hasattr(value, "get_params"))]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
