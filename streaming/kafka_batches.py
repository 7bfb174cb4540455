"""What kafka-python reads of a fetched batch, made bounded: a batch may be a bomb, or nonsense with a valid checksum.

kafka-python 3.0.12 unpacks a compressed batch whole, whatever comes out (a gzip batch of 1 MB can be 1 GiB), and
raises inside ``poll`` where a batch does not unpack or parse: fetch limits bound neither, and the partition would
crash again at each start. Here a batch is unpacked up to `MAX_UNPACKED_BYTES`, and a record that cannot be had
becomes a placeholder: no key, no value, the header `UNREADABLE_HEADER` with the reason. It is dead-lettered like
any other bad record, and the stream goes on behind it. The same bytes always give the same records, so that a
partition that goes through its input again sees the same. A checksum that does not hold is damage on the way or on
the disk, and stays an error.

Many batches below that bound can lie in one fetch, so a poll also ends once it has `MAX_POLLED_BYTES` of a partition.
A partition then costs at most one unpacked batch, and one poll's records of which the last may be as large again.

`install` puts this in the place of two classes of ``kafka.record.memory_records`` and two methods of kafka-python's
fetcher; everything relies on the version that ``pyproject.toml`` pins, and
``tests/streaming/test_kafka_batches.py`` fails when its internals change.
"""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Protocol

import cramjam
import lz4.frame
import zstandard
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.record import memory_records
from kafka.record.default_records import DefaultRecord, DefaultRecordBatch
from kafka.record.legacy_records import LegacyRecordBatch
from kafka.record.util import decode_varint

from core.reasons import UNREADABLE_HEADER, Reason

MAX_UNPACKED_BYTES = 64 << 20
MAX_POLLED_BYTES = 16 << 20
MAX_HEADERS = 4_096
MAX_PLACEHOLDERS = 100_000
_CHUNK = 1 << 20
_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_PREFIX_BYTES = 16
_append = Fetcher._append


class TooLargeError(Exception):
    """A batch unpacks to more than `MAX_UNPACKED_BYTES`."""


def install() -> None:
    """Let every consumer of this process read batches as this module does; doing it again changes nothing."""
    memory_records.DefaultRecordBatch = BoundedBatch
    memory_records.LegacyRecordBatch = BoundedLegacyBatch
    Fetcher.PartitionRecords.take = _take_bounded
    Fetcher._append = _append_bounded


def _take_bounded(part: Any, n: int | None = None) -> list[Any]:
    """Return the next records, `n` at most, fewer once they are `MAX_POLLED_BYTES`; else as kafka-python does it."""
    part._maybe_raise_next_inline_exception()
    records: list[Any] = []
    size = 0
    try:
        for record in islice(part.record_iterator, n):
            records.append(record)
            size += record.serialized_key_size + record.serialized_value_size + record.serialized_header_size
            if size > MAX_POLLED_BYTES:
                break
    except Exception as error:
        if not records:
            raise
        part._next_inline_exception = error
    part.is_cut = size > MAX_POLLED_BYTES
    return records


def _append_bounded(fetcher: Any, drained: Any, part: Any, max_records: int, update_offsets: bool) -> int:
    """Append a partition's records to those of a poll; a partition that was cut says that the poll is full."""
    part.is_cut = False
    count: int = _append(fetcher, drained, part, max_records, update_offsets)
    return max_records if part.is_cut else count


class BoundedBatch(DefaultRecordBatch):  # type: ignore[misc]
    """A batch of today's format; iterating gives one record or placeholder for each that it claims to hold.

    A batch without readable records that claims more than `MAX_PLACEHOLDERS` gives one placeholder, at its last
    offset: a megabyte can claim a hundred million, and that many dead letters would be a bomb of their own.
    """

    _buffer: Any
    _pos: int

    def __iter__(self) -> Iterator[Any]:
        return super().__iter__() if self.is_control_batch else self._bounded()

    def _bounded(self) -> Iterator[Any]:
        if self.last_offset_delta < 0 or self.records_count < 0:
            raise CorruptRecordError(f"batch at offset {self.base_offset}: its header contradicts itself")
        expected, left = self.base_offset, min(self.records_count, self.last_offset_delta + 1)
        try:
            if self.compression_type:
                self._buffer, self._pos = unpack(self.compression_type, bytes(self._buffer[self._pos :])), 0
            self._decompressed = True
        except TooLargeError:
            yield from self._placeholders(expected, left, "oversized_batch")
            return
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001  four codecs raise what they like for bytes that a producer made up
            yield from self._placeholders(expected, left, "unreadable_batch")
            return
        last = self.last_offset
        for remaining in range(left, 0, -1):
            start = self._pos
            record = self._read(start)
            if record is None:
                if (end := self._record_end(start)) is None:
                    yield from self._placeholders(expected, remaining, "unreadable_batch")
                    return
                self._pos = end
            if record is None or not expected <= record.offset <= last:
                record = self._placeholder(expected, "unreadable_batch")
            yield record
            expected = record.offset + 1

    def _read(self, start: int) -> Any:
        """Return the next record, None where it does not parse."""
        buffer = self._buffer
        try:
            if buffer[start] & buffer[start + 1] & 0x80:  # else its length is below 8,192: no room for more headers
                return self._read_msg(decode_varint=_counting_varints())
            return self._read_msg()
        except (CorruptRecordError, ValueError, IndexError):
            return None

    def _record_end(self, start: int) -> int | None:
        """Return where a record ends that does not parse, None if it says nothing sensible of that."""
        try:
            length, body = decode_varint(self._buffer, start)
        except (ValueError, IndexError):
            return None
        return body + length if 0 < length <= len(self._buffer) - body else None

    def _placeholders(self, first: int, left: int, reason: Reason) -> Iterator[Any]:
        count = min(left, self.last_offset - first + 1)
        if count > MAX_PLACEHOLDERS:
            yield self._placeholder(self.last_offset, reason)
            return
        for offset in range(first, first + count):
            yield self._placeholder(offset, reason)

    def _placeholder(self, offset: int, reason: Reason) -> Any:
        appended = self.timestamp_type == self.LOG_APPEND_TIME
        stamp = self.max_timestamp if appended else self.first_timestamp
        return _placeholder(offset, stamp, self.timestamp_type, reason)


