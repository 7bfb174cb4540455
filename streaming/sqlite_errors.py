"""What goes wrong with an SQLite file becomes the error that its owner says it is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import update_wrapper
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from core.errors import StoreError


class KeepsAFile(Protocol):
    """Something that keeps an SQLite file."""

    def failure(self, error: sqlite3.Error) -> StoreError:
        """Return what to say of an error: where it is, and what to do."""


_Owner = TypeVar("_Owner", bound=KeepsAFile)
_P = ParamSpec("_P")
_R = TypeVar("_R")


def translated(method: Callable[Concatenate[_Owner, _P], _R]) -> Callable[Concatenate[_Owner, _P], _R]:
    """Let a method raise its owner's error where SQLite fails.

    Examples
    --------
    >>> class Notes:
    ...     def failure(self, error):
    ...         return StoreError(f"notes.db: {error}")
    ...
    ...     @translated
    ...     def read(self):
    ...         raise sqlite3.OperationalError("disk I/O error")
    >>> Notes().read()
    Traceback (most recent call last):
    core.errors.StoreError: notes.db: disk I/O error
    """

    def call(self: _Owner, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return method(self, *args, **kwargs)
        except sqlite3.Error as error:
            raise self.failure(error) from error

    return update_wrapper(call, method)
