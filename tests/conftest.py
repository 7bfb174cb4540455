"""A real Apache Kafka for the tests marked `kafka`; one line at the end says whether it was there.

No example of a property has a deadline: no test is timed, and a busy machine is no failure.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import settings
from kafka_jars import why_no_kafka
from kafka_server import KafkaServer

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

REQUIRE = "HEADRACE_REQUIRE_KAFKA"
_ran = 0


def _need_kafka() -> None:
    if (reason := why_no_kafka()) is None:
        return
    if os.environ.get(REQUIRE):
        pytest.fail(f"{REQUIRE} is set, but there is no real Kafka: {reason}", pytrace=False)
    pytest.skip(f"no real Kafka: {reason}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("kafka"):
        _need_kafka()


def pytest_runtest_call(item: pytest.Item) -> None:
    global _ran  # noqa: PLW0603 - counted for the summary
    _ran += item.get_closest_marker("kafka") is not None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if _ran:
        said = f"used by {_ran} tests"
    elif why_no_kafka.cache_info().currsize:
        said = f"NOT used: {why_no_kafka()}"
    else:
        said = "not used: none of the chosen tests needs it"
    terminalreporter.write_line(f"real Apache Kafka: {said}")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory):
    """The running KafkaServer of the whole session; mark its tests `kafka`, give each topics of its own."""
    _need_kafka()
    with KafkaServer(tmp_path_factory.mktemp("kafka")) as server:
        yield server
