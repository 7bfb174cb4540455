"""Processes that end with the one that started them, however that one ended. Linux; elsewhere nothing is done.

``python -m flows.parent_death PARENT COMMAND ...`` becomes COMMAND, which the kernel ends with SIGTERM when
the *thread* that started it ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

WANTED = "HEADRACE_END_WITH_WORKER"
_PR_SET_PDEATHSIG = 1


def bound_to_parent(command: Sequence[str]) -> list[str]:
    """Return the command that runs `command` and ends with this process."""
    return [sys.executable, "-m", "flows.parent_death", str(os.getpid()), *command]


def end_with_parent() -> None:
    """Ask the kernel to end this process when the thread that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def end_with_worker() -> None:
    """Make a flow's process end with its local worker; in production the worker decides."""
    if os.environ.get(WANTED):
        end_with_parent()


def main(arguments: Sequence[str]) -> None:
    """Become the command, unless the parent is gone already."""
    parent, *command = arguments
    end_with_parent()
    if os.getppid() == int(parent):
        os.execv(command[0], list(command))  # noqa: S606 - the command of this package itself


if __name__ == "__main__":
    main(sys.argv[1:])
