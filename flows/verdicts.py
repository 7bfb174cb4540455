"""What follows from a verdict on a shadow, and how it is said. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.clocks import Clock
from core.line_up import InShadow
from core.models import CHALLENGER, PREVIOUS
from core.promotion_settings import PromotionSettings
from core.sequential import Verdict
from core.wording import counted
from flows.moves import Move

_WHY = {
    "superior": "that is better than chance explains, however often one looks",
    "inferior": "that is worse than chance explains, however often one looks",
    "futile": "it surely gains less than is worth a promotion",
    "spent": "the labels allowed are spent without a decision",
    "undecided": "it is not decided yet",
}


def said(verdict: Verdict, shadow: InShadow, rules: PromotionSettings, clock: Clock) -> str:
    """Return a verdict as a sentence.

    Examples
    --------
    >>> from core.clocks import UTC_CLOCK
    >>> verdict = Verdict("superior", 12, 9_400, 0.0123, 0.001, 0.02, {}, 0.05)
    >>> sentence = said(verdict, InShadow("challenger", 3, 2, 0), PromotionSettings(), UTC_CLOCK)
    >>> print(sentence.partition(" (")[0])
    The blend with challenger 3 lost 1.23 % less than that with champion 2 over 12 blocks of 1d
    """
    who, beside = f"The blend with {shadow.role} {shadow.version}", f"that with champion {shadow.against}"
    if verdict.alone:
        who, beside = f"Version {shadow.version} by itself", f"champion {shadow.against}"
    if not verdict.blocks:
        return f"{who} has not been compared with {beside} over a whole block yet."
    bounds = (verdict.low, verdict.high)
    known = [f"{100 * bound:.2f} %" for bound in bounds if bound is not None]
    sure = f"; at {100 * (1 - verdict.alpha):g} % confidence " if known else ""
    if len(known) == 2:
        sure += f"{known[0]} to {known[1]} less"
    elif known:
        sure += f"{'at least' if verdict.low is not None else 'at most'} {known[0]} less"
    word = "less" if verdict.gain >= 0 else "more"
    return (
        f"{who} lost {100 * abs(verdict.gain):.2f} % {word} than {beside} over "
        f"{counted(verdict.blocks, 'block')} of {clock.span(rules.block)} ({verdict.rows:,} labels{sure}): "
        f"{_WHY[verdict.conclusion]}."
    )


def end_of(verdict: Verdict, shadow: InShadow, sentence: str, moment: int) -> Move:
    """Return how a shadow ends that is not to be champion.

    Parameters
    ----------
    moment : int
        Event time from which that holds, ms.
    """
    body: dict[str, Any] = {"effective_at": moment, "reasons": [sentence], "verdict": verdict.as_json()}
    body["end"] = verdict.conclusion
    if shadow.role == CHALLENGER:
        about = {"version": shadow.version, "role": CHALLENGER, "champion": shadow.against}
        return Move("withdrawal", f"{shadow.version}-{verdict.conclusion}-{moment}", about | body, of_shadow=True)
    about = {"version": shadow.against, "previous": shadow.version}
    return Move("trust", f"{shadow.against}-{verdict.conclusion}-{moment}", about | body, of_shadow=True)


def change_to(
    verdict: Verdict, shadow: InShadow, sentence: str, about: Mapping[str, Any], rules: PromotionSettings
) -> Move:
    """Return how a shadow becomes champion: promoted, or brought back with an alert.

    Parameters
    ----------
    about : mapping
        What the record says of the version; see :func:`flows.moves.about`.
    """
    moment = about["effective_at"]
    body = {**about, "previous": shadow.against, "serves_from": moment, "verdict": verdict.as_json()}
    if shadow.role == CHALLENGER:
        body |= {"watched": rules.watch, "approved": {"by": "shadow", "why": sentence}}
        return Move("promotion", str(shadow.version), body, of_shadow=True)
    reasons = [f"Champion {shadow.against} is rolled back: version {shadow.version} serves again.", sentence]
    body |= {"trigger": PREVIOUS, "watched": False, "approved": {"by": "watch", "why": sentence}}
    alert = {"champion": shadow.against, "reasons": reasons, "effective_at": moment}
    return Move("rollback", f"{shadow.version}-by-watch-{moment}", body, alert, of_shadow=True)
