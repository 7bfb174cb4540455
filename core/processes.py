"""Processes: children that end with the one that started them, and which process it is that has an id."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
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
_ENDED = ("Z", "X")
"""States in /proc of a process that has ended, and only waits for its parent to notice."""


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
    if os.environ.get(END_WITH_STARTER):
        tie_to_starter()


def tie_to_starter() -> None:
    """End with the thread that started this process; Linux only."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, SIGTERM)


@dataclass(frozen=True)
class Birth:
    """When a process began: with its id it names one process, because ids are used again.

    Attributes
    ----------
    boot : str
        The machine's boot; empty where `started` says it all.
    started : float
        On Linux in clock ticks since the boot, which no change of the wall clock moves; elsewhere the wall clock's
        time, s, as the kernel noted it.
    """

    boot: str
    started: float


def birth(pid: int) -> Birth | None:
    """Return when the process with this id began; None where that cannot be told.

    Raises
    ------
    ProcessLookupError
        If there is none, or it has ended and only waits for its parent to notice.
    """
    if not sys.platform.startswith("linux"):
        return _birth_by_psutil(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, PermissionError):
        with contextlib.suppress(PermissionError):
            os.kill(pid, 0)
        return None  # it is there, but another user's, and hidden
    fields = stat.rpartition(")")[2].split()  # behind the program's name, which may hold anything
    if fields[0] in _ENDED:
        raise ProcessLookupError(f"process {pid} has ended")
    return Birth(_boot(), float(fields[19]))


def _birth_by_psutil(pid: int) -> Birth | None:
    import psutil

    try:
        found = psutil.Process(pid)
        if found.status() != psutil.STATUS_ZOMBIE:
            return Birth("", float(found.create_time()))
    except psutil.NoSuchProcess as error:
        raise ProcessLookupError(f"process {pid} is gone") from error
    except psutil.AccessDenied:
        return None
    raise ProcessLookupError(f"process {pid} has ended")


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # not in every sandbox
        return ""
