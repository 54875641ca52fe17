"""What a run waits for is in the journal, for other processes to see, as long as it waits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import exoflow
from exoflow import as_completed, event, flow, task, timer, wait_for
from exoflow.catalogue import Description, describe
from exoflow.driver import waiting
from exoflow.driver.runtime import Runtime
from exoflow.model import Status
from exoflow.protocols import Store
from exoflow.settings import store_of
from exoflow.testing import skipping_time
from exoflow.testing.skipping import SkippedTime


@task
def work() -> int:
    return 1


@flow
def approval() -> str:
    work()
    return wait_for("approved", timeout=3600.0, type=str)


@flow
async def twice() -> None:
    await event("first")
    async for _ in as_completed([event("second"), timer(60.0)]):
        break


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    opened = store_of(f"memory://{request.node.name}")
    yield opened
    Runtime.of(opened).close()


@pytest.fixture
def clock() -> Iterator[SkippedTime]:
    with skipping_time() as clock:
        yield clock


def looked_at(run_id: str, store: Store, looks: int = 2) -> Description:
    """The run as another process sees it, after its own process has looked at it so often."""
    runtime = Runtime.of(store)
    execution = runtime.executions.get(run_id)
    if execution is not None:
        for _ in range(looks):
            waiting.look(execution)
        runtime.journal.flush()
    return describe(run_id, store)


def test_a_run_that_waits_says_for_what_from_the_second_look_on(clock: SkippedTime, store: Store) -> None:
    run = approval.options(store=store).start()
    clock.advance(0)
    assert looked_at(run.id, store, looks=1).run.status is Status.RUNNING
    seen = looked_at(run.id, store, looks=1).run
    assert seen.status is Status.WAITING
    assert seen.waits is not None
    [(_, name, no_time), (_, no_name, due_s)] = seen.waits.calls
    assert (name, no_time, no_name, seen.waits.count) == ("approved", None, None, 2)
    assert due_s == seen.waits.since_s + 3600.0
    exoflow.send(run.id, "approved", "yes", store=store)
    assert run.result() == "yes"
    ended = looked_at(run.id, store).run
    assert (ended.status, ended.waits) == (Status.DONE, None)


def test_it_says_so_once_for_each_time_that_it_waits(clock: SkippedTime, store: Store) -> None:
    run = twice.options(store=store).start()
    clock.advance(0)
    first = looked_at(run.id, store, looks=9).run.waits
    assert first is not None
    assert [name for _, name, _ in first.calls] == ["first"]
    assert looked_at(run.id, store, looks=9).run.waits == first
    exoflow.send(run.id, "first", None, store=store)
    clock.advance(0)
    assert looked_at(run.id, store, looks=0).run.status is Status.RUNNING
    second = looked_at(run.id, store).run.waits
    assert second is not None
    assert [name for _, name, _ in second.calls] == ["second", None]
    clock.advance(61.0)
    assert looked_at(run.id, store).run.status is Status.DONE
