"""All that a partition knows; the machine changes it, a snapshot holds it."""

from __future__ import annotations

from dataclasses import dataclass, field

from core.blend import Blend
from core.features import Vocabulary
from core.quarantine import Span
from core.settings import Settings
from streaming.books import Books
from streaming.canary import Canary
from streaming.experts import Expert
from streaming.join import LabelJoin
from streaming.keyed import KeyedFeatures
from streaming.plausible import LABELS_TO_JUDGE_A_CHAMPION, Plausible
from streaming.serving import Scores
from streaming.shadow import Shadows

Erased = tuple[int, str]
"""Until when (ms) an erased id is known by its name, and what was known of it: pending, closed, label or nothing."""


@dataclass
class State:
    """All that a partition knows; what a snapshot holds."""

    experts: list[Expert]
    blend: Blend
    join: LabelJoin
    vocabulary: Vocabulary
    plausible: Plausible
    books: Books = field(default_factory=Books)
    scores: Scores = field(default_factory=Scores)
    step: int = 0
    clock: int = 0
    first_event: int | None = None
    champion_version: int | None = None
    champion_since: int = 0
    positions: dict[str, int] = field(default_factory=dict)
    topic_clocks: dict[str, int] = field(default_factory=dict)
    unlearned: list[Span] = field(default_factory=list)
    following: dict[str, int] = field(default_factory=dict)
    shadows: Shadows = field(default_factory=Shadows)
    erased: dict[str, Erased] = field(default_factory=dict)
    canary: Canary = field(default_factory=Canary)
    learned_at: list[int] = field(default_factory=list)
    keyed: KeyedFeatures = field(default_factory=lambda: KeyedFeatures((), 1))

    @classmethod
    def fresh(cls, settings: Settings, experts: list[Expert]) -> State:
        """Return the state of a partition that has seen nothing."""
        return cls(
            experts=experts,
            blend=Blend.of(settings),
            join=LabelJoin(settings.label.horizon, settings.state.max_pending),
            vocabulary=Vocabulary.of(settings),
            plausible=Plausible(settings.task, LABELS_TO_JUDGE_A_CHAMPION),
            keyed=KeyedFeatures.of(settings),
        )
