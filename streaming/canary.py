"""The canary: while a challenger shadows, a share of the events is served by the blend with it.

Whether an event is among them follows from what it is named by, and from nothing else: not from when it comes, nor in
which process. So a repetition and a backtest serve the same, and whoever is in a small share is in a larger one too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from core.models import CHALLENGER
from streaming.shadow import Shadowed

_DRAWN_BYTES = 8
_DRAWS = 2.0**64


@dataclass
class Canary:
    """The challenger that serves a share of the events.

    Attributes
    ----------
    share : float
        Of the events; 0 for none.
    version : int or None
        The challenger's.
    served : int
        Events that it has served.
    """

    share: float = 0.0
    version: int | None = None
    served: int = 0

    def follow(self, version: int | None, share: float) -> None:
        """Let a challenger serve this share from the next event on; None, or no share, ends it."""
        if version is None or share == 0.0:
            self.share, self.version, self.served = 0.0, None, 0
        else:
            self.served = self.served if version == self.version else 0
            self.share, self.version = share, version

    def takes(self, name: str, shadows: Mapping[str, Shadowed] | None) -> int | None:
        """Return the version that serves an event, which is counted; None where the champion's blend does.

        That it does too where the challenger has failed.

        Parameters
        ----------
        name : str
            What the event is named by; see `name_of`.
        shadows : mapping of str to Shadowed, or None
            What each shadow made of it.
        """
        if self.version is None or shadows is None or (made := shadows.get(CHALLENGER)) is None:
            return None
        works = made.version == self.version and made.prediction is not None and made.blended is not None
        if not works or not is_among(name, self.version, self.share):
            return None
        self.served += 1
        return self.version


def is_among(name: str, version: int, share: float) -> bool:
    """Tell whether an event is among the share that a version serves; of each version they are others.

    Examples
    --------
    >>> sum(is_among(f"e{number}", 2, 0.1) for number in range(10_000))
    1012
    """
    content = f"{version}\0{name}".encode("utf-8", "surrogatepass")
    drawn = int.from_bytes(hashlib.blake2b(content, digest_size=_DRAWN_BYTES).digest(), "big")
    return drawn < share * _DRAWS


def name_of(event_id: str, keys: Mapping[str, str | None] | None, key_field: str | None) -> str:
    """Return what an event is named by: the value of `topics.key`, or its id where it has none.

    Examples
    --------
    >>> name_of("e1", None, None), name_of("e1", {"card": "c"}, "card"), name_of("e1", {"card": None}, "card")
    ('e1', 'c', 'e1')
    """
    named = None if key_field is None or keys is None else keys.get(key_field)
    return event_id if named is None else named
