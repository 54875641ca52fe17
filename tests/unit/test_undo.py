"""Undos and probes that fail: tried again with patience, and with an end that is durable when none succeeds."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import exoflow
from exoflow import Backoff, codec, flow, task
from exoflow.catalogue import Catalogue
from exoflow.driver.looking import Look, Target, terms_of
from exoflow.driver.spec import TaskSpec, pause_s
from exoflow.model import INLINE_MAX_BYTES, CallId, Inline, Version
from exoflow.protocols import Attempt, Computed, Outcome, Raised, Vanished
from exoflow.settings import store_of

AT_ONCE = Backoff(initial_s=0.0)


class Outside:
    """The world that bookings are seen in: what happened, in order, and what refuses to be undone."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.keys: list[str] = []
        self.refuses: set[str] = set()

    def book(self, what: str) -> str:
        self.lines.append(("book", what))
        self.keys.append(exoflow.idempotency_key())
        return what

    def told(self, *what: str) -> list[str]:
        return [" ".join(line) for line in self.lines if line[0] in what]


world = Outside()


def release(key: str, what: str) -> None:
    """By name: a closure would be recorded with what it holds, and refuse for ever."""
    world.lines.append(("try", what))
    if what in world.refuses:
        raise ConnectionError(f"{what} is down")
    world.lines.append(("release", what))


@pytest.fixture
def outside() -> Outside:
    global world
    world = Outside()
    return world


def booking(outside: Outside, retries: int = 2, **options: Any) -> Any:
    def book(what: str) -> str:
        return outside.book(what)

    return task(rollback=release, undo_retries=retries, backoff=AT_ONCE, **options)(book)


# -- patience ----------------------------------------------------------------------------------------------------------


class FakeClock:
    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    monotonic = now

    def call_at(self, when: float, callback: Callable[[], None]) -> Callable[[], None]:
        self.time = when
        callback()
        return lambda: None


