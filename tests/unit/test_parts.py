"""Small values that share an object of the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import exoflow
from exoflow import Flow, Ref, flow, task
from exoflow.codec import decode, encode, encoded, read_stored
from exoflow.errors import Corrupt, StorageError
from exoflow.executors.local import LocalExecutor
from exoflow.executors.reading import StoredValues
from exoflow.journal.records import value_names
from exoflow.model import Held, Stored
from exoflow.protocols import Buffer
from exoflow.storage import LocalStore
from exoflow.storage.memory import MemoryStore

SIZE = 100_000


def written(store: MemoryStore, *values: object) -> list[Stored]:
    return StoredValues(store).write_together([encode(value) for value in values], "values/some")


def test_values_of_one_object_are_read_one_by_one() -> None:
    store = MemoryStore()
    values = [b"a" * SIZE, "text", {"key": b"b" * (SIZE + 1)}, 7]
    assert [decode(read_stored(store, one)) for one in written(store, *values)] == values


def test_an_array_in_a_shared_object_can_be_used_where_it_lies() -> None:
    numpy = pytest.importorskip("numpy")
    store = MemoryStore()
    arrays = [numpy.arange(20_001, dtype=kind) for kind in ("i4", "f8", "c16")]
    for array, one in zip(arrays, written(store, *arrays), strict=True):
        assert one.at is not None and one.at[0] % 64 == 0
        assert (decode(read_stored(store, one)) == array).all()


def test_damage_of_one_value_is_no_damage_of_the_others(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    first, second = StoredValues(store).write_together([encode(b"a" * SIZE), encode(b"b" * SIZE)], "values/some")
    path = tmp_path / "values" / "some"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert decode(read_stored(store, first)) == b"a" * SIZE
    with pytest.raises(Corrupt, match=r"values/some from \d+ is damaged"):
        decode(read_stored(store, second))


def test_a_record_names_the_object_of_each_part() -> None:
    puts = [["t#0!0", ["@", "values/some", 3, 0, 128]], ["t#0!1", ["@", "values/other", 3]]]
    assert value_names((1, 0, puts)) == ("values/some", "values/other")


@task
def parts(sizes: list[int]) -> list[Ref[bytes]]:
    return [exoflow.put(bytes([number]) * size) for number, size in enumerate(sizes)]


@task(checkpoint="sync")
def parts_in_sync(sizes: list[int]) -> list[Ref[bytes]]:
    return parts.function(sizes)


@task
def lengths(pieces: list[bytes]) -> list[int]:
    return [len(piece) for piece in pieces]


@flow
def measured(sizes: list[int]) -> list[int]:
    return lengths(parts(sizes))


@flow
def measured_in_sync(sizes: list[int]) -> list[int]:
    return lengths(parts_in_sync(sizes))


def saved_objects(folder: Path) -> int:
    return sum(path.is_file() for path in (folder / "values").rglob("*"))


@pytest.mark.parametrize("measured", [measured, measured_in_sync])
def test_large_parts_have_objects_of_their_own_and_small_ones_share_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: Flow[[list[int]], list[int]]
) -> None:
    monkeypatch.setattr(encoded, "SMALL_MAX_BYTES", 2 * SIZE)
    monkeypatch.setattr(encoded, "TOGETHER_MAX_BYTES", 5 * SIZE)
    sizes = [SIZE, 3 * SIZE, SIZE, SIZE, SIZE, SIZE, SIZE]
    assert measured.options(store=str(tmp_path), run_id="it").run(sizes) == sizes
    assert saved_objects(tmp_path) == 3
    assert measured.options(store=str(tmp_path), run_id="it").run(sizes) == sizes


class FailingOnce(LocalExecutor):
    """Its first save fails after the object was created, as a response may be lost."""

    def __init__(self, store: LocalStore) -> None:
        super().__init__(store=store)
        self.names: list[str] = []

    def save_together(
        self, values: Sequence[Held], name: str, report: Callable[[Sequence[Stored] | BaseException], None]
    ) -> None:
        self.names.append(name)
        is_first = len(self.names) == 1

        def told(saved: Sequence[Stored] | BaseException) -> None:
            report(StorageError("the response was lost") if is_first else saved)

        super().save_together(values, name, told)


@pytest.mark.parametrize(("small_bytes", "saves"), [(8 << 20, 2), (0, 5)])
def test_what_is_saved_again_has_a_name_that_is_nobody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_bytes: int, saves: int
) -> None:
    monkeypatch.setattr(encoded, "SMALL_MAX_BYTES", small_bytes)

    @task
    def many() -> list[object]:
        large = b"the value" * SIZE
        return [large, *[exoflow.put(bytes([number]) * 10 * SIZE) for number in range(3)]]

    @flow
    def kept() -> list[object]:
        return many()

    store = LocalStore(str(tmp_path))
    executor = FailingOnce(store)
    result = kept.options(store=store, executor=executor, run_id="it").run()
    assert len(executor.names) == len(set(executor.names)) == saves
    assert kept.options(store=store, run_id="it").run() == result


class LosingAnswers(LocalStore):
    """The first object of values is created, and its creator is told that it was not."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.names: list[str] = []

    def create(self, name: str, *pieces: Buffer) -> bool:
        created = super().create(name, *pieces)
        if name.startswith("values/"):
            self.names.append(name)
            if len(self.names) == 1:
                raise StorageError("the response was lost")
        return created


def test_what_a_worker_could_not_save_is_saved_under_other_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left may be grouped otherwise, and an object that is there counts as the value."""
    monkeypatch.setattr(encoded, "TOGETHER_MAX_BYTES", 3 * SIZE)
    sizes = [SIZE, SIZE, 2 * SIZE, SIZE, SIZE]  # two together, not saved; two, saved; and one
    store = LosingAnswers(str(tmp_path))
    assert measured_in_sync.options(store=store, run_id="it").run(sizes) == sizes
    assert len(store.names) == len(set(store.names)) == 4
    assert measured_in_sync.options(store=store, run_id="it").run(sizes) == sizes


@task(deterministic=True)
def parts_again(sizes: list[int]) -> list[Ref[bytes]]:
    return parts.function(sizes)


@flow
def measured_again(sizes: list[int]) -> list[int]:
    return lengths(parts_again(sizes))


def test_a_deterministic_task_is_judged_by_what_it_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exoflow.kernel.state.SECONDS_PER_BYTE", 1.0)  # to save 600 KB takes longer than any body here
    assert measured_again.options(store=str(tmp_path)).run([SIZE] * 6) == [SIZE] * 6
    assert saved_objects(tmp_path) == 0
