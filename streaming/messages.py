"""What is published: served predictions as JSON, dead letters as they came with their reason in headers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from core.durations import EARLIEST, LATEST, format_time
from core.models import CHALLENGER, CHAMPION
from core.reasons import REASON_HEADER
from core.settings import Settings
from streaming.join import Predicted
from streaming.outputs import DeadLetter, Output
from streaming.transport import OutRecord

MAX_DEAD_LETTER_BYTES = 900_000
MAX_EXTRA_BYTES = 32_000  # of the key, and of all headers
_HEADER_OVERHEAD = 8
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
    ``prediction`` is null as long as no expert can predict. Where a canary served, it is among the experts, and
    ``canary_version`` says which version it is.
    """
    value: dict[str, Any] = {
        "id": predicted.id,
        "time": format_time(predicted.time),
        "prediction": predicted.published,
        "experts": predicted.predictions,
        "champion_version": predicted.champion_version if CHAMPION in predicted.predictions else None,
    }
    if predicted.canary is not None and predicted.shadows is not None:
        value["experts"] = {**predicted.predictions, CHALLENGER: predicted.shadows[CHALLENGER].prediction}
        value["canary_version"] = predicted.canary
    key = predicted.id.encode()
    return OutRecord(topic, key, _encoder.encode(value), predicted.clock, predicted.partition)


def dead_letter_message(letter: DeadLetter, topic: str) -> OutRecord:
    """Return the bad record, raw; behind its headers ours: reason, detail, topic, partition, offset, time stamp.

    Where the project has personal values, the letter is without them (:mod:`streaming.masking`), and says so.

    One with neither key nor value gets an empty value, because kafka-python does not send it otherwise. What is too
    large for a broker's usual limit is cut (value, key) or left out (headers); ``headrace-truncated``,
    ``headrace-truncated-key`` and ``headrace-truncated-headers`` then say how much there was.
    """
    record = letter.record
    ours = {
        REASON_HEADER: letter.bad.reason,
        "headrace-detail": letter.bad.detail,
        "headrace-topic": record.topic,
        "headrace-partition": str(record.partition),
        "headrace-offset": str(record.offset),
        "headrace-timestamp": str(record.timestamp),
        **letter.masked,
    }
    key, value, headers = record.key, record.value, record.headers
    if key is None and value is None:
        value = b""
    if value is not None and len(value) > MAX_DEAD_LETTER_BYTES:
        ours["headrace-truncated"] = str(len(value))
        value = value[:MAX_DEAD_LETTER_BYTES]
    if key is not None and len(key) > MAX_EXTRA_BYTES:
        ours["headrace-truncated-key"] = str(len(key))
        key = key[:MAX_EXTRA_BYTES]
    if sum(len(name.encode()) + len(content) + _HEADER_OVERHEAD for name, content in headers) > MAX_EXTRA_BYTES:
        ours["headrace-truncated-headers"] = str(len(headers))
        headers = ()
    timestamp = record.timestamp if EARLIEST <= record.timestamp <= LATEST else None
    written = tuple((name, text.encode("utf-8", "replace")) for name, text in ours.items())
    return OutRecord(topic, key, value, timestamp, None, (*headers, *written))
