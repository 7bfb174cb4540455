from __future__ import annotations

from pathlib import Path

import pytest
from flows_lab import Toy, make_toy


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return make_toy(tmp_path / "project")
