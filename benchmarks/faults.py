"""Faults against a real broker: what a stream under kills ends with is compared with an uninterrupted run.

``python benchmarks/faults.py --events 100000 --kills 20 --partitions 4 --seed 1 --json out.json``

Both runs read the same topics, filled beforehand or (`--rate`) during the run under faults, with other poll sizes and
another number of workers. A champion is swapped in half-way. Compared at the end, partition by partition: the canonical
digest of the state, every published prediction as bytes (floats in full), and the rows of the tables. Other faults:
workers that leave and come back (`--leaves`), kills of the broker (`--broker-kills`), workers that stand still past
every time-out (`--stops`), bad records (`--bad`).
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "kafka"))

from fault_run import FaultRun, Faults, Schedule
from kafka_server import KafkaServer
from synthetic import HORIZON_MS, START, STEP_MS, Counts, clock_records, stream, write_project

from core.project import Project
from core.store import TableStore
from core.tables import EXAMPLES, PREDICTIONS
from streaming.checkpoint import Checkpoints
from streaming.digest import canonical_digest
from streaming.embedded import EmbeddedBroker
from streaming.kafka_client import KafkaBroker
from streaming.topics import ensure_topics
from streaming.transport import TopicPartition

PHASES = (
    "poll",
    "step",
    "produce",
    "journal",
    "commit",
    "snapshot write",
    "snapshot fsync",
    "snapshot rename",
    "table flush",
)
STATE = {
    "commit_every": "50ms",
    "recover_within": "2s",
    "flush_every": "5s",
    "session_timeout": "6s",
    "max_in_memory": 200,
}


def main() -> int:
    given = _arguments()
    began = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = None
        if given.broker == "kafka":
            server = stack.enter_context(KafkaServer(folder / "kafka"))
            broker = KafkaBroker(server.bootstrap_servers)
        else:
            embedded = stack.enter_context(EmbeddedBroker(folder / "tansu"))
            broker = KafkaBroker(embedded.bootstrap_servers, transactional=False)
        address = server.bootstrap_servers if server else embedded.bootstrap_servers
        projects = [
            write_project(folder / name, name, "made", given.partitions, state=STATE) for name in ("steady", "faulty")
        ]
        for project in projects:
            ensure_topics(broker, project.settings)
        feeding = stack.enter_context(ThreadPoolExecutor(1)).submit(fill, broker, given)
        if not given.rate:
            feeding.result()
        champion_at = START + given.events * STEP_MS // 2
        runs = [
            FaultRun(project, broker, address, champion_at, workers, poll, transactional=server is not None)
            for project, workers, poll in ((projects[0], 1, 2_000), (projects[1], given.workers, 700))
        ]
        faults = Faults()
        faulty_s = runs[1].run(_schedule(given), server, feeding, faults)
        say(f"under faults: {faulty_s:.0f} s, {faults.as_dict()}")
        steady_s = runs[0].run(Schedule.none(), None, feeding)
        say(f"uninterrupted: {steady_s:.0f} s")
        result = compare(broker, projects, given.partitions, feeding.result())
    result |= {
        "broker": given.broker,
        "partitions": given.partitions,
        "seed": given.seed,
        "events_per_s": given.rate or None,
        **faults.as_dict(),
        "seconds": {"steady": round(steady_s, 1), "faulty": round(faulty_s, 1)},
        "all_seconds": round(time.monotonic() - began, 1),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if given.json:
        given.json.write_text(text + "\n", encoding="utf-8")
    return 0 if is_exact(result) else 1


def is_exact(result: dict[str, Any]) -> bool:
    """Tell whether nothing was lost, doubled or changed; without transactions equal repetitions may come."""
    exact = result["equal_state"] and result["equal_predictions"] and result["equal_rows"] and result["learned_once"]
    return bool(exact and result["missing"] == 0 and (result["duplicates"] == 0 or result["broker"] == "embedded"))


def fill(broker: KafkaBroker, given: argparse.Namespace) -> Counts:
    """Publish the stream, at its rate if one is given, and say at its end that time has passed."""
    counts = Counts()
    producer = broker.producer()
    began = time.monotonic()
    for record in stream("made", given.events, given.seed, given.bad, counts):
        ahead_s = counts.events / given.rate - (time.monotonic() - began) if given.rate else 0.0
        if ahead_s > 0.01:
            time.sleep(ahead_s)
        producer.send(record)
    producer.flush()
    say(f"{counts.events:,} events, {counts.labels:,} labels and {counts.bad:,} bad records are in the topics")
    for record in clock_records("made", given.partitions, START + given.events * STEP_MS + 3 * HORIZON_MS):
        producer.send(record)
    producer.close()
    return counts


def compare(broker: KafkaBroker, projects: list[Project], partitions: int, counts: Counts) -> dict[str, Any]:
    """Compare what both runs ended with."""
    states, published, rows = [], [], []
    for project in projects:
        checkpoints = Checkpoints(project)
        snapshots = [checkpoints.load(number) for number in range(partitions)]
        states.append([snapshot.state for snapshot in snapshots if snapshot])
        published.append([read_all(broker, project, number) for number in range(partitions)])
        rows.append({table: table_rows(project, table) for table in (PREDICTIONS, EXAMPLES)})
    digests = [[canonical_digest(state) for state in found] for found in states]
    steady, faulty = ([value for part in one for value in part] for one in published)
    times = Counter(key for key, _ in faulty)
    expected = Counter(key for key, _ in steady)
    learned = Counter(row[0] for row in rows[1][EXAMPLES])
    joined = sum(state.books.labels.joined for state in states[1])
    return {
        "events": counts.events,
        "labels": counts.labels,
        "bad_records": counts.bad,
        "equal_state": digests[0] == digests[1] and len(digests[0]) == partitions,
        "equal_predictions": [list(dict.fromkeys(part)) for part in published[0]]
        == [list(dict.fromkeys(part)) for part in published[1]],
        "equal_rows": rows[0] == rows[1],
        "predictions": len(faulty),
        "missing": len(expected.keys() - times.keys()),
        "duplicates": sum(times.values()) - len(times),
        "learned_once": max(learned.values(), default=0) == 1 and len(rows[1][EXAMPLES]) == joined,
        "examples": len(rows[1][EXAMPLES]),
        "with_champion": sum(b'"champion_version":1' in value for _, value in faulty),
        "dead_letters": sum(s.books.events.dead_lettered + s.books.labels.dead_lettered for s in states[1]),
        "imbalances": [line for found in states for state in found for line in state.books.imbalances()],
        "terms": [found.term for found in map(Checkpoints(projects[1]).load, range(partitions)) if found],
    }


def read_all(broker: KafkaBroker, project: Project, number: int) -> list[tuple[bytes, bytes]]:
    """Return key and value of everything committed in a partition of the predictions topic."""
    place = TopicPartition(project.settings.predictions_topic, number)
    consumer = broker.consumer("compare")
    consumer.assign({place: 0})
    found: list[tuple[bytes, bytes]] = []
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < 3.0:
        for record in consumer.poll(200, 5_000):
            found.append((record.key or b"", record.value or b""))
            quiet_since = time.monotonic()
    consumer.close()
    return found


def table_rows(project: Project, table: str) -> list[tuple[Any, ...]]:
    """Return a table's rows in a canonical order."""
    content = TableStore(project.tables).read(table).to_pydict()
    names = ["id", *(name for name in sorted(content) if name != "id")]
    return sorted(zip(*(content[name] for name in names), strict=True), key=repr)


