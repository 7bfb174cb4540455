"""Requests that wait are seen: in the log when the cause changes, in the status, and as an alert when it lasts."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

import pytest
from click.testing import CliRunner
from fake_prefect import FakePrefect

from core.audit import Ledger
from core.errors import HeadraceError, PrefectError, RegistryError, StoreError
from core.project import Project
from core.status import read_status
from core.store import TableStore
from flows.dispatch import Dispatcher
from flows.lease import PROMOTING, take
from flows.trouble import ALERT_AFTER_S
from headrace import cli
from monitoring.monitor import Monitor


class Wall:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def shown(project: Project) -> tuple[dict[str, str], str]:
    """What ``headrace status`` says: as JSON, and to people."""
    at = [str(project.folder)]
    home = {"HEADRACE_STATE": str(project.state)}
    as_json = CliRunner().invoke(cli, ["status", *at, "--json", "-"], env=home, catch_exceptions=False)
    return json.loads(as_json.output)["requests_wait"], CliRunner().invoke(cli, ["status", *at], env=home).output


def alerts(ledger: Ledger) -> list[list[str]]:
    return [record.body["reasons"] for record in ledger.history("alert")]


def fails(look: Callable[[], None]) -> None:
    with pytest.raises(HeadraceError):
        look()


def test_it_is_said_again_whenever_the_cause_changes(
    project: Project, ledger: Ledger, prefect: FakePrefect, caplog: pytest.LogCaptureFixture
):
    dispatcher = Dispatcher(project, ledger, prefect.url)
    deployments, prefect.deployments = prefect.deployments, {}
    with caplog.at_level(logging.INFO, "headrace.dispatch"):
        for _ in range(2):
            fails(dispatcher.run_once)
        prefect.deployments = {"retrain/toy-binary": {"id": "d1", "parameters": {}}}
        prefect.broken = True
        for _ in range(2):
            fails(dispatcher.run_once)
        prefect.broken, prefect.deployments = False, deployments
        for _ in range(2):
            dispatcher.run_once()
    said = [record.getMessage() for record in caplog.records if record.name == "headrace.dispatch"]
    assert ["deploy the flows" in said[0], "500" in said[1]] == [True, True]
    assert said[2].startswith("request drift-7, attempt 1")
    assert said[3:] == ["requests are dispatched again"]


def test_the_monitors_status_and_the_command_say_it_until_it_is_over(
    project: Project, ledger: Ledger, prefect: FakePrefect
):
    monitor = Monitor(project, ledger, TableStore(project.tables), send_alert=lambda _: None)
    dispatcher = Dispatcher(project, ledger, prefect.url, clock=Wall())
    deployments, prefect.deployments = prefect.deployments, {}
    fails(dispatcher.run_once)
    monitor.run_once()
    assert "make deploy" in read_status(project.status, "monitor")["dispatch_problem"]
    content, text = shown(project)
    assert content["since"] == "2023-11-14T22:13:20Z"
    assert "make deploy" in content["problem"]
    assert "requests wait since 2023-11-14T22:13:20Z: Prefect at" in text
    prefect.deployments = deployments
    dispatcher.run_once()
    monitor.run_once()
    assert "dispatch_problem" not in read_status(project.status, "monitor")
    content, text = shown(project)
    assert content is None
    assert "wait" not in text


@pytest.mark.parametrize("restarted", [False, True])
def test_what_lasts_is_one_alert_although_the_cause_changes_and_the_dispatcher_is_another(
    project: Project, ledger: Ledger, prefect: FakePrefect, restarted: bool
):
    wall = Wall()

    def made() -> Dispatcher:
        return Dispatcher(project, ledger, prefect.url, one_off=restarted, clock=wall)

    dispatcher, deployments = made(), prefect.deployments
    prefect.deployments = {}
    for lasts in (0.0, ALERT_AFTER_S, ALERT_AFTER_S + 1, 3 * ALERT_AFTER_S):
        wall.now = Wall.now + lasts
        prefect.broken = lasts > 2 * ALERT_AFTER_S
        dispatcher = made() if restarted else dispatcher
        fails(dispatcher.run_once)
        assert len(alerts(ledger)) == (lasts > ALERT_AFTER_S)
    (said,) = alerts(ledger)
    assert "since 2023-11-14T22:13:20Z" in said[0]
    assert "make deploy" in said[1]
    prefect.broken, prefect.deployments = False, deployments
    made().run_once()
    prefect.broken = True
    ledger.advance("drift-7", expect=("submitted",), status="requested")
    fails(made().run_once)
    assert len(alerts(ledger)) == 1, "the next trouble has its own time"


def test_a_decided_promotion_that_cannot_be_carried_out_is_seen(project: Project, ledger: Ledger, prefect: FakePrefect):
    def down(_: str) -> str:
        raise RegistryError("MLflow at http://mlflow:5000 cannot be reached")

    wall = Wall()
    dispatcher = Dispatcher(project, ledger, prefect.url, carry_out=down, clock=wall)
    dispatcher.run_once()
    take(ledger, "drift-7", "run-1")
    ledger.advance("drift-7", expect=("running",), status="running", body={PROMOTING: {}})
    prefect.end("COMPLETED")
    for _ in range(2):
        fails(dispatcher.run_once)
        wall.now += ALERT_AFTER_S + 1
    assert "drift-7: its promotion is decided, but cannot be carried out yet: MLflow" in shown(project)[0]["problem"]
    assert len(alerts(ledger)) == 1


def test_a_ledger_that_cannot_be_written_hides_no_cause(
    project: Project, ledger: Ledger, prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):  # fmt: skip
    def full() -> None:
        raise StoreError("ledger: cannot be written: the disk is full")

    dispatcher = Dispatcher(project, ledger, prefect.url)
    prefect.broken = True
    with monkeypatch.context() as patched:
        patched.setattr(ledger, "transaction", full)
        with pytest.raises(PrefectError, match="500"):
            dispatcher.run_once()
    assert "the disk is full" in caplog.messages[-1]
    fails(dispatcher.run_once)
    assert "500" in shown(project)[0]["problem"]
