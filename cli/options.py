"""Arguments and small helpers that several commands share."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])

project_argument = click.argument("project", type=click.Path(path_type=Path))


def bootstrap_option(command: _Command) -> _Command:
    """Add ``--bootstrap``."""
    return click.option(
        "--bootstrap",
        metavar="HOST:PORT",
        help="Kafka's address; else HEADRACE_BOOTSTRAP_SERVERS; else an embedded broker.",
    )(command)


def json_option(command: _Command) -> _Command:
    """Add ``--json``."""
    return click.option("--json", "json_file", metavar="FILE", help="Write the result as JSON; - is standard output.")(
        command
    )


def write_json(content: Any, file: str) -> None:
    """Write JSON to a file, or to standard output for ``-``."""
    text = json.dumps(content, indent=2, allow_nan=False)
    if file == "-":
        click.echo(text)
    else:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(text + "\n", encoding="utf-8")


def log_to_stderr(level: int = logging.INFO) -> None:
    """Log our own messages, and only warnings of the libraries."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)-7s %(name)s  %(message)s"
    )
    for name in ("headrace", "streaming", "monitoring", "flows", "core", "cli"):
        logging.getLogger(name).setLevel(level)


def stop_on_signals() -> threading.Event:
    """Return an event that the first Ctrl-C or SIGTERM sets; a second Ctrl-C ends at once."""
    stop = threading.Event()

    def handle(number: int, frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    return stop
