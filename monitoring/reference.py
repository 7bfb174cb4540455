"""The reference: what the champion was trained on, stamped with its digest, and who is champion when."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.audit import LedgerRecord
from core.errors import CheckpointError
from monitoring.calibration import Calibration, Calibrations
from monitoring.volume import Volume


@dataclass(frozen=True)
class Reference:
    """A champion's reference.

    Attributes
    ----------
    version : int
        The champion's version in the registry.
    digest : str
        SHA-256 of the sample's file.
    sample : pyarrow.Table
        Columns as in the ``examples`` table.
    validation_loss, served_loss : float or None
        Mean loss of the champion on its hold-out, and of the blend with it; None if it had none.
    trained_rows : int
        Rows that the champion was trained on; 0 where that was not written down.
    calibrations : dict of str to Calibration
        What is usual at each stage of a window.
    volume : Volume or None
        How many events are usual; None where that is not known.
    skill : float or None
        How well the champion ranked its hold-out (:func:`core.metrics.skill`); None where that is not known.
    """

    version: int
    digest: str
    sample: pa.Table
    validation_loss: float | None
    served_loss: float | None = None
    trained_rows: int = 0
    calibrations: Calibrations = field(default_factory=dict)
    volume: Volume | None = None
    skill: float | None = None


def champion_at(records: Iterable[LedgerRecord], moment: int) -> int | None:
    """Return the version that is champion at event time `moment` (ms), or None before the first.

    Parameters
    ----------
    records : iterable of LedgerRecord
        The ledger's history in order; promotions and rollbacks count. One without ``effective_at``
        holds from the beginning: outside of lockstep it is known only once it has happened.

    Examples
    --------
    >>> first = LedgerRecord("promotion", "a", 0, 0.0, {"version": 1, "effective_at": 10})
    >>> champion_at([first], 9), champion_at([first], 10)
    (None, 1)
    """
    champion = None
    for record in records:
        version, since = record.body.get("version"), record.body.get("effective_at")
        if record.kind in ("promotion", "rollback") and version is not None and (since or 0) <= moment:
            champion = int(version)
    return champion


def load_reference(folder: Path, version: int) -> Reference:
    """Read the reference of a champion and check its digest.

    Raises
    ------
    CheckpointError
        If a file is missing, damaged, or belongs to another version.
    """
    where = f"reference of champion version {version} ({folder / f'{version}.parquet'})"
    try:
        stamp: dict[str, Any] = json.loads((folder / f"{version}.json").read_text(encoding="utf-8"))
        content = (folder / f"{version}.parquet").read_bytes()
        stamped, stamped_version = str(stamp["digest"]), int(stamp["version"])
        validation = [stamp["validation"].get(name) for name in ("loss", "served_loss", "skill")]
        usual = {stage: Calibration.from_json(body) for stage, body in stamp.get("calibrations", {}).items()}
        trained, volume = int(stamp.get("trained_rows", 0)), Volume.from_json(stamp.get("volume"))
        digest = hashlib.sha256(content).hexdigest()
        if digest != stamped or stamped_version != version:
            raise CheckpointError(
                f"{where} is damaged: its digest or version is not the one it was stamped with; "
                "restore the file, or retrain"
            )
        sample = pq.read_table(io.BytesIO(content))
    except FileNotFoundError as error:
        raise CheckpointError(f"{where} is missing: {error.filename}; restore it, or retrain") from error
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise CheckpointError(f"{where} cannot be read: {error!r}; restore it, or retrain") from error
    loss, served, skill = (None if value is None else float(value) for value in validation)
    return Reference(version, digest, sample, loss, served, trained, usual, volume, skill)
