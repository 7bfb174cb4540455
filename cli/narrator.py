"""Tells on the terminal what the loop does while it runs: from status files and the ledger, in order."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any, Self

import click

from cli.inspect import as_json, history_line
from core.audit import Ledger
from core.clocks import Clock
from core.project import Project
from core.status import read_status

_COLOURS = {
    "alert": "yellow",
    "quarantine": "red",
    "release": "yellow",
    "unlearn": "green",
    "decision": "cyan",
    "retraining": "blue",
    "gate": "blue",
    "challenge": "blue",
    "approval": "cyan",
    "withdrawal": "yellow",
    "promotion": "green",
    "trust": "green",
    "rollback": "red",
}
_PROGRESS_EVERY_S = 5.0


class Narrator:
    """A thread that prints each new record of the ledger, each swap, and now and then the progress.

    Parameters
    ----------
    project : Project
        Whose status and ledger are read.
    began : float
        Monotonic time that counts as 0, s.
    """

    def __init__(self, project: Project, began: float) -> None:
        self._project = project
        self._clock = project.settings.clock
        self._began = began
        self._ledger = Ledger(project.ledger)
        self._told = len(self._ledger.history())
        self._champion: int | None = (read_status(project.status, "worker") or {}).get("champion")
        self._predicted = self._champion is not None or bool(self._told)
        self._last_progress = time.monotonic()
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="narrator", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self._ledger.close()

    def catch_up(self) -> None:
        """Tell what has not been told yet."""
        with self._lock:
            self._tell()

    def _run(self) -> None:
        while not self._done.wait(0.3):
            with self._lock:
                self._tell()

    def _tell(self) -> None:
        status = read_status(self._project.status, "worker") or {}
        partitions = list((status.get("partitions") or {}).values())
        predicted = sum(part["books"]["events"]["predicted"] for part in partitions)
        if predicted and not self._predicted:
            self._predicted = True
            self._say(f"the first predictions are out; {predicted:,} so far", "green")
        records = self._ledger.history()
        for record in records[self._told :]:
            entry = as_json(record, self._clock)
            self._say(history_line(entry, self._clock), _COLOURS.get(entry["kind"]))
        self._told = len(records)
        champion = status.get("champion")
        if champion is not None and champion != self._champion:
            self._champion = champion
            self._say(f"the worker swapped champion {champion} in, between two records", "green")
        if predicted and time.monotonic() - self._last_progress >= _PROGRESS_EVERY_S:
            self._last_progress = time.monotonic()
            self._say(_progress(partitions, predicted, self._clock))

    def _say(self, text: str, colour: str | None = None) -> None:
        elapsed = time.monotonic() - self._began
        click.secho(f"{elapsed:6.1f} s  {text}", fg=colour)


def _progress(partitions: list[dict[str, Any]], predicted: int, clock: Clock) -> str:
    reached = clock.moment(min(part["clock"] for part in partitions)).split("T")[0]
    rows = sum(part["scored"] for part in partitions)
    names = list(dict.fromkeys(name for part in partitions for name in part["loss"]))
    losses = []
    for name in names:
        parts = [part for part in partitions if name in part["loss"]]
        weight = sum(part["scored"] for part in parts)
        losses.append(f"{name} {sum(part['loss'][name] * part['scored'] for part in parts) / weight:.4f}")
    return f"{reached}  {predicted:>7,} events predicted; loss over {rows:,} labels: {', '.join(losses) or '-'}"
