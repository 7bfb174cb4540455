"""Challengers and former champions in shadow, on the virtual clock: judged as the service judges them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backtest.served import Served
from backtest.training import Champion
from core.audit import LedgerRecord, RecordKind
from core.line_up import InShadow, LineUp, line_up
from core.models import CHALLENGER, PREVIOUS
from core.quarantine import Span
from core.sequential import Verdict
from core.settings import Settings
from flows.shadowing import verdict_at
from flows.verdicts import said


@dataclass(frozen=True)
class Ended:
    """How a version's time in shadow ended.

    Attributes
    ----------
    shadow : InShadow
        Which, in what role, since when.
    at : int
        When, event time, ms.
    conclusion : str
        That of the verdict, or ``replaced``, by another challenger.
    why : str
        A sentence.
    verdict : Verdict
        The last one.
    """

    shadow: InShadow
    at: int
    conclusion: str
    why: str
    verdict: Verdict


class Shadowing:
    """Who serves and who shadows under a policy, kept as the ledger keeps it.

    Parameters
    ----------
    served : Served
        Is told whom to follow and who serves.
    settings : Settings
        The project file, with the policy's settings.

    Attributes
    ----------
    entered : dict of int to int
        Event time from which each version that was promoted served, ms.
    ended : list of Ended
        Those whose time in shadow is over.
    """

    def __init__(self, served: Served, settings: Settings) -> None:
        self._served = served
        self._settings = settings
        self._known: dict[int, Champion] = {}
        self._records: list[LedgerRecord] = []
        self.ended: list[Ended] = []
        self.entered: dict[int, int] = {}

    @property
    def champion(self) -> Champion | None:
        """The one that serves."""
        version = self._now.champion
        return None if version is None else self._known[version]

    @property
    def any(self) -> bool:
        """Whether anybody is in shadow."""
        return bool(self._now.shadows)

    @property
    def challenger(self) -> int | None:
        """The version that is in shadow, not decided yet."""
        return None if self._now.challenger is None else self._now.challenger.version

    @property
    def withdrawn(self) -> set[int]:
        """Versions that ended in shadow and never served."""
        ended = (end for end in self.ended if end.shadow.role == CHALLENGER and end.conclusion != "superior")
        return {end.shadow.version for end in ended}

    def enter(self, model: Champion, moment: int) -> None:
        """Let a version that passed its gates serve, or shadow first where the project file says so."""
        version, now = model.model.version, self._now
        assert version is not None
        self._known[version] = model
        if now.champion is None or not self._settings.promotion.shadow:
            self._promote(version, moment)
            return
        if now.challenger is not None:
            verdict = self._verdict(now.challenger, moment, ())
            why = f"Version {version} took its place in shadow before it was decided."
            self.ended.append(Ended(now.challenger, moment, "replaced", why, verdict))
        self._record("challenge", moment, version=version)

    def judge(self, moment: int, kept_out: Sequence[Span]) -> None:
        """Judge every shadow as of a moment, and do what follows, until nobody else serves or shadows."""
        while any(self._ends(shadow, moment, kept_out) for shadow in self._now.shadows):
            pass

    @property
    def _now(self) -> LineUp:
        return line_up(self._records)

    def _verdict(self, shadow: InShadow, moment: int, kept_out: Sequence[Span]) -> Verdict:
        quarantine = [LedgerRecord("quarantine", "", moment, 0.0, {"span": list(span)}) for span in kept_out]
        return verdict_at(self._served, self._settings, quarantine, shadow, moment)

    def _ends(self, shadow: InShadow, moment: int, kept_out: Sequence[Span]) -> bool:
        verdict = self._verdict(shadow, moment, kept_out)
        if not verdict.is_final:
            return False
        why = said(verdict, shadow, self._settings.promotion, self._settings.clock)
        self.ended.append(Ended(shadow, moment, verdict.conclusion, why, verdict))
        if verdict.conclusion == "superior" and shadow.role == CHALLENGER:
            self._promote(shadow.version, moment)
        elif verdict.conclusion == "superior":
            self._record("rollback", moment, version=shadow.version, previous=shadow.against, watched=False)
        elif shadow.role == CHALLENGER:
            self._record("withdrawal", moment, version=shadow.version)
        else:
            self._record("trust", moment, version=shadow.against)
        return True

    def _promote(self, version: int, moment: int) -> None:
        self.entered[version] = moment
        watched = self._settings.promotion.watch
        self._record("promotion", moment, version=version, previous=self._now.champion, watched=watched)

    def _record(self, kind: RecordKind, moment: int, **body: Any) -> None:
        before = self._now.champion
        self._records.append(LedgerRecord(kind, "", moment, 0.0, {**body, "effective_at": moment}))
        now = self._now
        if now.champion is not None and now.champion != before:
            self._served.swap(self._known[now.champion].model)
        for role, shadow in ((CHALLENGER, now.challenger), (PREVIOUS, now.previous)):
            self._served.follow(role, None if shadow is None else self._known[shadow.version].model)
