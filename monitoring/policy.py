"""The policy: from the evidence of a window's stage to nothing, a watch, an alert, a quarantine, or a retraining. Pure.

A window that is *broken* (a column gone, a unit changed, labels turned round) is quarantined, unless it has been so for
so long that it is how the stream is now; when the break is over, the online experts unlearn it. A window that has
*drifted* is an alert when that begins, and again after a cooldown; in between it is watched, until it is well below its
limit. Drift that persists is a retraining, outside the cooldown, while none is open, and if it is expected to be worth
it; of two stages that are due at once the later one decides it, since either may find a break. An unusual *volume* is
told besides all of that.
"""

from __future__ import annotations

from dataclasses import replace

from core.loop_settings import DriftSettings
from core.settings import Settings
from monitoring.decision import Decision, Held, PolicyState, Retraining, Verdict
from monitoring.judgement import Evidence, Judgement, judge
from monitoring.retraining import retraining


def decide(evidence: Evidence, state: PolicyState, settings: Settings) -> tuple[Decision, PolicyState]:
    """Return what to do about a stage, and what to remember.

    Event time *now* is the stage's due time. Stages are to be given in order of their due time.

    Examples
    --------
    >>> from monitoring.windows import WindowStage
    >>> settings = Settings(name="x", id="id", time="t", fields={"a": "number"}, label="y")
    >>> late = WindowStage(0, 60 * 86_400_000, "data", 60 * 86_400_000)
    >>> decide(Evidence(late, 0, examples=5_000), PolicyState(), settings)[0].trigger
    'bootstrap'
    """
    decision, state = _decided(_news(evidence, state), state, settings)
    return _with_volume(evidence, decision, state, settings.drift)


def _decided(evidence: Evidence, state: PolicyState, settings: Settings) -> tuple[Decision, PolicyState]:
    """Decide by all but the volume."""
    drift = settings.drift
    judgement = judge(evidence, drift)
    if evidence.breaks or evidence.kept_out:
        evidence = replace(evidence, shortfall=None)  # the break's, not the champion's
    evidence, state = _in_doubt(evidence, judgement, state), _with_champion(evidence, state)
    before, state = state.broken, _with_breaks(evidence, judgement, state)
    if evidence.window.start in state.broken and len(state.broken) <= drift.quarantine_windows:
        alert = () if evidence.alerted or before else evidence.breaks
        return Decision(alert=alert, quarantine=evidence.breaks), replace(state, held=None)
    state = _with_verdict(evidence, judgement, state, drift)
    decision, state = _told(evidence, judgement, state, drift)
    found, state = _of_the_moment(retraining(evidence, state, settings), evidence, state)
    too_many = len(before) == drift.quarantine_windows and len(state.broken) > drift.quarantine_windows
    is_over = len(before) <= drift.quarantine_windows and not state.broken
    return (
        replace(
            decision,
            trigger=found.trigger,
            reasons=found.reasons,
            release=before if too_many else (),
            unlearn=before if is_over else (),
            prospect=found.prospect,
            gain=found.gain,
        ),
        state,
    )


def _of_the_moment(found: Retraining, evidence: Evidence, state: PolicyState) -> tuple[Retraining, PolicyState]:
    """Hold a retraining until all stages of its moment are known: another may find a break that it would use."""
    window, held = evidence.window, state.held
    if held is not None and held.due == window.due and not evidence.open_retraining:
        found = held.retraining
    if found.trigger is None:
        return found, replace(state, held=None)
    if not window.is_last:
        waits = "A retraining is decided once the window that ends now has been looked at, too."
        return replace(found, trigger=None, reasons=(waits,)), replace(state, held=Held(window.due, found))
    return found, replace(state, held=None, last_retraining=window.due)


def _with_champion(evidence: Evidence, state: PolicyState) -> PolicyState:
    """Start afresh with each champion, merge other people's retrainings."""
    known = () if state.last_retraining is None else (state.last_retraining,)
    state = replace(state, last_retraining=max((*known, *evidence.retrainings), default=None))
    if evidence.champion != state.champion:
        state = replace(state, champion=evidence.champion, data=(), labels=(), shortfall=0.0)
    return state if evidence.shortfall is None else replace(state, shortfall=evidence.shortfall)


