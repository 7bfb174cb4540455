from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_prefect import FakePrefect
from flows_lab import Toy, make_toy


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return make_toy(tmp_path / "project")


@pytest.fixture
def prefect() -> Iterator[FakePrefect]:
    fake = FakePrefect()
    thread = threading.Thread(target=fake.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()
    thread.join()
