import contextlib
import os
import shutil
import threading
from pathlib import Path

import pytest

from exoflow import hooks
from exoflow.errors import Fenced, RunIsLive, RunNotFound, StorageError
from exoflow.journal import Journal, Kind, Reader
from exoflow.journal.owners import journal_name, parse_id
from exoflow.protocols import Log, Store
from exoflow.storage import LocalStore, MemoryStore


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return LocalStore(str(tmp_path)) if request.param == "local" else MemoryStore()


def begin(journal: Journal, run_id: str | None = None) -> tuple[str, int]:
    if run_id is None:
        name, epoch, run = journal.new_run("flow")
    else:
        claimed = journal.claim(run_id)
        assert claimed.ours
        name, epoch, run = run_id, claimed.epoch, claimed.run
    journal.wait(journal.append((Kind.START, run, name, epoch, b"inputs")))
    return name, run


def kinds(records: tuple[tuple[object, ...], ...]) -> list[object]:
    return [record[0] for record in records]


def test_a_journal_is_a_log(store: Store) -> None:
    journal = Journal(store)
    log: Log = journal
    assert log.append((Kind.NOTE, 1)) == 1
    assert log.append((Kind.NOTE, 1)) == 2
    assert log.durable == 0
    log.wait(2)
    assert log.durable == 2
    journal.close()


def test_a_journal_that_wrote_nothing_leaves_nothing(store: Store) -> None:
    journal = Journal(store)
    assert journal.find("none").state == "absent"
    journal.new_run("flow")
    journal.close()
    assert store.list("") == []


def test_a_lone_waiter_costs_one_durable_write(tmp_path: Path) -> None:
    journal = Journal(LocalStore(str(tmp_path)), linger_s=None)
    begin(journal)
    reached: list[str] = []
    with hooks.armed(reached.append):
        for _ in range(100):
            position = journal.append((Kind.SAVED, 1, "a"))
        journal.wait(position)
    assert reached.count("slot.sync.before") == 1
    assert reached.count("store.create.before_fsync") == 0
    journal.close()


def test_many_waiters_share_durable_writes(tmp_path: Path) -> None:
    journal = Journal(LocalStore(str(tmp_path)))
    begin(journal)
    reached: list[str] = []

    def work() -> None:
        for _ in range(20):
            journal.wait(journal.append((Kind.SAVED, 1, "a")))

    threads = [threading.Thread(target=work) for _ in range(16)]
    with hooks.armed(reached.append):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert journal.durable == 321
    assert reached.count("slot.sync.before") < 320
    journal.close()


def test_a_callback_comes_when_the_record_is_durable_and_never_from_inside(store: Store) -> None:
    journal = Journal(store)
    _, run = begin(journal)
    called = threading.Event()
    seen: list[tuple[object, int, int]] = []

    def callback(error: BaseException | None) -> None:
        seen.append((error, journal.durable, threading.get_ident()))
        called.set()

    position = journal.append((Kind.SAVED, run, "a"))
    journal.notify(position, callback)
    assert called.wait(10)
    ((error, durable, thread),) = seen
    assert error is None
    assert durable >= position
    assert thread != threading.get_ident()
    journal.close()


def test_what_nobody_waits_for_becomes_durable_all_the_same(store: Store) -> None:
    journal = Journal(store)
    written = threading.Event()
    with hooks.armed(lambda point: written.set() if point == "journal.acknowledged" else None):
        journal.append((Kind.NOTE, 1))
        assert written.wait(10)
    journal.close()


def test_closing_writes_what_is_queued_releases_open_runs_and_seals(store: Store) -> None:
    journal = Journal(store)
    run_id, run = begin(journal)
    journal.append((Kind.SAVED, run, "a"))
    journal.close()
    found = Journal(store).find(run_id)
    assert found.state == "broken_off"
    assert found.history.released
    assert kinds(found.records) == [Kind.START, Kind.SAVED]
    with pytest.raises(StorageError, match="closed"):
        journal.append((Kind.SAVED, run, "b"))
    journal.close()


