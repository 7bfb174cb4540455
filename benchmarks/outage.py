"""Alerts and decisions while Prefect and the alerts' receiver are down: how many retrainings follow?

A real Prefect server and worker are killed (SIGKILL), the monitor goes on judging windows that have drifted, one
alert each, and once it has decided to retrain a person asks for a retraining at each of them, too. After the outage
both come back. One run of Prefect, one retraining and each alert once is what must be found; the exit code says
whether it was.

    python benchmarks/outage.py --alerts 100 --outage-s 600 --json outage.json [--scale 0.1]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from core.audit import Ledger, RetrainRequest
from core.durations import HOUR, MINUTE
from core.project import Project, load_project
from core.status import write_status
from core.store import TableStore
from core.tables import EXAMPLES, PREDICTIONS, examples_schema, predictions_schema
from flows.dispatch import Dispatcher
from flows.execution import execute
from flows.lease import take
from flows.local import LocalPrefect
from flows.training import Retraining
from monitoring.alerts import make_sender
from monitoring.monitor import Monitor

START = 1_700_002_800_000
HISTORY_HOURS = 72
ROWS = 60  # an hour
PROJECT = """
name: outage
id: id
time: t
fields: {speed: number, load: number}
label: {path: y, horizon: 30m}
online: [linear, prior]
windows: {span: 1h}
drift: {persistence: 2, of_windows: 3, min_rows: 30, cooldown: 1h}
batch: {trials: 1, candidates: [linear], holdout: 1d}
gates: {min_holdout_rows: 50, max_relative_loss: 10, max_latency_ms: 100}
retrain: {min_examples: 500, every: null}
alerts: {webhook: 'http://127.0.0.1:%d/'}
"""


@dataclass
class Receiver:
    """Takes alerts by HTTP while it is open, and remembers each one's idempotency key."""

    port: int = 0
    keys: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        with self.open():  # takes a free port
            pass

    @contextmanager
    def open(self) -> Iterator[None]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                outer.keys.append(self.headers["Idempotency-Key"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def rows(first_hour: int, hours: int, shift: float, champion: int | None) -> list[dict[str, Any]]:
    """Events and labels of some hours; the label follows from `speed`, `shift` moves both fields."""
    draw = np.random.default_rng(first_hour)
    speed, load = draw.normal(size=(2, hours * ROWS)) + shift
    label = (speed - shift + draw.normal(scale=0.5, size=len(speed)) > 0).astype(int)
    times = START + first_hour * HOUR + (np.arange(len(speed)) * HOUR) // ROWS + 1_000
    return [
        {
            "id": f"{first_hour}-{number}",
            "event_time": _stamp(moment),
            "clock": _stamp(moment),
            "champion_version": champion,
            "f_speed": float(speed[number]),
            "f_load": float(load[number]),
            "p_served": 0.7 if label[number] else 0.4,
            "p_champion": None if champion is None else 0.7,
            "p_linear": 0.6 if label[number] else 0.4,
            "p_prior": 0.5,
            "label": int(label[number]),
            "label_time": _stamp(moment + MINUTE),
            "label_clock": _stamp(moment + MINUTE),
            "implied": False,
        }
        for number, moment in enumerate(times.tolist())
    ]


def _stamp(moment: int) -> datetime:
    return datetime.fromtimestamp(moment / 1000, UTC)


def append(project: Project, store: TableStore, made: list[dict[str, Any]], sequence: int) -> None:
    for table, schema in ((PREDICTIONS, predictions_schema), (EXAMPLES, examples_schema)):
        content = pa.Table.from_pylist(made, schema=schema(project.settings))
        store.append(table, content, app="worker-0", sequence=sequence)


def reach(project: Project, moment: int) -> None:
    """Let the worker say that the stream is at `moment`, ms."""
    first = START + (HISTORY_HOURS - 1) * HOUR  # monitoring begins with the first champion
    partition = {"first_event": first, "clock": moment, "flushed_through": moment}
    write_status(project.status, "worker", {"state": "running", "partitions": {"0": partition}})


def bootstrap(project: Project, ledger: Ledger, store: TableStore) -> None:
    """Make the first champion, without Prefect."""
    now = START + HISTORY_HOURS * HOUR
    append(project, store, rows(0, HISTORY_HOURS, 0.0, None), 1)
    ledger.request_retrain(RetrainRequest("bootstrap", "bootstrap", now, now))
    lease = take(ledger, "bootstrap", None)
    assert lease is not None
    done = execute(Retraining(project, lease, store))
    assert done["outcome"] == "promoted", done


def flow_runs(api_url: str) -> list[dict[str, Any]]:
    call = urllib.request.Request(api_url + "/flow_runs/filter", b"{}", {"Content-Type": "application/json"})
    with urllib.request.urlopen(call, timeout=30) as answer:
        found: list[dict[str, Any]] = json.loads(answer.read())
    return found


def until(done: Callable[[], bool], timeout_s: float, poll_s: float = 0.2) -> bool:
    end = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(poll_s)
    return True


def measure(folder: Path, alerts: int, outage_s: float) -> dict[str, Any]:
    receiver = Receiver()
    (folder / "headrace.yaml").write_text(PROJECT % receiver.port, encoding="utf-8")
    project = load_project(folder, state=folder / "state")
    ledger, store = Ledger(project.ledger), TableStore(project.tables)
    bootstrap(project, ledger, store)
    append(project, store, rows(HISTORY_HOURS, alerts + 1, 3.0, 1), 2)
    before = len(ledger.history("retraining"))

    prefect = LocalPrefect(project, restart=False).start()
    for pid in prefect.pids.values():
        os.killpg(pid, signal.SIGKILL)
    port = int(prefect.url.split(":")[2].split("/")[0])
    prefect.stop()

    stop = threading.Event()
    monitor = Monitor(project, ledger, store, send_alert=make_sender(project.settings.alerts))
    threads = [
        threading.Thread(target=monitor.run, args=(stop, 0.2)),
        threading.Thread(target=Dispatcher(project, ledger, prefect.url).run, args=(stop, 1.0)),
    ]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    asked = by_hand = 0
    for number in range(alerts):
        now = START + (HISTORY_HOURS + number + 1) * HOUR
        reach(project, now)
        until(lambda wanted=number + 1: len(ledger.history("alert")) >= wanted, 120.0)  # type: ignore[misc]
        if ledger.history("decision"):  # the monitor was first; now people lose patience
            asked += 1
            by_hand += ledger.request_retrain(RetrainRequest(f"manual-{number}", "manual", now, now))
        time.sleep(max(0.0, began + (number + 1) * outage_s / alerts - time.monotonic()))
    outage = time.monotonic() - began
    in_outage = len(ledger.history("alert"))
    logging.info("outage over: %d alerts, %d received", in_outage, len(receiver.keys))

    back = time.monotonic()
    with receiver.open(), LocalPrefect(project, port) as again:
        until(lambda: not ledger.open_requests(), 300.0)
        retrained = time.monotonic() - back
        until(lambda: not ledger.waiting_alerts(), 330.0)
        delivered = time.monotonic() - back
        time.sleep(30.0)  # time for a second one, if there were any
        runs = flow_runs(again.url)
        stop.set()
        for thread in threads:
            thread.join()
    requests = [request for request in ledger.requests() if request.id != "bootstrap"]
    retrainings = ledger.history("retraining")[before:]
    return {
        "outage_s": round(outage, 1),
        "alerts_in_outage": in_outage,
        "asked_by_hand": asked,
        "asked_by_hand_and_accepted": by_hand,
        "decisions": [record.key for record in ledger.history("decision")],
        "requests": {request.id: [request.status, request.attempt] for request in requests},
        "flow_runs": len(runs),
        "flow_run_states": sorted(run["state_type"] for run in runs),
        "retrainings": len(retrainings),
        "promoted": [record.body["version"] for record in retrainings if record.body["promoted"]],
        "alerts": len(ledger.history("alert")),
        "alerts_received": len(receiver.keys),
        "alerts_received_distinct": len(set(receiver.keys)),
        "retrained_after_s": round(retrained, 1),
        "alerts_delivered_after_s": round(delivered, 1),
        "one_retraining": len(requests) == len(runs) == len(retrainings) == 1,
        "each_alert_once": len(receiver.keys) == len(set(receiver.keys)) == len(ledger.history("alert")),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--alerts", type=int, default=100)
    parser.add_argument("--outage-s", type=float, default=600.0)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies both")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with tempfile.TemporaryDirectory(prefix="headrace-outage-") as folder:
        found = measure(Path(folder), max(2, round(asked.alerts * asked.scale)), asked.outage_s * asked.scale)
    text = json.dumps(found, indent=1)
    if asked.json:
        asked.json.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")
    return 0 if found["one_retraining"] and found["each_alert_once"] else 1


if __name__ == "__main__":
    sys.exit(main())
