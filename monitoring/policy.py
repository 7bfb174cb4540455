"""The policy: from the evidence of a window's stage to nothing, an alert, or a retraining. Pure.

A window has *drifted* when enough features, the served predictions or the labels moved far from the
reference, or the champion's loss rose well above its validation loss. A drifted window is an alert;
drift that persists is a retraining, outside the cooldown and while none is open.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from core.audit import Trigger
from core.durations import about, format_time
from core.loop_settings import DriftSettings
from core.settings import Settings
from monitoring.windows import WindowStage

VerdictName = Literal["drifted", "steady", "not judged"]


@dataclass(frozen=True)
class Evidence:
    """What is known about a window at one of its stages.

    Attributes
    ----------
    window : WindowStage
        The stage; its due time is the policy's *now*.
    first_event : int
        Event time of the stream's first event, ms.
    champion : int or None
        Version of the champion now; None before the first promotion.
    rows : int
        Rows of this stage: predictions, or examples once labels are due.
    features : mapping of str to float
        Distance of each feature that could be compared.
    prediction, label : float or None
        Distance of the served predictions and of the labels.
    champion_loss, validation_loss : float or None
        Mean loss of the champion in the window, over `loss_rows` rows, and on its hold-out.
    problem : str or None
        Why the window cannot be judged though it should be (a damaged reference): worth an alert.
    examples : int
        Labelled examples so far; counted only while there is no champion.
    alerted : bool
        Whether the window's other stage alerted already.
    open_retraining : bool
        Whether a retraining is under way.
    last_retraining : int or None
        Event time of the latest retraining decided by anybody, ms.
    """

    window: WindowStage
    first_event: int
    champion: int | None = None
    rows: int = 0
    features: Mapping[str, float] = field(default_factory=dict)
    prediction: float | None = None
    label: float | None = None
    champion_loss: float | None = None
    validation_loss: float | None = None
    loss_rows: int = 0
    problem: str | None = None
    examples: int = 0
    alerted: bool = False
    open_retraining: bool = False
    last_retraining: int | None = None


@dataclass(frozen=True)
class Judgement:
    """What a stage says of its window: drifted and why, or why it is not judged."""

    verdict: VerdictName
    reasons: tuple[str, ...] = ()
    drifted_share: float | None = None


@dataclass(frozen=True)
class Verdict:
    """A judged window, remembered."""

    start: int
    drifted: bool


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
    """

    champion: int | None = None
    data: tuple[Verdict, ...] = ()
    labels: tuple[Verdict, ...] = ()
    last_retraining: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any] | None) -> PolicyState:
        """Read what :meth:`to_json` wrote; the empty state for None.

        Examples
        --------
        >>> state = PolicyState(3, (Verdict(0, True),))
        >>> PolicyState.from_json(state.to_json()) == state
        True
        """
        if body is None:
            return cls()
        data, labels = (tuple(Verdict(**verdict) for verdict in body[name]) for name in ("data", "labels"))
        return cls(body["champion"], data, labels, body["last_retraining"])


@dataclass(frozen=True)
class Decision:
    """What to do about a stage.

    Attributes
    ----------
    alert : tuple of str
        Reasons to alert, one sentence each; empty for no alert.
    trigger : str or None
        Why to retrain: bootstrap, schedule or drift; None for no retraining.
    reasons : tuple of str
        Reasons of the retraining, one sentence each.
    """

    alert: tuple[str, ...] = ()
    trigger: Trigger | None = None
    reasons: tuple[str, ...] = ()

    @property
    def action(self) -> Literal["nothing", "alert", "retrain"]:
        """The farthest step decided."""
        if self.trigger is not None:
            return "retrain"
        return "alert" if self.alert else "nothing"


def judge(evidence: Evidence, drift: DriftSettings) -> Judgement:
    """Return whether the stage says that its window has drifted.

    Examples
    --------
    >>> window = WindowStage(0, 10, "data", 10)
    >>> seen = Evidence(window, 0, champion=1, rows=900, features={"a": 0.5, "b": 0.1}, prediction=0.1)
    >>> judge(seen, DriftSettings()).reasons
    ('1 of 2 features moved by 0.25 or more (share 0.50, limit 0.30): a 0.50.',)
    """
    why_not = _why_not_judged(evidence, drift)
    if why_not is not None:
        return Judgement("not judged", (why_not,))
    moved = {name: far for name, far in evidence.features.items() if _reaches(far, drift.feature_threshold)}
    share = len(moved) / len(evidence.features) if evidence.features else None
    reasons = [
        _features_reason(moved, len(evidence.features), drift) if _reaches(share, drift.feature_share) else None,
        _distance_reason("served predictions", evidence.prediction, drift.prediction_threshold),
        _distance_reason("labels", evidence.label, drift.label_threshold),
        _quality_reason(evidence, drift),
    ]
    found = tuple(reason for reason in reasons if reason)
    return Judgement("drifted" if found else "steady", found, share)


def decide(evidence: Evidence, state: PolicyState, settings: Settings) -> tuple[Decision, PolicyState]:
    """Return what to do about a stage, and what to remember.

    Event time *now* is the stage's due time. Stages are to be given in order of their due time.

    Examples
    --------
    >>> settings = Settings(name="x", id="id", time="t", fields={"a": "number"}, label="y")
    >>> late = WindowStage(0, 60 * 86_400_000, "data", 60 * 86_400_000)
    >>> decide(Evidence(late, 0, examples=5_000), PolicyState(), settings)[0].trigger
    'bootstrap'
    """
    judgement = judge(evidence, settings.drift)
    state = _remembered(evidence, judgement, state, settings.drift)
    problem = (evidence.problem,) if evidence.problem else ()
    reasons = judgement.reasons if judgement.verdict == "drifted" else problem
    alert = () if evidence.alerted else reasons
    trigger, why = _retraining(evidence, state, settings)
    if trigger is not None:
        state = replace(state, last_retraining=evidence.window.due)
    return Decision(alert, trigger, why), state


