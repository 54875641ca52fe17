import itertools

from exoflow.journal import Journal, Kind
from exoflow.journal.scan import read_run, slot_numbers
from exoflow.journal.takeover import hears_beat
from exoflow.storage import MemoryStore


class Bucket(MemoryStore):
    """What an object store is to the journal: shared, without locks."""

    shared = True


class Watch:
    """A clock that moves only when somebody sleeps, and says how often that was."""

    def __init__(self, *events: object) -> None:
        self.now_s = 0.0
        self.events = iter(events)

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        event = next(self.events, None)
        if callable(event):
            event()


def test_an_owner_that_writes_a_beat_is_alive() -> None:
    store = Bucket()
    journal = Journal(store, linger_s=None)
    journal.open()
    watch = Watch(None, None, journal._beat)
    assert hears_beat(store, journal.name, watch.monotonic, watch.sleep)
    assert watch.now_s < 5


def test_an_owner_that_is_silent_for_three_beats_is_dead() -> None:
    store = Bucket()
    journal = Journal(store, linger_s=None)
    journal.open()
    watch = Watch()
    assert not hears_beat(store, journal.name, watch.monotonic, watch.sleep)
    assert 15 <= watch.now_s <= 16


def test_a_seal_that_appears_is_no_sign_of_life() -> None:
    store = Bucket()
    journal = Journal(store, linger_s=None)
    journal.open()
    watch = Watch(None, journal.close)
    assert not hears_beat(store, journal.name, watch.monotonic, watch.sleep)


def test_beats_stand_between_batches_and_are_no_records() -> None:
    store = Bucket()
    journal = Journal(store, linger_s=None)
    run_id, epoch, run = journal.new_run("flow")
    journal.wait(journal.append((Kind.START, run, run_id, epoch)))
    for _ in itertools.repeat(None, 3):
        journal._beat()
    journal.wait(journal.append((Kind.SAVED, run, "a")))
    history = read_run(store, journal.name, run)
    assert [record[2] for record in history.records()] == [run_id, "a"]
    assert history.damaged == []
    assert slot_numbers(store, journal.name) == [0, 1, 2, 3, 4]
