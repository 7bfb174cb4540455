"""A real Apache Kafka as a child process: one KRaft node, broker and controller, on this machine only.

For the tests (fixture ``kafka``), for the benchmarks, and for users as ``make kafka``::

    with KafkaServer(Path("/tmp/kafka")) as server:
        print(server.bootstrap_servers)
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from kafka_jars import CACHE, HERE, jars, java, one_at_a_time

from core.errors import BrokerError, HeadraceError, PortInUseError
from core.processes import SIGKILL, end, start_tied
from streaming.kafka_client import KafkaBroker

HOST = "127.0.0.1"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
# Below what Linux gives to outgoing connections: a client that keeps trying while the broker is down would
# otherwise, once in a while, get that very port and connect to itself, and the broker could not come back.
PORTS = range(20_000, 32_000)
JVM = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "BROKER",
    "controller.listener.names": "CONTROLLER",
    # After a kill -9 the node refuses its own successor until the session of the dead one is over.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "300",
    # Records of a recorded stream have its times: Kafka would delete what is older than its seven days.
    "log.retention.ms": "-1",
    "auto.create.topics.enable": "false",
    "delete.topic.enable": "true",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
}


class KafkaServer:
    """Runs a Kafka; it keeps port and data over `stop` or `kill` and a new `start`.

    Start it from a thread that lives as long as it is needed (the main thread): on Linux the kernel ends it
    with the thread that started it.

    Parameters
    ----------
    folder : Path
        Gets its data and logs; what an earlier server left there is taken over.
    port : int, optional
        Where it listens on 127.0.0.1; None picks a free one.
    properties : mapping, optional
        Settings of Kafka's ``server.properties``, beside or instead of those of `PROPERTIES`.

    Attributes
    ----------
    bootstrap_servers : str
        ``127.0.0.1:port``.
    log : Path
        What the last started process printed.
    """

    def __init__(self, folder: Path, port: int | None = None, properties: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.bootstrap_servers = f"{HOST}:{self.port}"
        self.log = folder / "kafka.log"
        self._properties = {**PROPERTIES, **(properties or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id; 0 when it does not run."""
        return self._process.pid if self._process and self.is_running else 0

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended; a paused one runs."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises
        ------
        PortInUseError
            If another process listens on the port.
        BrokerError
            If Kafka cannot be had, or does not start; the message has the end of its log.
        """
        if self.is_running:
            return
        _refuse_taken(self.port)
        self._launch([f"-XX:SharedArchiveFile={_class_archive()}"])

    def stop(self) -> None:
        """End it in order; doing it twice is fine."""
        if self._process is not None:
            self.resume()
            end(self._process, STOP_TIMEOUT_S)

    def wait(self) -> None:
        """Wait until it ends.

        Raises
        ------
        BrokerError
            When it does; the message has the end of its log.
        """
        if self._process is not None:
            code = self._process.wait()
            raise BrokerError(f"Kafka ended with code {code}: {self._tail()}; see {self.log}")

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def pause(self) -> None:
        """Stop it with SIGSTOP: its connections stay open, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self._signal(signal.SIGCONT)

    def _launch(self, options: list[str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        properties = self._write_properties()
        self._format(properties)
        self.log = self.folder / f"kafka-{1 + len(list(self.folder.glob('kafka-*.log')))}.log"
        command = [*_kafka(*options), "kafka.Kafka", str(properties)]
        self._process = start_tied(command, log=self.log, cwd=self.folder, death_signal=SIGKILL)
        try:
            self._await_answer()
        except BaseException:
            self.kill()
            raise

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _write_properties(self) -> Path:
        controller = free_port()
        settings = {
            **self._properties,
            "controller.quorum.voters": f"1@{HOST}:{controller}",
            "listeners": f"BROKER://{self.bootstrap_servers},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"BROKER://{self.bootstrap_servers}",
            "log.dirs": str(self.folder / "data"),
        }
        path = self.folder / "server.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in settings.items()), encoding="utf-8")
        return path

    def _format(self, properties: Path) -> None:
        if (self.folder / "data" / "meta.properties").exists():
            return
        command = [*_kafka(), "kafka.tools.StorageTool", "format", "-t", uuid.uuid4().hex[:22], "-c", str(properties)]
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=START_TIMEOUT_S)
        if run.returncode:
            raise BrokerError(f"Kafka cannot format {self.folder / 'data'}: {_gist(run.stdout + run.stderr)}")

    def _await_answer(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _listens(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise BrokerError(f"Kafka did not start: {self._tail()}; see {self.log}")
            time.sleep(0.02)
        try:
            KafkaBroker(self.bootstrap_servers, connect_timeout_s=max(1.0, deadline - time.monotonic())).describe([])
        except BrokerError as error:
            raise BrokerError(f"Kafka listens but does not answer ({error}): {self._tail()}; see {self.log}") from error

    def _tail(self) -> str:
        return _gist(self.log.read_text(encoding="utf-8", errors="replace"))


def _kafka(*options: str) -> list[str]:
    log4j = f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}"
    return [java(), *JVM, *options, log4j, "-cp", os.pathsep.join(map(str, sorted(jars().glob("*.jar"))))]


def _class_archive() -> Path:
    """Return the JVM's archive of the classes that Kafka loads, made once: with it Kafka starts twice as fast.

    Where it does not fit to the Java that runs, the JVM goes on without it.
    """
    archive = jars().with_suffix(".jsa")
    if archive.exists():
        return archive
    with one_at_a_time(archive.parent), tempfile.TemporaryDirectory(dir=archive.parent, prefix="part-") as part:
        if not archive.exists():
            new, server = Path(part) / archive.name, KafkaServer(Path(part))
            server._launch([f"-XX:ArchiveClassesAtExit={new}"])
            server.stop()
            new.touch()  # a JVM that makes none is not asked again at every start
            new.rename(archive)
    return archive


def _gist(text: str) -> str:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(("at ", "WARNING:"))]
    return "\n".join(lines)[-1000:].strip() or "it said nothing"


def free_port() -> int:
    """Return a port of `PORTS` on which nothing listens now."""
    for port in random.SystemRandom().sample(PORTS, 100):
        with contextlib.suppress(PortInUseError):
            _refuse_taken(port)
            return port
    raise PortInUseError(f"no free port found from {PORTS[0]} to {PORTS[-1]}")


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise PortInUseError(f"port {port} on {HOST} is taken by another process; give another one") from error


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def main() -> int:
    """Run a Kafka in the foreground until Ctrl-C; return the exit code."""
    parser = argparse.ArgumentParser(description="Runs a real Apache Kafka on this machine until Ctrl-C.")
    parser.add_argument("--port", type=int, default=9092, help="where it listens on 127.0.0.1 (default: 9092)")
    parser.add_argument("--folder", type=Path, default=CACHE / "data", help=f"its data (default: {CACHE / 'data'})")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        print("starting Apache Kafka (Maven downloads it the first time)", flush=True)
        with KafkaServer(given.folder.resolve(), given.port) as server:
            print(f"Apache Kafka answers at {server.bootstrap_servers}, data in {server.folder}; Ctrl-C ends it")
            print(f"    export HEADRACE_BOOTSTRAP_SERVERS={server.bootstrap_servers}", flush=True)
            server.wait()
    except KeyboardInterrupt:
        print("ended")
    except HeadraceError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
