"""Async flows that give calls up, or never wait for them: the flow goes on, ends, and fails nobody."""

import asyncio
import contextlib
import threading

import pytest

import exoflow
from exoflow import RunCancelled, flow, task


@pytest.fixture(autouse=True)
def memory(request: pytest.FixtureRequest) -> None:
    exoflow.configure(store=f"memory://{request.node.name}")


ended: list[str] = []


@pytest.fixture(autouse=True)
def nothing_has_ended() -> None:
    ended.clear()


@task
async def for_ever() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("for_ever")


@task
async def at_once(x: int) -> int:
    ended.append("at_once")
    return x


@task
async def fails() -> None:
    raise LookupError("no")


async def test_a_call_whose_deadline_passes_is_ended_and_the_flow_goes_on() -> None:
    @flow
    async def impatient() -> int:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(for_ever(), 0.01)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await for_ever()
        return await at_once(1)

    assert await impatient.run() == 1
    assert ended == ["for_ever", "for_ever", "at_once"]


async def test_a_branch_that_fails_ends_its_siblings_as_a_task_group_does() -> None:
    @flow
    async def group() -> int:
        try:
            async with asyncio.TaskGroup() as branches:
                branches.create_task(for_ever())
                branches.create_task(fails())
        except* LookupError:
            pass
        return await at_once(2)

    assert await group.run() == 2
    assert ended == ["for_ever", "at_once"]


async def test_an_effect_that_was_given_up_is_a_failed_call_and_no_failed_run() -> None:
    @task(effect="idempotent")
    async def publish() -> None:
        await asyncio.Event().wait()

    @flow
    async def impatient() -> str:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(publish(), 0.01)
        return "went on"

    run = impatient.start()
    assert await run == "went on"
    failed = [event for event in run.events() if "publish" in str(event)]
    assert failed, "it is known that it may have happened"


async def test_what_was_given_up_in_another_life_is_no_failed_run_either() -> None:
    lives = []
    saved = at_once.options(checkpoint="sync")

    @task(effect="idempotent")
    async def publish() -> None:
        await asyncio.Event().wait()

    @task
    async def fails_once() -> str:
        lives.append(1)
        if len(lives) == 1:
            raise LookupError("once")
        return "went on"

    @flow
    async def impatient() -> str:
        strand = asyncio.create_task(publish())
        await saved(1)  # so that it begins
        await saved(2)
        strand.cancel()
        await asyncio.gather(strand, return_exceptions=True)
        return await fails_once()

    with pytest.raises(LookupError, match="once"):
        await impatient.options(run_id="twice").run()
    assert await impatient.resume("twice") == "went on"


async def test_a_call_that_is_never_awaited_runs_before_the_flow_ends() -> None:
    @flow
    async def careless() -> str:
        left = at_once(3)
        del left
        return "returned"

    with pytest.warns(RuntimeWarning, match="never awaited"):
        assert await careless.run() == "returned"
    assert ended == ["at_once"]


async def test_the_timeout_of_an_awaited_task_ends_it_in_the_flow_s_own_loop() -> None:
    slow = for_ever.options(timeout=0.01, losses=0)

    @flow
    async def bounded() -> str:
        with pytest.raises(TimeoutError, match=r"timed out after 0\.01 s"):
            await slow()
        return "went on"

    assert await bounded.run() == "went on"
    assert ended == ["for_ever"]


async def test_a_body_s_own_timeout_error_is_an_error_of_the_task() -> None:
    @task(timeout=60)
    async def raises() -> None:
        raise TimeoutError("its own")

    @flow
    async def sees() -> str:
        try:
            await raises()
        except TimeoutError as error:
            return str(error)
        return "nothing"

    assert await sees.run() == "its own"


async def test_a_cancel_ends_the_task_that_the_flow_awaits() -> None:
    begun = asyncio.Event()

    @task
    async def working() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("working")

    @flow
    async def waits() -> None:
        await working()

    run = waits.start()
    await begun.wait()
    await asyncio.to_thread(run.cancel)
    with pytest.raises(RunCancelled):
        await run
    assert ended == ["working"]


async def test_a_submitted_call_goes_on_when_who_awaited_its_ref_was_cancelled() -> None:
    may_end = threading.Event()

    @task
    def working() -> int:
        may_end.wait()
        return 4

    @flow
    async def looks_twice() -> int:
        ref = working.submit()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await ref
        may_end.set()
        return await ref

    assert await looks_twice.run() == 4


async def test_a_call_from_a_thread_that_took_the_strand_along_is_refused() -> None:
    @task
    def count(x: int) -> int:
        return x

    @flow
    async def threaded() -> str:
        with pytest.raises(RuntimeError, match="in another thread than its flow's"):
            await asyncio.to_thread(count.submit, 1)
        return "refused"

    assert await threaded.run() == "refused"
