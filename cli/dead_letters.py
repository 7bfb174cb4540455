"""``headrace dead-letters``: what could not be used, and a way back for it after a fix."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from cli.options import bootstrap_option, json_option, log_to_stderr, project_argument, write_json
from core.durations import EARLIEST, LATEST, format_time
from core.errors import UsageError
from core.project import Project, load_project
from core.reasons import Reason

if TYPE_CHECKING:
    from streaming.dead_letters import Letter, Letters, Place, Publish
    from streaming.kafka_client import KafkaBroker
    from streaming.transport import Consumer, OutRecord, Publisher, RawRecord

_SINGLE = 20
_SHOWN_BYTES = 20_000
reason_option = click.option(
    "--reason", type=click.Choice(get_args(Reason)), metavar="REASON", help="Only letters with this reason."
)


@click.group(name="dead-letters", epilog="Example: headrace dead-letters list examples/flights --reason malformed")
def dead_letters() -> None:
    """List, show and replay the records that could not be used."""


@dead_letters.command(name="list", epilog="Example: headrace dead-letters list examples/flights --limit 5")
@project_argument
@bootstrap_option
@json_option
@reason_option
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="The newest N one by one; 20 with --reason.")
def list_letters(
    project: Path, bootstrap: str | None, json_file: str | None, reason: str | None, limit: int | None
) -> None:
    """Count dead letters by reason and topic; with --reason or --limit list them one by one as well."""
    from streaming.dead_letters import counts, read_letters

    with _connected(project, bootstrap) as (loaded, broker, consumer):
        topic = loaded.settings.dead_letters_topic
        partitions = broker.describe([topic]).partitions.get(topic, 0)
        letters = read_letters(consumer, topic, partitions, loaded.settings)
    rows = [_with_times(row) for row in counts(letters) if reason in (None, row["reason"])]
    wanted = [letter for letter in letters.by_place.values() if reason in (None, letter.reason)]
    several = limit if limit is not None else _SINGLE if reason else 0
    single = [as_json(letter, letters) for letter in sorted(wanted, key=lambda letter: letter.timestamp)]
    content = {
        "topic": topic,
        "letters": len(wanted),
        "replayed": sum(row["replayed"] for row in rows),
        "reasons": rows,
        "single": single[len(single) - several :] if several < len(single) else single,
    }
    if json_file:
        write_json(content, json_file)
    else:
        click.echo("\n".join(_list_lines(content)))


@dead_letters.command(name="show", epilog="Example: headrace dead-letters show examples/flights 0:17 --raw > record")
@project_argument
@click.argument("place")
@bootstrap_option
@click.option("--raw", is_flag=True, help="Only the value, byte for byte.")
def show(project: Path, place: str, bootstrap: str | None, raw: bool) -> None:
    """Show everything of the dead letter at PLACE, which is partition:offset in the dead-letter topic."""
    from streaming.dead_letters import fetch, read_letters

    wanted = _parse_places([place])
    with _connected(project, bootstrap) as (loaded, broker, consumer):
        topic = loaded.settings.dead_letters_topic
        partitions = broker.describe([topic]).partitions.get(topic, 0)
        letters = read_letters(consumer, topic, partitions, loaded.settings)
        (letter,) = _at(wanted, letters, topic)
        (record,) = fetch(consumer, topic, wanted)
    if raw:
        click.echo(record.value or b"", nl=False)
    else:
        click.echo("\n".join(_show_lines(letter, record, letters)))


@dead_letters.command(name="replay", epilog="Example: headrace dead-letters replay examples/flights --reason malformed")
@project_argument
@click.argument("places", nargs=-1)
@bootstrap_option
@reason_option
@click.option("--dry-run", is_flag=True, help="Say what would be replayed, and publish nothing.")
def replay(project: Path, places: tuple[str, ...], bootstrap: str | None, reason: str | None, dry_run: bool) -> None:
    """Publish dead letters again to where they came from: those at PLACES, with a reason, or all; each only once."""
    from streaming.dead_letters import read_for_replay, read_letters
    from streaming.dead_letters import replay as replay_letters

    wanted = _parse_places(places)
    if wanted and reason:
        raise UsageError("give places or --reason, not both")
    with _connected(project, bootstrap) as (loaded, broker, consumer):
        settings, topic = loaded.settings, loaded.settings.dead_letters_topic
        partitions = broker.describe([topic]).partitions.get(topic, 0)
        if dry_run or not partitions:
            letters = read_letters(consumer, topic, partitions, settings)
            chosen = _still_there(consumer, _choose(letters, wanted, reason, topic))
        else:
            with _publishing(broker, topic) as publish:
                letters = read_for_replay(consumer, publish, topic, partitions, settings)
                chosen = _still_there(consumer, _choose(letters, wanted, reason, topic))
                replay_letters(consumer, publish, topic, chosen)
    said = "would be replayed" if dry_run else "replayed"
    click.echo(f"{len(chosen):,} of {len(letters.by_place):,} dead letters {said}")


def _choose(letters: Letters, wanted: Sequence[Place], reason: str | None, topic: str) -> list[Letter]:
    """Return the letters to replay; say of the others why not."""
    asked = _at(wanted, letters, topic) if wanted else list(letters.by_place.values())
    asked = [letter for letter in asked if reason in (None, letter.reason)]
    chosen, not_possible = [], Counter[str]()
    for letter in asked:
        if letters.replays[letter.place]:
            not_possible["replayed before"] += 1
        elif letter.obstacle:
            not_possible[letter.obstacle] += 1
        else:
            chosen.append(letter)
    for why, count in not_possible.items():
        click.echo(f"{count:,} not: {printable(why)}", err=True)
    return chosen


def _still_there(consumer: Consumer, chosen: list[Letter]) -> list[Letter]:
    """Leave out letters without what was personal in them, if their records are gone; say how many."""
    from streaming.dead_letters import originals

    there = {letter.place for letter, _ in originals(consumer, [letter for letter in chosen if letter.masked])}
    left = [letter for letter in chosen if not letter.masked or letter.place in there]
    if gone := len(chosen) - len(left):
        click.echo(
            f"{gone:,} not: personal values were taken out of the letter, and its topic does not keep the record any "
            "more; the producer has to send it again",
            err=True,
        )
    return left


@contextlib.contextmanager
def _connected(project: Path, bootstrap: str | None) -> Iterator[tuple[Project, KafkaBroker, Consumer]]:
    """Yield the project, its broker, and a consumer that sees only what is committed."""
    from cli.services import broker_of, on_running_broker

    log_to_stderr()
    loaded = on_running_broker(load_project(project, bootstrap=bootstrap))
    broker = broker_of(loaded)
    consumer = broker.consumer(f"headrace.{loaded.settings.name}.dead-letters")
    try:
        yield loaded, broker, consumer
    finally:
        consumer.close()


@contextlib.contextmanager
def _publishing(broker: KafkaBroker, topic: str) -> Iterator[Publish]:
    """Yield what publishes a replayed record together with its receipt; of two replays at once the later one can."""
    from streaming.dead_letters import plain_publish
    from streaming.phases import Phases

    if broker.transactional:
        publisher = broker.publisher(f"{topic}.replay", None, Phases(), exactly_once=True)
        try:
            publisher.take_over()
            yield lambda records: _commit(publisher, records)
        finally:
            publisher.close()
        return
    producer = broker.producer()
    try:
        yield plain_publish(producer, topic)
    finally:
        producer.close()


def _commit(publisher: Publisher, records: list[OutRecord]) -> None:
    publisher.commit(None, records, {})


def _parse_places(texts: Sequence[str]) -> list[Place]:
    from streaming.dead_letters import parse_place

    places = []
    for text in texts:
        place = parse_place(text)
        if place is None:
            raise UsageError(f"{text}: is no place of a dead letter; give PARTITION:OFFSET, as the list shows it")
        places.append(place)
    return places


def _at(places: Sequence[Place], letters: Letters, topic: str) -> list[Letter]:
    """Return the letters at these places.

    Raises
    ------
    UsageError
        If there is none at one of them.
    """
    if missing := [str(place) for place in places if place not in letters.by_place]:
        raise UsageError(f"no dead letter at {', '.join(missing)} of {topic}; headrace dead-letters list shows them")
    return [letters.by_place[place] for place in dict.fromkeys(places)]


def as_json(letter: Letter, letters: Letters) -> dict[str, Any]:
    """Return a letter as JSON-ready values."""
    return {
        "place": str(letter.place),
        "reason": letter.reason,
        "detail": letter.detail,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "time": _time(letter.timestamp),
        "id": letter.id,
        "replayed": letters.replays[letter.place] > 0,
        "obstacle": letter.obstacle or None,
        "masked": letter.masked,
    }


def printable(text: str) -> str:
    r"""Return text that a terminal only shows: whatever else could be done with it is escaped.

    Examples
    --------
    >>> print(printable("é\x1b[2J\n"))
    é\x1b[2J\n
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def _time(milliseconds: int | None) -> str | None:
    return format_time(milliseconds) if milliseconds is not None and EARLIEST <= milliseconds <= LATEST else None


def _with_times(row: Any) -> dict[str, Any]:
    return {**row, "oldest": _time(row["oldest"]), "newest": _time(row["newest"])}


def _list_lines(content: dict[str, Any]) -> list[str]:
    if not content["letters"]:
        return [f"no dead letters in {content['topic']}"]
    width = max(len("topic"), *(len(row["topic"]) for row in content["reasons"]))
    lines = [f"{'reason':17} {'topic':{width}} {'letters':>9} {'replayed':>9}  oldest                    newest"]
    lines += [
        f"{printable(row['reason']):17} {printable(row['topic']):{width}} {row['letters']:9,} {row['replayed']:9,}  "
        f"{row['oldest'] or '-':24}  {row['newest'] or '-'}"
        for row in content["reasons"]
    ]
    for entry in content["single"]:
        source = f"{entry['topic']}/{entry['partition']}/{entry['offset']}"
        again = " (replayed)" if entry["replayed"] else ""
        gist = f"{entry['id'] or '-'}  {entry['detail']}{again}"
        lines.append(
            f"{entry['place']:>9}  {entry['time'] or '-':24}  {entry['reason']:17} {printable(source + '  ' + gist)}"
        )
    return lines


def _show_lines(letter: Letter, record: RawRecord, letters: Letters) -> list[str]:
    from streaming.dead_letters import own_headers

    content = as_json(letter, letters)
    lines = [f"{name:10} {printable(str(value))}" for name, value in content.items() if value is not None]
    lines.append(f"{'key':10} {_bytes(record.key)}")
    lines += [f"{'header':10} {printable(name)} = {_bytes(value)}" for name, value in own_headers(record)]
    return [*lines, f"{'value':10} {_bytes(record.value)}"]


def _bytes(value: bytes | None) -> str:
    """Return bytes as safe text; the rest of what is long is for ``--raw``."""
    if value is None:
        return "none"
    text = printable(value[:_SHOWN_BYTES].decode("utf-8", "backslashreplace"))
    rest = len(value) - _SHOWN_BYTES
    return text if rest <= 0 else f"{text} ... ({rest:,} more bytes: --raw)"
