"""One embedded broker for the tests that need one."""

from __future__ import annotations

import pytest

from streaming.embedded import EmbeddedBroker


@pytest.fixture(scope="session")
def embedded_broker(tmp_path_factory):
    """A running embedded broker."""
    with EmbeddedBroker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker
