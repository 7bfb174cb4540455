"""The project file's section about the gates: what a challenger has to show before it may go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import Field, PositiveInt, model_validator

from core.setting_types import Kind, Name, Section, Share

_MEBIBYTE = 2**20


class SliceSettings(Section):
    """Rows that are judged by themselves: those that meet every condition.

    Examples
    --------
    >>> SliceSettings(values={"origin": ["JFK"]}, minimum={"departure": 1080}).features
    ['departure', 'origin']
    """

    values: dict[Name, list[str | bool]] = Field({}, description="the values of a category or a bool that belong to it")
    minimum: dict[Name, float] = Field({}, description="the smallest value of a number that belongs to it")
    maximum: dict[Name, float] = Field({}, description="the largest value of a number that belongs to it")

    @property
    def features(self) -> list[str]:
        """The features that it asks for."""
        return sorted({*self.values, *self.minimum, *self.maximum})

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.features:
            raise ValueError("a slice needs a condition; write values, minimum or maximum")
        return self


class GateSettings(Section):
    """What a challenger has to show; every gate but `skill` fails closed."""

    max_relative_loss: float = Field(
        1.002, gt=0, description="loss of the blend with the challenger over that with the champion, at most"
    )
    max_alone_loss: float = Field(
        1.0,
        gt=0,
        description="loss of the challenger by itself over the champion's; refused where it is surely more and the "
        "blend with it is not surely better; the watch takes back by the same",
    )
    min_skill: Share = Field(
        0.4,
        description="share of the skill that the champion showed before it was promoted; where neither it nor the "
        "challenger has so much left on the hold-out, its labels are doubted; 0 never does",
    )
    confidence: float = Field(
        0.95,
        ge=0.5,
        lt=1,
        description="how sure a gate has to be that a difference is not chance, by whole spans of promotion.block",
    )
    min_holdout_rows: PositiveInt = Field(200, description="common untouched rows below which nothing is promoted")
    min_new_labels: PositiveInt | None = Field(
        None,
        description="labelled examples since the champion's training below which nothing is promoted; as "
        "min_holdout_rows if left out",
    )
    max_slice_loss: float = Field(
        1.1,
        gt=0,
        description="as `max_relative_loss` on a slice of the rows; refused where it is surely more, on any slice",
    )
    min_slice_rows: PositiveInt = Field(200, description="rows below which a slice is not judged")
    slices: dict[Name, SliceSettings] = Field(
        {}, description="slices besides the values of every category and bool: `{night: {maximum: {hour: 5}}}`"
    )
    max_calibration_rise: Share = Field(
        0.02, description="rise of the blend's calibration error, or bias, over that with the champion; refused where "
        "it is surely more",
    )  # fmt: skip
    max_latency_ms: float = Field(5.0, gt=0, description="milliseconds a prediction may take, in batches of 256")
    max_call_ms: float = Field(500.0, gt=0, description="milliseconds that asking for a single prediction may take")
    max_bytes: PositiveInt = Field(256 * _MEBIBYTE, description="bytes of the pickled model, at most")
    parity_rows: PositiveInt = Field(200, description="training rows whose features are made again, at most")
    max_skewed: Share = Field(0.0, description="share of them that may have other features than stored")
    baseline_margin: float = Field(
        0.0, ge=0, description="bootstrap: relative gain over the trivial baseline, at least"
    )


def check_slices(slices: Mapping[str, SliceSettings], kinds: Mapping[str, Kind]) -> None:
    """Refuse a slice over what the batch model does not use, or with conditions that do not fit.

    Raises
    ------
    ValueError
        With the slice and the feature.
    """
    for name, one in slices.items():
        for feature in one.features:
            if feature not in kinds:
                raise ValueError(f"gates.slices.{name}: the batch model uses no feature {feature!r}")
            numeric = feature in one.minimum or feature in one.maximum
            if numeric != (kinds[feature] == "number"):
                fitting = "minimum or maximum" if kinds[feature] == "number" else "values"
                raise ValueError(f"gates.slices.{name}: {feature!r} is a {kinds[feature]}; write {fitting}")