class AtOnce:
    """An executor whose attempts end as a list says."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        self.outcomes = outcomes
        self.attempts: list[Attempt] = []

    def start(self, attempt: Attempt, report: Callable[[Outcome], None]) -> None:
        self.attempts.append(attempt)
        report(self.outcomes.pop(0))


def look(outcomes: list[Outcome], spec: TaskSpec) -> tuple[FakeClock, AtOnce, list[tuple[object, int]]]:
    """Look back by these outcomes; when each try was, and what came of it all."""
    clock, executor, ends = FakeClock(), AtOnce(outcomes), list[tuple[object, int]]()
    execution: Any = SimpleNamespace(
        lock=threading.RLock(), fatal=None, run_id="run", seed=1, clock=clock, executors={"local": executor}, looking=0,
        event=lambda event, *args: event(*args), values=SimpleNamespace(fetch=codec.from_bytes),
    )  # fmt: skip
    target = Target(CallId("book#0"), Version(1), "run/book#0@0.1")
    ended = lambda value, tries: ends.append((value, tries))  # noqa: E731
    Look(execution, target, spec.undo or repr, (), {}, terms_of(spec), ended=ended, given_up=ended).begin()
    return clock, executor, ends


FAILS = Raised(codec.encode_error(ConnectionError("down")), 0.0)
RETURNS = Computed(Inline(codec.to_bytes(codec.encode(None))), 0.0)


def test_an_undo_that_fails_for_a_while_is_tried_again_by_its_tasks_backoff() -> None:
    spec = TaskSpec("book", print, backoff=Backoff(1.0, 2.0, 60.0, 0.0), timeout_s=5.0)
    clock, executor, ends = look([FAILS, Vanished("timed out after 5 s"), FAILS, RETURNS], spec)
    assert clock.time == 1 + 2 + 4
    assert ends == [(None, 4)]
    assert [attempt.number for attempt in executor.attempts] == [1, 2, 3, 4]
    assert {attempt.timeout_s for attempt in executor.attempts} == {5.0}


def test_unless_told_otherwise_an_undo_is_tried_ten_times_within_a_minute_or_so() -> None:
    clock, _, ends = look([FAILS] * 10, TaskSpec("book", print))
    assert 35 < clock.time < 70
    [(error, tries)] = ends
    assert tries == 10
    assert repr(error) == repr(ConnectionError("down"))


def test_a_try_that_hung_is_a_timeout() -> None:
    _, _, [(error, _)] = look([Vanished("timed out after 5 s")], TaskSpec("book", repr, undo_retries=0))
    assert isinstance(error, TimeoutError)
    assert str(error) == "repr of book#0 timed out after 5 s"


def test_the_jitter_is_drawn_from_the_seed() -> None:
    pauses = [pause_s(Backoff(1.0, 1.0, 1.0, 0.5), 1, seed) for seed in "aab"]
    assert pauses[0] == pauses[1] != pauses[2]
    assert all(0.5 <= pause <= 1.5 for pause in pauses)


# -- an end that says so -----------------------------------------------------------------------------------------------


def test_a_run_that_rolls_back_and_cannot_ends_with_what_is_in_place_and_goes_on_when_it_is_resumed(
    outside: Outside, tmp_path: Path
) -> None:
    book = booking(outside)

    @flow(name="rolls back", on_failure="rollback")
    def trip() -> None:
        book("flight")
        book("hotel")
        book("car")
        outside.lines.append(("body", "ends"))
        raise ValueError("no")

    outside.refuses.add("hotel")
    configured = trip.options(run_id="r", store=tmp_path)
    with pytest.raises(exoflow.UndoFailed) as caught:
        configured.run()
    error = caught.value
    assert (error.run_id, error.call, error.key) == ("r", "book#1", outside.keys[1])
    assert error.attempt == error.key.partition("@")[2]
    for words in ("release of book#1 failed 3 times", "hotel is down", error.key, "in place", "exoflow resume r", "no"):
        assert words in str(error)
    tried = ["try car", "release car", "try hotel", "try hotel", "try hotel"]
    assert outside.told("try", "release") == tried, "the flight is older: it waits for the hotel"

    assert exoflow.get("r", store=tmp_path).status == "failed"
    with pytest.raises(exoflow.UndoFailed):
        configured.run()
    with pytest.raises(exoflow.UndoFailed):
        exoflow.resume("r", store=tmp_path)
    outside.refuses.clear()
    del outside.lines[:]
    with pytest.raises(ValueError, match="no"):
        exoflow.resume("r", store=tmp_path)
    assert outside.told("try") == ["try hotel", "try flight"]
    assert not outside.told("book", "body"), "nothing is run again"

    with pytest.raises(ValueError, match="no"):
        exoflow.resume("r", store=tmp_path)
    assert outside.told("book") == ["book flight", "book hotel", "book car"], "it had failed: this is a new beginning"


def test_a_cancelled_run_that_cannot_be_undone_has_failed_and_is_cancelled_when_it_can(
    outside: Outside, tmp_path: Path
) -> None:
    book = booking(outside)
    waiting, go = threading.Event(), threading.Event()

    @task
    def waits() -> None:
        waiting.set()
        go.wait()

    @flow(name="is cancelled")
    def trip() -> None:
        book("flight")
        book("hotel")
        waits.submit().result()

    outside.refuses.add("hotel")
    run = trip.options(run_id="r", store=tmp_path).start()
    waiting.wait()
    run.cancel()
    go.set()
    with pytest.raises(exoflow.UndoFailed, match="was being cancelled"):
        run.result()
    assert exoflow.get("r", store=tmp_path).status == "failed"
    outside.refuses.clear()
    with pytest.raises(exoflow.RunCancelled):
        exoflow.resume("r", store=tmp_path)
    assert outside.told("release") == ["release hotel", "release flight"]
    assert outside.told("book") == ["book flight", "book hotel"]
    assert exoflow.get("r", store=tmp_path).status == "cancelled"


@pytest.mark.parametrize("retries", [0, 1])
def test_an_attempt_that_failed_is_not_tried_again_before_it_is_undone(
    outside: Outside, tmp_path: Path, retries: int
) -> None:
    fails = [True]

    @task(rollback=release, undo_retries=1, backoff=AT_ONCE, retries=retries)
    def book(what: str) -> str:
        outside.book(what)
        if fails.pop() if fails else False:
            raise ValueError("full")
        return what

    @flow(name="tries again")
    def trip() -> str:
        return book("hotel")

    outside.refuses.add("hotel")
    with pytest.raises(exoflow.UndoFailed):
        trip.options(run_id="r", store=tmp_path).run()
    assert outside.told("book") == ["book hotel"]
    outside.refuses.clear()
    assert exoflow.resume("r", store=tmp_path) == "hotel"
    assert outside.told("book", "release") == ["book hotel", "release hotel", "book hotel"]


def test_what_runs_when_an_undo_fails_for_good_is_recorded(outside: Outside, tmp_path: Path) -> None:
    begun, go, mailed = threading.Event(), threading.Event(), list[int]()

    @task(rollback=release, undo_retries=0, backoff=AT_ONCE, retries=1)
    def book(what: str) -> str:
        begun.wait()
        outside.book(what)
        if len(outside.keys) == 1:
            raise ValueError("full")
        return what

    @task(effect="irrevocable")
    def mail() -> None:
        begun.set()
        go.wait()
        mailed.append(1)

    @flow(name="drains")
    def trip() -> None:
        sent, booked = mail.submit(), book.submit("hotel")
        sent.result()
        booked.result()

    outside.refuses.add("hotel")
    run = trip.options(run_id="r", store=tmp_path).start()
    while not outside.told("try"):
        begun.wait()
    go.set()
    with pytest.raises(exoflow.UndoFailed):
        run.result()
    outside.refuses.clear()
    assert exoflow.resume("r", store=tmp_path) is None
    assert mailed == [1], "it is not in doubt: that it was sent is recorded"


def test_an_error_that_the_body_has_seen_stays_when_a_run_goes_on_after_an_undo_that_failed(
    outside: Outside, tmp_path: Path
) -> None:
    """V14 is for runs that failed: this one goes on with what it was doing."""
    tries = []

    @task
    def check() -> None:
        tries.append(1)
        raise KeyError("sold out")

    @task(rollback=release, undo_retries=0, backoff=AT_ONCE, retries=1)
    def book(what: str) -> str:
        outside.book(what)
        if len(outside.keys) == 1:
            raise ValueError("full")
        return what

    @flow(name="has seen")
    def trip() -> str:
        try:
            check()
        except KeyError:
            return book("hotel")
        raise AssertionError

    outside.refuses.add("hotel")
    with pytest.raises(exoflow.UndoFailed):
        trip.options(run_id="r", store=tmp_path).run()
    outside.refuses.clear()
    assert exoflow.resume("r", store=tmp_path) == "hotel"
    assert tries == [1]


def test_an_undo_that_does_not_load_any_more_has_failed(outside: Outside, tmp_path: Path) -> None:
    @task(rollback=release)
    def book(what: object) -> None:
        outside.book("hotel")

    @flow(name="does not load", on_failure="rollback")
    def trip() -> None:
        book(Room())
        outside.refuses.add("loading")
        raise ValueError("no")

    with pytest.raises(exoflow.UndoFailed, match=r"its undo of book#0 failed once.*needs what is not here"):
        trip.options(run_id="r", store=tmp_path).run()
    outside.refuses.clear()
    with pytest.raises(ValueError, match="no"):
        exoflow.resume("r", store=tmp_path)


class Room:
    def __reduce__(self) -> Any:
        return load_room, ()


def load_room() -> Room:
    if "loading" in world.refuses:
        raise ModuleNotFoundError("no module named 'rooms'")
    return Room()


# -- probes ------------------------------------------------------------------------------------------------------------


def test_a_probe_that_fails_for_good_leaves_the_run_in_doubt_and_is_asked_again(tmp_path: Path) -> None:
    sent, down = list[str](), [True]

    def was_sent(key: str) -> exoflow.Happened:
        if down[0]:
            raise ConnectionError("down")
        return exoflow.Happened("sent before")

    @task(effect="irrevocable", on_doubt=was_sent, undo_retries=1, backoff=AT_ONCE)
    def send() -> str:
        sent.append(exoflow.idempotency_key())
        raise ValueError("connection reset")

    @flow(name="asks")
    def notify() -> str:
        return send()

    run = notify.options(run_id="r", store=tmp_path).start()
    with pytest.raises(exoflow.InDoubt, match=r"was_sent, which was to tell, failed 2 times.*exoflow resume r") as told:
        run.result()
    assert told.value.run_id == "r"
    assert run.status == "in_doubt"
    down[0] = False
    assert exoflow.resume("r", store=tmp_path) == "sent before"
    assert len(sent) == 1


def test_a_probe_that_says_that_nobody_knows_is_not_asked_again(tmp_path: Path) -> None:
    asked = []

    def was_sent(key: str) -> exoflow.Happened:
        asked.append(key)
        raise exoflow.InDoubt("the service keeps no log")

    @task(effect="irrevocable", on_doubt=was_sent)
    def send() -> None:
        raise ValueError("connection reset")

    @flow(name="nobody knows")
    def notify() -> None:
        send()

    with pytest.raises(exoflow.InDoubt, match="keeps no log"):
        notify.options(store=tmp_path).run()
    assert len(asked) == 1


@pytest.mark.parametrize("executor", ["local", "processes"])
def test_a_probe_may_be_a_coroutine_function(tmp_path: Path, executor: str) -> None:
    async def was_sent(key: str) -> exoflow.DidNotHappen:
        return exoflow.DidNotHappen()

    @task(effect="irrevocable", on_doubt=was_sent, retries=1, backoff=AT_ONCE, executor=executor)
    def send() -> int:
        if exoflow.attempt() == 1:
            raise ValueError("connection reset")
        return exoflow.attempt()

    @flow(name="asks a coroutine")
    def notify() -> int:
        return send()

    assert notify.options(store=tmp_path, executor=executor).run() == 2


# -- what an undo may be, and may get ----------------------------------------------------------------------------------


undone: list[tuple[object, ...]] = []


async def release_soon(key: str, what: object, nested: object) -> None:
    undone.append((what, nested))


def release_now(key: str, what: object, nested: object) -> None:
    undone.append((what, nested))


@pytest.mark.parametrize("executor", ["local", "processes"])
@pytest.mark.parametrize(
    "undo",
    [
        release_soon,
        release_now,
        functools.partial(release_now),
        lambda key, what, nested: undone.append((what, nested)),
    ],
    ids=["async", "function", "partial", "lambda"],
)
def test_an_undo_gets_values_in_the_places_of_refs_however_large_whatever_it_is_and_wherever_its_task_ran(
    tmp_path: Path, executor: str, undo: Callable[..., object]
) -> None:
    large = b"x" * (3 * INLINE_MAX_BYTES)

    @task
    def make(small: bool) -> bytes:
        return b"small" if small else large

    @task(rollback=undo, undo_retries=0)
    def book(what: bytes, nested: dict[str, list[bytes]]) -> None: ...

    @flow(name="gives back", on_failure="rollback")
    def trip() -> None:
        book.submit(make.submit(False).arg, {"all": [make.submit(True).arg]}).result()
        raise ValueError("no")

    del undone[:]
    with pytest.raises(ValueError, match="no"):
        trip.options(store=tmp_path, executor=executor).run()
    assert undone == [(large, {"all": [b"small"]})]
    objects = list((tmp_path / "values").rglob("*.undo"))
    assert len(objects) == 1, "what does not fit into a record is an object"
    assert objects[0].stat().st_size > len(large)


gate = threading.Event()
tries: list[str] = []


def hangs(key: str) -> None:
    tries.append(key)
    if len(tries) == 1:
        gate.wait()


def test_an_undo_that_hangs_is_given_up_after_its_tasks_timeout(tmp_path: Path) -> None:
    @task(rollback=hangs, timeout=0.05, undo_retries=10_000, backoff=AT_ONCE)
    def book() -> None: ...

    @flow(name="hangs", on_failure="rollback")
    def trip() -> None:
        book.submit().result()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        trip.options(store=tmp_path).run()
    gate.set()
    assert len(tries) >= 2, "on a machine that is busy more may be given up"


def test_an_undo_may_say_that_there_is_nothing_to_undo(tmp_path: Path) -> None:
    def never_was(key: str) -> None:
        raise exoflow.DidNotHappen

    @task(rollback=never_was, undo_retries=0)
    def book() -> None: ...

    @flow(name="never was", on_failure="rollback")
    def trip() -> None:
        book()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        trip.options(store=tmp_path).run()


# -- what is seen of it ------------------------------------------------------------------------------------------------


def test_events_and_the_catalogue_tell_what_was_undone_and_what_was_not(outside: Outside, tmp_path: Path) -> None:
    book = booking(outside, retries=1)

    @flow(name="is seen", on_failure="rollback")
    def trip() -> None:
        book("flight")
        book("hotel")
        raise ValueError("no")

    outside.refuses.add("flight")
    with pytest.raises(exoflow.UndoFailed):
        trip.options(run_id="r", store=tmp_path).run()

    def seen() -> list[tuple[str, str | None, int]]:
        events = exoflow.get("r", store=tmp_path).events()
        return [(event.what, event.call, event.attempt) for event in events if "undo" in event.what]

    assert seen() == [("undone", "book#1", 1), ("undo failed", "book#0", 1)]
    with Catalogue(store_of(tmp_path)) as catalogue:
        catalogue.refresh()
        assert catalogue.run("r").undo_failed
        flight, hotel = catalogue.describe("r").calls
        assert flight.not_undone is not None
        assert flight.not_undone.tries == 2
        assert hotel.not_undone is None
        assert hotel.undos == 1
    outside.refuses.clear()
    with pytest.raises(ValueError, match="no"):
        exoflow.resume("r", store=tmp_path)
    assert seen() == [("undone", "book#1", 1), ("undo failed", "book#0", 1), ("undone", "book#0", 1)]
    with Catalogue(store_of(tmp_path)) as catalogue:
        catalogue.refresh()
        assert not catalogue.run("r").undo_failed
        assert catalogue.describe("r").calls[0].not_undone is None
        assert sum(undo.tries for undo in catalogue.describe("r").calls[0].undoings) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"undo_retries": 3}, "undo_retries needs rollback"),
        ({"undo_retries": -1, "rollback": print}, "must not be negative"),
        ({"undo_retries": 1.5, "rollback": print}, "must be a whole number"),
    ],
)
def test_undo_retries_must_make_sense(options: Any, message: str) -> None:
    def book() -> None: ...

    with pytest.raises((TypeError, ValueError), match=message):
        task(**options)(book)


def reserved_and_charged(place: Path, error: Exception, **options: Any) -> exoflow.Flow[[], None]:
    """A flow that reserves, which makes a file, and whose charge fails."""

    def release(_: str) -> None:
        place.unlink()

    @task(rollback=release)
    def reserve() -> int:
        place.touch()
        return 1

    @task(effect="irrevocable")
    def charge(_: int) -> None:
        raise error

    @flow(**options)
    def trip() -> None:
        charge(reserve())

    bound: exoflow.Flow[[], None] = trip.options(run_id="r", store=str(place.parent))
    return bound


def test_what_was_reserved_for_an_effect_that_did_not_happen_is_undone(tmp_path: Path) -> None:
    place = tmp_path / "reserved"
    with pytest.raises(exoflow.DidNotHappen):
        reserved_and_charged(place, exoflow.DidNotHappen("the card was declined"), on_failure="rollback").run()
    assert not place.exists()


@pytest.mark.parametrize("answer", [exoflow.DidNotHappen(), exoflow.Happened(None)])
def test_a_run_in_doubt_is_cancelled_when_somebody_has_said_what_happened(
    tmp_path: Path, answer: exoflow.Happened | exoflow.DidNotHappen
) -> None:
    place = tmp_path / "reserved"
    trip = reserved_and_charged(place, OSError("the line is dead"))
    with pytest.raises(exoflow.InDoubt, match="the line is dead"):
        trip.run()
    with pytest.raises(exoflow.InDoubt, match=r"exoflow resolve r 'charge#0'"):
        exoflow.cancel("r", store=str(tmp_path))
    exoflow.resolve("r", "charge#0", answer, store=str(tmp_path))
    exoflow.cancel("r", store=str(tmp_path))
    with pytest.raises(exoflow.RunCancelled):
        trip.run()
    assert place.exists() is isinstance(answer, exoflow.Happened)
