"""A digest of a partition's state that is equal for equal states, whichever process they come from.

Pickles of equal states differ from run to run: sets are walked through in another order, and what happens to be one
object in one process are two equal ones in another. So the objects are walked through here: sets sorted, attributes by
name, floats by their bits; and what can be changed is told apart from an equal copy by the number of its first visit.
"""

from __future__ import annotations

import copyreg
import hashlib
import struct
import types
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

import numpy as np

from streaming.state import State

_BY_NAME = (type, types.FunctionType)
_BATCH = 4096


def canonical_digest(state: State) -> str:
    """Return a digest of everything that a partition knows.

    Each part of the state counts for itself: parts share nothing that can change.

    Parameters
    ----------
    state : State
        Not changed.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    whole = hashlib.sha256()
    for entry in fields(state):
        whole.update(f"{entry.name}={digest_of(getattr(state, entry.name))};".encode())
    return whole.hexdigest()


def digest_of(value: object) -> str:
    """Return the digest of one object and of all that it refers to.

    Raises
    ------
    TypeError
        If there is an object that cannot be pickled, such as an open file.

    Examples
    --------
    >>> digest_of({"a": [1.0, {3, 1, 2}]}) == digest_of({"a": [1.0, {2, 3, 1}]})
    True
    >>> digest_of(1.0) == digest_of(1)
    False
    """
    return _Walk().digest(value)


class _Mark:
    """A piece of the description itself, on the stack between objects."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text.encode()


class _Walk:
    """Describes an object graph, deepest nesting included: it keeps a stack of its own."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._pieces: list[bytes] = []
        self._stack: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._alive: list[Any] = []  # an id is another object's as soon as its own is gone

    def digest(self, value: object) -> str:
        """Return the digest of `value`."""
        self._stack.append(value)
        while self._stack:
            self._describe(self._stack.pop())
            if len(self._pieces) > _BATCH:
                self._write()
        self._write()
        return self._hash.hexdigest()

    def _write(self) -> None:
        self._hash.update(b"".join(self._pieces))
        self._pieces.clear()

    def _describe(self, value: Any) -> None:
        kind = type(value)
        if kind is _Mark:
            self._pieces.append(value.text)
        elif kind in _ATOMS:
            self._pieces.append(_ATOMS[kind](value))
        elif kind is tuple:
            self._push("tuple", value)
        elif kind in (set, frozenset):
            self._push(kind.__name__, [_Mark(found) for found in sorted(digest_of(item) for item in value)])
        elif isinstance(value, _BY_NAME):
            self._say(f"name:{value.__module__}.{value.__qualname__}")
        elif not self._is_known(value):
            self._open(value, kind)

    def _is_known(self, value: Any) -> bool:
        """Tell whether `value` was visited before, and say which one it is."""
        number = self._numbers.get(id(value))
        if number is not None:
            self._say(f"again:{number}")
            return True
        self._numbers[id(value)] = len(self._numbers)
        self._alive.append(value)
        return False

    def _open(self, value: Any, kind: type) -> None:
        if kind is list:
            self._push("list", value)
        elif kind is dict:
            self._push("dict", [part for pair in value.items() for part in pair])
        elif kind is np.ndarray and value.dtype != object:
            self._say(f"array:{value.dtype.str}{value.shape}")
            self._describe(value.tobytes())
        elif kind is np.ndarray:
            self._push(f"array:{value.shape}", value.ravel().tolist())
        else:
            self._open_object(value, kind)

    def _open_object(self, value: Any, kind: type) -> None:
        """Describe what would be pickled of an object: how it is made, its attributes, its items."""
        registered = copyreg.dispatch_table.get(kind)
        parts = value.__reduce_ex__(4) if registered is None else registered(value)
        if isinstance(parts, str):
            self._say(f"name:{kind.__module__}.{parts}")
            return
        make, arguments, state, items, pairs = (*parts, *(None,) * 5)[:5]
        content = [make, arguments, *_attributes(state, kind)]
        content += [_Mark("items"), *(items or ())]
        content += [_Mark("pairs"), *(part for pair in pairs or () for part in pair)]
        self._alive.append((parts, content))
        self._push(f"{kind.__module__}.{kind.__qualname__}", content)

    def _push(self, name: str, content: Iterable[Any]) -> None:
        items = list(content)
        self._say(f"{name}({len(items)}")
        self._stack.append(_Mark(")"))
        self._stack.extend(reversed(items))

    def _say(self, text: str) -> None:
        self._pieces.append(text.encode() + b";")


def _attributes(state: Any, kind: type) -> list[Any]:
    """Return attributes by name, those in slots too; or a state that is no attributes as it is."""
    in_slots = isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict)
    named = {**(state[0] or {}), **state[1]} if in_slots and (state[0] is None or type(state[0]) is dict) else state
    if type(named) is not dict or not all(isinstance(name, str) for name in named):
        return [_Mark("state"), state]
    names = sorted(named)
    if kind.__module__.startswith("river.") and named.get("seed", 0) is None:
        names = [
            name for name in names if name != "_rng"
        ]  # unseeded: nobody knows what it would draw, and nothing does
    return [part for name in names for part in (_Mark(f".{name}="), named[name])]


def _bytes(value: bytes) -> bytes:
    return b"b%d:" % len(value) + value


def _text(value: str) -> bytes:
    encoded = value.encode("utf-8", "surrogatepass")
    return b"s%d:" % len(encoded) + encoded


_ATOMS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda value: b"N;",
    bool: lambda value: b"T;" if value else b"F;",
    int: lambda value: b"i%x;" % value,
    float: lambda value: b"f" + struct.pack(">d", value),
    complex: lambda value: b"c" + struct.pack(">dd", value.real, value.imag),
    str: _text,
    bytes: _bytes,
}
