import random

import pytest

from exoflow.journal import frames
from exoflow.journal.frames import NOWHERE, Batch, Gap, pack_batch
from exoflow.journal.records import Kind, decode, decode_all, decode_as_far, encode, value_names
from exoflow.journal.scan import SEAL_BATCH_BYTES, seal_batch


def entry(run: int, text: str, kind: Kind = Kind.SAVED) -> frames.Entry:
    return encode((kind, run, text)), run, int(kind)


def three_batches() -> tuple[bytes, list[bytes]]:
    batches = [
        pack_batch([entry(1, "a"), entry(2, "b"), entry(1, "c")], 1, 7, 100),
        pack_batch([entry(1, "d"), entry(1, "e" * 50), entry(1, "f")], 4, 7, 101),
        pack_batch([entry(1, "g")], 7, 7, 102),
    ]
    return b"".join(batches), batches


def texts(data: bytes, run: int | None = None) -> list[str]:
    found = []
    for piece in frames.batches(memoryview(data)):
        if isinstance(piece, Batch):
            found += [decode(item.data)[2] for item in frames.found(piece, run) if item.good]
    return found


def test_records_come_back_in_order_with_their_positions() -> None:
    data, _ = three_batches()
    pieces = [piece for piece in frames.batches(memoryview(data)) if isinstance(piece, Batch)]
    assert [item.position for piece in pieces for item in frames.found(piece)] == [1, 2, 3, 4, 5, 6, 7]
    assert texts(data) == ["a", "b", "c", "d", "e" * 50, "f", "g"]


def test_other_runs_are_skipped() -> None:
    data, _ = three_batches()
    assert texts(data, run=2) == ["b"]


def test_records_of_one_kind_can_be_asked_for() -> None:
    data = pack_batch([entry(1, "a"), entry(1, "end", Kind.ENDED)], 1, 7, 1)
    (batch,) = frames.batches(memoryview(data))
    assert isinstance(batch, Batch)
    assert [item.kind for item in frames.found(batch, None, {Kind.ENDED})] == [Kind.ENDED]


def test_reading_can_begin_behind_any_batch() -> None:
    data, batches = three_batches()
    pieces = list(frames.batches(memoryview(data), len(batches[0])))
    assert [piece.offset for piece in pieces] == [len(batches[0]), len(batches[0]) + len(batches[1])]


def test_every_cut_gives_the_whole_records_before_it_and_no_others() -> None:
    data, _ = three_batches()
    every = texts(data)
    seen = set()
    for size in range(len(data)):
        got = texts(data[:size])
        assert got == every[: len(got)]
        seen.add(len(got))
        pieces = list(frames.batches(memoryview(data[:size])))
        assert not any(isinstance(piece, Gap) and not piece.torn for piece in pieces)
    assert seen == set(range(7))


def test_every_flipped_bit_costs_at_most_its_batch_and_gives_no_wrong_record() -> None:
    data, batches = three_batches()
    every = texts(data)
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        got = texts(bytes(flipped))
        assert set(got) <= set(every)
        in_header = any(0 <= place - start < 44 for start in (0, len(batches[0]), len(batches[0]) + len(batches[1])))
        if not in_header:
            assert len(got) >= len(every) - 1, f"byte {place} cost more than one record"


def test_a_flipped_byte_is_damage_and_not_a_torn_end() -> None:
    data, batches = three_batches()
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 0xFF
        last = len(batches[0]) + len(batches[1])
        assert not frames.is_torn(memoryview(flipped), last, len(flipped))


def test_sectors_that_never_reached_the_disk_are_a_torn_end() -> None:
    head = pack_batch([entry(1, "a" * 300)], 1, 7, 1)
    tail = pack_batch([entry(1, "b" * 2000)], 2, 7, 2)
    data = bytearray(head + tail)
    data[1024:1536] = bytes(512)
    assert frames.is_torn(memoryview(data), len(head), len(data))
    data = bytearray(head + tail)
    data[len(head) :] = bytes(len(tail))
    assert frames.is_torn(memoryview(data), len(head), len(data))


