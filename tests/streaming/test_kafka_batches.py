"""Batches as a producer may have made them, read with kafka-python's own fetcher."""

from __future__ import annotations

import gzip
import inspect
import struct
import subprocess
import sys
import zlib
from importlib.metadata import version

import lz4.frame
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka import codec
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.record import default_records, legacy_records, memory_records
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.legacy_records import LegacyRecordBatchBuilder
from kafka.record.util import calc_crc32c, encode_varint
from kafka.structs import TopicPartition

from core.reasons import UNREADABLE_HEADER
from streaming import kafka_batches
from streaming.kafka_batches import MAX_HEADERS, MAX_PLACEHOLDERS, MAX_UNPACKED_BYTES, BoundedBatch, install, unpack

install()
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
CODECS = (NONE, GZIP, SNAPPY, LZ4, ZSTD)
STAMP = 1_700_000_000_000
ENCODERS = {
    NONE: bytes,
    GZIP: gzip.compress,
    SNAPPY: codec.snappy_encode,
    LZ4: lz4.frame.compress,
    ZSTD: codec.zstd_encode,
}
HEADER = DefaultRecordBatch.HEADER_STRUCT


def varint(value: int) -> bytes:
    written = bytearray()
    encode_varint(value, written.append)
    return bytes(written)


def record(delta: int, value: bytes = b"v", *, headers: bytes | None = None, key: bytes = b"k") -> bytes:
    """One record of a batch; `headers` are their raw bytes, the count first."""
    body = b"\0" + varint(0) + varint(delta) + varint(len(key)) + key + varint(len(value)) + value
    body += varint(0) if headers is None else headers
    return varint(len(body)) + body


def batch(payload: bytes, count: int, *, first: int = 0, kind: int = NONE, last_delta: int | None = None) -> bytes:
    """A batch with a checksum that holds, around any bytes."""
    delta = count - 1 if last_delta is None else last_delta
    after_crc = HEADER.pack(0, 0, 0, 2, 0, kind, delta, STAMP, STAMP, -1, -1, -1, count)[21:] + payload
    crc = calc_crc32c(after_crc)
    return struct.pack(">qiibI", first, 9 + len(after_crc), 0, 2, crc) + after_crc


def packed(payload: bytes, count: int, kind: int, first: int = 0) -> bytes:
    return batch(ENCODERS[kind](payload), count, first=first, kind=kind)


def read(data: bytes, start: int = 0) -> list:
    """What a consumer at offset `start` gets."""
    place = TopicPartition("t", 0)
    part = Fetcher.PartitionRecords(start, place, memory_records.MemoryRecords(data), check_crcs=True)
    found = []
    while part:
        found += part.take(7) if part else []
    assert part.next_fetch_offset > start
    return found


def told(records: list) -> list[tuple[int, bytes | None, str]]:
    """Offset, value and what is said to be wrong."""
    return [(r.offset, r.value, dict(r.headers).get(UNREADABLE_HEADER, b"").decode()) for r in records]


def good(first: int, count: int) -> list[tuple[int, bytes | None, str]]:
    return [(offset, b"v", "") for offset in range(first, first + count)]


def bad(first: int, count: int, reason: str = "unreadable_batch") -> list[tuple[int, bytes | None, str]]:
    return [(offset, None, reason) for offset in range(first, first + count)]


def payload_of(count: int) -> bytes:
    return b"".join(record(delta) for delta in range(count))


def bomb(kind: int, size: int = MAX_UNPACKED_BYTES + 1) -> bytes:
    return packed(record(0, b"\0" * size), 1, kind)


def test_the_internals_are_those_of_the_pinned_version():
    """What the classes here override and call; look at each anew before the pin is moved."""
    assert version("kafka-python") == "3.0.12"
    unpacking = inspect.getsource(memory_records.MemoryRecords.next_batch)
    assert "return DefaultRecordBatch(next_slice)" in unpacking
    assert "return LegacyRecordBatch(next_slice, magic)" in unpacking
    assert "for record in batch:" in inspect.getsource(Fetcher.PartitionRecords._unpack_records)
    assert "records = MemoryRecords(" in inspect.getsource(Fetcher._parse_fetched_data)
    assert "decode_varint" in inspect.signature(default_records.DefaultRecordBatch._read_msg).parameters
    assert "self._decompress(key_offset)" in inspect.getsource(legacy_records.LegacyRecordBatch.__iter__)
    assert inspect.getsource(Fetcher.fetched_records).count("records_remaining -= self._append(") == 1
    assert "part_records = part.take(max_records)" in inspect.getsource(kafka_batches._append)
    assert isinstance(memory_records.MemoryRecords(batch(payload_of(1), 1)).next_batch(), BoundedBatch)


