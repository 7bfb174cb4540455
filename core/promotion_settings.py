"""The project file's section about promotion: shadow, canary, watch and approval."""

from __future__ import annotations

from typing import Self

from pydantic import Field, PositiveInt, model_validator

from core.durations import DAY, SECOND
from core.setting_types import Duration, Section


class PromotionSettings(Section):
    """What happens to a version that passed its gates: in shadow it is judged by the blend with it on live labels."""

    shadow: bool = Field(
        False,
        description="whether it predicts in shadow first, until that judgement promotes or drops it; false: it serves "
        "at once",
    )
    canary: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="share of the events that are served by the blend with a challenger while it shadows: chosen by "
        "the event's id, or by topics.key, so that whoever it names sees one model; needs shadow",
    )
    watch: bool = Field(
        True,
        description="whether a former champion goes on in shadow, and comes back by itself if what is served with it "
        "is better, or it is better than the new one (gates.max_alone_loss)",
    )
    approval: bool = Field(
        False,
        description="whether a person must approve a version that gates and shadow let pass: in Prefect or by "
        "`headrace approve`",
    )
    alpha: float = Field(
        0.05, gt=0, lt=0.5, description="chance that a challenger that gains nothing is ever promoted, at most"
    )
    block: Duration = Field(
        DAY,
        ge=SECOND,
        description="span of event time within which losses may depend on each other: one unit each; as each ends, "
        "shadows are judged",
    )
    worth: float = Field(
        0.002,
        ge=0,
        lt=1,
        description="relative fall of the served loss; a challenger that surely gains less is dropped",
    )
    max_labels: PositiveInt = Field(
        50_000,
        description="labels after which a challenger that was not superior by then is dropped; at least 14 blocks are "
        "seen",
    )

    @model_validator(mode="after")
    def _canary_shadows(self) -> Self:
        if self.canary > 0 and not self.shadow:
            raise ValueError(
                "canary is a share of the events while a challenger shadows, and none does; set shadow: true, or "
                "remove canary"
            )
        return self
