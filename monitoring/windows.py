"""Windows: spans of event time, each judged in two stages. Pure.

==========  ===================  ==============================================
stage       due                  what is judged
==========  ===================  ==============================================
``data``    the window's end     drift of the features and served predictions
``labels``  its end + horizon    drift of the labels, and quality: labels are due
==========  ===================  ==============================================
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pyarrow as pa

from core.clocks import UTC_CLOCK, Clock
from core.spans import window_origin
from core.tables import TIMESTAMP

Stage = Literal["data", "labels"]


@dataclass(frozen=True)
class WindowStage:
    """One stage of one window.

    Attributes
    ----------
    start, end : int
        The window's span of event time [start, end), ms.
    stage : {'data', 'labels'}
        What is judged.
    due : int
        Event time from which the stage may be judged, ms.
    clock : Clock
        How its moments are written for people.
    is_last : bool
        Whether no other stage that is due at the same moment comes after it.
    """

    start: int
    end: int
    stage: Stage
    due: int
    clock: Clock = field(default=UTC_CLOCK, repr=False)
    is_last: bool = True

    @property
    def name(self) -> str:
        """Name that people can read and a file can have.

        Examples
        --------
        >>> WindowStage(0, 86_400_000, "data", 86_400_000).name
        '1970-01-01T00-00-00Z_data'
        """
        return self.sibling(self.stage)

    def before(self, number: int = 1) -> WindowStage:
        """Return the window so many before it, as known when this stage is due."""
        back = number * (self.end - self.start)
        return replace(self, start=self.start - back, end=self.end - back)

    def sibling(self, stage: Stage) -> str:
        """Return the name of the given stage of the same window."""
        return f"{self.clock.key(self.start).replace(':', '-')}_{stage}"


@dataclass(frozen=True)
class Progress:
    """How far the stages are done; the monitor's durable cursor.

    Attributes
    ----------
    origin : int
        Where the first window starts, ms.
    data, labels : int
        End of the last window done in each stage, ms; `origin` before the first.
    """

    origin: int
    data: int
    labels: int

    def after(self, stage: WindowStage) -> Progress:
        """Return the progress once `stage` is done too."""
        return self._moved(stage.stage, stage.end)

    def skip_to(self, stage: Stage, moment: int, span: int) -> Progress:
        """Return the progress with the windows of `stage` that end at or before `moment` passed over.

        Examples
        --------
        >>> Progress(0, 10, 0).skip_to("data", 57, 10)
        Progress(origin=0, data=50, labels=0)
        """
        boundary = self.origin + (moment - self.origin) // span * span
        return self._moved(stage, max(boundary, self.done(stage)))

    def done(self, stage: Stage) -> int:
        """Return the end of the last window done in `stage`, ms."""
        return self.data if stage == "data" else self.labels

    def _moved(self, stage: Stage, end: int) -> Progress:
        return replace(self, data=end) if stage == "data" else replace(self, labels=end)


def start_progress(first_event: int, span: int) -> Progress:
    """Return the progress before the first window.

    Examples
    --------
    >>> start_progress(1_005, 100)
    Progress(origin=1000, data=1000, labels=1000)
    """
    origin = window_origin(first_event, span)
    return Progress(origin, origin, origin)


def due_stages(
    progress: Progress, span: int, horizon: int, now: int, clock: Clock = UTC_CLOCK
) -> Iterator[WindowStage]:
    """Yield the stages that are due and not done, in order of their due time.

    Of two that are due at once the older window's comes first. Changing `span` or `horizon` between
    two calls neither repeats nor overlaps a window of either stage.

    Parameters
    ----------
    progress : Progress
        What is done.
    span, horizon : int
        Length of a window, and how long its labels may take, ms.
    now : int
        The stream's progress in event time, ms.
    clock : Clock
        The project's.
    """
    data = _next(progress, span, "data", 0, clock)
    labels = _next(progress, span, "labels", horizon, clock)
    while min(data.due, labels.due) <= now:
        if labels.due <= data.due:
            yield replace(labels, is_last=labels.due < data.due)
            labels = _shifted(labels, span)
        else:
            yield data
            data = _shifted(data, span)


def _next(progress: Progress, span: int, stage: Stage, delay: int, clock: Clock) -> WindowStage:
    whole = -(-(progress.done(stage) - progress.origin) // span)
    start = progress.origin + whole * span
    return WindowStage(start, start + span, stage, start + span + delay, clock)


def _shifted(stage: WindowStage, span: int) -> WindowStage:
    return replace(stage, start=stage.start + span, end=stage.end + span, due=stage.due + span)


_RISE = pa.struct(
    [
        ("detector", pa.string()),
        ("loss", pa.string()),
        ("at", TIMESTAMP),
        ("before", pa.float64()),
        ("after", pa.float64()),
    ]
)

_FIELDS: list[tuple[str, Any]] = [
    ("window_start", TIMESTAMP),
    ("window_end", TIMESTAMP),
    ("stage", pa.string()),
    ("due", TIMESTAMP),
    ("rows", pa.int64()),
    ("labels", pa.int64()),
    ("champion_version", pa.int32()),
    ("reference_digest", pa.string()),
    ("season_start", TIMESTAMP),
    ("season_end", TIMESTAMP),
    ("judged", pa.bool_()),
    ("not_judged_because", pa.string()),
    ("drifted_share", pa.float64()),
    ("prediction_distance", pa.float64()),
    ("label_distance", pa.float64()),
    ("loss_rows", pa.int64()),
    ("losses", pa.map_(pa.string(), pa.float64())),
    ("detected", pa.list_(_RISE)),
    ("distances", pa.map_(pa.string(), pa.float64())),
    ("skipped", pa.map_(pa.string(), pa.string())),
    ("verdict", pa.string()),
    ("reasons", pa.list_(pa.string())),
    ("report", pa.string()),
]


def windows_schema() -> pa.Schema:
    """Columns of the ``windows`` table: one row a window and stage.

    ``rows`` are predictions, ``labels`` examples of the window. ``season_start`` and ``season_end`` say
    of which season it was compared with, null for the champion's reference. ``losses`` are mean losses of the
    served prediction and each expert over the same ``loss_rows`` examples; ``detected`` is when a
    loss began to rise (:class:`monitoring.detectors.Rise`), null before labels are judged; ``distances`` one a
    feature; ``skipped`` says why a column could not be compared. ``verdict`` is drifted, steady or
    not judged; ``report`` is the path of Evidently's HTML below the state folder, beside which the page
    for people is (:func:`monitoring.page.document.page_file`).
    """
    return pa.schema([pa.field(name, kind) for name, kind in _FIELDS])
