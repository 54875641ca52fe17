"""Tests of flows with time skipped, as a user writes them."""

from __future__ import annotations

import asyncio
import threading

import pytest

import exoflow
from exoflow import Backoff, as_completed, event, flow, now, send, sleep, task, timer, wait_for
from exoflow.driver.clock import SYSTEM_CLOCK, clock_in_use
from exoflow.driver.runtime import Runtime
from exoflow.model import Status
from exoflow.settings import store_of
from exoflow.testing import SkippedTime, skipping_time

DAY_S = 86_400.0


pytestmark = pytest.mark.usefixtures("memory")


mails: list[str] = []


@task(effect="idempotent")
def mail(text: str) -> None:
    mails.append(text)


@flow
def invite(who: str) -> str:
    for _ in range(2):
        try:
            return wait_for("answer", timeout=3 * DAY_S, type=str)
        except TimeoutError:
            mail(f"Dear {who}, will you come?")
    return "no answer"


@pytest.fixture(autouse=True)
def no_mails() -> None:
    mails.clear()


def test_a_reminder_is_sent_after_three_days(clock: SkippedTime) -> None:
    assert invite("Ada") == "no answer"
    assert len(mails) == 2


def test_an_answer_on_the_fourth_day_comes_after_one_reminder(clock: SkippedTime) -> None:
    run = invite.start("Ada")
    clock.advance(4 * DAY_S)
    assert mails == ["Dear Ada, will you come?"]
    send(run.id, "answer", "yes")
    assert run.result() == "yes"
    clock.advance(30 * DAY_S)
    assert len(mails) == 1


def test_a_flow_sees_the_time_that_was_skipped(clock: SkippedTime) -> None:
    @flow
    def week() -> float:
        begun = now()
        sleep(7 * DAY_S)
        return now() - begun

    begun = clock.now()
    assert week() == 7 * DAY_S
    assert clock.now() == begun + 7 * DAY_S


def test_backoffs_of_an_hour_are_skipped(clock: SkippedTime) -> None:
    tries: list[float] = []

    @task(retries=3, backoff=Backoff(initial_s=3600.0, factor=2.0, max_s=1e6, jitter=0.0))
    def flaky() -> str:
        tries.append(clock.now())
        if len(tries) < 4:
            raise ConnectionError
        return "done"

    @flow
    def retrying() -> str:
        return flaky()

    assert retrying() == "done"
    assert [later - tries[0] for later in tries] == [0.0, 3600.0, 3 * 3600.0, 7 * 3600.0]


@pytest.mark.parametrize("waits", ["sync", "async", "on this loop"])
def test_timers_are_completed_in_their_order(clock: SkippedTime, waits: str) -> None:
    @flow
    def in_a_thread() -> list[tuple[float, float]]:
        begun = now()
        seconds = {timer(s): s for s in (30.0, 10.0, 20.0)}
        return [(seconds[ref], now() - begun) for ref in as_completed(list(seconds))]

    @flow
    async def on_a_loop() -> list[tuple[float, float]]:
        begun = now()
        seconds = {timer(s): s for s in (30.0, 10.0, 20.0)}
        return [(seconds[ref], now() - begun) async for ref in as_completed(list(seconds))]

    async def here() -> list[tuple[float, float]]:
        return await on_a_loop.start()

    found = {
        "sync": in_a_thread,
        "async": lambda: on_a_loop.start().result(),
        "on this loop": lambda: asyncio.run(here()),
    }
    assert found[waits]() == [(10.0, 10.0), (20.0, 20.0), (30.0, 30.0)]


def test_strands_and_child_flows_wait_side_by_side(clock: SkippedTime) -> None:
    @flow
    def sleeping(s: float) -> float:
        sleep(s)
        return now()

    @flow
    async def many() -> list[float]:
        begun = now()

        async def strand(s: float) -> float:
            await timer(s)
            await timer(s)
            return now()

        ends = await asyncio.gather(strand(5.0), strand(3.0), sleeping.submit(4.0), sleeping.submit(50.0))
        return [end - begun for end in ends]

    assert many.start().result() == [10.0, 6.0, 4.0, 50.0]


