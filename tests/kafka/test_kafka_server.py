"""The real Kafka of the tests: it comes back after a crash, and says why where it cannot be had."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from kafka_jars import HERE, jars, java
from kafka_server import KafkaServer

from core.errors import BrokerError, PortInUseError
from streaming.kafka_client import KafkaBroker
from streaming.transport import OutRecord, TopicPartition

PLACE = TopicPartition("events", 0)


@pytest.fixture
def maven(tmp_path, monkeypatch):
    """Put a script of this text in the place of mvn, alone in PATH but for the shell's own tools."""

    def put(script: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "mvn").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "mvn").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    return put


def read_all(server: KafkaServer) -> list[bytes | None]:
    consumer = KafkaBroker(server.bootstrap_servers).consumer("readers")
    consumer.assign({PLACE: 0})
    found: list[bytes | None] = []
    while len(found) < 100 and (batch := consumer.poll(10_000, 1_000)):
        found += [record.value for record in batch]
    found += [record.value for record in consumer.poll(200, 1_000)]
    consumer.close()
    return found


@pytest.mark.kafka
def test_what_was_acknowledged_survives_kill_9_and_pause(tmp_path):
    values = [b"%d" % number for number in range(100)]
    with KafkaServer(tmp_path) as server:
        broker = KafkaBroker(server.bootstrap_servers)
        broker.create_topics({"events": 1})
        producer = broker.producer()
        for value in values:
            producer.send(OutRecord("events", b"k", value, 1_357_034_400_123, 0))
        producer.flush()
        producer.close()
        address, cluster, pid = server.bootstrap_servers, broker.describe([]).cluster_id, server.pid
        server.kill()
        assert not server.is_running
        with pytest.raises(BrokerError):
            KafkaBroker(address, connect_timeout_s=0.1).describe([])
        server.start()
        assert server.pid != pid
        assert server.bootstrap_servers == address
        assert broker.describe([]).cluster_id == cluster
        assert read_all(server) == values
        server.pause()
        with pytest.raises(BrokerError):
            KafkaBroker(address, connect_timeout_s=0.1).describe([])
        server.resume()
        assert read_all(server) == values


@pytest.mark.kafka
def test_a_kafka_that_does_not_start_says_why(tmp_path, kafka):
    with pytest.raises(PortInUseError, match=str(kafka.port)):
        KafkaServer(tmp_path, kafka.port).start()
    with pytest.raises(BrokerError, match=r"message\.max\.bytes"):
        KafkaServer(tmp_path, properties={"message.max.bytes": "many"}).start()


def test_without_java_or_maven_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BrokerError, match="install a Java 17"):
        java()
    with pytest.raises(BrokerError, match="install mvn"):
        jars(tmp_path / "cache")
    old = tmp_path / "java"
    old.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    old.chmod(0o755)
    with pytest.raises(BrokerError, match="is 11; Kafka needs Java 17"):
        java()


def test_what_maven_says_is_passed_on_and_leaves_nothing_behind(tmp_path, maven):
    maven("echo '[ERROR] no such artifact'; exit 1")
    with pytest.raises(BrokerError, match="no such artifact"):
        jars(tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["lock"]


def test_two_at_once_resolve_once_and_a_changed_pom_is_resolved_anew(tmp_path, maven):
    maven(f'echo run >> {tmp_path}/runs; sleep 0.3; mkdir -p "${{6#-DoutputDirectory=}}"')
    pom = tmp_path / "pom.xml"
    pom.write_text("one")
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(jars(tmp_path / "cache", pom))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2 and found[0] == found[1] and found[0].is_dir()
    assert (tmp_path / "runs").read_text() == "run\n"
    pom.write_text("two")
    assert jars(tmp_path / "cache", pom) not in found
    assert (tmp_path / "runs").read_text() == "run\nrun\n"


@pytest.mark.parametrize("require", [False, True])
def test_a_test_of_the_real_kafka_is_skipped_with_the_reason_or_fails_where_it_is_required(tmp_path, require):
    without = {"JAVA_HOME", "HEADRACE_REQUIRE_KAFKA"}
    environment = {name: value for name, value in os.environ.items() if name not in without}
    environment |= {"PATH": str(tmp_path)} | ({"HEADRACE_REQUIRE_KAFKA": "1"} if require else {})
    chosen = "tests/streaming/test_real_kafka.py::TestRealKafka::test_nothing_new_is_an_empty_poll"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", chosen],
        cwd=HERE.parents[1],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ("1 error" if require else "1 skipped") in run.stdout
    assert run.returncode == int(require)
    assert "real Apache Kafka: NOT used: no Java found" in run.stdout
