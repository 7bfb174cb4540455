"""Child processes that end with the process that started them, whatever happens to that one."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# Runs in a fresh interpreter between us and the child: asks the kernel to end this process with the
# one that started it, then becomes the child. preexec_fn would do, but not safely with threads.
END_WITH_STARTER = "HEADRACE_END_WITH_STARTER"
_PR_SET_PDEATHSIG = 1
_TIED_TO_PARENT = f"""
import ctypes, os, sys
ctypes.CDLL(None, use_errno=True).prctl({_PR_SET_PDEATHSIG}, int(sys.argv[2]))
if os.getppid() != int(sys.argv[1]):
    sys.exit("the starting process is gone already")
os.execvp(sys.argv[3], sys.argv[3:])
"""
SIGTERM, SIGKILL = int(signal.SIGTERM), int(signal.SIGKILL)


def start_tied(
    command: Sequence[str],
    *,
    log: Path,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    death_signal: int = SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, so that Ctrl-C is for us and we end it in our order.

    Start it from a thread that lives as long as the child is needed (the main thread): on Linux the kernel
    sends `death_signal` when the thread that started it ends. Elsewhere the child is not tied.

    Parameters
    ----------
    command : sequence of str
        Program and arguments.
    log : Path
        Gets what it prints, from the start of the file.
    environment : mapping, optional
        Added to ours.

    Raises
    ------
    OSError
        If it cannot be started.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    tied = [sys.executable, "-I", "-S", "-c", _TIED_TO_PARENT, str(os.getpid()), str(death_signal), *command]
    with log.open("wb") as output:
        return subprocess.Popen(
            tied if sys.platform.startswith("linux") else list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes], timeout_s: float) -> int:
    """Ask a process of `start_tied`, and what it started, to end; kill what does not; return the exit code."""
    for number in (SIGTERM, SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout_s)
            break
    return process.wait()


def end_with_starter() -> None:
    """End with the thread that started this process, if it asked for that (`END_WITH_STARTER`); Linux only.

    For processes that somebody else starts for us, such as a flow run that Prefect's worker starts.
    """
    if os.environ.get(END_WITH_STARTER) and sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, SIGTERM)
