"""What a bad record may keep of itself where a field or the id is personal. Pure.

A bad record is not what the project file says, so that nothing can be known of what it carries besides: only values at
the paths that are read in clear stay, and no text where a number or a flag belongs, no list and no object. Hashed paths
hold their hash; everything else is gone: other keys, the headers, and a key that is not the event's id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from core.pseudonyms import Pseudonyms
from core.settings import Settings
from core.stream_settings import FieldSettings
from streaming.transport import RawRecord

MASKED_HEADER = "headrace-masked"
"""On a dead letter that is not the record as it came: ``fields``, or ``digest`` where its value could not be read."""
BYTES_HEADER, DIGEST_HEADER = "headrace-bytes", "headrace-digest"

_Show = Callable[[Any], Any]
"""Returns what may be kept of a value; None where nothing may."""


@dataclass(frozen=True, slots=True)
class Masked:
    """A bad record without what is personal, and the headers that say so."""

    record: RawRecord
    headers: Mapping[str, str]


class Mask:
    """Takes personal values out of bad records; changes nothing where the project file marks none.

    Examples
    --------
    >>> from core.project_file import parse_settings
    >>> settings = parse_settings(
    ...     "{name: a, id: id, time: at, fields: {x: number, note: {type: text, pii: drop}}, label: {path: y}}"
    ... )
    >>> bad = RawRecord("a.events", 0, 7, 0, b"e1", b'{"id": "e1", "x": 2, "note": "secret", "more": "secret"}')
    >>> masked = Mask(settings, None)(bad)
    >>> masked.record.value, masked.record.key, masked.headers
    (b'{"id":"e1","x":2}', b'e1', {'headrace-masked': 'fields'})
    """

    def __init__(self, settings: Settings, pseudonyms: Pseudonyms | None) -> None:
        self._is_personal = settings.is_personal
        self._keeps_raw = settings.privacy.undecodable == "raw"
        self._pseudonyms = pseudonyms
        self._max_bytes = settings.topics.max_bytes
        self._id_paths = [settings.id, settings.label.id or settings.id]
        self._hide_id = pseudonyms.of_id if pseudonyms and settings.privacy.id else None
        self._events, self._labels = _event_paths(settings, pseudonyms), _label_paths(settings, pseudonyms)
        if settings.events_topic == settings.labels_topic:  # what is personal in either is so in both
            self._events = self._labels = _of_both(self._events, self._labels)
        self._events_topic = settings.events_topic

    def __call__(self, record: RawRecord) -> Masked:
        """Return what may be kept of a bad record."""
        if not self._is_personal:
            return Masked(record, {})
        content = None if record.value is None or len(record.value) > self._max_bytes else _object_in(record.value)
        if content is None:
            return self._undecodable(record)
        kept = _kept(content, self._events if record.topic == self._events_topic else self._labels)
        key = self._key(record.key, [_at(content, path) for path in self._id_paths])
        return Masked(replace(record, key=key, value=msgspec.json.encode(kept), headers=()), {MASKED_HEADER: "fields"})

    def _undecodable(self, record: RawRecord) -> Masked:
        value, headers = record.value, {MASKED_HEADER: "digest"}
        if value:
            headers[BYTES_HEADER] = str(len(value))
            if self._pseudonyms:
                headers[DIGEST_HEADER] = self._pseudonyms.of_bytes(value)
        kept = value if self._keeps_raw else None
        return Masked(replace(record, key=self._key(record.key, []), value=kept, headers=()), headers)

    def _key(self, key: bytes | None, ids: list[Any]) -> bytes | None:
        """Return the key if it is the event's id, hashed as that is."""
        if key is None:
            return None
        if self._hide_id is not None:
            return self._hide_id(key.decode("utf-8", "surrogateescape")).encode()
        return key if any(key == str(found).encode() for found in ids if _is_id(found)) else None


def _event_paths(settings: Settings, pseudonyms: Pseudonyms | None) -> dict[str, _Show]:
    paths = {settings.id: _show_id(settings, pseudonyms), settings.time: _scalar}
    paths |= {settings.topics.kind.path: _scalar} if settings.topics.kind else {}
    for name, field in settings.fields.items():
        paths[field.path or name] = _show_field(name, field, pseudonyms)
    return paths


def _label_paths(settings: Settings, pseudonyms: Pseudonyms | None) -> dict[str, _Show]:
    label, kind = settings.label, settings.topics.kind
    clear = [label.path, *([label.time] if label.time else []), *([kind.path] if kind else [])]
    return {**dict.fromkeys(clear, _scalar), label.id or settings.id: _show_id(settings, pseudonyms)}


def _of_both(events: Mapping[str, _Show], labels: Mapping[str, _Show]) -> dict[str, _Show]:
    return {**labels, **{path: show for path, show in events.items() if labels.get(path, _scalar) is _scalar}}


def _show_id(settings: Settings, pseudonyms: Pseudonyms | None) -> _Show:
    if settings.privacy.id is None or pseudonyms is None:
        return _scalar
    return lambda value: pseudonyms.of_id(str(value)) if isinstance(value, (str, int)) else None


def _show_field(name: str, field: FieldSettings, pseudonyms: Pseudonyms | None) -> _Show:
    if field.pii is None:
        return _scalar if field.type in ("category", "text") else _number
    if field.pii == "drop" or pseudonyms is None:
        return lambda value: None
    return lambda value: pseudonyms.of_field(name, str(value)) if isinstance(value, (str, int)) else None


def _scalar(value: Any) -> Any:
    return None if isinstance(value, (dict, list)) else value


def _number(value: Any) -> Any:
    return value if isinstance(value, (int, float)) else None


def _object_in(value: bytes) -> dict[str, Any] | None:
    try:
        content = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _kept(content: dict[str, Any], paths: Mapping[str, _Show]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for path, show in paths.items():
        value = _at(content, path)
        if value is None or (shown := show(value)) is None:
            continue
        *parents, leaf = path.split(".")
        place = kept
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = shown
    return kept


def _at(content: Any, path: str) -> Any:
    for part in path.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def _is_id(value: Any) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool)
