import contextlib
from pathlib import Path

import pytest

from exoflow import hooks
from exoflow.errors import Conflict, RunNotFound
from exoflow.journal import Journal, Kind, Reader
from exoflow.journal.gc import Collected, collect
from exoflow.journal.retention import EndedRun, Keep
from exoflow.protocols import Store
from exoflow.storage import LocalStore, MemoryStore


class Bucket(MemoryStore):
    """What an object store is to the journal: shared, without locks."""

    shared = True


@pytest.fixture(params=["local", "memory", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    kinds = {"local": lambda: LocalStore(str(tmp_path)), "memory": MemoryStore, "bucket": Bucket}
    return kinds[request.param]()


def keep_all(run: EndedRun) -> bool:
    return True


def drop_all(run: EndedRun) -> bool:
    return False


def run_one(journal: Journal, run_id: str, *, ends: bool = True, value: bool = False) -> str | None:
    claimed = journal.claim(run_id)
    journal.append((Kind.START, claimed.run, run_id, claimed.epoch))
    name = None
    if value:
        name = f"values/{journal.name}/{run_id}"
        assert journal.store.create(name, b"large")
        journal.append((Kind.SAVED, claimed.run, "a", ["@", name, 5]))
    position = journal.append((Kind.SAVED, claimed.run, "b", 1))
    if ends:
        position = journal.append((Kind.ENDED, claimed.run, f"result of {run_id}"))
    journal.wait(position)
    return name


def test_ended_runs_move_into_a_pack_and_are_found_there(store: Store) -> None:
    journal = Journal(store)
    name = run_one(journal, "mine", value=True)
    journal.close()
    before = Journal(store).find("mine")
    collected = collect(store, keep_all)
    assert collected.packed == ("mine",)
    assert collect(store, keep_all) == Collected()
    after = Journal(store).find("mine")
    assert (after.state, after.epoch, after.records) == (before.state, before.epoch, before.records)
    assert name is not None
    assert store.exists(name)
    assert [run.run_id for run in Journal(store).runs()] == ["mine"]


def test_a_packed_run_can_still_be_resumed_and_then_collected_again(store: Store) -> None:
    journal = Journal(store)
    run_one(journal, "mine")
    journal.close()
    collect(store, keep_all)
    second = Journal(store)
    adopted = second.adopt("mine")
    assert (adopted.epoch, adopted.ended) == (2, True)
    second.wait(second.append((Kind.ENDED, adopted.run, "better")))
    second.close()
    assert collect(store, keep_all).packed == ("mine",)
    assert Journal(store).find("mine").records[-1][2] == "better"


def test_a_dropped_run_is_gone_with_its_values_and_its_id_is_free(store: Store) -> None:
    journal = Journal(store)
    name = run_one(journal, "mine", value=True)
    journal.close()
    collected = collect(store, drop_all)
    assert collected.dropped == ("mine",)
    assert collected.values == (name,)
    assert store.list("values") == store.list("tombs") == store.list("packs") == []
    assert isinstance(store, Bucket) or store.list("owners") == []
    again = Journal(store)
    assert again.find("mine").state == "absent"
    assert again.claim("mine").ours
    again.close()


def test_a_run_is_dropped_from_its_pack_too(store: Store) -> None:
    journal = Journal(store)
    run_one(journal, "a")
    run_one(journal, "b")
    journal.close()
    collect(store, keep_all)
    assert collect(store, lambda run: run.run_id == "b").dropped == ("a",)
    assert [run.run_id for run in Journal(store).runs()] == ["b"]
    assert Journal(store).find("b").state == "ended"


def test_a_dry_run_changes_nothing_and_tells_the_same(store: Store) -> None:
    journal = Journal(store)
    run_one(journal, "mine")
    journal.close()
    names = store.list("")
    told = collect(store, keep_all, dry_run=True)
    assert store.list("") == names
    assert collect(store, keep_all) == told


def test_nothing_of_a_live_journal_is_touched(store: Store) -> None:
    journal = Journal(store)
    run_one(journal, "mine", value=True)
    assert store.create(f"values/{journal.name}/uploaded-and-not-recorded-yet", b"")
    assert collect(store, drop_all) == Collected()
    journal.close()


def test_a_run_that_was_broken_off_keeps_its_slot_and_its_values(store: Store) -> None:
    journal = Journal(store)
    run_one(journal, "ended")
    name = run_one(journal, "broken off", ends=False, value=True)
    assert store.create(f"values/{journal.name}/unnamed", b"")
    journal.close()
    collected = collect(store, drop_all)
    assert "broken off" not in collected.dropped
    assert collected.values == (f"values/{journal.name}/unnamed",)
    assert name is not None
    assert store.exists(name)
    assert len(Journal(store).adopt("broken off").records) == 3


def test_values_of_an_adopted_run_outlive_the_journal_that_made_them(store: Store) -> None:
    journal = Journal(store)
    name = run_one(journal, "mine", ends=False, value=True)
    journal.close()
    second = Journal(store)
    adopted = second.adopt("mine")
    second.wait(second.append((Kind.SAVED, adopted.run, "c", 2)))
    collected = collect(store, drop_all)
    assert f"journals/{journal.name}/0" in collected.slots
    assert name is not None
    assert store.exists(name)
    assert [record[2] for record in second.find("mine").records] == ["mine", "a", "b", "c"]
    second.close()


def test_a_run_that_is_being_forked_is_not_dropped(store: Store) -> None:
    journal, forker = Journal(store), Journal(store)
    run_one(journal, "mine")
    journal.close()
    forker.open()
    forker.begin_fork("mine", "copy")
    collected = collect(store, drop_all)
    assert (collected.packed, collected.dropped) == (("mine",), ())
    forker.end_fork("mine", "copy")
    assert collect(store, drop_all).dropped == ("mine",)
    forker.close()


def test_the_mark_of_a_forker_that_died_is_cleared(store: Store) -> None:
    journal, forker = Journal(store), Journal(store)
    run_one(journal, "mine")
    journal.close()
    forker.open()
    forker.begin_fork("mine", "copy")
    forker.close()
    assert collect(store, drop_all).dropped == ("mine",)


def test_a_run_that_gc_is_deleting_is_neither_forked_nor_adopted(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    journal, other = Journal(store), Journal(store)
    run_one(journal, "mine")
    journal.close()
    other.open()
    refused: list[str] = []

    def meanwhile(point: str) -> None:
        if point == "gc.tomb.after":
            for attempt in (lambda: other.begin_fork("mine", "copy"), lambda: other.adopt("mine")):
                with pytest.raises(RunNotFound):
                    attempt()
                refused.append(point)

    with hooks.armed(meanwhile):
        collect(store, drop_all)
    assert len(refused) == 2
    assert store.list("forks") == []
    other.close()


def test_two_collections_at_once_are_refused(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    journal = Journal(store)
    run_one(journal, "mine")
    journal.close()

    def meanwhile(point: str) -> None:
        if point == "gc.pack.before":
            with pytest.raises(Conflict, match="another gc"):
                collect(LocalStore(str(tmp_path)), keep_all)

    with hooks.armed(meanwhile):
        assert collect(store, keep_all).packed == ("mine",)
    assert store.list("gc") == []


class Crash(BaseException):
    pass


@pytest.mark.parametrize("keep", [keep_all, drop_all])
def test_a_crash_of_gc_loses_no_run_and_the_next_gc_makes_it_good(tmp_path: Path, keep: Keep) -> None:
    def play(root: Path, strike: int | None) -> int:
        store = LocalStore(str(root))
        journal = Journal(store, linger_s=None)
        for n in range(3):
            run_one(journal, f"r{n}", value=True)
        run_one(journal, "open", ends=False)
        journal.close()
        other = Journal(store, linger_s=None)
        run_one(other, "last")
        other.close()
        reached = 0

        def crash(point: str) -> None:
            nonlocal reached
            reached += point != "slot.create.after"  # an exception there keeps the lock, as no crash does
            if reached == strike:
                raise Crash

        with hooks.armed(crash), contextlib.suppress(Crash):
            collect(store, keep)
        if keep is keep_all:
            for run_id in ("r0", "r1", "r2", "last"):
                assert Journal(store).find(run_id).state == "ended"
        collect(store, keep)
        reader = Journal(store)
        assert reader.find("open").state == "broken_off"
        assert (reader.find("last").state == "ended") == (keep is keep_all)
        assert store.list("tombs") == []
        return reached

    points = play(tmp_path / "whole", None)
    assert points > 5
    for strike in range(1, points + 1):
        play(tmp_path / str(strike), strike)


def test_a_reader_that_comes_late_gets_packed_runs_once(store: Store) -> None:
    journal = Journal(store)
    run_one(journal, "seen")
    reader, late = Reader(store), Reader(store)
    assert {read[3] for read in reader.read_new()} == {"seen"}
    journal.close()
    collect(store, keep_all)
    assert list(reader.read_new()) == []
    assert [read[5][0] for read in late.read_new()] == [Kind.START, Kind.SAVED, Kind.ENDED]
    assert list(late.read_new()) == []
