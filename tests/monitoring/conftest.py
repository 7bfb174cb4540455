from __future__ import annotations

from pathlib import Path

import pytest
from monitoring_lab import Lab, open_lab


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return open_lab(tmp_path)
