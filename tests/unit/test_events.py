"""Flows that wait for events: who gets which, and that none is lost."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

import pytest

import exoflow
from exoflow import Ref, Run, as_completed, event, flow, gather, send, task, timer, wait_for
from exoflow.driver.execution import Execution
from exoflow.driver.runtime import Runtime
from exoflow.journal.inbox import Message, post
from exoflow.model import CallId, Status
from exoflow.settings import store_of
from exoflow.testing import SkippedTime

HOUR_S = 3600.0


pytestmark = pytest.mark.usefixtures("memory")


def settled(clock: SkippedTime) -> None:
    """Until every run waits."""
    clock.advance(0)


def execution_of(run: Run[Any]) -> Execution:
    return Runtime.of(store_of(None)).executions[run.id]


def from_elsewhere(run: Run[Any], name: str, data: object, **more: Any) -> None:
    """Send as another process does: nobody is there to refuse it."""
    payload = bytes(exoflow.codec.to_bytes(exoflow.codec.encode(data)))
    post(store_of(None), run.id, Message("event", 0.0, name, payload, **more))
    exoflow.driver.bells.look(execution_of(run))


@task
def double(x: int) -> int:
    return 2 * x


# -- the queue ---------------------------------------------------------------------------------------------------------


def test_who_waits_first_gets_the_first(clock: SkippedTime) -> None:
    @flow
    async def both() -> list[object]:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(_awaited(event("x")))
            second = group.create_task(_awaited(event("x")))
        return [first.result(), second.result()]

    run = both.start()
    settled(clock)
    send(run.id, "x", "one")
    send(run.id, "x", "two")
    assert run.result() == ["one", "two"]


async def _awaited(ref: Ref[Any]) -> Any:
    return await ref


def test_what_is_sent_before_it_is_waited_for_is_kept(clock: SkippedTime) -> None:
    @flow
    def late() -> list[object]:
        wait_for("go")
        return [wait_for("x"), wait_for("x")]

    run = late.start()
    settled(clock)
    send(run.id, "x", 1)
    send(run.id, "x", 2)
    send(run.id, "go")
    assert run.result() == [1, 2]


def test_events_of_other_names_are_nobodys_business(clock: SkippedTime) -> None:
    @flow
    def named() -> object:
        return wait_for("x")

    run = named.start()
    send(run.id, "y", 1)
    settled(clock)
    assert run.status is Status.WAITING
    send(run.id, "x", 2)
    assert run.result() == 2


@pytest.mark.parametrize("name", ["a/b#0~c!%[d](e):f", "ä ö\n", "💥", "\ud800", "x" * 3000, ".", "event(x)#0"])
def test_a_name_may_be_any_text(clock: SkippedTime, name: str) -> None:
    @flow
    def odd() -> object:
        return [wait_for(name), event(name).result()]

    run = odd.start()
    send(run.id, name, 1)
    send(run.id, name, 2)
    assert run.result() == [1, 2]


def test_the_same_sending_twice_is_taken_once(clock: SkippedTime) -> None:
    @flow
    def twice() -> list[object]:
        return [wait_for("x"), wait_for("x")]

    run = twice.start()
    send(run.id, "x", "first", id="a")
    send(run.id, "x", "first again", id="a")
    settled(clock)
    assert run.status is Status.WAITING
    send(run.id, "x", "second", id="b")
    assert run.result() == ["first", "second"]


# -- deadlines ---------------------------------------------------------------------------------------------------------


def test_a_loop_of_waits_with_deadlines_loses_nothing(clock: SkippedTime) -> None:
    @flow
    def collecting() -> list[object]:
        got: list[object] = []
        while len(got) < 5:
            try:
                got.append(wait_for("x", timeout=HOUR_S))
            except TimeoutError:
                got.append("nothing")
        return got

    run = collecting.start()
    clock.advance(HOUR_S)
    send(run.id, "x", 1)
    send(run.id, "x", 2)
    clock.advance(HOUR_S)
    send(run.id, "x", 3)
    assert run.result() == ["nothing", 1, 2, "nothing", 3]


class ByHand:
    """A clock whose timers ring when the test says so, in its thread."""

    def __init__(self) -> None:
        self.time = 1e9
        self.timers: list[Any] = []

    def now(self) -> float:
        return self.time

    monotonic = now

    def call_at(self, when: float, callback: Any) -> Any:
        self.timers.append(callback)
        return lambda: self.timers.remove(callback) if callback in self.timers else None

    def ring(self) -> None:
        self.time += HOUR_S
        self.timers.pop(0)()


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> ByHand:
    clock = ByHand()
    monkeypatch.setattr("exoflow.driver.clock._in_use", clock)
    return clock


def waiting(run: Run[Any]) -> None:
    """Until the run waits: another thread is on its way there."""
    while run.status is not Status.WAITING:
        time.sleep(0.001)


def test_an_event_that_comes_between_the_deadline_and_its_flow_is_there_for_the_next(by_hand: ByHand) -> None:
    @flow
    def twice() -> list[object]:
        try:
            return [wait_for("x", timeout=HOUR_S)]
        except TimeoutError:
            return ["nothing", wait_for("x")]

    run = twice.start()
    waiting(run)
    with execution_of(run).lock:  # the flow is told of both at once
        by_hand.ring()
        send(run.id, "x", "late")
    assert run.result() == ["nothing", "late"]


def test_of_two_events_that_have_come_only_the_one_that_is_read_is_taken(clock: SkippedTime) -> None:
    @flow
    def either() -> list[object]:
        got: list[object] = []
        while len(got) < 2:
            yes, no = event("yes"), event("no")
            first = next(as_completed([yes, no]))
            got.append(first.result())
        return got

    run = either.start()
    settled(clock)
    with execution_of(run).lock:
        send(run.id, "no", "n")
        send(run.id, "yes", "y")
    assert run.result() == ["n", "y"]


def test_a_timeout_of_result_leaves_the_event_to_the_next(clock: SkippedTime) -> None:
    @flow
    def patient() -> list[object]:
        ref = event("x")
        try:
            ref.result(timeout=HOUR_S)
        except TimeoutError:
            return [wait_for("x"), ref.result()]
        return []

    run = patient.start()
    clock.advance(HOUR_S)
    send(run.id, "x", 1)
    send(run.id, "x", 2)
    assert run.result() == [1, 2]


def test_a_deadline_of_asyncio_leaves_all_that_it_waited_for(clock: SkippedTime) -> None:
    @flow
    async def patient() -> list[object]:
        both = gather(event("x"), event("y"))
        waiter = asyncio.ensure_future(_awaited(both))
        await event("enough")
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        await event("go")
        return [await event("x"), await event("y")]

    run = patient.start()
    settled(clock)
    send(run.id, "enough")
    settled(clock)
    send(run.id, "y", "of y")
    send(run.id, "x", "of x")
    send(run.id, "go")
    assert run.result() == ["of x", "of y"]


def test_of_two_strands_that_wait_for_one_ref_the_other_gets_it_when_one_is_cancelled(clock: SkippedTime) -> None:
    @flow
    async def shared() -> object:
        ref = event("x")
        first, second = asyncio.ensure_future(_awaited(ref)), asyncio.ensure_future(_awaited(ref))
        await event("cancel")
        first.cancel()
        return await second

    run = shared.start()
    settled(clock)
    send(run.id, "cancel")
    settled(clock)
    send(run.id, "x", 7)
    assert run.result() == 7


def test_a_task_group_that_fails_leaves_its_events(clock: SkippedTime) -> None:
    @flow
    async def grouped() -> object:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_awaited(event("x")))
                group.create_task(_failing(event("fail")))
        except* ValueError:
            pass
        return await event("x")

    run = grouped.start()
    settled(clock)
    send(run.id, "fail")
    settled(clock)
    send(run.id, "x", "kept")
    assert run.result() == "kept"


async def _failing(ref: Ref[Any]) -> None:
    await ref
    raise ValueError


def test_a_gather_that_fails_keeps_no_event_from_others(clock: SkippedTime) -> None:
    @task
    def fails() -> int:
        raise ValueError

    @flow
    async def failing() -> object:
        try:
            await gather(fails.submit(), event("x", int))
        except ValueError:
            return await event("x")

    run = failing.start()
    settled(clock)
    send(run.id, "x", 1)
    assert run.result() == 1


# -- where a Ref can go ------------------------------------------------------------------------------------------------


def test_a_task_takes_an_event_that_is_passed_to_it(clock: SkippedTime) -> None:
    @flow
    def passing() -> int:
        return double(event("x", int).arg)

    run = passing.start()
    settled(clock)
    send(run.id, "x", 21)
    assert run.result() == 42


def test_a_task_keeps_an_event_that_its_flow_has_stopped_to_wait_for(clock: SkippedTime) -> None:
    @flow
    def passing() -> list[object]:
        ref = event("x", int)
        doubled = double.submit(ref)
        try:
            ref.result(timeout=HOUR_S)
        except TimeoutError:
            return [wait_for("x", type=int), doubled.result()]
        return []

    run = passing.start()
    clock.advance(HOUR_S)
    send(run.id, "x", 1)
    send(run.id, "x", 2)
    assert run.result() == [2, 2]


def test_an_event_in_the_result_of_a_flow_is_waited_for(clock: SkippedTime) -> None:
    @flow
    def returning() -> Any:
        ref = event("x")
        try:
            ref.result(timeout=HOUR_S)
        except TimeoutError:
            return {"event": ref}

    run = returning.start()
    clock.advance(HOUR_S)
    send(run.id, "x", 3)
    assert run.result() == {"event": 3}


def test_events_and_tasks_are_gathered(clock: SkippedTime) -> None:
    @flow
    def gathering() -> list[int]:
        return gather(event("b", int), double.submit(2), event("a", int)).result()

    run = gathering.start()
    settled(clock)
    send(run.id, "a", 1)
    send(run.id, "b", 2)
    assert run.result() == [2, 4, 1]


def test_events_are_completed_as_they_come(clock: SkippedTime) -> None:
    @flow
    async def ordered() -> list[object]:
        refs = [event("a"), event("b"), event("c")]
        return [await ref async for ref in as_completed(refs)]

    run = ordered.start()
    for name in "cab":
        settled(clock)
        send(run.id, name, name)
    assert run.result() == ["c", "a", "b"]


@flow
def reading(ref: Ref[int]) -> int:
    return ref.result() + 1


@flow
async def awaiting(ref: Ref[int]) -> int:
    return await ref + 1


def test_a_child_flow_waits_for_its_parents_ref(clock: SkippedTime) -> None:
    @flow
    def parent() -> list[int]:
        waited = event("x", int)
        return [reading.submit(waited).result(), reading(double.submit(3).arg)]

    run = parent.start()
    settled(clock)
    send(run.id, "x", 1)
    assert run.result() == [2, 7]


@pytest.mark.parametrize("child", [reading, awaiting])
def test_a_child_flow_still_waits_when_its_parent_does_not(clock: SkippedTime, child: Any) -> None:
    @flow
    def parent() -> list[object]:
        ref = event("x", int)
        started = child.submit(ref)
        try:
            ref.result(timeout=HOUR_S)
        except TimeoutError:
            return [started.result(), wait_for("x")]
        return []

    run = parent.start()
    clock.advance(HOUR_S)
    send(run.id, "x", 1)
    send(run.id, "x", 2)
    assert run.result() == [2, 2]


def test_an_event_that_a_child_flow_made_is_read_by_its_parent(clock: SkippedTime) -> None:
    @flow
    def making() -> Any:
        ref = event("x", int)
        try:
            ref.result(timeout=HOUR_S)
        except TimeoutError:
            return ref

    @flow
    def parent() -> object:
        return making.submit().result().result()

    run = parent.start()
    clock.advance(HOUR_S)
    send(run.id, "x", 5)
    assert run.result() == 5


def test_done_says_whether_an_event_has_come_and_takes_nothing(clock: SkippedTime) -> None:
    @flow
    def polling() -> list[object]:
        ref, other = event("x"), event("x")
        before = ref.done()
        wait_for("go")
        return [before, ref.done(), other.done(), other.result(), ref.done()]

    run = polling.start()
    settled(clock)
    send(run.id, "x", 1)
    send(run.id, "go")
    assert run.result() == [False, True, True, 1, False]


def test_done_of_a_timer_is_a_look_at_the_clock(clock: SkippedTime) -> None:
    @flow
    def polling() -> list[bool]:
        ref = timer(HOUR_S)
        before = ref.done()
        timer(HOUR_S).result()
        return [before, ref.done()]

    assert polling() == [False, True]


# -- data --------------------------------------------------------------------------------------------------------------


@dataclass
class Approval:
    by: str
    amount: int = 0


def test_data_becomes_what_the_flow_asks_for(clock: SkippedTime) -> None:
    @flow
    def typed() -> object:
        return wait_for("approved", type=Approval)

    run = typed.start()
    settled(clock)
    send(run.id, "approved", {"by": "ada", "amount": 3})
    assert run.result() == Approval("ada", 3)


def test_data_that_does_not_fit_is_refused_where_the_run_is(clock: SkippedTime) -> None:
    @flow
    def typed() -> object:
        return wait_for("approved", type=Approval)

    run = typed.start()
    settled(clock)
    with pytest.raises(ValueError, match="amount"):
        send(run.id, "approved", {"by": "ada", "amount": "much"})
    send(run.id, "approved", Approval("bob"))
    assert run.result() == Approval("bob")


def test_data_that_does_not_fit_is_passed_over_with_a_warning(
    clock: SkippedTime, caplog: pytest.LogCaptureFixture
) -> None:
    @flow
    def typed() -> object:
        return wait_for("n", type=int)

    run = typed.start()
    settled(clock)
    with caplog.at_level(logging.WARNING):
        from_elsewhere(run, "n", "not a number")
    assert "passed over" in caplog.text
    from_elsewhere(run, "n", 4)
    assert run.result() == 4


def test_data_whose_class_is_not_to_be_found_is_passed_over(
    clock: SkippedTime, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    @flow
    def typed() -> object:
        return wait_for("n", type=int)

    run = typed.start()
    settled(clock)
    payload = bytes(exoflow.codec.to_bytes(exoflow.codec.encode(Approval("ada"))))
    monkeypatch.delattr(f"{__name__}.Approval")
    post(store_of(None), run.id, Message("event", 0.0, "n", payload))
    exoflow.driver.bells.look(execution_of(run))
    assert "passed over" in caplog.text
    send(run.id, "n", 4)
    assert run.result() == 4


def test_data_may_be_large(clock: SkippedTime) -> None:
    data = bytes(range(256)) * 4096

    @flow
    def large() -> list[object]:
        return [wait_for("x"), len(double_bytes(event("x").arg))]

    run = large.start()
    send(run.id, "x", data)
    send(run.id, "x", data)
    assert run.result() == [data, 2 * len(data)]


@task
def double_bytes(data: Any) -> bytes:
    return bytes(data * 2)


# -- retirement --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_message_is_there_again_when_the_choice_before_it_is_made_again(clock: SkippedTime, size: int) -> None:
    made: list[int] = []
    seen: list[object] = []
    lost: list[CallId] = []

    @task(checkpoint="never")
    def choose() -> bytes:
        made.append(1)
        return bytes([len(made)]) * 100_000

    @task
    def first(data: bytes) -> int:
        return data[0]

    @flow
    def choosing() -> object:
        choice = choose.submit()
        choice.result()
        got: Any = wait_for("x")
        seen.append(got[:1])
        if not lost:
            lost.append(choice.call_id)
            live[0].value_lost(choice.call_id)
        return [first(choice.arg), got[:1], wait_for("x")]

    live: list[Execution] = []
    run = choosing.start()
    live.append(execution_of(run))
    settled(clock)
    send(run.id, "x", b"m" * size)
    settled(clock)
    send(run.id, "x", "next")
    assert run.result() == [2, b"m", "next"]
    assert seen == [b"m", b"m"]


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_nothing_is_sent_to_a_run_that_does_not_exist() -> None:
    @flow
    def known() -> None:
        wait_for("x")

    run = known.options(run_id="nightly-1").start()
    with pytest.raises(exoflow.RunNotFound, match="nightly-1"):
        send("nightly-2", "x")
    send(run.id, "x")
    run.result()


def test_nothing_is_sent_to_a_run_that_has_ended() -> None:
    @flow
    def short() -> None: ...

    run = short.start()
    run.result()
    with pytest.raises(exoflow.RunError, match="has ended"):
        send(run.id, "x")


def test_a_run_that_broke_off_gets_what_was_sent_when_it_goes_on(clock: SkippedTime) -> None:
    @flow
    def long() -> object:
        return [wait_for("x"), wait_for("x")]

    run = long.start()
    settled(clock)
    send(run.id, "x", 1)
    settled(clock)
    execution_of(run).stop(RuntimeError("broken off by the test"))
    assert run.status is Status.BROKEN_OFF
    send(run.id, "x", 2)
    assert long.resume(run.id) == [1, 2]


def test_a_flow_sends_nothing_itself() -> None:
    @flow
    def sending() -> None:
        send("somebody", "x")

    with pytest.raises(RuntimeError, match="in a task"):
        sending()


def test_a_task_may_send(clock: SkippedTime) -> None:
    @task
    def tell(run_id: str) -> None:
        send(run_id, "x", "told")

    @flow
    def telling() -> object:
        tell(exoflow.run_id())
        return wait_for("x")

    assert telling() == "told"


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        (("x", None, 3), TypeError, "the id of a sending"),
        ((3,), TypeError, "must be text"),
        (("",), ValueError, "empty"),
    ],
)
def test_a_wrong_sending_is_refused(wrong: tuple[Any, ...], error: type[Exception], says: str) -> None:
    name, data, id = (*wrong, None, None)[:3]
    with pytest.raises(error, match=says):
        send("run", name, data, id=id)


def test_what_cannot_name_an_event_is_refused_in_the_flow_too() -> None:
    @flow
    def wrong(name: Any) -> None:
        event(name)

    for name in (3, ""):
        with pytest.raises((TypeError, ValueError), match="name of an event"):
            wrong(name)


def test_an_async_flow_does_not_wait_by_blocking() -> None:
    @flow
    async def blocking() -> None:
        wait_for("x")

    with pytest.raises(RuntimeError, match="await"):
        blocking.start().result()