def _why_not_judged(evidence: Evidence, drift: DriftSettings) -> str | None:
    if evidence.problem is not None:
        return evidence.problem
    if evidence.champion is None:
        return "No reference: there is no champion yet."
    what = "predictions" if evidence.window.stage == "data" else "labels"
    if evidence.rows < drift.min_rows:
        return f"Too few rows: {evidence.rows} {what}, at least {drift.min_rows} are needed."
    compared = (evidence.prediction, evidence.label, evidence.champion_loss)
    if not evidence.features and all(value is None for value in compared):
        return "Nothing to compare: no column has values both in the window and in the reference."
    return None


def _remembered(evidence: Evidence, judgement: Judgement, state: PolicyState, drift: DriftSettings) -> PolicyState:
    """Start afresh with each champion, merge other people's retrainings, add the verdict."""
    latest = [moment for moment in (state.last_retraining, evidence.last_retraining) if moment is not None]
    state = replace(state, last_retraining=max(latest, default=None))
    if evidence.champion != state.champion:
        state = replace(state, champion=evidence.champion, data=(), labels=())
    if judgement.verdict == "not judged":
        return state
    verdict = Verdict(evidence.window.start, judgement.verdict == "drifted")
    if evidence.window.stage == "data":
        return replace(state, data=(*state.data, verdict)[-drift.of_windows :])
    return replace(state, labels=(*state.labels, verdict)[-drift.of_windows :])


def _retraining(evidence: Evidence, state: PolicyState, settings: Settings) -> tuple[Trigger | None, tuple[str, ...]]:
    now, last = evidence.window.due, state.last_retraining
    if evidence.open_retraining or (last is not None and now <= last):
        return None, ()
    if evidence.champion is None:
        reason = _bootstrap_reason(evidence, last, settings)
        return ("bootstrap", (reason,)) if reason else (None, ())
    if reason := _drift_reason(evidence, state, settings):
        return "drift", (reason, *judge(evidence, settings.drift).reasons)
    if reason := _schedule_reason(evidence, last, settings):
        return "schedule", (reason,)
    return None, ()


def _bootstrap_reason(evidence: Evidence, last: int | None, settings: Settings) -> str | None:
    now, retrain = evidence.window.due, settings.retrain
    ready = now >= evidence.first_event + retrain.bootstrap_after
    rested = last is None or now >= last + settings.windows.span
    if not (ready and rested and evidence.examples >= retrain.min_examples):
        return None
    return (
        f"There is no champion, and {evidence.examples} examples were gathered in the "
        f"{about(now - evidence.first_event)} since the first event."
    )


def _drift_reason(evidence: Evidence, state: PolicyState, settings: Settings) -> str | None:
    """Count the latest windows judged at this stage that either stage found drifted."""
    drift, now, last = settings.drift, evidence.window.due, state.last_retraining
    if not settings.retrain.on_drift or (last is not None and now < last + drift.cooldown):
        return None
    own = state.data if evidence.window.stage == "data" else state.labels
    drifted = {verdict.start for verdict in (*state.data, *state.labels) if verdict.drifted}
    count = sum(verdict.start in drifted for verdict in own)
    judged_now = bool(own) and own[-1].start == evidence.window.start
    if not judged_now or own[-1].start not in drifted or count < drift.persistence:
        return None
    limit = f"{drift.persistence} of {drift.of_windows}"
    return f"{count} of the latest {len(own)} judged windows have drifted (limit {limit})."


def _schedule_reason(evidence: Evidence, last: int | None, settings: Settings) -> str | None:
    every, now = settings.retrain.every, evidence.window.due
    since = evidence.first_event if last is None else last
    if every is None or now < since + every:
        return None
    what = "first event was" if last is None else "latest retraining was decided"
    return f"The {what} at {format_time(since)}; a retraining is due every {about(every)}."


def _reaches(value: float | None, threshold: float) -> bool:
    return value is not None and math.isfinite(threshold) and value >= threshold


def _features_reason(moved: Mapping[str, float], total: int, drift: DriftSettings) -> str:
    farthest = sorted(moved.items(), key=lambda item: (-item[1], item[0]))
    names = ", ".join(f"{name} {distance:.2f}" for name, distance in farthest[:5])
    more = f" and {len(farthest) - 5} more" if len(farthest) > 5 else ""
    return (
        f"{len(moved)} of {total} features moved by {drift.feature_threshold:.2f} or more "
        f"(share {len(moved) / total:.2f}, limit {drift.feature_share:.2f}): {names}{more}."
    )


def _distance_reason(what: str, distance: float | None, threshold: float) -> str | None:
    if distance is None or not _reaches(distance, threshold):
        return None
    return f"The {what} moved by {distance:.2f} (limit {threshold:.2f})."


def _quality_reason(evidence: Evidence, drift: DriftSettings) -> str | None:
    loss, validation = evidence.champion_loss, evidence.validation_loss
    if loss is None or validation is None or evidence.loss_rows < drift.min_rows:
        return None
    if not math.isfinite(drift.quality_drop) or loss <= (1 + drift.quality_drop) * validation:
        return None
    return (
        f"The champion's mean loss {loss:.4f} is more than {drift.quality_drop:.0%} above "
        f"its validation loss {validation:.4f}."
    )
