"""Child processes that end with the process that started them, whatever happens to that one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# Runs in a fresh interpreter between us and the child: asks the kernel to end this process with the
# one that started it, then becomes the child. preexec_fn would do, but not safely with threads.
_TIED_TO_PARENT = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(sys.argv[2]))
if os.getppid() != int(sys.argv[1]):
    sys.exit("the starting process is gone already")
os.execvp(sys.argv[3], sys.argv[3:])
"""
SIGTERM, SIGKILL = 15, 9


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
    """Ask a process to end, wait, and kill it if it does not; return its exit code."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()
