"""What of a recorded stream could not be used, counted and in words. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from core.recorded import ROW_ID
from core.settings import Settings
from core.strict_json import shorten
from core.wording import counted
from streaming.books import Books
from streaming.outputs import DeadLetter
from streaming.transport import RawRecord

_PLACE = re.compile(r"at `\$\.([^`]+)`")


@dataclass(frozen=True)
class Unused:
    """What was left out.

    Attributes
    ----------
    refused : dict of str to int
        How many records could not be used, by reason.
    first : str
        The first of them, and what is wrong with it; empty where there is none, or values are personal.
    repeated : dict of str to int
        How many events had the id of an earlier one, and how many labels contradicted an earlier one of their event.
    unjoined : dict of str to int
        How many labels came `late`, when their event was no longer waited for, and how many were of `no_event`.
    """

    refused: Mapping[str, int]
    first: str
    repeated: Mapping[str, int]
    unjoined: Mapping[str, int]

    def refused_told(self) -> str:
        """Return a sentence of what could not be used, and of the first of it.

        Examples
        --------
        >>> Unused({"bad_label": 2}, "the first, 'a': no outcome", {}, {}).refused_told()
        "2 x bad_label; the first, 'a': no outcome"
        """
        counts = ", ".join(f"{count} x {reason}" for reason, count in self.refused.items())
        return "; ".join(filter(None, [counts, self.first]))

    def unjoined_told(self, settings: Settings) -> str:
        """Return a sentence of the labels that were of no event, or came too late; nothing where there is none."""
        late, of_none = self.unjoined["late"], self.unjoined["no_event"]
        horizon = f"label.horizon ({settings.clock.setting(settings.label.horizon)})"
        other = "" if settings.id == ROW_ID else f", or {settings.label.id or settings.id} another's id"
        said = [
            f"{counted(late, 'label')} came later than {horizon} behind the event: set a longer one",
            f"{counted(of_none, 'label')} had an id of no event that was remembered: is {horizon} shorter than labels "
            f"take{other}?",
        ]
        return "; ".join(one for one, count in zip(said, (late, of_none), strict=True) if count)

    def told(self, settings: Settings) -> str:
        """Return why nothing could be used."""
        return "; ".join(filter(None, [self.refused_told(), self.unjoined_told(settings)])) or "there is none"


def unused(books: Books, first: DeadLetter | None, *, is_personal: bool) -> Unused:
    """Return what was left out of a stream, from its books and its first dead letter."""
    events, labels = books.events, books.labels
    return Unused(
        dict(books.reasons),
        "" if first is None or is_personal else _told(first),
        {"events": events.duplicates, "labels": labels.corrected},
        {"late": labels.late, "no_event": labels.orphaned + labels.waiting},
    )


def _told(letter: DeadLetter) -> str:
    """Return what is wrong with a record that was refused."""
    record, bad = letter.record, letter.bad
    return f"the first, {(record.key or b'').decode()!r}: {bad.detail}{_found_there(record, bad.detail)}"


def _found_there(record: RawRecord, detail: str) -> str:
    """Return what is in the record where a detail says that something else was expected; nothing if it is not found."""
    place = _PLACE.search(detail)
    if place is None or record.value is None:
        return ""
    try:
        found = msgspec.json.decode(record.value)
        for part in place[1].split("."):
            found = found[part]
    except (msgspec.DecodeError, LookupError, TypeError):
        return ""
    return f": it is {shorten(repr(found))}"
