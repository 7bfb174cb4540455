"""One attempt of a request among others: who has it, what is decided, and what a later one finds."""

from __future__ import annotations

import pytest
from flows_lab import Toy, in_this_process, later

from core.audit import Ledger
from core.durations import DAY
from core.errors import LeaseLostError, RegistryError
from core.model_versions import ModelVersion
from core.models import CHAMPION
from core.registry import Registry
from flows import training
from flows.execution import execute
from flows.lease import MAX_ATTEMPTS, Lease, find, make, progress, take
from flows.promotion import carry_out, decide
from flows.upkeep import maintain_tables


def test_a_step_that_raises_closes_the_request_as_failed(toy: Toy, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(training, "search", broken)
    with pytest.raises(RuntimeError):
        toy.retrain()
    assert find(toy.ledger, "r1").status == "failed"
    assert toy.bodies("retraining")[0]["reasons"] == ["RuntimeError: out of memory"]


def test_only_one_run_gets_the_request(toy: Toy):
    toy.request()
    one = take(toy.ledger, "r1", "run-1")
    other = take(Ledger(toy.project.ledger), "r1", "run-2")
    assert one is not None
    assert other is None
    assert find(toy.ledger, "r1").flow_run == "run-1"


def test_a_run_that_lost_its_lease_does_not_promote(toy: Toy):
    toy.request()
    lease = take(toy.ledger, "r1", None)
    run = training.Retraining(toy.project, lease, toy.store, apart=in_this_process)
    for name, step in run.steps:
        if name == "promote":
            toy.ledger.advance("r1", expect=("running",), status="requested", next_attempt=True)
            assert take(toy.ledger, "r1", None) is not None
            with pytest.raises(LeaseLostError):
                step()
        else:
            step()
    assert Registry(toy.project).alias(CHAMPION) is None
    assert toy.bodies("promotion") == []


def decided(toy: Toy) -> Registry:
    """Run a retraining up to the decision, and no further."""
    toy.request()
    run = training.Retraining(toy.project, take(toy.ledger, "r1", None), toy.store, apart=in_this_process)
    for name, step in run.steps:
        if name != "promote":
            step()
    decide(run.lease, run.version, None, run.records("promoted", []), [])
    return run.registry


def test_a_decided_promotion_is_carried_out_once_by_whoever_comes(toy: Toy):
    registry = decided(toy)
    assert toy.ledger.history() == []
    assert carry_out(toy.ledger, registry, "r1") == "version 1 is champion"
    assert carry_out(toy.ledger, registry, "r1") is None
    assert registry.alias(CHAMPION).version == 1
    assert [record.kind for record in toy.ledger.history()] == ["gate", "retraining", "promotion"]
    assert toy.bodies("retraining")[0]["metrics"] is not None
    assert find(toy.ledger, "r1").status == "promoted"


def test_a_decided_promotion_does_not_replace_a_champion_set_meanwhile(toy: Toy):
    toy.retrain("r0")
    toy.append(later(toy.project))
    toy.request("r1")
    run = training.Retraining(toy.project, take(toy.ledger, "r1", None), toy.store, apart=in_this_process)
    for name, step in run.steps:
        if name != "promote":
            step()
    decide(run.lease, run.version, None, run.records("promoted", []), [])
    assert "version 1 became champion meanwhile" in carry_out(toy.ledger, run.registry, "r1")
    assert run.registry.alias(CHAMPION).version == 1
    assert find(toy.ledger, "r1").status == "failed"
    assert [body["promoted"] for body in toy.bodies("retraining")] == [True, False]
    assert "became champion meanwhile" in toy.bodies("alert")[0]["reasons"][1]


def test_a_decided_promotion_of_a_version_that_was_deleted_ends(toy: Toy):
    registry = decided(toy)
    registry._client.delete_model_version(toy.project.settings.name, "1")
    assert "deleted" in carry_out(toy.ledger, registry, "r1")
    assert toy.ledger.open_requests() == []
    assert toy.ledger.pinned("examples") == []


def test_a_promotion_releases_the_data_of_its_request_but_not_of_its_version(toy: Toy):
    class Models:
        def aliases(self) -> dict[str, int]:
            return {"champion": 2}

        def versions(self) -> list[ModelVersion]:
            return [ModelVersion(number, "run", {}) for number in (1, 2, 3)]

        def promote(self, version: int, *, expected: int | None, watched: bool) -> None:
            assert (version, expected) == (3, 2)

    for number, owner in enumerate(["model-1", "gated-7", "model-2", "r1", "model-3"]):
        toy.ledger.pin("examples", number, owner)
    toy.request("r1")
    decide(take(toy.ledger, "r1", None), ModelVersion(3, "run", {"effective_at": "5"}), 2, [], [])
    assert toy.ledger.pinned("examples") == [0, 1, 2, 3, 4]
    assert carry_out(toy.ledger, Models(), "r1") == "version 3 is champion"
    assert toy.ledger.pinned("examples") == [0, 1, 2, 4]


def test_a_stalled_run_can_neither_undo_nor_repeat_a_decided_promotion(toy: Toy):
    registry = decided(toy)
    stalled = take_over(toy)
    carry_out(toy.ledger, registry, "r1")
    for act in (lambda: stalled.close("failed", []), lambda: stalled.release("late"), stalled.check):
        with pytest.raises(LeaseLostError):
            act()
    assert find(toy.ledger, "r1").status == "promoted"


def take_over(toy: Toy) -> Lease:
    return Lease(toy.ledger, find(toy.ledger, "r1"))


def test_a_run_that_lost_its_lease_stops_before_the_next_step(toy: Toy):
    toy.request()
    lease = take(toy.ledger, "r1", None)
    run = training.Retraining(toy.project, lease, toy.store, apart=in_this_process)
    ran = []

    def step(name, do):
        ran.append(name)
        if name == "validate":  # as if it had stood still for long
            toy.ledger.advance("r1", expect=("running",), status="requested", next_attempt=True)
        return do()

    assert execute(run, step)["outcome"] == "superseded"
    assert ran == ["pin", "validate"]
    assert (find(toy.ledger, "r1").status, find(toy.ledger, "r1").attempt) == ("requested", 2)
    assert toy.ledger.history() == []


class Down(Registry):
    """An MLflow that goes away at the given call."""

    at = "alias"

    def _aliases(self):
        if self.at == "alias":
            raise RegistryError("MLflow cannot be reached")
        return super()._aliases()

    def register(self, *arguments):
        if self.at == "register":
            raise RegistryError("MLflow cannot be reached")
        return super().register(*arguments)


@pytest.mark.parametrize("call", ["alias", "register"])
def test_an_mlflow_that_is_down_costs_an_attempt_and_not_the_retraining(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, call: str
):
    monkeypatch.setattr(Down, "at", call)
    with pytest.raises(RegistryError):
        toy.retrain(connect=Down)
    request = find(toy.ledger, "r1")
    assert (request.status, request.attempt) == ("requested", 2)
    assert "MLflow cannot be reached" in request.body["reasons"][0]
    result = execute(training.Retraining(toy.project, take(toy.ledger, "r1", None, attempt=2), toy.store))
    assert result["outcome"] == "promoted"
    assert [body["promoted"] for body in toy.bodies("retraining")] == [False, True]


def test_the_last_attempt_is_an_alert_and_releases_its_pins(toy: Toy):
    toy.request()
    for attempt in range(1, MAX_ATTEMPTS + 1):
        with pytest.raises(RegistryError):
            execute(training.Retraining(toy.project, take(toy.ledger, "r1", None, attempt), toy.store, Down))
    assert find(toy.ledger, "r1").status == "failed"
    (alert,) = toy.ledger.history("alert")
    assert alert.body["reasons"][0] == "Retraining r1 failed, the champion stays."
    assert len(alert.body["reasons"]) == 1 + MAX_ATTEMPTS
    assert [waiting.record.key for waiting in toy.ledger.waiting_alerts()] == ["retraining-r1"]
    assert toy.ledger.pinned("examples") == []


def test_a_run_of_an_earlier_attempt_does_not_get_the_request(toy: Toy):
    toy.request()
    toy.ledger.advance("r1", expect=("requested",), status="requested", next_attempt=True)
    assert take(toy.ledger, "r1", "late", attempt=1) is None
    assert take(toy.ledger, "r1", "run-2", attempt=2).request.flow_run == "run-2"


def test_a_vacuum_at_the_moment_of_the_pin_leaves_a_readable_version(toy: Toy):
    """Maintenance starts after the version was read and before it is pinned, or right after the pin."""
    toy.append(later(toy.project))
    for when in ("before", "after"):
        toy.request(when)
        lease = take(toy.ledger, when, None)
        run = training.Retraining(toy.project, lease, toy.store, apart=in_this_process)
        pin, times = toy.ledger.pin, []

        def racing(*arguments, when=when, pin=pin, times=times):
            if when == "after":
                pin(*arguments)
            if not times:
                times.append(1)
                maintain_tables(toy.store, toy.ledger, 0)
            if when == "before":
                pin(*arguments)

        toy.ledger.pin = racing
        run.pin()
        run.validate()
        toy.ledger.pin = pin
        assert toy.ledger.pinned("examples") == [run.data.version.examples]
        lease.close("gated", [])
        toy.ledger.unpin(when)
        toy.append(later(toy.project, seed=9))


def test_a_run_without_a_request_makes_its_own_and_keeps_to_the_schedule(toy: Toy):
    reached = progress(toy.project, toy.store)
    assert reached == toy.now - 1
    lease = make(toy.project, toy.ledger, "schedule", reached, "run-1")
    assert lease.request.status == "running"
    assert "one at a time" in make(toy.project, toy.ledger, "manual", reached, None)
    toy.ledger.record("retraining", lease.key, event_time=reached, body={})
    lease.close("gated", [])
    assert "less than 28d" in make(toy.project, toy.ledger, "schedule", reached + DAY, None)
    assert make(toy.project, toy.ledger, "schedule", reached + 28 * DAY, None).request.trigger == "schedule"
