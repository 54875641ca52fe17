import errno
import threading

import pytest

from exoflow.codec import decode, encode
from exoflow.errors import ExecutorError
from exoflow.executors import reading
from exoflow.executors.reading import StoredValues
from exoflow.hooks import armed
from exoflow.model import Stored
from exoflow.storage import MemoryStore


@pytest.fixture
def store():
    return MemoryStore.named("reading")


def test_a_value_is_read_once_while_it_stays_open(store):
    values = StoredValues(store)
    stored = values.write(encode([b"x" * 100_000]), "values/j/1")
    first = values.read(stored)
    assert values.read(stored) is first
    assert decode(first) == [b"x" * 100_000]


def test_only_so_many_bytes_stay_open(store, monkeypatch):
    monkeypatch.setattr(reading, "_LIMIT_BYTES", 250_000)
    values = StoredValues(store)
    stored = [values.write(encode([bytes([n]) * 100_000]), f"values/j/few{n}") for n in range(3)]
    first, second, _ = map(values.read, stored)
    assert values.read(stored[1]) is second
    assert values.read(stored[0]) is not first


def test_without_a_store_a_value_can_be_kept_but_neither_written_nor_read():
    values = StoredValues(None)
    assert values.try_write(encode(1), "values/j/1") is None
    with pytest.raises(ExecutorError, match="made without a store"):
        values.write(encode(1), "values/j/1")
    with pytest.raises(ExecutorError, match="made without a store"):
        values.read(Stored("values/j/1", 1))


def test_a_store_that_fails_leaves_the_value_to_be_saved_later(tmp_path, caplog):
    from exoflow.storage import LocalStore

    def full(point):
        if threading.current_thread() is here:  # threads of tests before may still write
            raise OSError(errno.ENOSPC, "no space left")

    here = threading.current_thread()

    values = StoredValues(LocalStore(str(tmp_path)))
    with armed(full):
        assert values.try_write(encode(1), "values/j/1") is None
    assert "kept in memory until it is saved" in caplog.text
    assert values.try_write(encode(1), "values/j/1") == Stored("values/j/1", 2)
