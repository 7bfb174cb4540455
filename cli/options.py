"""Arguments and small helpers that several commands share."""

from __future__ import annotations

import getpass
import json
import logging
import math
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from core.errors import UsageError
from core.project_file import FILE_NAME

_Command = TypeVar("_Command", bound=Callable[..., Any])

DEMO_MARKER = "demo.json"
DEMO_VARIABLE = "HEADRACE_DEMO"

project_argument = click.argument("project", type=click.Path(path_type=Path))


def bootstrap_option(command: _Command) -> _Command:
    """Add ``--bootstrap``."""
    return click.option(
        "--bootstrap",
        metavar="HOST:PORT",
        help="Kafka's address; else HEADRACE_BOOTSTRAP_SERVERS; else an embedded broker.",
    )(command)


class Days(click.FloatRange):
    """A number of days of a stream, above 0."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Refuse what is no number, and numbers that no stream can have."""
        days = float(super().convert(value, param, ctx))
        if not math.isfinite(days):
            self.fail(f"{value} is no number of days; give one, such as 90", param, ctx)
        return days


def json_option(command: _Command) -> _Command:
    """Add ``--json``."""
    return click.option("--json", "json_file", metavar="FILE", help="Write the result as JSON; - is standard output.")(
        command
    )


def who_option(command: _Command) -> _Command:
    """Add ``--who``."""
    return click.option("--who", metavar="NAME", help="Who decides it; the user and host if left out.")(command)


def why_option(command: _Command) -> _Command:
    """Add ``--why``."""
    return click.option("--why", metavar="TEXT", help="The reason; it is kept with the decision.")(command)


def user() -> str:
    """Return who runs the command, as ``user@host``."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        name = "unknown"
    return f"{name}@{socket.gethostname()}"


def inject_option(command: _Command) -> _Command:
    """Add ``--inject``."""
    return click.option(
        "--inject",
        "specs",
        multiple=True,
        metavar="SPEC",
        help="Change the recorded stream, to see what follows: shift:FIELD:+2sd@2013-06-03/7d, flip@2013-06-03, ... "
        "(docs/backtest.md); may be given several times.",
    )(command)


def injected_line(injected: Mapping[str, Any]) -> str:
    """Return what an injection was and what it changed (``Injector.summary``) as a line."""
    learned = [f", {name} {value:.6g}" for name, value in injected.items() if isinstance(value, float)]
    return "injected {spec}: {events:,} events and {labels:,} labels".format(**injected) + "".join(learned)


def write_json(content: Any, file: str) -> None:
    """Write JSON to a file, or to standard output for ``-``."""
    text = json.dumps(content, indent=2, allow_nan=False)
    if file == "-":
        click.echo(text)
    else:
        write_file(text + "\n", file, "--json")


def write_file(text: str, file: str, option: str) -> None:
    """Write what an option asked for.

    Raises
    ------
    UsageError
        If it cannot be written, or is a project file.
    """
    path = Path(file)
    _keep_project_file(path, option)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{option} {file}: cannot be written: {error.strerror}") from error


def _keep_project_file(path: Path, option: str) -> None:
    if path.name == FILE_NAME:
        raise UsageError(f"{option} {path}: that is a project file, and would be lost; name another file")


def check_writable(file: str | None, option: str = "--json") -> None:
    """Refuse a file that could not be written, before anything else is done.

    Raises
    ------
    UsageError
        If the folder does not exist or may not be written to, or the file is a folder or a project file.
    """
    if file is None or (file == "-" and option == "--json"):
        return
    if file == "-":
        raise UsageError(f"{option} -: cannot be written to standard output; name a file")
    path = Path(file)
    _keep_project_file(path, option)
    if path.is_dir() or not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        instead = ", or - to print it" if option == "--json" else ""
        raise UsageError(f"{option} {file}: cannot be written; name a file in a folder that exists{instead}")


def keep_from_demo(state: Path) -> None:
    """Make a state folder one that a demo does not start over in: services of the user's work on it now."""
    if not os.environ.get(DEMO_VARIABLE):
        (state / DEMO_MARKER).unlink(missing_ok=True)


def log_to_stderr(level: int = logging.INFO) -> None:
    """Log our own messages, and only warnings of the libraries."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)-7s %(name)s  %(message)s"
    )
    for name in ("headrace", "streaming", "monitoring", "flows", "backtest", "core", "cli"):
        logging.getLogger(name).setLevel(level)


def stop_on_signals(may_end: Callable[[], bool] = lambda: False) -> threading.Event:
    """Return an event that the first Ctrl-C or SIGTERM sets; a second Ctrl-C ends at once.

    Parameters
    ----------
    may_end : callable
        Tells whether nothing is under way that would have to be finished: then the first signal ends at once, too.
    """
    stop = threading.Event()

    def handle(number: int, frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()
        if may_end():
            raise SystemExit(0)

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    return stop