def test_a_journal_inside_of_a_record_is_not_taken_for_batches() -> None:
    inner = pack_batch([entry(1, "inner")], 1, 8, 1)
    outer = bytearray(pack_batch([(encode((Kind.SAVED, 1, inner)), 1, int(Kind.SAVED))], 1, 7, 1))
    whole = pack_batch([entry(1, "first")], 1, 7, 1) + outer + pack_batch([entry(1, "last")], 3, 7, 1)
    damaged = bytearray(whole)
    damaged[len(whole) - len(outer) - len(pack_batch([entry(1, "last")], 3, 7, 1)) + 8] ^= 1  # the outer header
    assert texts(bytes(damaged)) == ["first", "last"]


def test_batches_of_random_bytes_are_never_found() -> None:
    noise = random.Random(1).randbytes(100_000) + frames.MAGIC + bytes(100)
    assert texts(noise) == []


def test_records_packed_as_one_value_come_back_and_name_the_damaged_one() -> None:
    data = bytearray(frames.pack_records([entry(3, "a"), entry(3, "b"), entry(3, "c")]))
    assert [decode(item.data)[2] for item in frames.unpack_records(data)] == ["a", "b", "c"]
    data[-4] ^= 1
    assert [item.good for item in frames.unpack_records(data)].count(False) == 1
    with pytest.raises(ValueError, match="too short"):
        frames.unpack_records(b"1234567")
    with pytest.raises(ValueError, match="count"):
        frames.unpack_records(b"\xff" * 20)


@pytest.mark.parametrize("run", [None, 1, 2, 9])
def test_a_whole_batch_is_read_at_once_as_it_is_one_by_one(run: int | None) -> None:
    data, _ = three_batches()
    for batch in frames.batches(memoryview(data)):
        assert isinstance(batch, Batch)
        one_by_one = [
            (item.position, (bytes(item.data), item.run, item.kind), item.offset) for item in frames.found(batch, run)
        ]
        assert frames.whole(batch, run) == one_by_one


def test_no_batch_with_a_flipped_bit_or_a_missing_end_is_read_at_once() -> None:
    data, batches = three_batches()
    last = len(batches[0]) + len(batches[1])
    header = len(batches[2]) - len(entry(1, "g")[0]) - 16
    for at in range(last + header, len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 4
        (batch,) = frames.batches(memoryview(flipped), last)
        assert isinstance(batch, Batch)
        assert frames.whole(batch) is None
        (cut,) = frames.batches(memoryview(data)[:at], last)
        assert isinstance(cut, Batch)
        assert frames.whole(cut) is None


def test_many_records_are_decoded_at_once_as_they_are_one_by_one() -> None:
    encoded = [entry(n, f"text {n}")[0] for n in range(3000)]
    assert decode_all(encoded) == tuple(map(decode, encoded))
    assert decode_all([]) == ()


@pytest.mark.parametrize(
    "damaged", [b"\xa4text", b"\x91\x04", b"\x93\x04\x01", b"\xc1", b"", b"\x92\x04\x01\x92\x04\x01"]
)
@pytest.mark.parametrize("at", [0, 7, 1500, 2999])
def test_a_damaged_record_among_many_is_refused(damaged: bytes, at: int) -> None:
    encoded = [entry(n, f"text {n}")[0] for n in range(3000)]
    encoded[at] = damaged
    with pytest.raises(ValueError):  # noqa: PT011 -- msgpack's own, whatever they say
        decode_all(encoded)


def test_as_much_of_a_damaged_record_is_decoded_as_can_be() -> None:
    data = encode((Kind.SAVED, 3, "step-1", 12, b"x" * 100))
    assert decode_as_far(data[:-50]) == (Kind.SAVED, 3, "step-1", 12)
    assert decode_as_far(b"\xc1") == ()
    with pytest.raises(ValueError, match="not a record"):
        decode(encode("text"))  # type: ignore[arg-type]  # as damage would make it


def test_the_values_that_a_record_names_are_found_at_any_depth() -> None:
    record = (Kind.SAVED, 1, "a", ["@", "values/J/1", 5], {"k": [("@", "values/J/2", 6)]}, ["@", 1, 2], "@")
    assert value_names(record) == ("values/J/1", "values/J/2")


def test_a_seal_has_one_size_and_no_position() -> None:
    batch = seal_batch(2**60 - 1, 2**64 - 1)
    assert len(batch) == SEAL_BATCH_BYTES
    (piece,) = frames.batches(memoryview(batch))
    assert isinstance(piece, Batch)
    assert piece.first == NOWHERE