@pytest.mark.parametrize("left", ["nothing", "a record", "an open run"])
def test_closing_in_a_store_that_is_gone_is_told_only_where_something_is_lost(tmp_path: Path, left: str) -> None:
    journal = Journal(LocalStore(str(tmp_path / "store")))
    _, run = begin(journal)
    if left != "an open run":
        journal.wait(journal.append((Kind.ENDED, run, 0)))
    shutil.rmtree(tmp_path / "store")
    if left == "nothing":
        journal.close()
        return
    if left == "a record":
        journal.append((Kind.NOTE, run))
    with pytest.raises(StorageError, match="gone"):
        journal.close()


def test_a_live_run_is_not_adopted_and_its_process_is_named(store: Store) -> None:
    owner = Journal(store)
    run_id, _ = begin(owner, "mine")
    other = Journal(store)
    assert other.find(run_id).state == "live"
    with pytest.raises(RunIsLive, match=f"process {os.getpid()}") as caught:
        other.adopt(run_id)
    assert caught.value.processes == (os.getpid(),)
    assert caught.value.run_id == run_id
    owner.close()
    other.close()


@pytest.mark.parametrize("name", [None, "mine"])
def test_a_broken_off_run_goes_on_elsewhere_with_all_its_records(store: Store, name: str | None) -> None:
    first = Journal(store)
    run_id, run = begin(first, name)
    first.wait(first.append((Kind.SAVED, run, "a")))
    first.close()
    second = Journal(store)
    adopted = second.adopt(run_id)
    assert adopted.epoch == 2
    assert [record[2] for record in adopted.records] == [run_id, "a"]
    second.wait(second.append((Kind.SAVED, adopted.run, "b")))
    second.close()
    third = Journal(store).adopt(run_id)
    assert third.epoch == 3
    assert [record[2] for record in third.records] == [run_id, "a", "b"]


def test_takeover_fences_a_live_owner(store: Store) -> None:
    owner, taker = Journal(store), Journal(store)
    run_id, run = begin(owner, "mine")
    assert taker.adopt(run_id, takeover=True).epoch == 2
    with pytest.raises(Fenced, match="took over"):
        owner.wait(owner.append((Kind.SAVED, run, "late")))
    with pytest.raises(Fenced):
        owner.append((Kind.SAVED, run, "later"))
    assert "late" not in [record[2] for record in taker.find(run_id).records]
    owner.close()
    taker.close()


def test_an_id_is_claimed_once(store: Store) -> None:
    first, second = Journal(store), Journal(store)
    begin(first, "mine")
    again = second.claim("mine")
    assert not again.ours
    assert again.found is not None
    assert again.found.state == "live"
    first.close()
    again = second.claim("mine")
    assert again.found is not None
    assert again.found.state == "broken_off"
    second.close()


def test_an_ended_run_answers_with_its_records(store: Store) -> None:
    first = Journal(store)
    _, run = begin(first, "mine")
    first.wait(first.append((Kind.ENDED, run, "result")))
    for journal in (first, Journal(store)):
        found = journal.claim("mine").found
        assert found is not None
        assert found.state == "ended"
        assert found.records[-1][2] == "result"
    first.close()


def test_a_claim_without_a_start_never_existed(store: Store) -> None:
    first = Journal(store)
    assert first.claim("mine").epoch == 1
    second = Journal(store)
    assert second.find("mine").state == "live"
    first.close()
    assert second.find("mine").state == "absent"
    claimed = second.claim("mine")
    assert (claimed.ours, claimed.epoch) == (True, 2)
    second.close()


def test_an_ended_run_is_adopted_without_fencing_its_live_owner(store: Store) -> None:
    owner, other = Journal(store), Journal(store)
    run_id, run = begin(owner, "failed")
    owner.wait(owner.append((Kind.ENDED, run, "error")))
    adopted = other.adopt(run_id)
    assert adopted.ended
    assert other.find(run_id).state == "live"
    owner.wait(owner.append((Kind.NOTE, 99)))
    owner.close()
    other.close()