@pytest.mark.parametrize("kind", CODECS)
def test_an_ordinary_batch_is_read_as_before(kind):
    builder = DefaultRecordBatchBuilder(2, kind, False, -1, -1, -1, 1 << 20)
    for offset in range(100):
        builder.append(offset, STAMP + offset, b"k%d" % offset, b"v%d" % offset, [("h", b"x"), ("n", None)])
    data = bytes(builder.build())
    mine = read(data)
    original = list(DefaultRecordBatch(data))
    for ours, theirs in zip(mine, original, strict=True):
        for name in ("offset", "timestamp", "key", "value", "headers"):
            assert getattr(ours, name) == getattr(theirs, name)
    assert [r.offset for r in read(data, 42)] == list(range(42, 100))


@pytest.mark.parametrize("kind", [GZIP, LZ4, ZSTD])
def test_a_bomb_is_one_dead_letter_and_the_stream_goes_on_behind_it(kind):
    data = bomb(kind) + batch(payload_of(3), 3, first=1)
    assert told(read(data)) == bad(0, 1, "oversized_batch") + good(1, 3)


def test_a_bomb_of_snappy_is_refused_by_the_size_that_it_claims():
    claimed = b"\x80\x80\x80\x80\x0f" + b"\x00x"  # says 4 GiB
    assert told(read(batch(claimed, 2, kind=SNAPPY))) == bad(0, 2, "oversized_batch")
    block = codec.snappy.compress(b"\0" * (MAX_UNPACKED_BYTES // 2 + 1))
    framed = b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1)
    framed += (struct.pack(">i", len(block)) + block) * 2
    assert told(read(batch(framed, 1, kind=SNAPPY))) == bad(0, 1, "oversized_batch")


@pytest.mark.parametrize("kind", [GZIP, SNAPPY, LZ4, ZSTD])
def test_what_fits_is_unpacked_whole(kind):
    content = bytes(range(256)) * 40_000  # 10 MB
    assert unpack(kind, ENCODERS[kind](content)) == content


def test_several_gzip_members_and_zstd_frames_are_one_content():
    assert unpack(GZIP, gzip.compress(b"a") + gzip.compress(b"b")) == b"ab"
    assert unpack(ZSTD, codec.zstd_encode(b"a") + codec.zstd_encode(b"b")) == b"ab"
    assert unpack(SNAPPY, codec.snappy.compress(b"raw")) == b"raw"


@pytest.mark.parametrize("kind", [GZIP, SNAPPY, LZ4, ZSTD, 5, 7])
def test_a_batch_that_does_not_unpack_gives_one_dead_letter_for_each_record(kind):
    data = batch(b"not packed at all", 3, kind=kind) + batch(payload_of(2), 2, first=3)
    assert told(read(data)) == bad(0, 3) + good(3, 2)


@pytest.mark.parametrize("kind", [GZIP, SNAPPY, LZ4, ZSTD])
def test_a_batch_that_is_cut_off_gives_one_dead_letter_for_each_record(kind):
    whole = ENCODERS[kind](payload_of(500))
    found = told(read(batch(whole[: len(whole) // 2], 500, kind=kind)))
    assert [offset for offset, _, _ in found] == list(range(500))
    assert {reason for _, _, reason in found} <= {"", "unreadable_batch"}
    assert found[-1] == (499, None, "unreadable_batch")


@pytest.mark.parametrize(
    "broken",
    [
        record(1)[:1] + b"\xff" * (len(record(1)) - 1),
        record(1, headers=varint(-1)),
        record(1, headers=varint(1) + varint(-1)),
        record(1, headers=varint(1) + varint(1) + b"\xff" + varint(0)),
        record(1, headers=varint(5)),
        record(7),
        record(-1),
        record(0),
        record(1, headers=varint(MAX_HEADERS + 1) + (varint(0) + varint(-1)) * (MAX_HEADERS + 1)),
    ],
)
def test_a_record_that_does_not_parse_takes_no_other_with_it(broken):
    data = batch(record(0) + broken + record(2), 3)
    assert told(read(data)) == [*good(0, 1), *bad(1, 1), *good(2, 1)]
    assert told(read(data, 1)) == [*bad(1, 1), *good(2, 1)]
    assert told(read(data, 2)) == good(2, 1)


def test_as_many_headers_as_may_be():
    many = varint(MAX_HEADERS) + (varint(1) + b"h" + varint(1) + b"x") * MAX_HEADERS
    (found,) = read(batch(record(0, headers=many), 1))
    assert found.headers == [("h", b"x")] * MAX_HEADERS


@pytest.mark.parametrize("length", [b"\xff" * 11, varint(-5), varint(0), varint(1 << 30)])
def test_behind_a_length_that_makes_no_sense_nothing_can_be_had(length):
    assert told(read(batch(record(0) + length + record(1), 3))) == [*good(0, 1), *bad(1, 2)]


def test_records_that_a_header_claims_but_that_are_not_there():
    assert told(read(batch(record(0), 4))) == [*good(0, 1), *bad(1, 3)]


def test_gaps_of_a_compacted_batch_are_no_records():
    data = batch(record(1) + record(5), 2, last_delta=9) + batch(payload_of(1), 1, first=10)
    assert told(read(data)) == [*good(1, 1), *good(5, 1), *good(10, 1)]
    assert told(read(data, 6)) == good(10, 1)
    assert told(read(batch(b"", 0, last_delta=9) + batch(payload_of(1), 1, first=10))) == good(10, 1)


def test_a_batch_that_claims_millions_is_one_dead_letter_at_its_last_offset():
    claimed = 150_000_000
    data = batch(b"nonsense", claimed, kind=GZIP) + batch(payload_of(1), 1, first=claimed)
    assert told(read(data)) == [(claimed - 1, None, "unreadable_batch"), *good(claimed, 1)]
    assert len(read(batch(b"nonsense", MAX_PLACEHOLDERS, kind=GZIP))) == MAX_PLACEHOLDERS


def test_a_placeholder_has_the_time_of_its_batch():
    assert {r.timestamp for r in read(batch(b"nonsense", 3, kind=GZIP))} == {STAMP}


def test_a_checksum_that_does_not_hold_is_damage_and_stays_an_error():
    data = bytearray(bomb(GZIP, 1_000))
    data[-1] ^= 1
    with pytest.raises(CorruptRecordError, match="crc"):
        read(bytes(data))


def test_a_header_that_contradicts_itself_is_damage():
    with pytest.raises(CorruptRecordError, match="contradicts"):
        read(batch(b"", 1, last_delta=-2))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(CODECS), st.integers(1, 9), st.integers(0, 8), st.booleans())
def test_whatever_is_in_a_batch_each_of_its_offsets_is_read_once_and_always_the_same(junk, kind, count, start, pack):
    start = min(start, count - 1)
    payload = payload_of(count)[: len(junk)] + junk
    data = batch(ENCODERS[kind](payload) if pack else payload, count, kind=kind)
    found = told(read(data))
    assert sorted({offset for offset, _, _ in found}) == [offset for offset, _, _ in found]
    assert all(0 <= offset < count for offset, _, _ in found)
    assert told(read(data, start)) == [entry for entry in found if entry[0] >= start]


def legacy(kind: int, magic: int = 1) -> bytearray:
    builder = LegacyRecordBatchBuilder(magic, kind, 1 << 20)
    for offset in range(3):
        builder.append(offset, STAMP, b"k", b"v")
    return builder.build()


@pytest.mark.parametrize("kind", [NONE, GZIP, SNAPPY, LZ4])
def test_the_old_format_is_read_as_before(kind):
    assert told(read(bytes(legacy(kind)))) == good(0, 3)


def old_wrapper(wrapped: bytes, kind: int = GZIP, last: int = 4) -> bytes:
    """One old message at offset `last` that wraps others."""
    body = struct.pack(">bbqii", 1, kind, STAMP, -1, len(wrapped)) + wrapped
    return struct.pack(">qiI", last, 4 + len(body), zlib.crc32(body)) + body


@pytest.mark.parametrize(
    ("wrapped", "reason"),
    [
        (b"nonsense", "unreadable_batch"),
        (gzip.compress(b"\0" * (MAX_UNPACKED_BYTES + 1)), "oversized_batch"),
        (gzip.compress(b"\0" * 100), "unreadable_batch"),
        (gzip.compress(struct.pack(">qi", 0, -12) + b"\0" * 40), "unreadable_batch"),
        (gzip.compress(old_wrapper(b"twice")), "unreadable_batch"),
    ],
)
def test_an_old_wrapper_that_cannot_be_read_is_one_dead_letter(wrapped, reason):
    assert told(read(old_wrapper(wrapped))) == [(4, None, reason)]


CHILD = """
import resource, sys
import psutil
from streaming.kafka_batches import MAX_UNPACKED_BYTES, TooLargeError, unpack
data = open(sys.argv[2], "rb").read()
most = psutil.Process().memory_info().vms + 3 * MAX_UNPACKED_BYTES
resource.setrlimit(resource.RLIMIT_AS, (most, most))
try:
    unpack(int(sys.argv[1]), data)
except TooLargeError:
    print("refused")
"""


@pytest.mark.parametrize("kind", [GZIP, ZSTD])
def test_a_bomb_of_a_gibibyte_costs_little_memory(tmp_path, kind):
    compressor = zlib.compressobj(9, wbits=31) if kind == GZIP else zstandard.ZstdCompressor(19).compressobj()
    packed_bomb = b"".join(compressor.compress(b"\0" * (1 << 20)) for _ in range(1_024)) + compressor.flush()
    assert len(packed_bomb) < 1_100_000
    (tmp_path / "bomb").write_bytes(packed_bomb)
    arguments = [sys.executable, "-c", CHILD, str(kind), str(tmp_path / "bomb")]
    assert subprocess.run(arguments, capture_output=True, text=True, check=True).stdout == "refused\n"
