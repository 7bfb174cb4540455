"""A strict decoder of some paths of a JSON object. Pure; the same bytes always give the same result.

:func:`msgspec.defstruct` makes a C decoder that checks JSON and types in one pass. Around it are the checks that it
does not make, each of them cheap where there is nothing to find:

* A key that is read and that an object has twice: JSON does not say which one counts, so none does.
* Nesting of more than `MAX_DEPTH` levels: msgspec's own limit depends on how deep Python's stack is at the moment,
  and what a record means must not.
* Text that is not UTF-8 in a part that is not read.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from core.durations import EARLIEST, LATEST
from core.reasons import Reason

MAX_DEPTH = 100
_STRUCTURE = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_OPENING, _CLOSING = b"[{", b"]}"
_TOO_DEEP: tuple[Reason, str] = "malformed", f"nested deeper than {MAX_DEPTH} levels"

Refusal = tuple[Reason, str]


class StrictJson:
    """Decodes JSON objects.

    Parameters
    ----------
    paths : list of (str, type)
        Names joined by dots, and the JSON type that is expected there.
    max_bytes : int
        The largest value that is decoded, bytes.

    Examples
    --------
    >>> reader = StrictJson([("id", str | int), ("cart.amount", float)], 1_000)
    >>> content, unknown = reader.decode(b'{"id": 7, "cart": {"amount": 2}, "more": 1}', 0)
    >>> content.f0, content.f1.f0, unknown
    (7, 2.0, True)
    >>> reader.decode(b'{"id": 7, "id": 8}', 0)
    (('duplicate_key', 'id: occurs twice in one object'), False)
    """

    def __init__(self, paths: list[tuple[str, Any]], max_bytes: int) -> None:
        tree: dict[str, Any] = {}
        for path, kind in paths:
            node = tree
            *parents, leaf = path.split(".")
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = _either(node.get(leaf), kind)
        self._strict = msgspec.json.Decoder(_struct(tree, forbid_unknown=True))
        self._lenient = msgspec.json.Decoder(_struct(tree, forbid_unknown=False))
        self._max_bytes = max_bytes
        self._names = {part for path, _ in paths for part in path.split(".")}
        written = (re.escape(name.encode("utf-8", "replace")) for name in self._names)
        self._keys = re.compile(b'"(?:' + b"|".join(written) + b')"')

    def decode(self, value: bytes | None, timestamp: int) -> tuple[Any, bool]:
        """Return (content, whether it had unknown fields), or ((reason, detail), False); `timestamp` in ms."""
        if refusal := self._refusal(value, timestamp):
            return refusal, False
        assert value
        try:
            found = self._decode(value)
        except msgspec.ValidationError as error:
            return _reason_of(str(error)), False
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return ("malformed", shorten(str(error))), False
        refusal = self._duplicate(value)
        return (refusal, False) if refusal else found

    def _decode(self, value: bytes) -> tuple[Any, bool]:
        try:
            return self._strict.decode(value), False
        except msgspec.ValidationError as error:
            if "unknown field" not in str(error):
                raise
            return self._lenient.decode(value), True

    def _refusal(self, value: bytes | None, timestamp: int) -> Refusal | None:
        if not EARLIEST <= timestamp <= LATEST:
            return "bad_time", f"the record's time stamp {timestamp} is no time in milliseconds"
        if not value:
            return "empty", "the record has no value"
        if len(value) > self._max_bytes:
            return "oversized", f"{len(value)} bytes, more than topics.max_bytes"
        if not value.isascii():
            try:
                value.decode()
            except UnicodeDecodeError as error:
                return "malformed", shorten(str(error))
        return _TOO_DEEP if _is_too_deep(value) else None

    def _duplicate(self, value: bytes) -> Refusal | None:
        """Refuse what msgspec took if some object of it has a name twice that is read."""
        keys = self._keys.findall(value)
        if b"\\" not in value and len(keys) == len(set(keys)):
            return None
        found: list[str] = []

        def look(pairs: list[tuple[str, Any]]) -> None:
            if len(pairs) != len({name for name, _ in pairs}):
                names = [name for name, _ in pairs if name in self._names]
                found.extend(name for name in names if names.count(name) > 1)

        try:
            json.loads(value, object_pairs_hook=look, parse_int=str, parse_float=str, strict=False)
        except ValueError as error:  # in a part that is not read, which msgspec only skips
            return "malformed", shorten(str(error))
        return ("duplicate_key", f"{shorten(found[0])}: occurs twice in one object") if found else None


def _is_too_deep(value: bytes) -> bool:
    if value.count(b"[") + value.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for match in _STRUCTURE.finditer(value):
        mark = match[0]
        depth += (mark in _OPENING) - (mark in _CLOSING)
        if depth > MAX_DEPTH:
            return True
    return False


def _either(known: Any, kind: Any) -> Any:
    """Return the JSON type of a path that is read twice."""
    if known is None or Any in (known, kind):
        return kind if known is None else Any
    return known | kind


def _struct(tree: dict[str, Any], *, forbid_unknown: bool) -> type[msgspec.Struct]:
    fields = []
    for index, (name, kind) in enumerate(tree.items()):
        leaf = _struct(kind, forbid_unknown=forbid_unknown) if isinstance(kind, dict) else kind
        fields.append((f"f{index}", leaf | None if leaf is not Any else Any, msgspec.field(name=name, default=None)))
    made: type[msgspec.Struct] = msgspec.defstruct(
        "Record", fields, forbid_unknown_fields=forbid_unknown, namespace={"NAMES": list(tree)}, gc=False
    )
    return made


def _reason_of(message: str) -> Refusal:
    return ("missing_field" if "missing required" in message else "wrong_type"), shorten(message)


def shorten(value: object) -> str:
    """Return a value as one line of at most 200 characters.

    Examples
    --------
    >>> shorten("two  words"), len(shorten(["x" * 500]))
    ('two words', 200)
    """
    text = value if isinstance(value, str) else repr(value)
    text = re.sub(r"\s+", " ", text)
    return text if len(text) <= 200 else f"{text[:197]}..."
