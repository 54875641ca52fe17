"""What every store MUST do, as tests: subclass ``StoreConformance`` and give it a ``store`` fixture.

    class TestMyStore(StoreConformance):
        @pytest.fixture
        def store(self, tmp_path):
            return MyStore(tmp_path)

A store that other processes can open by its url (``shared``) is raced by real ones; ``reopen`` says how they open it.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from typing import Any

import pytest

from exoflow.protocols import SlotStore, Store
from exoflow.storage import open_store

RACERS = 4
NAMES = 50


def _race(reopen: Callable[[str], Store], url: str, racer: int, gate: Any, answers: Any) -> None:
    store = reopen(url)
    won = []
    for n in range(NAMES):
        gate.wait()
        if store.create(f"race/{n}", b"%d " % racer * 1000):
            won.append(n)
    answers.put((racer, won))


def _hold_slot(reopen: Callable[[str], Store], url: str, pipe: Any) -> None:
    store = reopen(url)
    assert isinstance(store, SlotStore)
    slot = store.create_slot("held/0", b"first")
    assert slot is not None
    pipe.send("held")
    pipe.recv()  # until we are killed


class StoreConformance:
    """Every MUST of ``protocols.Store`` and, where the store has slots, of ``protocols.SlotStore``."""

    reopen: Callable[[str], Store] = staticmethod(open_store)
    """Opens the store by its url in another process: importable from a module."""

    @pytest.fixture
    def store(self) -> Store:
        raise NotImplementedError("give your store as a fixture named `store`")

    @pytest.fixture
    def slots(self, store: Store) -> SlotStore:
        if not isinstance(store, SlotStore):
            pytest.skip("this store has no slots")
        return store

    def test_what_is_created_can_be_read(self, store: Store) -> None:
        assert store.create("a/b/c", b"one", bytearray(b"two"), memoryview(b"three"))
        assert bytes(store.read("a/b/c")) == b"onetwothree"
        assert store.exists("a/b/c")

    def test_an_empty_object_is_an_object(self, store: Store) -> None:
        assert store.create("empty")
        assert bytes(store.read("empty")) == b""
        assert store.exists("empty")

    def test_a_name_is_given_once(self, store: Store) -> None:
        assert store.create("a", b"first")
        assert not store.create("a", b"second")
        assert bytes(store.read("a")) == b"first"

    def test_parts_of_any_item_size_are_joined_as_bytes(self, store: Store) -> None:
        import array

        numbers = array.array("q", [1, 2, 3])
        assert store.create("numbers", b"", memoryview(numbers))
        assert bytes(store.read("numbers")) == numbers.tobytes()

    def test_thousands_of_parts_are_joined_in_order(self, store: Store) -> None:
        parts = [b"%d," % n for n in range(3000)]
        assert store.create("parts", *parts)
        assert bytes(store.read("parts")) == b"".join(parts)

    def test_a_large_object_comes_back_whole_and_read_only(self, store: Store) -> None:
        data = bytes(range(256)) * 4096
        assert store.create("large", data)
        view = store.read("large")
        assert view.readonly
        assert view == data

    def test_a_range_is_cut_at_the_end(self, store: Store) -> None:
        store.create("a", b"0123456789")
        assert store.read_range("a", 2, 3) == b"234"
        assert store.read_range("a", 8, 30) == b"89"
        assert store.read_range("a", 4) == b"456789"
        assert store.read_range("a", 10) == b""
        assert store.read_range("a", 99, 1) == b""

    def test_what_is_not_there_is_not_found(self, store: Store) -> None:
        store.create("a/b", b"")
        assert not store.exists("a")
        assert not store.exists("a/b/c")
        for name in ("x", "a/x", "a/b/c"):
            with pytest.raises(FileNotFoundError):
                store.read(name)
            with pytest.raises(FileNotFoundError):
                store.read_range(name, 0)

    def test_a_listing_is_sorted_recursive_and_by_folder(self, store: Store) -> None:
        for name in ("ab/1", "a/2", "a/1", "a/x/y", "b"):
            store.create(name, b"")
        assert store.list("a") == ["a/1", "a/2", "a/x/y"]
        assert store.list("a/x") == ["a/x/y"]
        assert store.list("") == ["a/1", "a/2", "a/x/y", "ab/1", "b"]
        assert store.list("none") == []

    def test_what_is_deleted_is_gone_and_its_name_is_free(self, store: Store) -> None:
        store.create("a/b", b"1")
        store.delete("a/b")
        assert not store.exists("a/b")
        assert store.list("") == []
        assert store.create("a/b", b"2")
        assert bytes(store.read("a/b")) == b"2"

    def test_deleting_what_is_not_there_does_nothing(self, store: Store) -> None:
        store.delete("none")
        store.delete("no/ne")

    def test_a_view_outlives_its_object(self, store: Store) -> None:
        data = b"x" * 1_000_000
        store.create("a", data)
        view = store.read("a")
        store.delete("a")
        assert view == data

    @pytest.mark.parametrize(
        "name", ["", "/a", "a/", "a//b", "..", "a/../b", ".", "a/./b", ".tmp/a", "a\nb", "a\0b", "ä", "a\\b", "x" * 300]
    )
    def test_a_name_that_leads_elsewhere_is_refused(self, store: Store, name: str) -> None:
        for use in (store.create, store.read, store.exists, store.delete):
            with pytest.raises(ValueError, match="cannot name an object"):
                use(name)

    def test_of_racing_threads_one_wins_each_name(self, store: Store) -> None:
        gate = threading.Barrier(RACERS)
        won: list[tuple[int, int]] = []

        def race(racer: int) -> None:
            for n in range(NAMES):
                gate.wait()
                if store.create(f"race/{n}", b"%d " % racer * 1000):
                    won.append((n, racer))

        threads = [threading.Thread(target=race, args=(racer,)) for racer in range(RACERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(n for n, _ in won) == list(range(NAMES))
        for n, racer in won:
            assert bytes(store.read(f"race/{n}")) == b"%d " % racer * 1000

    def test_of_racing_processes_one_wins_each_name(self, store: Store) -> None:
        if not store.shared:
            pytest.skip("no other process can open this store")
        spawn = multiprocessing.get_context("spawn")
        gate, answers = spawn.Barrier(RACERS), spawn.Queue()
        reopen = type(self).reopen
        racers = [spawn.Process(target=_race, args=(reopen, store.url, n, gate, answers)) for n in range(RACERS)]
        for process in racers:
            process.start()
        won = dict(answers.get(timeout=60) for _ in racers)
        for process in racers:
            process.join()
        assert sorted(n for names in won.values() for n in names) == list(range(NAMES))
        for racer, names in won.items():
            for n in names:
                assert bytes(store.read(f"race/{n}")) == b"%d " % racer * 1000

    def test_a_slot_grows_and_its_readers_see_it(self, slots: SlotStore) -> None:
        slot = slots.create_slot("s/0", b"first")
        assert slot is not None
        assert (slot.name, slot.size) == ("s/0", 5)
        before = slots.read("s/0")
        slot.append(b"+second")
        slot.sync()
        assert slot.size == 12
        assert bytes(before) == b"first"
        assert bytes(slots.read("s/0")) == b"first+second"
        assert slots.list("s") == ["s/0"]
        slot.close()

    def test_a_slot_and_an_object_compete_for_a_name(self, slots: SlotStore) -> None:
        slot = slots.create_slot("s/0", b"")
        assert slot is not None
        assert slots.create_slot("s/0", b"") is None
        assert not slots.create("s/0", b"")
        assert slots.create("s/1", b"")
        assert slots.create_slot("s/1", b"") is None
        slot.close()

    def test_a_slot_is_locked_until_it_is_closed(self, slots: SlotStore) -> None:
        import os

        slot = slots.create_slot("s/0", b"")
        assert slot is not None
        assert slots.lock_holders("s/0") in ((os.getpid(),), (-1,))
        slot.close()
        assert slots.lock_holders("s/0") == ()

    def test_nobody_holds_the_lock_of_an_object_or_of_nothing(self, slots: SlotStore) -> None:
        slots.create("a", b"")
        assert slots.lock_holders("a") == ()
        assert slots.lock_holders("none") == ()

    def test_the_lock_falls_with_its_process(self, slots: SlotStore) -> None:
        if not slots.shared:
            pytest.skip("no other process can open this store")
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=_hold_slot, args=(type(self).reopen, slots.url, theirs))
        process.start()
        assert ours.recv() == "held"
        assert slots.lock_holders("held/0") in ((process.pid,), (-1,))
        process.kill()
        process.join()
        assert slots.lock_holders("held/0") == ()
        assert bytes(slots.read("held/0")) == b"first"
