"""The champion that a challenger has to beat."""

from __future__ import annotations

from dataclasses import dataclass

from core.audit import Ledger
from core.batch_model import FittedModel
from core.errors import CheckpointError, RegistryError
from core.models import CHAMPION
from core.project import Project
from core.registry import Registry
from flows.gates import champion_gate, reference_gate
from flows.stops import GatesPassed
from monitoring.reference import load_reference


@dataclass(frozen=True)
class Champion:
    """The champion at the time of a retraining.

    Attributes
    ----------
    model : FittedModel
    data_cut : int or None
        Event time up to which it was trained, ms; None where the version does not say.
    skill : float or None
        How well it ranked its hold-out; None where that was not written down.
    """

    model: FittedModel
    data_cut: int | None
    skill: float | None = None

    @property
    def version(self) -> int:
        """Its version in the registry."""
        return self.model.version


def load_champion(project: Project, registry: Registry, ledger: Ledger, gates: GatesPassed) -> Champion | None:
    """Load the champion; None if none was ever promoted.

    Raises
    ------
    NotPromoted
        If there should be one that cannot be compared with: nothing is promoted against an unknown.
    RegistryError
        If MLflow is down, which is no verdict on the champion: it is tried again.
    """
    alias = registry.alias(CHAMPION)
    if alias is None:
        if ledger.history("promotion"):
            gates.require([champion_gate("the alias 'champion' is gone; set it again in MLflow")])
        return None
    try:
        reference = load_reference(project.state / "references", alias.version)
    except CheckpointError as error:
        gates.require([reference_gate(str(error))])
    try:
        return Champion(registry.load(alias.version), alias.number("data_cut"), reference.skill)
    except RegistryError as error:
        gates.require([champion_gate(str(error))])
        raise
