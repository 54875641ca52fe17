import contextlib
from pathlib import Path

import pytest

from exoflow import hooks
from exoflow.errors import Conflict, Fenced, RunNotFound, StorageError
from exoflow.journal import Journal, Kind, Reader
from exoflow.journal.gc import Collected, collect
from exoflow.journal.inbox import Message, messages_after, post
from exoflow.journal.retention import EndedRun, Keep
from exoflow.journal.scan import is_sealed, newest_slot
from exoflow.journal.writer import Rested
from exoflow.protocols import Buffer, Store
from exoflow.storage import LocalStore, MemoryStore


class Bucket(MemoryStore):
    """What an object store is to the journal: shared, without locks."""

    shared = True


@pytest.fixture(params=["local", "memory", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path, quick_beats: None) -> Store:
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
    other = Journal(store)
    assert len(other.adopt("broken off").records) == 3
    other.close()


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


@pytest.mark.parametrize("bucket", [False, True])
@pytest.mark.parametrize("keep", [keep_all, drop_all])
def test_a_crash_of_gc_loses_no_run_and_the_next_gc_makes_it_good(tmp_path: Path, keep: Keep, bucket: bool) -> None:
    def play(root: Path, strike: int | None) -> int:
        store = Bucket() if bucket else LocalStore(str(root))
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


# -- in a bucket -------------------------------------------------------------------------------------------------------


def slow_run(store: Store, run_id: str, slots: int, *, ends: bool = True) -> Journal:
    """A journal of a batch a slot, which nobody has sealed."""
    journal = Journal(store, linger_s=None)
    claimed = journal.claim(run_id)
    journal.append((Kind.START, claimed.run, run_id, claimed.epoch))
    for n in range(slots):
        journal.wait(journal.append((Kind.SAVED, claimed.run, f"m{n}", "x")))
    if ends:
        journal.wait(journal.append((Kind.ENDED, claimed.run, "over")))
    return journal


def test_of_a_journal_in_a_bucket_the_seal_stays_and_is_found(quick_beats: None) -> None:
    store = Bucket()
    journal = slow_run(store, "mine", 11)
    journal.close()
    seal = len(store.list(f"journals/{journal.name}")) - 1
    assert collect(store, keep_all).packed == ("mine",)
    assert store.list(f"journals/{journal.name}") == [f"journals/{journal.name}/{seal}"]
    assert (is_sealed(store, journal.name), newest_slot(store, journal.name)) == (True, seal)
    assert len(Journal(store).find("mine").records) == 13
    assert len(list(Reader(store).read_new())) == 13
    assert collect(store, drop_all).dropped == ("mine",)
    assert Journal(store).find("mine").state == "absent"
    assert list(Reader(store).read_new()) == []


def test_an_idle_owner_in_a_bucket_is_not_called_dead(quick_beats: None) -> None:
    store = Bucket()
    journal = Journal(store)
    run_one(journal, "mine")
    assert collect(store, drop_all) == Collected()
    run_one(journal, "next")
    journal.close()


def test_of_an_owner_in_a_bucket_that_died_when_it_was_idle_the_seal_stays(quick_beats: None) -> None:
    store = Bucket()
    journal = slow_run(store, "mine", 2)  # without a thread that beats
    assert collect(store, drop_all).dropped == ("mine",)
    [seal] = store.list("journals")
    assert seal.startswith(f"journals/{journal.name}/")
    with pytest.raises(Fenced):
        run_one(journal, "next")


def test_an_owner_in_a_bucket_that_is_idle_for_long_ends_its_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exoflow.journal.journal.BEAT_S", 0.01)
    monkeypatch.setattr("exoflow.journal.journal.REST_S", 0.02)
    store = Bucket()
    journal = Journal(store)
    run_one(journal, "open", ends=False)
    run_one(journal, "mine")
    while len(store.list("journals")) < 10:
        assert journal.can_write()  # a run is open
    journal.wait(journal.append((Kind.ENDED, 1, "over")))
    while journal.can_write():
        pass
    with pytest.raises(Rested):
        journal.claim("next")
    journal.close()
    assert set(collect(store, drop_all).dropped) == {"open", "mine"}


def test_an_owner_that_wakes_behind_a_gc_can_write_nothing(quick_beats: None) -> None:
    """Also one that does not know whether its last beat landed: it did, and its place is free again."""

    class Unsure(Bucket):
        fails = False

        def create(self, name: str, *parts: Buffer) -> bool:
            made = super().create(name, *parts)
            if self.fails:
                raise StorageError("the answer was lost")
            return made

        def read(self, name: str) -> memoryview:
            if self.fails:
                raise StorageError("no answer")
            return super().read(name)

    store = Unsure()
    journal = slow_run(store, "mine", 3, ends=False)
    store.fails = True
    journal._beat()
    store.fails = False
    second = Journal(store, linger_s=None)
    adopted = second.adopt("mine", takeover=True)
    second.wait(second.append((Kind.ENDED, adopted.run, "over")))
    assert f"journals/{journal.name}/4" in collect(store, drop_all).slots
    with pytest.raises(Fenced):
        journal.wait(journal.append((Kind.SAVED, 1, "late", "x")))


@pytest.mark.parametrize("keep", [keep_all, drop_all])
@pytest.mark.parametrize("other", [keep_all, drop_all])
def test_two_collections_of_a_bucket_do_no_harm_to_each_other(keep: Keep, other: Keep, quick_beats: None) -> None:
    def play(strike: int | None) -> int:
        store = Bucket()
        journal = Journal(store, linger_s=None)
        names = [run_one(journal, f"r{n}", value=True) for n in range(2)]
        open_value = run_one(journal, "open", ends=False, value=True)
        journal.close()
        last = Journal(store, linger_s=None)
        last.adopt("open")
        names.append(run_one(last, "last", value=True))
        last.close()
        reached = 0

        def meanwhile(point: str) -> None:
            nonlocal reached
            reached += 1
            if reached == strike:
                collect(store, other)

        with hooks.armed(meanwhile):
            collect(store, keep)
        assert Journal(store).find("open").state == "broken_off"
        assert open_value is not None
        assert store.exists(open_value)
        for run_id, name in zip(("r0", "r1", "last"), names, strict=True):
            found = Journal(store).find(run_id)
            assert found.state == "ended" or drop_all in (keep, other)
            assert name is not None
            assert found.state == "absent" or store.exists(name)
        return reached

    points = play(None)
    assert points > 5
    for strike in range(1, points + 1):
        play(strike)


def test_a_dropped_id_in_a_bucket_begins_anew_without_the_old_messages() -> None:
    store = Bucket()
    journal = Journal(store)
    run_one(journal, "mine")
    journal.close()
    post(store, "mine", Message("cancel", 0.0))
    collect(store, drop_all)
    again = Journal(store)
    assert again.find("mine").state == "absent"
    with pytest.raises(RunNotFound):
        again.adopt("mine")
    claimed = again.claim("mine")
    assert (claimed.ours, claimed.epoch) == (True, 3)
    again.wait(again.append((Kind.START, claimed.run, "mine", 3)))
    assert len(again.find("mine", listens=False).records) == 1
    assert messages_after(store, "mine", 0) == []
    again.close()
    assert "mine" not in collect(store, keep_all).dropped


def test_a_generated_id_that_was_dropped_from_a_bucket_is_not_given_away() -> None:
    store = Bucket()
    journal = Journal(store)
    run_id, epoch, run = journal.new_run("flow")
    journal.append((Kind.START, run, run_id, epoch))
    journal.wait(journal.append((Kind.ENDED, run, "over")))
    journal.close()
    assert collect(store, drop_all).dropped == (run_id,)
    with pytest.raises(RunNotFound):
        Journal(store).claim(run_id)