def _in_doubt(evidence: Evidence, judgement: Judgement, state: PolicyState) -> Evidence:
    """A window that follows broken ones is broken until it agrees again with what was usual, or where too few tell."""
    if not state.broken or evidence.window.start <= state.broken[-1] or evidence.breaks or not evidence.rows:
        return evidence
    unknown = judgement.verdict == "not judged" and evidence.problem is None and evidence.window.stage == "data"
    too_few = "Whether the break is over cannot be told of so few rows."
    return replace(evidence, breaks=(too_few,) if unknown else evidence.doubts)


def _with_breaks(evidence: Evidence, judgement: Judgement, state: PolicyState) -> PolicyState:
    """Count the broken windows that follow each other; one stage that finds nothing does not mend the other's.

    What only the labels told once they were due, only the labels of a later window tell to be over.
    """
    start, late = evidence.window.start, evidence.window.stage == "labels"
    is_latest = all(start > earlier for earlier in state.broken)
    if evidence.breaks and start not in state.broken:
        return replace(state, broken=(*state.broken, start), told_late=late if is_latest else state.told_late)
    if evidence.breaks or judgement.verdict == "not judged" or not is_latest or late != state.told_late:
        return state
    return replace(state, broken=(), told_late=False)


def _with_verdict(evidence: Evidence, judgement: Judgement, state: PolicyState, drift: DriftSettings) -> PolicyState:
    if judgement.verdict == "not judged":
        return state
    verdict = Verdict(evidence.window.start, judgement.verdict == "drifted", judgement.what)
    if evidence.window.stage == "data":
        return replace(state, data=(*state.data, verdict)[-drift.of_windows :])
    return replace(state, labels=(*state.labels, verdict)[-drift.of_windows :])


def _told(
    evidence: Evidence, judgement: Judgement, state: PolicyState, drift: DriftSettings
) -> tuple[Decision, PolicyState]:
    """Alert when drift begins and after each cooldown that it lasts; watch it in between.

    Each stage for itself: labels that are as ever do not end what the features do. A promotion ends nothing: the stream
    goes on as it did.
    """
    if evidence.problem:
        return Decision(alert=() if evidence.alerted else (evidence.problem,)), state
    due, stage = evidence.window.due, evidence.window.stage
    others = {name: at for name, at in state.alerted_at.items() if name != stage}
    if judgement.verdict != "drifted":
        return Decision(), replace(state, alerted_at=others) if judgement.calm else state
    since = state.alerted_at.get(stage)
    if evidence.alerted or (since is not None and due < since + drift.cooldown):
        return Decision(watch=judgement.reasons), state
    return Decision(alert=judgement.reasons), replace(state, alerted_at={**others, stage: due})


def _news(evidence: Evidence, state: PolicyState) -> Evidence:
    """Return the evidence; if the window's data stage alerted of the volume alone, what its labels say is news."""
    end = evidence.window.end
    of_volume = state.volume_at.get("data") == end and state.alerted_at.get("data") != end
    return replace(evidence, alerted=False) if evidence.window.stage == "labels" and of_volume else evidence


def _with_volume(
    evidence: Evidence, decision: Decision, state: PolicyState, drift: DriftSettings
) -> tuple[Decision, PolicyState]:
    """Alert when an unusual volume begins and after each cooldown that it lasts, whatever else is decided.

    Each stage for itself: events come as ever where only their labels do not.
    """
    due, stage = evidence.window.due, evidence.window.stage
    others, since = {name: at for name, at in state.volume_at.items() if name != stage}, state.volume_at.get(stage)
    if evidence.volume is None:
        return decision, state if evidence.problem is not None else replace(state, volume_at=others)
    if since is not None and due < since + drift.cooldown:
        return replace(decision, watch=(*decision.watch, evidence.volume)), state
    return replace(decision, alert=(*decision.alert, evidence.volume)), replace(state, volume_at={**others, stage: due})
