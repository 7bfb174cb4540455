"""How kafka-python is reached and how its exceptions become ours: each one ends here.

Each becomes a :class:`core.errors.BrokerError` (:class:`~core.errors.TopicError`, :class:`~core.errors.FencedError`)
that names the address and what to do. Trouble that passes is retried with growing pauses first.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import kafka.errors as kafka_errors
from kafka.net.manager import KafkaConnectionManager

from core.errors import BrokerError, FencedError, TopicError
from streaming.kafka_address import await_listener, growing_pauses

IsolationLevel = Literal["read_uncommitted", "read_committed"]
Result = TypeVar("Result")

REQUEST_TIMEOUT_MS, RECONNECT_PAUSE_MS, SETUP_TIMEOUT_MS = 10_000, 2_000, 3_000
CLOSE_TIMEOUT_S = 5.0
MEBIBYTE = 1 << 20
UNFLUSHED_BYTES = 32 * MEBIBYTE  # kafka-python's own buffer has no bound
FOREIGN = (kafka_errors.KafkaError, OSError, RuntimeError)

log = logging.getLogger(__name__)

# The first row that fits decides; names are classes of kafka.errors and cover their subclasses.
# Damage and loss come before what merely passes.
_ADVICE = [
    (
        "UnknownTopicOrPartitionError InvalidTopicError TopicAlreadyExistsError",
        "check the names under 'topics' in headrace.yaml, or set 'topics.create: true'",
    ),
    (
        "OffsetOutOfRangeError LogTruncationError NoOffsetForPartitionError",
        "the log does not hold that offset: keep records longer (retention.ms), or start over with an "
        "empty state folder",
    ),
    (
        "CorruptRecordError UnsupportedCodecError",
        "the log is damaged: check the broker's disk",
    ),
    (
        "MessageSizeTooLargeError RecordListTooLargeError",
        "send smaller records, or raise the topic's max.message.bytes",
    ),
    (
        "InvalidTimestampError",
        "the record's time is too far ahead: raise the topic's message.timestamp.after.max.ms",
    ),
    (
        "AuthorizationError SaslAuthenticationFailedError",
        "give this client the right to read, write, create and describe the project's topics and group",
    ),
    (
        "UnsupportedVersionError IncompatibleBrokerVersion UnrecognizedBrokerVersion",
        "use Apache Kafka 2.4 or newer",
    ),
    (
        "ProducerFencedError InvalidProducerEpochError CommitFailedError FencedInstanceIdError",
        "another worker has taken the partition over, or a transaction took longer than the broker allows",
    ),
    (
        "RetriableError",
        "check that it runs and can be reached, then start again: headrace goes on where it stopped",
    ),
]
_TOPIC_ERRORS = (
    kafka_errors.UnknownTopicOrPartitionError,
    kafka_errors.InvalidTopicError,
    kafka_errors.TopicAlreadyExistsError,
)
_FENCED_ERRORS = (
    kafka_errors.ProducerFencedError,
    kafka_errors.InvalidProducerEpochError,
    kafka_errors.CommitFailedError,
    kafka_errors.FencedInstanceIdError,
)
_FENCED_SIGNS = ("ProducerFencedError", "state BUMPING_PRODUCER_EPOCH")  # all that a bare KafkaError says of it later
_LASTING = (  # kafka-python calls some of these retriable; repeating them changes nothing here
    kafka_errors.CorruptRecordError,
    kafka_errors.OffsetOutOfRangeError,
    kafka_errors.TopicAlreadyExistsError,
)


def limit_setup_time() -> None:
    """Let no client of this process wait long for a broker that accepts connections before it answers on them.

    A broker that starts again does so for some seconds. kafka-python waits then for 10 to 30 s, longer with each
    attempt, and its clients have no option for it.
    """
    KafkaConnectionManager.DEFAULT_CONFIG |= {
        "socket_connection_setup_timeout_ms": SETUP_TIMEOUT_MS,
        "socket_connection_setup_timeout_max_ms": SETUP_TIMEOUT_MS,
    }


def broker_error(error: BaseException, address: str, doing: str) -> BrokerError:
    """Turn an exception out of kafka-python into ours: what was done, where, what is wrong, what to do."""
    kind = BrokerError
    if isinstance(error, _TOPIC_ERRORS):
        kind = TopicError
    elif isinstance(error, _FENCED_ERRORS) or any(sign in str(error) for sign in _FENCED_SIGNS):
        kind = FencedError
    advice = next((text for names, text in _ADVICE if _is_one_of(error, names)), "look into the broker's log")
    text = " ".join(str(error).split())
    named = text if type(error).__name__ in text else f"{type(error).__name__}: {text}"
    return kind(f"{doing}: the Kafka broker at {address} says {named[:300]}; {advice}")


def _is_one_of(error: BaseException, names: str) -> bool:
    if isinstance(error, OSError):
        error = kafka_errors.KafkaConnectionError(error)
    return isinstance(error, tuple(getattr(kafka_errors, name) for name in names.split()))


def is_transient(error: BaseException) -> bool:
    """Tell whether trying again may help."""
    if isinstance(error, _LASTING):
        return False
    return isinstance(error, OSError) or bool(getattr(error, "retriable", False))


@dataclass(frozen=True)
class Access:
    """Where the broker is and how patiently it is asked."""

    address: str
    patience_s: float

    def retry(self, doing: str, action: Callable[[], Result]) -> Result:
        """Do `action`, again after growing pauses while trouble is transient and patience lasts."""
        deadline = time.monotonic() + self.patience_s
        for pause in growing_pauses():
            try:
                return action()
            except FOREIGN as error:
                if not is_transient(error) or time.monotonic() + pause > deadline:
                    raise broker_error(error, self.address, doing) from error
            time.sleep(pause)
        raise AssertionError("pauses never end")

    def connect(self, make: Callable[..., Result], **options: Any) -> Result:
        """Build a client of kafka-python once something listens at the address."""
        deadline = time.monotonic() + self.patience_s
        await_listener(self.address, deadline)
        remaining_ms = max(1_000, int((deadline - time.monotonic()) * 1000))
        try:
            return make(
                bootstrap_servers=[part.strip() for part in self.address.split(",")],
                client_id="headrace",
                bootstrap_timeout_ms=remaining_ms,
                reconnect_backoff_max_ms=RECONNECT_PAUSE_MS,
                **{"request_timeout_ms": REQUEST_TIMEOUT_MS, **options},
            )
        except kafka_errors.KafkaTimeoutError as error:
            raise BrokerError(
                f"no Kafka broker answers at {self.address}; something listens there but does not speak "
                "Kafka's protocol: correct HEADRACE_BOOTSTRAP_SERVERS or --bootstrap"
            ) from error
        except FOREIGN as error:
            raise broker_error(error, self.address, "connecting") from error
