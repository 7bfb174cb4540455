"""Asks a registered version in a process of its own, as a worker would, whether it loads and what it predicts.

What a file does when it is loaded cannot be taken back: it may end the process, hang, or bring what only this process
has imported. So another process fetches the version from the registry, checks its files against the digest that *this*
one saw at registration (and against the allow-list of flavours, :mod:`core.model_files`), loads it and predicts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.batch_model import used_features
from core.errors import HeadraceError
from core.model_versions import ModelVersion
from core.predictions import Prediction
from core.processes import end, start_tied
from core.project import Project
from core.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

Answer = tuple[list[Prediction] | None, str]
Ask = Callable[[Project, ModelVersion, "pd.DataFrame"], Answer]

TIMEOUT_S = 180.0
_END_S = 5.0
_ROOT = Path(__file__).resolve().parent.parent
_FRAME, _REQUEST, _ANSWER, _LOG = "frame.parquet", "request.json", "answer.json", "log.txt"


def predictions_apart(
    project: Project, version: ModelVersion, frame: pd.DataFrame, timeout_s: float = TIMEOUT_S
) -> Answer:
    """Return what a registered version predicts in another process; None and why, if it does not.

    Parameters
    ----------
    version : ModelVersion
        As it was registered: its digest is what its files must have.
    frame : pandas.DataFrame
        Rows made by :func:`core.batch_model.feature_frame`.
    timeout_s : float
        How long the process may take, s.
    """
    if not (digest := version.tags.get("digest")):
        return None, "no digest was recorded at registration"
    with tempfile.TemporaryDirectory(prefix="headrace-apart-") as name:
        folder = Path(name)
        frame.to_parquet(folder / _FRAME)
        about = {**asdict(project), "settings": project.settings.model_dump(mode="json")}
        request = {"project": about, "version": version.version, "digest": digest}
        (folder / _REQUEST).write_text(json.dumps(request, default=str), encoding="utf-8")
        return _answer(folder, timeout_s)


def _answer(folder: Path, timeout_s: float) -> Answer:
    paths = [str(_ROOT), os.environ.get("PYTHONPATH", "")]
    process = start_tied(
        [sys.executable, "-m", "flows.apart", str(folder)],
        log=folder / _LOG,
        cwd=folder,
        environment={"PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    try:
        code = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None, f"the process that loads it had not answered after {timeout_s:g} s"
    finally:
        if process.poll() is None:
            end(process, _END_S)
    try:
        answer = json.loads((folder / _ANSWER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        said = (folder / _LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return None, f"the process that loads it ended with exit code {code}{': ' + said[-1] if said else ''}"
    return answer["predictions"], answer["problem"]


def main(folder: Path) -> None:
    """Answer a request that lies in a folder: what the other process runs."""
    request = json.loads((folder / _REQUEST).read_text(encoding="utf-8"))
    try:
        predictions, problem = _predicted(request, folder / _FRAME), ""
    except HeadraceError as error:
        predictions, problem = None, str(error)
    part = folder / f"{_ANSWER}.part"
    part.write_text(json.dumps({"predictions": predictions, "problem": problem}), encoding="utf-8")
    part.replace(folder / _ANSWER)


def _predicted(request: dict[str, Any], frame: Path) -> list[Prediction]:
    import pyarrow.parquet as pq

    from core.registry import Registry

    about = request["project"]
    settings = Settings.model_validate(about["settings"])
    project = Project(
        folder=Path(about["folder"]),
        settings=settings,
        state=Path(about["state"]),
        shared=about["shared"],
        bootstrap_servers=about["bootstrap_servers"],
        tracking_uri=about["tracking_uri"],
    )
    model = Registry(project).load(request["version"], digest=request["digest"])
    names = list(used_features(settings.batch_kinds))
    return model.predict(pq.read_table(frame).select(names).to_pylist())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
