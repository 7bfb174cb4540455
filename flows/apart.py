"""Asks a registered version in a process of its own, as a worker would, whether it loads and what it predicts.

What a file does when it is loaded cannot be taken back: it may end the process, hang, or bring what only this process
has imported. So another process fetches the version from the registry, checks its files against the digest that *this*
one saw at registration (and against the allow-list of flavours, :mod:`core.model_files`), loads it and predicts.
Started early, it has imported what loads a model by the time there is one to load.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

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
Ask = Callable[[ModelVersion, "pd.DataFrame"], Answer]
Apart = Callable[[Project], AbstractContextManager[Ask]]

TIMEOUT_S = 180.0
_END_S = 5.0
_LOOK_EVERY_S = 0.02
_ROOT = Path(__file__).resolve().parent.parent
_PROJECT, _FRAME, _REQUEST, _ANSWER, _LOG = "project.json", "frame.parquet", "request.json", "answer.json", "log.txt"


@contextmanager
def another_process(project: Project, timeout_s: float = TIMEOUT_S) -> Iterator[Ask]:
    """Start a process, and give what asks it: once, and from when it is asked it may take `timeout_s`, s.

    What is asked for is a version as it was registered (its digest is what its files must have), on rows made by
    :func:`core.batch_model.feature_frame`. The answer is what it predicts, or None and why, if it does not.

    Raises
    ------
    OSError
        If it cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-apart-") as name:
        folder = Path(name)
        about = {**asdict(project), "settings": project.settings.model_dump(mode="json")}
        _write(folder / _PROJECT, about)
        process = _start(folder)
        try:
            yield lambda version, frame: _ask(process, folder, version, frame, timeout_s)
        finally:
            if process.poll() is None:
                end(process, _END_S)


def _start(folder: Path) -> subprocess.Popen[bytes]:
    paths = [str(_ROOT), os.environ.get("PYTHONPATH", "")]
    return start_tied(
        [sys.executable, "-m", "flows.apart", str(folder)],
        log=folder / _LOG,
        cwd=folder,
        environment={"PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )


def _ask(
    process: subprocess.Popen[bytes], folder: Path, version: ModelVersion, frame: pd.DataFrame, timeout_s: float
) -> Answer:
    if not (digest := version.tags.get("digest")):
        return None, "no digest was recorded at registration"
    frame.to_parquet(folder / _FRAME)
    _write(folder / _REQUEST, {"version": version.version, "digest": digest})
    try:
        code = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None, f"the process that loads it had not answered after {timeout_s:g} s"
    try:
        answer = json.loads((folder / _ANSWER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        said = (folder / _LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return None, f"the process that loads it ended with exit code {code}{': ' + said[-1] if said else ''}"
    return answer["predictions"], answer["problem"]


def _write(path: Path, content: Mapping[str, Any]) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(content, default=str), encoding="utf-8")
    part.replace(path)


def main(folder: Path) -> None:
    """Wait for a request in a folder, and answer it: what the other process runs."""
    from core.registry import Registry

    starter = os.getppid()
    project = _project(json.loads((folder / _PROJECT).read_text(encoding="utf-8")))
    try:
        registry = Registry(project)
        while not (folder / _REQUEST).exists():
            if os.getppid() != starter:
                return
            time.sleep(_LOOK_EVERY_S)
        request = json.loads((folder / _REQUEST).read_text(encoding="utf-8"))
        model = registry.load(request["version"], digest=request["digest"])
        names = list(used_features(project.settings.batch_kinds))
        predictions, problem = model.predict(pq.read_table(folder / _FRAME).select(names).to_pylist()), ""
    except HeadraceError as error:
        predictions, problem = None, str(error)
    _write(folder / _ANSWER, {"predictions": predictions, "problem": problem})


def _project(about: dict[str, Any]) -> Project:
    return Project(
        folder=Path(about["folder"]),
        settings=Settings.model_validate(about["settings"]),
        state=Path(about["state"]),
        shared=about["shared"],
        bootstrap_servers=about["bootstrap_servers"],
        tracking_uri=about["tracking_uri"],
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
