"""How long the rows of a fit stay readable."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.audit import Ledger, RetrainRequest
from flows.upkeep import release_pins


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Six fits: 2 and 5 were gated out, the others registered; 3 is champion, the first version is previous."""
    ledger = Ledger(tmp_path / "ledger.sqlite")
    versions = {1: 1, 2: None, 3: 2, 4: 3, 5: None, 6: 4}
    for fit, version in versions.items():
        ledger.request_retrain(RetrainRequest(f"r{fit}", "drift", fit, fit))
        ledger.advance(f"r{fit}", expect=("requested",), status="gated" if version is None else "promoted")
        body = {"request": f"r{fit}", "version": version, "mlflow_run": f"run{fit}"}
        ledger.record("retraining", f"r{fit}/1", event_time=fit, body=body)
        ledger.pin("examples", fit, f"r{fit}" if version is None else f"model-{version}")
    ledger.record("promotion", "2", event_time=0, body={"version": 2, "previous": None})
    aliases = {"before": {"champion": 2}, "after": {"champion": 3, "previous": 1}}
    ledger.record("rollback", "3", event_time=0, body={"version": 3, "previous": 2, "aliases": aliases})
    return ledger


@pytest.mark.parametrize(
    ("keep", "pinned"), [(1, [1, 3, 4, 6]), (2, [1, 3, 4, 5, 6]), (5, [1, 2, 3, 4, 5, 6]), (99, [1, 2, 3, 4, 5, 6])]
)
def test_the_latest_fits_keep_their_rows_and_so_does_what_serves(ledger: Ledger, keep: int, pinned: list[int]):
    release_pins(ledger, keep)
    assert ledger.pinned("examples") == pinned
    assert release_pins(ledger, keep) == []


def test_an_open_request_and_whom_the_ledger_does_not_know_keep_theirs(ledger: Ledger):
    ledger.request_retrain(RetrainRequest("r7", "drift", 7, 7))
    for version, owner in ((7, "r7"), (8, "model-5"), (9, "somebody")):
        ledger.pin("examples", version, owner)
    assert release_pins(ledger, 1) == ["r2", "r5"]
    assert ledger.pinned("examples") == [1, 3, 4, 6, 7, 8, 9]


def test_what_a_killed_run_left_is_let_go_once_it_is_old(ledger: Ledger):
    body = {"request": "r9", "version": 6, "mlflow_run": "run9"}
    ledger.record("retraining", "r9/2", event_time=9, body=body)
    ledger.pin("examples", 8, "model-5")
    ledger.pin("examples", 9, "model-6")
    assert "model-5" in release_pins(ledger, 1)
    assert 9 in ledger.pinned("examples")
