"""Where a real Apache Kafka comes from: Maven resolves pom.xml once into the checkout's ``.kafka`` folder."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from core.errors import BrokerError

HERE = Path(__file__).resolve().parent
POM = HERE / "pom.xml"
CACHE = HERE.parents[1] / ".kafka"
OLDEST_JAVA = 17
RESOLVE_TIMEOUT_S = 240.0


@functools.cache
def why_no_kafka() -> str | None:
    """Say in one line why a real Kafka cannot be started here; None when it can.

    The first call in a checkout downloads about 60 MB with Maven and takes some 15 s.
    """
    try:
        java()
        jars()
    except BrokerError as error:
        return str(error)
    return None


def java() -> str:
    """Return the Java to run Kafka with.

    Raises
    ------
    BrokerError
        If there is none, or it is too old.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if found is None:
        raise BrokerError(f"no Java found: install a Java {OLDEST_JAVA} or newer, or set JAVA_HOME")
    said = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < OLDEST_JAVA:
        raise BrokerError(f"{found} is {version[1] if version else 'no Java'}; Kafka needs Java {OLDEST_JAVA} or newer")
    return found


def jars(cache: Path = CACHE, pom: Path = POM) -> Path:
    """Return the folder of jar files that `pom` asks for; Maven fills it when it is not there yet.

    Parameters
    ----------
    cache : Path
        Holds one folder for each content of the pom, so that a changed pom is resolved anew.
    pom : Path
        Maven's project file.

    Raises
    ------
    BrokerError
        If Maven is missing or fails.
    """
    folder = cache / f"lib-{hashlib.sha256(pom.read_bytes()).hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    with one_at_a_time(cache):
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=cache, prefix="part-") as part:
                _resolve(pom, Path(part) / "lib")
                (Path(part) / "lib").rename(folder)
    return folder


@contextlib.contextmanager
def one_at_a_time(cache: Path) -> Iterator[None]:
    """Let one process at a time fill the cache: a second one waits for what the first one makes."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _resolve(pom: Path, folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerError("no Maven found: install mvn, it downloads Kafka once")
    command = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=RESOLVE_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise BrokerError(f"Maven needs more than {RESOLVE_TIMEOUT_S:.0f} s for {pom}: look at the network") from error
    if run.returncode or not folder.is_dir():
        first = next((line for line in (run.stdout + run.stderr).splitlines() if line.strip()), "nothing said")
        raise BrokerError(f"Maven cannot resolve {pom}: {first[:300]}")
