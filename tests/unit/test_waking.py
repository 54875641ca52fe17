"""How threads and loops are told that something has happened."""

from __future__ import annotations

import asyncio
import signal
import threading
import time

import pytest

import exoflow
from exoflow import Cancelled, Run, RunCancelled, flow, timer
from exoflow.driver.latch import Latch
from exoflow.driver.loops import mailbox
from exoflow.model import Status


def test_a_latch_lets_all_go_who_wait_and_who_come_later() -> None:
    latch, seen = Latch(), []
    threads = [threading.Thread(target=lambda: seen.append(latch.wait())) for _ in range(4)]
    for thread in threads:
        thread.start()
    latch.set()
    for thread in threads:
        thread.join()
    assert seen == [True] * 4
    assert latch.is_set() and latch.wait(0.0)


def test_a_latch_that_nobody_sets_is_waited_for_only_so_long() -> None:
    assert Latch().wait(0.0) is False


def test_a_signal_that_another_thread_was_given_is_handled_while_a_latch_is_waited_for() -> None:
    heard: list[int] = []
    latch, before = Latch(), signal.signal(signal.SIGUSR1, lambda number, _: (heard.append(number), latch.set()))

    def strike() -> None:
        while not latch._waiting:
            time.sleep(0.001)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    struck = threading.Thread(target=strike)
    struck.start()
    try:
        assert latch.wait() and latch.wait(1000)
        struck.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard == [signal.SIGUSR1]


def test_a_mailbox_resolves_futures_from_other_threads_and_from_its_own() -> None:
    async def waiting() -> None:
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in range(100)]
        mail = mailbox(loop)
        mail.post(futures[:1])
        assert futures[0].done()
        poster = threading.Thread(target=lambda: [mail.post((future,)) for future in futures])
        poster.start()
        await asyncio.gather(*futures)
        poster.join()

    asyncio.run(waiting())


def test_a_mailbox_whose_loop_is_closed_takes_what_comes_and_nothing_happens() -> None:
    loop = asyncio.new_event_loop()
    mail, future = mailbox(loop), loop.create_future()
    loop.close()
    mail.post((future,))
    assert not future.done()


def test_a_run_that_only_a_timer_can_bring_on_is_waiting() -> None:
    exoflow.configure(store="memory://waiting")

    @flow
    async def long() -> None:
        await timer(3600)

    async def seen() -> None:
        run = long.start()
        assert run.status is Status.RUNNING
        while run.status is not Status.WAITING:  # noqa: ASYNC110 - nothing else tells
            await asyncio.sleep(0)
        assert exoflow.get(run.id).status is Status.WAITING
        await asyncio.to_thread(run.cancel)
        with pytest.raises(RunCancelled):
            await run

    asyncio.run(seen())


@pytest.mark.parametrize("is_async", [False, True])
def test_a_body_that_waits_is_told_that_its_run_was_cancelled(is_async: bool) -> None:
    exoflow.configure(store=f"memory://told-{is_async}")
    told: list[type[BaseException]] = []

    @flow
    def waits() -> None:
        try:
            timer(1000).result()
        except BaseException as error:
            told.append(type(error))
            raise

    @flow
    async def waits_later() -> None:
        try:
            await timer(1000)
        except BaseException as error:
            told.append(type(error))
            raise

    run: Run[None] = (waits_later if is_async else waits).start()
    while run.status is not Status.WAITING:
        threading.Event().wait(0.001)
    run.cancel()
    with pytest.raises(RunCancelled):
        run.result()
    while not told:
        threading.Event().wait(0.001)
    assert told == [Cancelled]
