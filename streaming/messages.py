"""What is published: served predictions as JSON, dead letters as they came with their reason in headers."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from core.durations import EARLIEST, LATEST, format_time
from core.settings import Settings
from streaming.join import Predicted
from streaming.machine import CHAMPION, DeadLetter, Output
from streaming.transport import OutRecord

MAX_DEAD_LETTER_BYTES = 900_000
_encoder = msgspec.json.Encoder()


def messages_of(outputs: Iterable[Output], settings: Settings) -> list[OutRecord]:
    """Return what is published of a partition's outputs, in their order."""
    messages = []
    for output in outputs:
        if isinstance(output, Predicted):
            messages.append(prediction_message(output, settings.predictions_topic))
        elif isinstance(output, DeadLetter):
            messages.append(dead_letter_message(output, settings.dead_letters_topic))
    return messages


def prediction_message(predicted: Predicted, topic: str) -> OutRecord:
    """Return the served prediction, keyed by event id, to the partition that its event came from.

    The value is ``{"id", "time", "prediction", "experts": {name: prediction}, "champion_version"}``;
    ``prediction`` is null as long as no expert can predict.
    """
    value = {
        "id": predicted.id,
        "time": format_time(predicted.time),
        "prediction": predicted.served,
        "experts": predicted.predictions,
        "champion_version": predicted.champion_version if CHAMPION in predicted.predictions else None,
    }
    key = predicted.id.encode()
    return OutRecord(topic, key, _encoder.encode(value), predicted.clock, predicted.partition)


def dead_letter_message(letter: DeadLetter, topic: str) -> OutRecord:
    """Return the bad record, raw, with ``headrace-*`` headers: reason, detail, topic, partition, offset, time stamp.

    One with neither key nor value gets an empty value, because kafka-python does not send it otherwise. A value of
    more than `MAX_DEAD_LETTER_BYTES` is cut; ``headrace-truncated`` is then its length.
    """
    record = letter.record
    headers = {
        "headrace-reason": letter.bad.reason,
        "headrace-detail": letter.bad.detail,
        "headrace-topic": record.topic,
        "headrace-partition": str(record.partition),
        "headrace-offset": str(record.offset),
        "headrace-timestamp": str(record.timestamp),
    }
    value = b"" if record.key is None and record.value is None else record.value
    if value is not None and len(value) > MAX_DEAD_LETTER_BYTES:
        headers["headrace-truncated"] = str(len(value))
        value = value[:MAX_DEAD_LETTER_BYTES]
    ours = tuple((name, text.encode("utf-8", "replace")) for name, text in headers.items())
    timestamp = record.timestamp if EARLIEST <= record.timestamp <= LATEST else None
    return OutRecord(topic, record.key, value, timestamp, None, (*record.headers, *ours))