def _schedule(given: argparse.Namespace) -> Schedule:
    draw = random.Random(given.seed)
    kills = [(PHASES[number % len(PHASES)], draw) for number in range(given.kills)]
    nths = {"poll": 60, "step": 60, "produce": 20, "journal": 20, "commit": 20}
    planned = [(phase, draw.randint(1, nths.get(phase, 2))) for phase, _ in kills]
    return Schedule(planned, given.leaves, given.broker_kills, given.stops, draw, given.at_once)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--broker", choices=["embedded", "kafka"], default="kafka")
    parser.add_argument("--leaves", type=int, default=0, help="workers that leave cleanly and come back")
    parser.add_argument("--broker-kills", type=int, default=0)
    parser.add_argument("--stops", type=int, default=0, help="workers that stand still past the session time-out")
    parser.add_argument("--bad", type=float, default=0.0, help="share of bad records")
    parser.add_argument("--at-once", action="store_true", help="kill again before the group has settled")
    parser.add_argument("--rate", type=float, default=0.0, help="events/s to publish meanwhile; all beforehand if 0")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.broker == "embedded":
        given.workers = 1
        if given.partitions != 1 or given.leaves or given.broker_kills or given.stops:
            parser.error("the embedded broker forgets, and shares out nothing: one partition, kills only")
    return given


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    sys.exit(main())
