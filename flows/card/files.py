"""The files of a card: worked out, drawn, logged with the version, and a copy of the page in the state folder."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from core.batch_model import FittedModel
from core.project import Project
from core.registry import Registry
from flows.card.facts import Card, Material, card_of
from flows.card.onnx_file import export
from flows.card.page import page
from flows.card.plots import plots_of

FOLDER = "card"
"""Below which the files are in the artifacts of the version's MLflow run."""

_PAGE, _FACTS = "card.html", "card.json"
_log = logging.getLogger("headrace.retrain")


def write_card(project: Project, registry: Registry, material: Material, registered: FittedModel) -> Path | None:
    """Log a version's card and return the copy of its page; None if the disk refused that, which is a warning.

    Parameters
    ----------
    registered : FittedModel
        The registered version.

    Raises
    ------
    RegistryError
        If MLflow cannot be reached.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-card-") as name:
        folder = Path(name)
        onnx = export(registered, material.holdout, folder)
        card = replace(card_of(project, material), packaging=registry.packaging(material.run), onnx=onnx)
        _write(folder, card, project)
        registry.log_folder(material.run, folder, FOLDER)
        return _copied(folder / _PAGE, project.cards / f"{material.version}.html")


def _write(folder: Path, card: Card, project: Project) -> None:
    plots = plots_of(card)
    for name, content in plots.items():
        (folder / f"{name}.png").write_bytes(content)
    facts = json.dumps(card.as_json(), indent=1, allow_nan=False)
    (folder / _FACTS).write_text(facts, encoding="utf-8")
    (folder / _PAGE).write_text(page(card, plots, project.settings.clock), encoding="utf-8")


def _copied(source: Path, target: Path) -> Path | None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(".part")
        shutil.copyfile(source, part)
        part.replace(target)
    except OSError as error:
        _log.warning("the card is in MLflow only: %s", error)
        return None
    return target
