"""What is known of a buffer's crc32 is used again, and never for other bytes."""

from __future__ import annotations

import gc
import zlib
from typing import Any

import numpy as np
import pytest

from exoflow import codec
from exoflow.codec import sums

SIZE = 200_000


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the large buffers that were gone over."""
    found: list[int] = []
    real = zlib.crc32

    def counted(data: Any, *rest: int) -> int:
        if memoryview(data).nbytes > 100_000:
            found.append(memoryview(data).nbytes)
        return real(data, *rest)

    monkeypatch.setattr(zlib, "crc32", counted)
    return found


def random(seed: int = 0) -> Any:
    return np.random.default_rng(seed).random(SIZE // 8)


def crc_in(form: Any) -> int:
    ((array,), _, _) = form
    return int(array[-1])


def test_the_store_and_every_call_that_takes_an_array_share_one_pass_over_it(passes: list[int]) -> None:
    array = random()
    encoded = codec.encode_result(array, task="make")
    codec.to_parts(encoded)
    value = codec.decode(encoded)
    for _ in range(3):
        again = codec.encode_arguments((value,), {}, task="use", own=True)
        assert crc_in(codec.fingerprint((value,), {})) == zlib.crc32(array.tobytes())
        codec.to_parts(again)
    assert passes == [SIZE] * 4  # one, and three for the comparison above


def test_memory_that_its_maker_fills_again_has_a_crc_of_its_own_each_time() -> None:
    array = random()
    first = codec.encode_result(array, task="make")
    codec.to_parts(first)
    array[:] = random(1)
    second = codec.encode_result(array, task="make")
    codec.decode(codec.from_object(b"".join(codec.to_parts(second))))  # Corrupt, if it had the first one's
    assert crc_in(codec.fingerprint((codec.decode(second),), {})) == zlib.crc32(array.tobytes())


def test_of_what_can_still_be_changed_nothing_is_remembered() -> None:
    array = random()
    encoded = codec.encode_result(array, task="make")
    codec.to_parts(encoded)
    before = crc_in(codec.fingerprint((array,), {}))
    array[0] += 1
    assert crc_in(codec.fingerprint((array,), {})) != before


@pytest.mark.parametrize("part", [slice(None, None, 2), slice(0, SIZE // 16), slice(None)])
def test_a_part_of_a_value_has_its_own_crc(part: slice) -> None:
    encoded = codec.encode(random())
    codec.to_parts(encoded)
    value = codec.decode(encoded)[part]
    assert crc_in(codec.fingerprint((value,), {})) == zlib.crc32(np.ascontiguousarray(value).tobytes())


def test_arrays_of_every_kind_agree_with_their_copies() -> None:
    n = SIZE // 8
    for array in (
        random().reshape(100, -1),
        np.asfortranarray(random().reshape(100, -1)),
        np.arange(n).astype("M8[s]"),
        np.zeros(n, dtype=[("a", "i4"), ("b", "f4")]),
        np.arange(n, dtype=">i8"),
    ):
        encoded = codec.encode(array)
        codec.to_parts(encoded)
        assert crc_in(codec.fingerprint((codec.decode(encoded),), {})) == crc_in(codec.fingerprint((array.copy(),), {}))


def test_what_is_known_ends_with_the_value() -> None:
    gc.collect()
    before = len(sums._sums)
    encoded = codec.encode(random())
    assert len(sums._sums) == before + 1
    del encoded
    gc.collect()
    assert len(sums._sums) == before
