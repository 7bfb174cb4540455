"""What is published: served predictions as JSON, dead letters as they came with their reason in headers."""

from __future__ import annotations

import msgspec

from core.durations import format_time
from streaming.join import Predicted
from streaming.machine import CHAMPION, DeadLetter
from streaming.transport import OutRecord

_encoder = msgspec.json.Encoder()


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
    """Return the bad record, raw, with ``headrace-*`` headers: reason, detail, topic, partition, offset, time stamp."""
    record = letter.record
    headers = {
        "headrace-reason": letter.bad.reason,
        "headrace-detail": letter.bad.detail,
        "headrace-topic": record.topic,
        "headrace-partition": str(record.partition),
        "headrace-offset": str(record.offset),
        "headrace-timestamp": str(record.timestamp),
    }
    ours = tuple((name, text.encode("utf-8", "replace")) for name, text in headers.items())
    return OutRecord(topic, record.key, record.value, record.timestamp, None, (*record.headers, *ours))
