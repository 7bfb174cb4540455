"""A real Prefect server and a process worker beside a local run, deployed from the same ``prefect.yaml``.

Used only where ``PREFECT_API_URL`` is not set. Everything Prefect writes is below the project's state
folder; both processes end with the one that started them. One that ends by itself is started again.
"""

from __future__ import annotations

import logging
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from core.errors import AlreadyRunningError, PortInUseError, PrefectError
from core.locks import FileLock
from core.processes import END_WITH_STARTER, end, start_tied
from core.project import Project
from flows.prefect_api import PrefectApi

HOME = Path(__file__).resolve().parent.parent
POOL = "headrace"
_HOST = "127.0.0.1"
_PATIENCE_S = 10.0
_LOOK_EVERY_S = 1.0
_MAX_PAUSE_S = 60.0
_log = logging.getLogger("headrace.prefect")


class LocalPrefect:
    """A context in which Prefect runs; `start` and `stop` do the same without one.

    Parameters
    ----------
    project : Project
        Names the deployments; Prefect's files go below its state folder.
    port : int
        The server's port; 0 takes a free one.
    ready_timeout_s : float
        Time until the server must answer and the deployments be there, s.
    restart : bool
        Whether a server or worker that ends by itself is started again.
    """

    def __init__(
        self, project: Project, port: int = 0, *, ready_timeout_s: float = 180.0, restart: bool = True
    ) -> None:
        self._project = project
        self._port = port
        self._timeout_s = ready_timeout_s
        self._restarts = restart
        self._processes: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._lock = FileLock(project.state / "prefect" / "headrace.lock")
        # The kernel ends children with the thread that started them: this one lives until `stop`.
        self._starter: ThreadPoolExecutor | None = None
        self._stopping = threading.Event()
        self._supervisor: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Address of the API, once started."""
        return f"http://{_HOST}:{self._port}/api"

    def environment(self) -> dict[str, str]:
        """Return what a child process needs to find this server, and what keeps Prefect quiet and local."""
        return {
            "PREFECT_API_URL": self.url,
            "PREFECT_HOME": str(self._project.state / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_LOGGING_EXTRA_LOGGERS": "headrace",
            "PREFECT_CLI_PROMPT": "false",
            "PREFECT_CLI_COLORS": "false",
            "DO_NOT_TRACK": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_TRACKING_URI": self._project.tracking_uri,
            "HEADRACE_NAME": self._project.settings.name,
            "HEADRACE_PROJECT": str(self._project.folder),
            "HEADRACE_STATE": str(self._project.state),
            "HEADRACE_SCHEDULES": "false",
            "HEADRACE_PYTHON": shlex.quote(sys.executable),
            END_WITH_STARTER: "1",
        }

    def start(self) -> LocalPrefect:
        """Start server and worker, deploy, and return when a run can be submitted.

        Raises
        ------
        AlreadyRunningError
            If another process runs a Prefect server of its own on this state folder.
        PortInUseError
            If another process listens on the port.
        PrefectError
            If one of them does not come up in time; the message names its log.
        OSError
            If something cannot be written or started.
        """
        self._take_folder()
        try:
            self._port = _free_port(self._port)
            api, until = PrefectApi(self.url, timeout_s=2.0), time.monotonic() + self._timeout_s
            self._starter = ThreadPoolExecutor(1, "prefect-starter")
            self._project.logs.mkdir(parents=True, exist_ok=True)
            self._start("server")
            self._wait(api.is_healthy, until)
            self._wait(lambda: PrefectApi(self.url).crash_unfinished() >= 0, until)
            self._start("worker")
            self._wait(lambda: api.has_pool(POOL), until)
            self._deploy(until)
        except BaseException:
            self.stop()
            raise
        if self._restarts:
            self._stopping.clear()
            self._supervisor = threading.Thread(target=self._supervise, name="prefect", daemon=True)
            self._supervisor.start()
        return self

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the server and the worker; each leads a process group of its own."""
        return {name: process.pid for name, process in self._processes}

    def stop(self) -> None:
        """End the worker with its runs, then the server."""
        self._stopping.set()
        if self._supervisor is not None:
            self._supervisor.join()
            self._supervisor = None
        try:
            for _name, process in reversed(self._processes):
                end(process, _PATIENCE_S)
            self._processes.clear()
            if self._starter is not None:
                self._starter.shutdown()
                self._starter = None
        finally:
            self._lock.release()

    def __enter__(self) -> LocalPrefect:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _supervise(self) -> None:
        """Start again what ended by itself: killed for its memory, or a worker that missed the server too long."""
        pause = _LOOK_EVERY_S
        while not self._stopping.wait(pause):
            ended = [(name, process) for name, process in self._processes if process.poll() is not None]
            if not ended:
                pause = _LOOK_EVERY_S
                continue
            pause = min(pause * 2, _MAX_PAUSE_S)
            for name, process in ended:
                try:
                    self._restart(name, process)
                except Exception as error:  # noqa: BLE001  without supervision Prefect would be lost for good
                    expected = isinstance(error, (PrefectError, OSError))
                    _log.warning(
                        "Prefect's %s has ended and is not started again yet: %s", name, error, exc_info=not expected
                    )

    def _restart(self, name: str, process: subprocess.Popen[bytes]) -> None:
        api = PrefectApi(self.url, timeout_s=2.0)
        if name == "worker":
            if not api.is_healthy():
                return
            api.crash_unfinished()  # its runs have ended with it
        log = self._log(name)
        if log.is_file() and log.stat().st_size:  # empty: of a start that failed, what went before says more
            log.replace(log.with_suffix(".before.log"))
        # Only a process that is there replaces the one that ended: else nobody would try again.
        self._processes[self._processes.index((name, process))] = (name, self._spawn(name, *self._arguments(name)))
        _log.warning("Prefect's %s ended with code %s: started again; see %s", name, process.returncode, log)

    def _take_folder(self) -> None:
        """Make sure that no other server works on the same database, and takes our runs for its own that crashed."""
        if not self._lock.acquire("prefect"):
            raise AlreadyRunningError(
                f"{self._lock.holder()[1]} runs a Prefect server of its own on {self._project.state / 'prefect'} "
                "already: wait until that ends, or run one for both and name it with PREFECT_API_URL"
            )

    def _start(self, name: str) -> None:
        self._processes.append((name, self._spawn(name, *self._arguments(name))))

    def _arguments(self, name: str) -> tuple[str, ...]:
        server = ("server", "start", "--host", _HOST, "--port", str(self._port))
        worker = ("worker", "start", "--pool", POOL, "--type", "process", "--name", "local")
        return server if name == "server" else worker

    def _deploy(self, until: float) -> None:
        process = self._spawn("deploy", "--no-prompt", "deploy", "--all", "--prefect-file", "prefect.yaml")
        try:
            code = process.wait(timeout=max(until - time.monotonic(), 1.0))
        except subprocess.TimeoutExpired:
            end(process, _PATIENCE_S)
            code = None
        if code != 0:
            raise self._failed("deploy", "took too long" if code is None else f"ended with code {code}")

    def _spawn(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        assert self._starter is not None
        command = [sys.executable, "-m", "prefect", *arguments]
        started = self._starter.submit(
            start_tied, command, log=self._log(name), cwd=HOME, environment=self.environment()
        )
        return started.result()

    def _wait(self, ready: Callable[[], bool], until: float) -> None:
        name = self._processes[-1][0]
        while not _is_so(ready):
            for other, process in self._processes:
                if (code := process.poll()) is not None:
                    raise self._failed(other, f"ended with code {code}")
            if time.monotonic() > until:
                raise self._failed(name, f"was not ready after {self._timeout_s:g} s")
            time.sleep(0.2)

    def _log(self, name: str) -> Path:
        return self._project.logs / f"prefect-{name}.log"

    def _failed(self, name: str, what: str) -> PrefectError:
        return PrefectError(f"Prefect's {name} {what}; see {self._log(name)}")


def _is_so(ready: Callable[[], bool]) -> bool:
    """Tell whether it is ready; a server that does not answer in time on a busy machine is not yet."""
    try:
        return ready()
    except PrefectError:
        return False


def _free_port(port: int) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise PortInUseError(
                f"port {port}, wanted for Prefect's server, is taken; name another, or set PREFECT_API_URL "
                "to use the server that runs there"
            ) from error
        return int(probe.getsockname()[1])