def test_timeouts_of_refs_are_skipped(clock: SkippedTime) -> None:
    @flow
    def impatient() -> list[float]:
        begun, waits = now(), []
        for ref in (event("x"), exoflow.gather(event("x"), event("y"))):
            with pytest.raises(TimeoutError):
                ref.result(timeout=500.0)
            waits.append(now() - begun)
        return waits

    assert impatient() == [500.0, 1000.0]


def test_no_time_is_skipped_while_a_task_runs(clock: SkippedTime) -> None:
    begun, may_end = threading.Event(), threading.Event()

    @task
    def working() -> str:
        begun.set()
        may_end.wait()
        return "worked"

    @flow
    def deadline() -> object:
        work, late = working.submit(), timer(DAY_S)
        first = next(as_completed([work, late]))
        return "late" if first is late else first.result()

    run = deadline.start()
    result: list[object] = []
    asking = threading.Thread(target=lambda: result.append(run.result()))
    asking.start()
    begun.wait()
    at = clock.now()
    assert run.status is Status.RUNNING
    may_end.set()
    asking.join()
    assert result == ["worked"]
    assert clock.now() == at


def test_time_stands_still_while_nobody_asks(clock: SkippedTime) -> None:
    @flow
    def week() -> None:
        sleep(7 * DAY_S)

    run = week.start()
    clock.advance(6 * DAY_S)
    assert run.status is Status.WAITING
    clock.advance(DAY_S)
    assert run.status is Status.DONE


def test_several_runs_share_one_time(clock: SkippedTime) -> None:
    order: list[float] = []

    @task
    def note(s: float) -> None:
        order.append(s)

    @flow
    def sleeping(s: float) -> None:
        sleep(s)
        note(s)

    runs = [sleeping.start(s) for s in (3.0, 1.0, 2.0)]
    for run in runs:
        run.result()
    assert order == [1.0, 2.0, 3.0]


def test_what_has_not_ended_goes_on_in_real_time() -> None:
    @flow
    def soon() -> str:
        timer(0.0).result()
        wait_for("go")
        sleep(0.01)
        return "ended"

    with skipping_time() as clock:
        run = soon.start()
        clock.advance(0)
        begun = clock.now()
    assert clock.now() > begun - 1.0
    assert clock_in_use() is SYSTEM_CLOCK
    send(run.id, "go")
    assert run.result() == "ended"


def test_a_timer_that_was_armed_in_the_block_rings_after_it() -> None:
    @flow
    def soon() -> str:
        sleep(0.01)
        return "ended"

    with skipping_time() as clock:
        run = soon.start()
        clock.advance(0)
        assert run.status is Status.WAITING
    assert run.result() == "ended"


def test_time_is_skipped_by_one_at_a_time(clock: SkippedTime) -> None:
    with pytest.raises(RuntimeError, match="already"), skipping_time():
        pass


def test_time_does_not_go_back(clock: SkippedTime) -> None:
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)


def test_a_loop_is_not_blocked_by_advancing(clock: SkippedTime) -> None:
    @flow
    async def week() -> str:
        await timer(7 * DAY_S)
        return "ended"

    async def here() -> str:
        run = week.start()
        with pytest.raises(RuntimeError, match="to_thread"):
            clock.advance(DAY_S)
        await asyncio.to_thread(clock.advance, 7 * DAY_S)
        assert run.status is Status.DONE
        return await run

    assert asyncio.run(here()) == "ended"


def test_a_run_that_has_ended_leaves_no_timer_behind(clock: SkippedTime) -> None:
    @flow
    def early() -> None:
        for _ in range(200):
            wait_for("x", timeout=30 * DAY_S)

    run = early.start()
    for _ in range(200):
        send(run.id, "x")
    run.result()
    assert Runtime.of(store_of(None)).executions == {}
    assert len(clock._timers) < 100


releases: list[str] = []


def release(key: str) -> None:
    releases.append(key)
    if len(releases) < 3:
        raise ConnectionError


def test_an_undo_that_fails_is_tried_again_without_waiting(clock: SkippedTime) -> None:
    @task(rollback=release)
    def reserve() -> int:
        return 1

    @flow(on_failure="rollback")
    def failing() -> None:
        reserve()
        raise ValueError("the flow fails")

    with pytest.raises(ValueError, match="the flow fails"):
        failing()
    assert len(releases) == 3
