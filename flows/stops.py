"""How a retraining ends early: gates are passed one after the other, and the first that fails ends it."""

from __future__ import annotations

from collections.abc import Sequence

from flows.gates import GateResult, reasons


class NotPromoted(Exception):  # noqa: N818 - an outcome, not an error
    """The run ends without a promotion, for these reasons."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


class GatesPassed:
    """The gates of one attempt so far, for its record.

    Attributes
    ----------
    results : list of GateResult
        In the order in which they were judged; all passed, but for the last ones of an attempt that ended.

    Examples
    --------
    >>> gates = GatesPassed()
    >>> gates.require([GateResult("rows", True, 400.0, 200.0, "400 rows")])
    >>> gates.require([GateResult("size", False, 9.0, 5.0, "9 bytes"), GateResult("finite", True, None, None, "")])
    Traceback (most recent call last):
    flows.stops.NotPromoted: size: 9 bytes
    >>> [result.name for result in gates.results]
    ['rows', 'size', 'finite']
    """

    def __init__(self) -> None:
        self.results: list[GateResult] = []

    def require(self, results: Sequence[GateResult]) -> None:
        """Keep the results of some gates.

        Raises
        ------
        NotPromoted
            If one of them failed.
        """
        self.results = [*self.results, *results]
        if failed := reasons(results):
            raise NotPromoted(failed)
