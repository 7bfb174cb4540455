"""What the policy remembers and decides. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from core.audit import Trigger
from monitoring.gain import Prospect

Action = Literal["ignore", "watch", "alert", "quarantine", "retrain"]


@dataclass(frozen=True)
class Verdict:
    """A judged window, remembered: where it starts (ms), whether it has drifted, and the names of what of it has."""

    start: int
    drifted: bool
    what: tuple[str, ...] = ()


@dataclass(frozen=True)
class Retraining:
    """Whether to retrain and why, or why drift does not; what it has to work with, and is expected to gain."""

    trigger: Trigger | None = None
    reasons: tuple[str, ...] = ()
    prospect: Prospect | None = None
    gain: float | None = None


@dataclass(frozen=True)
class Held:
    """A retraining that waits for the other stage that is due at the same moment, ms: it may find a break."""

    due: int
    retraining: Retraining


@dataclass(frozen=True)
class PolicyState:
    """What the policy remembers; durable in the ledger.

    Attributes
    ----------
    champion : int or None
        Whom the remembered verdicts are about.
    data, labels : tuple of Verdict
        The latest judged windows of each stage, oldest first; at most ``drift.of_windows``.
    last_retraining : int or None
        Event time of the latest retraining decision of any trigger, ms.
    shortfall : float
        By how much the champion has lost against the served prediction since its validation; a difference of logs.
    alerted_at : mapping of str to int
        Of each stage the due time of the latest alert of drift that still lasts, ms.
    volume_at : mapping of str to int
        Of each stage the due time of the latest alert of an unusual volume that still lasts, ms.
    broken : tuple of int
        Starts of the latest windows that were broken, one after the other, ms.
    told_late : bool
        Whether only the labels told that the latest of them was, once they were due.
    held : Held or None
        A retraining that is decided once all stages of its moment are known.
    """

    champion: int | None = None
    data: tuple[Verdict, ...] = ()
    labels: tuple[Verdict, ...] = ()
    last_retraining: int | None = None
    shortfall: float = 0.0
    alerted_at: Mapping[str, int] = field(default_factory=dict)
    volume_at: Mapping[str, int] = field(default_factory=dict)
    broken: tuple[int, ...] = ()
    told_late: bool = False
    held: Held | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any] | None) -> PolicyState:
        """Read what :meth:`to_json` wrote; the empty state for None.

        Examples
        --------
        >>> state = PolicyState(3, (Verdict(0, True, ("temp",)), Verdict(9, False)))
        >>> PolicyState.from_json(state.to_json()) == state
        True
        """
        if body is None:
            return cls()
        data, labels = (tuple(map(_verdict, body[name])) for name in ("data", "labels"))
        names = ("champion", "last_retraining", "shortfall", "alerted_at", "volume_at", "told_late")
        more = {name: body[name] for name in names if name in body}
        if not isinstance(more.get("volume_at", {}), Mapping):
            del more["volume_at"]  # of an older headrace: what lasts is told once more
        broken, held = tuple(body.get("broken", ())), body.get("held")
        return cls(data=data, labels=labels, broken=broken, held=None if held is None else _held(held), **more)


def _verdict(body: Mapping[str, Any]) -> Verdict:
    return Verdict(body["start"], body["drifted"], tuple(body.get("what", ())))


def _held(body: Mapping[str, Any]) -> Held:
    found = body["retraining"]
    prospect = None if found["prospect"] is None else Prospect(**found["prospect"])
    return Held(body["due"], Retraining(found["trigger"], tuple(found["reasons"]), prospect, found["gain"]))


@dataclass(frozen=True)
class Decision:
    """What to do about a stage.

    Attributes
    ----------
    alert : tuple of str
        Reasons to alert, one sentence each; empty for no alert.
    trigger : str or None
        Why to retrain: bootstrap, schedule, drift or growth; None for no retraining.
    reasons : tuple of str
        Reasons of the retraining, one sentence each; or why drift that lasts does not retrain.
    quarantine : tuple of str
        Reasons to keep the window out of learning; empty where it stays in.
    release : tuple of int
        Starts (ms) of windows in quarantine that are learned from after all: what was a break is how the stream is now.
    unlearn : tuple of int
        Starts (ms) of windows in quarantine that the online experts are to forget, now that the break is over.
    watch : tuple of str
        What is unusual, and was alerted before or is no reason to alert.
    prospect : Prospect or None
        What the retraining has to work with.
    gain : float or None
        Expected relative fall of the served loss, where a retraining was considered.
    """

    alert: tuple[str, ...] = ()
    trigger: Trigger | None = None
    reasons: tuple[str, ...] = ()
    quarantine: tuple[str, ...] = ()
    release: tuple[int, ...] = ()
    unlearn: tuple[int, ...] = ()
    watch: tuple[str, ...] = ()
    prospect: Prospect | None = None
    gain: float | None = None

    @property
    def action(self) -> Action:
        """The farthest step decided."""
        steps: list[tuple[Action, object]] = [
            ("retrain", self.trigger),
            ("quarantine", self.quarantine),
            ("alert", self.alert),
            ("watch", self.watch),
        ]
        return next((name for name, taken in steps if taken), "ignore")

    @property
    def sentence(self) -> str:
        """What was decided and why, for a person."""
        why = self.reasons if self.trigger else (*self.quarantine, *self.alert, *self.watch, *self.reasons)
        return f"{self.action}: {' '.join(dict.fromkeys(why))}" if why else f"{self.action}: nothing unusual."
