"""Each of our services, run as docker-compose.yml has it, without containers, until its health check passes.

Commands and health checks are taken word for word. What a container engine would provide is provided here by
other values in the environment: addresses of services, ports, places of volumes, SQLite for PostgreSQL.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from compose_file import ROOT, resolved

from core.processes import end, start_tied
from streaming.embedded import EmbeddedBroker

PATIENCE_S = 180.0
SCHEDULER_S = 60.0  # it looks every few seconds
TOGETHER = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
OURS = ["worker", "mlflow", "prefect-server", "prefect-worker", "prefect-deploy", "monitor"]


class Stack:
    """Our services as processes of this machine; each believes to be where docker-compose.yml puts it."""

    def __init__(self, folder: Path, broker: str, exits: contextlib.ExitStack) -> None:
        self.folder = folder
        self.services = resolved({"POSTGRES_PASSWORD": "p@ss:w/rd%1", "HEADRACE_STATE_KEY": "a key of the user's"})[
            "services"
        ]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._exits = exits
        ports = {name: _free_port() for name in ("mlflow", "prefect-server", "prefect-worker")}
        self.mlflow = f"127.0.0.1:{ports['mlflow']}"
        self.prefect = f"127.0.0.1:{ports['prefect-server']}"
        self._values = {
            "postgresql+psycopg2://headrace@postgres:5432/mlflow": f"sqlite:///{folder}/mlflow.sqlite",
            "postgresql+asyncpg://headrace@postgres:5432/prefect": f"sqlite+aiosqlite:///{folder}/prefect.sqlite",
            "kafka:9092": broker,
            "http://mlflow:5000": f"http://{self.mlflow}",
            "http://prefect-server:4200": f"http://{self.prefect}",
            "127.0.0.1:5000": self.mlflow,
            "127.0.0.1:4200": self.prefect,
            "127.0.0.1:8080": f"127.0.0.1:{ports['prefect-worker']}",
        }
        self._ports = {
            "MLFLOW_PORT": ports["mlflow"],
            "PREFECT_SERVER_API_PORT": ports["prefect-server"],
            "PREFECT_WORKER_WEBSERVER_PORT": ports["prefect-worker"],
        }
        self._places = {
            "/project": ROOT / "examples" / "flights",
            "/state": folder / "state",
            "/artifacts": folder / "artifacts",
            "/tmp": folder / "tmp",
            "/app": ROOT,  # the image's WORKDIR
        }
        for place in ("state", "artifacts", "tmp"):
            (folder / place).mkdir()

    def environment(self, name: str) -> dict[str, str]:
        """What the file gives a service, with this machine's values."""
        given = {key: self._here(value) for key, value in self.services[name]["environment"].items()}
        given |= {key: str(port) for key, port in self._ports.items() if key in given}
        given |= {key: "127.0.0.1" for key, value in given.items() if value == "0.0.0.0"}
        return {**TOGETHER, "HOME": str(self._places["/tmp"]), "TMPDIR": str(self._places["/tmp"]), **given}

    def start(self, *names: str) -> None:
        """Start services with their commands as written."""
        for name in names:
            self.processes[name] = start_tied(
                self.services[name]["command"],
                log=self.folder / f"{name}.log",
                cwd=self._folder_of(name),
                environment=self.environment(name),
            )
            self._exits.callback(end, self.processes[name], 20.0)

    def check(self, name: str) -> int:
        """Run a service's health check as written, once; return its exit code."""
        kind, *command = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        done = subprocess.run(
            command,
            cwd=self._folder_of(name),
            env={**os.environ, **self.environment(name)},
            capture_output=True,
            timeout=60,
            check=False,
        )
        return done.returncode

    def await_health(self, name: str) -> None:
        """Wait until the health check passes, which the service must live to see."""
        deadline = time.monotonic() + PATIENCE_S
        while self.check(name) != 0:
            code = self.processes[name].poll()
            if code is not None or time.monotonic() > deadline:
                pytest.fail(f"{name} {'is not well' if code is None else f'ended with {code}'}:\n{self.said(name)}")
            time.sleep(0.5)

    def await_end(self, name: str) -> int:
        """Wait until a service that ends by itself has ended; return its exit code."""
        return self.processes[name].wait(PATIENCE_S)

    def said(self, name: str) -> str:
        """The end of a service's log."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")[-3000:]

    def _folder_of(self, name: str) -> Path:
        return self._places[self.services[name].get("working_dir", "/app")]

    def _here(self, value: str) -> str:
        for there, here in self._values.items():
            value = value.replace(there, here)
        for there, place in self._places.items():
            if value == there or value.startswith(f"{there}/"):
                return value.replace(there, str(place), 1)
        return value


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    for name in list(os.environ):
        if name.startswith(("HEADRACE_", "MLFLOW_", "PREFECT_", "PG")):
            monkeypatch.delenv(name)
    with contextlib.ExitStack() as exits:
        broker = exits.enter_context(EmbeddedBroker(tmp_path / "broker"))
        yield Stack(tmp_path, broker.bootstrap_servers, exits)


@pytest.mark.slow
@pytest.mark.broker
@pytest.mark.timeout(600)
def test_each_of_our_services_runs_as_written_until_its_health_check_passes(stack):
    assert set(OURS) == {name for name, service in stack.services.items() if "build" in service}
    for name in ("worker", "monitor", "mlflow"):
        assert stack.check(name) != 0, f"{name}'s health check passes although it does not run"

    stack.start("worker", "mlflow", "prefect-server")
    for name in ("worker", "mlflow", "prefect-server"):
        stack.await_health(name)
    _other_containers_may_call_mlflow(stack)
    _worker_follows_the_champion_in_mlflow(stack)

    stack.start("prefect-worker")
    stack.await_health("prefect-worker")
    stack.start("prefect-deploy")
    assert stack.await_end("prefect-deploy") == 0, stack.said("prefect-deploy")
    _flows_are_deployed(stack)

    stack.start("monitor")
    stack.await_health("monitor")
    _schedules_make_runs(stack)

    for name in OURS:
        if name != "prefect-deploy":
            assert stack.processes[name].poll() is None, f"{name} did not stay: {stack.said(name)}"
    for name in ("monitor", "worker"):
        _ends_cleanly(stack, name)


def _other_containers_may_call_mlflow(stack: Stack) -> None:
    allowed = stack.environment("mlflow")["MLFLOW_SERVER_ALLOWED_HOSTS"]
    address = f"http://{stack.mlflow}/api/2.0/mlflow/experiments/search?max_results=1"
    assert "mlflow:5000" in allowed
    assert _status(address, host="mlflow:5000") == 200
    assert _status(address, host="rebound.example:5000") == 403


def _worker_follows_the_champion_in_mlflow(stack: Stack) -> None:
    """It started before MLflow, and found it when it was there."""
    status = stack.folder / "state" / "status" / "worker.json"
    deadline = time.monotonic() + PATIENCE_S
    while problem := json.loads(status.read_text(encoding="utf-8"))["champion_problem"]:
        assert time.monotonic() < deadline, problem
        time.sleep(0.5)


def _flows_are_deployed(stack: Stack) -> None:
    for flow in ("retrain", "check-drift", "maintenance"):
        found = _json(f"http://{stack.prefect}/api/deployments/name/{flow}/flights")
        assert found["work_pool_name"] == "headrace"
        assert found["parameters"]["project"] == str(ROOT / "examples" / "flights")
        assert found["parameters"]["state"] == str(stack.folder / "state")
        assert [schedule["active"] for schedule in found["schedules"]] == [True]
        assert found["job_variables"]["command"] == "python -m prefect.engine"


def _schedules_make_runs(stack: Stack) -> None:
    """Prefect's scheduler plans runs of every deployment that has an active schedule."""
    asked = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}, "limit": 200}
    address = f"http://{stack.prefect}/api/flow_runs/filter"
    deadline = time.monotonic() + SCHEDULER_S
    planned: set[str] = set()
    while len(planned) < 3:
        assert time.monotonic() < deadline, f"no runs are planned: {stack.said('prefect-server')}"
        time.sleep(0.5)
        planned = {run["deployment_id"] for run in _json(address, asked)}


def _ends_cleanly(stack: Stack, name: str) -> None:
    """What Compose does to stop a service, and what its health check says then."""
    stack.processes[name].terminate()
    assert stack.processes[name].wait(60) == 0, stack.said(name)
    assert stack.check(name) == 1


def _status(address: str, host: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers={"Host": host}), timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def _json(address: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