def test_a_run_that_failed_here_is_adopted_by_the_same_journal(store: Store) -> None:
    journal = Journal(store)
    run_id, run = begin(journal, "failed")
    with pytest.raises(RunIsLive):
        journal.adopt(run_id)
    journal.wait(journal.append((Kind.ENDED, run, "error")))
    adopted = journal.adopt(run_id)
    assert (adopted.epoch, adopted.ended) == (2, True)
    assert adopted.run != run
    assert journal.find(run_id).state == "live"
    journal.close()


def test_a_run_that_is_not_there_is_not_found_and_the_nearest_is_named(store: Store) -> None:
    journal = Journal(store)
    begin(journal, "daily-2024")
    with pytest.raises(RunNotFound, match="did you mean 'daily-2024'"):
        journal.adopt("daily-2025")
    assert journal.nearest("zzz") is None
    journal.close()


def test_an_id_of_the_generated_form_cannot_be_claimed(store: Store) -> None:
    journal = Journal(store)
    with pytest.raises(RunNotFound, match="choose another form"):
        journal.claim(f"flow-{journal_name(12345)}-3")
    journal.close()


def test_a_flow_name_of_any_characters_makes_an_id_that_tells_its_journal(store: Store) -> None:
    journal = Journal(store)
    for name in ("a/b c", "été", "", "..", "x-1"):
        run_id, _, run = journal.new_run(name)
        claim = parse_id(run_id)
        assert claim is not None
        assert (claim.journal, claim.run) == (journal.name, run)
        assert run_id.isascii()
        assert "/" not in run_id


def test_all_runs_are_listed_once_with_their_newest_epoch(store: Store) -> None:
    first = Journal(store)
    begin(first, "ended")
    first.wait(first.append((Kind.ENDED, 1)))
    begin(first, "adopted")
    begin(first, "left")
    first.close()
    second = Journal(store)
    second.adopt("adopted")
    listed = {run.run_id: (run.state, run.epoch) for run in second.runs()}
    assert listed == {"ended": ("ended", 1), "adopted": ("live", 2), "left": ("broken_off", 1)}
    second.close()


def test_slots_roll_over_and_are_read_as_one(store: Store) -> None:
    journal = Journal(store, slot_max_bytes=1000)
    run_id, run = begin(journal)
    for n in range(50):
        journal.wait(journal.append((Kind.SAVED, run, f"s{n}", b"x" * 100)))
    assert len(store.list(f"journals/{journal.name}")) > 5
    assert [record[2] for record in journal.find(run_id).records[1:]] == [f"s{n}" for n in range(50)]
    journal.close()
    assert len(Journal(store).adopt(run_id).records) == 51


@pytest.mark.parametrize("point", ["slot.append.before", "slot.append.after", "slot.sync.before", "slot.sync.after"])
def test_after_a_failed_write_the_journal_goes_on_in_the_next_slot(tmp_path: Path, point: str) -> None:
    store = LocalStore(str(tmp_path))
    journal = Journal(store, linger_s=None)
    run_id, run = begin(journal)
    with hooks.armed(hooks.fault(f"{point}:1:eio")):
        journal.wait(journal.append((Kind.SAVED, run, "a")))
    journal.wait(journal.append((Kind.SAVED, run, "b")))
    journal.close()
    assert store.list(f"journals/{journal.name}") == [f"journals/{journal.name}/{n}" for n in (0, 1)]
    found = Journal(store).find(run_id)
    assert [record[2] for record in found.records] == [run_id, "a", "b"]
    assert found.damaged == ()
    read = [record for *_, record in Reader(store).read_new()]
    assert [record[2] for record in read if record[0] == Kind.SAVED] == ["a", "b"]


@pytest.mark.parametrize(
    "point",
    ["slot.append.before", "slot.append.after", "slot.sync.after", "journal.look.before", "journal.roll.before"],
)
def test_an_interrupt_of_whoever_writes_costs_nobody_a_record(tmp_path: Path, point: str) -> None:
    store = LocalStore(str(tmp_path))
    journal = Journal(store, linger_s=None, slot_max_bytes=300)
    run_id, run = begin(journal)
    struck = False

    def interrupt(reached: str) -> None:
        nonlocal struck
        if reached == point and not struck:
            struck = True
            raise KeyboardInterrupt

    interrupted = 0
    with hooks.armed(interrupt):
        for n in range(10):
            position = journal.append((Kind.SAVED, run, n))
            try:
                journal.wait(position)
            except KeyboardInterrupt:
                interrupted += 1
    assert interrupted == 1
    journal.close()
    found = Journal(store).find(run_id)
    assert [record[2] for record in found.records[1:]] == list(range(10))
    assert found.damaged == ()


