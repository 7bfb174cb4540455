"""Who serves, who predicts in shadow, and against whom: as the ledger says. Pure.

A challenger is compared with the champion beside which it predicts: where another version becomes champion meanwhile,
the comparison begins anew. The former champion is `previous` as long as the one that took its place is watched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from core.audit import LedgerRecord
from core.models import CHALLENGER, CHAMPION, PREVIOUS

MOVES = ("promotion", "rollback")
"""Kinds of records that say that another version serves."""

SHADOW_ENDS = ("withdrawal", "trust")
"""Kinds of records that say that a shadow has ended, and nothing else has changed."""


@dataclass(frozen=True)
class InShadow:
    """A version in shadow.

    Attributes
    ----------
    role : {'challenger', 'previous'}
        As what.
    version, against : int
        Which, and the champion that it is compared with.
    since : int
        Event time from which they are compared, ms.
    """

    role: str
    version: int
    against: int
    since: int


@dataclass(frozen=True)
class LineUp:
    """Who serves and who shadows; None for nobody."""

    champion: int | None = None
    challenger: InShadow | None = None
    previous: InShadow | None = None

    @property
    def shadows(self) -> list[InShadow]:
        """Those in shadow, the former champion first: a regression is worse than a gain that comes later."""
        return [shadow for shadow in (self.previous, self.challenger) if shadow is not None]

    @property
    def versions(self) -> dict[str, int]:
        """The version of each role that a worker is to follow."""
        champion = {} if self.champion is None else {CHAMPION: self.champion}
        return champion | {shadow.role: shadow.version for shadow in self.shadows}


def line_up(records: Iterable[LedgerRecord], moment: int | None = None) -> LineUp:
    """Return who serves and shadows at event time `moment`, ms; after all records if left out.

    Examples
    --------
    >>> first = LedgerRecord("promotion", "1", 0, 0.0, {"version": 1, "previous": None, "effective_at": 10})
    >>> begun = LedgerRecord("challenge", "2", 0, 0.0, {"version": 2, "effective_at": 20})
    >>> line_up([first, begun]).challenger
    InShadow(role='challenger', version=2, against=1, since=20)
    >>> line_up([first, begun], 15).versions
    {'champion': 1}
    >>> won = LedgerRecord("promotion", "2", 0, 0.0, {"version": 2, "previous": 1, "effective_at": 30, "watched": True})
    >>> line_up([first, begun, won]).versions
    {'champion': 2, 'previous': 1}
    """
    now = LineUp()
    for record in records:
        since = int(record.body.get("effective_at") or 0)
        if moment is not None and since > moment:
            continue
        if record.kind in MOVES:
            now = _moved(now, record.body, since)
        elif record.kind == "challenge" and now.champion is not None:
            now = replace(now, challenger=InShadow(CHALLENGER, int(record.body["version"]), now.champion, since))
        elif record.kind == "withdrawal" and now.challenger and now.challenger.version == record.body["version"]:
            now = replace(now, challenger=None)
        elif record.kind == "trust" and now.champion == record.body["version"]:
            now = replace(now, previous=None)
    return now


def _moved(now: LineUp, body: dict[str, Any], since: int) -> LineUp:
    """Return the line-up after another version became champion."""
    version, before = int(body["version"]), body.get("previous")
    challenger = now.challenger
    if challenger is not None:
        anew = replace(challenger, against=version, since=max(since, challenger.since))
        challenger = None if challenger.version == version else anew
    if not body.get("watched") or before is None:
        return LineUp(version, challenger)
    return LineUp(version, challenger, InShadow(PREVIOUS, int(before), version, since))


def moved(before: Mapping[str, int], champion: int) -> dict[str, dict[str, int]]:
    """Return the aliases before and after a version becomes champion; challenger it is no more.

    Examples
    --------
    >>> moved({"champion": 2, "previous": 1}, 3)
    {'before': {'champion': 2, 'previous': 1}, 'after': {'champion': 3, 'previous': 2}}
    >>> moved({"champion": 2, "challenger": 3}, 3)["after"]
    {'champion': 3, 'previous': 2}
    """
    after = {alias: version for alias, version in before.items() if (alias, version) != (CHALLENGER, champion)}
    if CHAMPION in before:
        after[PREVIOUS] = before[CHAMPION]
    after[CHAMPION] = champion
    return {"before": dict(before), "after": after}


def challenged(before: Mapping[str, int], challenger: int) -> dict[str, dict[str, int]]:
    """Return the aliases before and after a version becomes challenger.

    Examples
    --------
    >>> challenged({"champion": 2}, 3)
    {'before': {'champion': 2}, 'after': {'champion': 2, 'challenger': 3}}
    """
    return {"before": dict(before), "after": {**before, CHALLENGER: challenger}}