class BoundedLegacyBatch(LegacyRecordBatch):  # type: ignore[misc]
    """A message of the formats before Kafka 0.11; a wrapper of others that cannot be read is one record."""

    def __iter__(self) -> Iterator[Any]:
        expected = -1
        reason: Reason | None = None
        try:
            for record in super().__iter__():
                if record.offset < expected or not record.validate_crc():
                    reason = "unreadable_batch"
                    break
                yield record
                expected = record.offset + 1
        except TooLargeError:
            reason = "oversized_batch"
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001  it asserts as well, and four codecs raise what they like
            reason = "unreadable_batch"
        if reason is not None and self.base_offset >= expected:
            yield _placeholder(self.base_offset, self._timestamp or 0, self.timestamp_type, reason)

    def _decompress(self, key_offset: int) -> bytearray:
        _, wrapped = self._read_key_value(key_offset)
        if wrapped is None:
            raise CorruptRecordError("a wrapper without a value")
        return unpack(self.compression_type, wrapped)

    def _read_all_headers(self) -> list[Any]:
        position, found = 0, []
        while position < len(self._buffer):
            header = self._read_header(position)
            if header[1] <= 0:
                raise CorruptRecordError("a message without a length")
            found.append((header, position))
            position += self.LOG_OVERHEAD + header[1]
        return found


def _placeholder(offset: int, stamp: int, stamp_type: int | None, reason: Reason) -> Any:
    return DefaultRecord(0, offset, stamp, stamp_type, None, None, [(UNREADABLE_HEADER, reason.encode())])


def _counting_varints() -> Callable[[Any, int], tuple[int, int]]:
    """Return ``decode_varint``, bounded to what a record with `MAX_HEADERS` headers has of them."""
    left = 7 + 2 * MAX_HEADERS

    def decode(buffer: Any, position: int) -> tuple[int, int]:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"more than {MAX_HEADERS} headers")
        found: tuple[int, int] = decode_varint(buffer, position)
        return found

    return decode


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


def unpack(codec: int, data: bytes) -> bytearray:
    """Return what `data` unpacks to; `codec` is Kafka's number: 1 gzip, 2 snappy, 3 lz4, 4 zstd.

    Raises
    ------
    TooLargeError
        If that is more than `MAX_UNPACKED_BYTES`; never much more is unpacked.
    Exception
        Whatever the codec raises for what is not its format.

    Examples
    --------
    >>> bytes(unpack(1, gzip.compress(b"abc" * 3)))
    b'abcabcabc'
    """
    openers: dict[int, Callable[[bytes], _Stream]] = {
        1: lambda packed: gzip.GzipFile(fileobj=io.BytesIO(packed)),
        3: lambda packed: lz4.frame.LZ4FrameFile(io.BytesIO(packed)),
        4: lambda packed: zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True),
    }
    if codec == 2:
        return _unpack_snappy(data)
    if codec not in openers:
        raise CorruptRecordError(f"no codec has the number {codec}")
    stream, unpacked = openers[codec](data), bytearray()
    while chunk := stream.read(_CHUNK):
        unpacked += chunk
        if len(unpacked) > MAX_UNPACKED_BYTES:
            raise TooLargeError
    return unpacked


def _unpack_snappy(data: bytes) -> bytearray:
    """Unpack one raw block, or the framed blocks of the Java client; each says first how large it becomes."""
    unpacked = bytearray()
    for block in _snappy_blocks(data):
        if len(unpacked) + cramjam.snappy.decompress_raw_len(block) > MAX_UNPACKED_BYTES:
            raise TooLargeError
        unpacked += bytes(cramjam.snappy.decompress_raw(block))
    return unpacked


def _snappy_blocks(data: bytes) -> Iterator[bytes]:
    if not data.startswith(_XERIAL_MAGIC):
        yield data
        return
    position = _XERIAL_PREFIX_BYTES
    while position < len(data):
        (size,) = struct.unpack_from(">i", data, position)
        position += 4
        if not 0 < size <= len(data) - position:
            raise CorruptRecordError("a snappy block is cut off")
        yield data[position : position + size]
        position += size