@pytest.mark.parametrize("point", ["slot.create.after", "store.create.after"])
def test_a_slot_whose_create_was_interrupted_is_no_strangers(store: Store, point: str) -> None:
    journal = Journal(store, linger_s=None, slot_max_bytes=0)
    run_id, run = begin(journal)

    def interrupt(reached: str) -> None:
        if reached == point:
            raise KeyboardInterrupt

    position = journal.append((Kind.SAVED, run, "a"))
    with hooks.armed(interrupt), contextlib.suppress(KeyboardInterrupt):
        journal.wait(position)
    journal.wait(journal.append((Kind.SAVED, run, "b")))
    journal.close()
    assert [record[2] for record in Journal(store).find(run_id).records] == [run_id, "a", "b"]


def test_a_journal_that_cannot_go_on_tells_everybody(tmp_path: Path) -> None:
    journal = Journal(LocalStore(str(tmp_path)))
    _, run = begin(journal)
    told: list[BaseException | None] = []
    called = threading.Event()

    def no_space(point: str) -> None:
        if point in ("slot.append.before", "slot.create.before_write"):
            raise OSError(28, "No space left on device")

    with hooks.armed(no_space):
        position = journal.append((Kind.SAVED, run, "a"))
        journal.notify(position, lambda error: (told.append(error), called.set())[0])
        with pytest.raises(StorageError, match="disk is full"):
            journal.wait(position)
        with pytest.raises(StorageError, match="disk is full"):
            journal.append((Kind.SAVED, run, "b"))
        assert called.wait(10)
    assert isinstance(told[0], StorageError)
    journal.close()


def test_a_forked_child_must_not_write(tmp_path: Path) -> None:
    journal = Journal(LocalStore(str(tmp_path)), linger_s=None)
    _, run = begin(journal)
    position = journal.append((Kind.SAVED, run, "a"))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            journal.append((Kind.SAVED, run, "from the child"))
        except StorageError:
            try:
                journal.wait(position)
            except StorageError:
                code = 0
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    journal.wait(position)
    journal.close()


def test_a_record_that_cannot_be_packed_changes_nothing(store: Store) -> None:
    journal = Journal(store)
    with pytest.raises(TypeError):
        journal.append((Kind.NOTE, 1, object()))
    assert journal.append((Kind.NOTE, 1, "good")) == 1
    journal.wait(1)
    journal.close()


def flip(path: Path, needle: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[data.rindex(needle)] ^= 1
    path.write_bytes(data)


def test_a_flipped_byte_is_reported_with_the_call_and_costs_one_record(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    journal = Journal(store, linger_s=None)
    run_id, run = begin(journal)
    for call in ("a", "charge", "c"):
        position = journal.append((Kind.SAVED, run, call, 1, b"payload of " + call.encode()))
    journal.wait(position)
    journal.close()
    flip(tmp_path / "journals" / journal.name / "0", b"payload of charge")
    adopted = Journal(store).adopt(run_id)
    assert [record[2] for record in adopted.records] == [run_id, "a", "c"]
    (damaged,) = adopted.damaged
    assert (damaged.call, damaged.record[0]) == ("charge", Kind.SAVED)
    again = Journal(store).find(run_id)
    assert [record[2] for record in again.records] == [run_id, "a", "c", "damaged"]


def test_a_flipped_byte_in_the_newest_record_is_no_torn_end(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    journal = Journal(store, linger_s=None)
    run_id, run = begin(journal)
    journal.wait(journal.append((Kind.SAVED, run, "charge", b"the payload")))
    journal.close(release=False)
    flip(tmp_path / "journals" / journal.name / "0", b"the payload")
    found = Journal(store).find(run_id)
    assert [damaged.call for damaged in found.damaged] == ["charge"]
    assert found.torn_bytes == 0


def test_a_batch_whose_header_is_damaged_leaves_a_hole_that_is_reported(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    journal = Journal(store, linger_s=None)
    run_id, run = begin(journal)
    path = tmp_path / "journals" / journal.name / "0"
    size = path.stat().st_size
    journal.wait(journal.append((Kind.SAVED, run, "a")))
    journal.wait(journal.append((Kind.SAVED, run, "b")))
    journal.close()
    data = bytearray(path.read_bytes())
    data[size + 5] ^= 1  # the length
    path.write_bytes(data)
    found = Journal(store).find(run_id)
    assert [record[2] for record in found.records] == [run_id, "b"]
    (damaged,) = found.damaged
    assert damaged.record == ()
    assert damaged.offset == size


def test_a_torn_end_is_absent_and_said_so(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    journal = Journal(store, linger_s=None)
    run_id, run = begin(journal)
    path = tmp_path / "journals" / journal.name / "0"
    size = path.stat().st_size
    journal.wait(journal.append((Kind.SAVED, run, "a")))
    journal.close(release=False)
    whole = path.stat().st_size
    for cut in range(size, whole):
        os.truncate(path, cut)
        found = Journal(store).find(run_id)
        assert found.damaged == ()
        assert [record[2] for record in found.records] == [run_id]
        assert found.torn_bytes == cut - size


def test_a_flipped_byte_among_adopted_records_costs_one_of_them(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    first = Journal(store, linger_s=None)
    run_id, run = begin(first)
    for call in ("a", "charge", "c"):
        first.wait(first.append((Kind.SAVED, run, call, b"payload of " + call.encode())))
    first.close()
    second = Journal(store, linger_s=None)
    second.adopt(run_id)
    second.close()
    flip(tmp_path / "journals" / second.name / "0", b"payload of charge")
    found = Journal(store).find(run_id)
    assert found.epoch == 2
    assert [record[2] for record in found.records] == [run_id, "a", "c"]
    assert [damaged.call for damaged in found.damaged] == ["charge"]


def test_a_reader_goes_on_where_it_stopped(store: Store) -> None:
    journal = Journal(store)
    run_id, run = begin(journal)
    reader = Reader(store)
    assert [(read[3], read[5][0]) for read in reader.read_new()] == [(run_id, Kind.START)]
    assert list(reader.read_new()) == []
    journal.wait(journal.append((Kind.SAVED, run, "a")))
    assert [read[5][2] for read in reader.read_new()] == ["a"]
    journal.wait(journal.append((Kind.SAVED, run, "b")))
    another = Reader(store, reader.positions)
    assert [(read[3], read[4], read[5][2]) for read in another.read_new()] == [(run_id, 1, "b")]
    journal.close()


def test_a_reader_does_not_repeat_adopted_records(store: Store) -> None:
    first = Journal(store)
    run_id, run = begin(first)
    first.append((Kind.SAVED, run, "a"))
    first.close()
    second = Journal(store)
    second.adopt(run_id)
    second.close()
    read = [record for *_, record in Reader(store).read_new()]
    adopted = [record for record in read if record[0] == Kind.ADOPTED]
    assert [record[4] for record in adopted] == [None]
    assert [record[0] for record in read].count(Kind.SAVED) == 1


def test_what_a_failed_first_write_left_is_no_damage(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    journal = Journal(store, linger_s=None)
    journal.open()
    run_id, epoch, run = journal.new_run("flow")
    path = tmp_path / "journals" / journal.name / "0"

    def write_a_part(point: str) -> None:
        if point == "slot.append.before":
            with path.open("ab") as file:
                file.write(b"a part of the batch that did not fit on the disk")
            raise OSError(28, "No space left on device")

    with hooks.armed(write_a_part):
        journal.wait(journal.append((Kind.START, run, run_id, epoch)))
    journal.close()
    found = Journal(store).find(run_id)
    assert len(found.records) == 1
    assert found.damaged == ()
