"""Changing a tenant's terms in a flow: a replay has the change."""

from __future__ import annotations

import asyncio

import pytest

from exoflow import flow, task
from exoflow.errors import BudgetExceeded
from exoflow.llm.fair.scheduler import Ask, FairScheduler, Tenant
from exoflow.testing import SkippedTime

pytestmark = pytest.mark.usefixtures("memory")

sched = FairScheduler()
fails = False
seen: list[str] = []


@pytest.fixture(autouse=True)
def anew() -> None:
    global sched, fails
    sched, fails = FairScheduler(), False
    seen.clear()


@task
def step(name: str) -> str:
    seen.append(name)
    if fails and name == "last":
        raise RuntimeError("out of luck")
    return name


@flow
def changing() -> str:
    sched.update("acme", Tenant(budget_tokens=10))
    step("first")
    sched.update("acme", Tenant(budget_tokens=20))
    return step("last")


@flow
async def changing_async() -> str:
    await sched.update("acme", Tenant(budget_tokens=20))
    return await step.submit("last")


async def limit_of_acme() -> int:
    with pytest.raises(BudgetExceeded) as caught:
        await sched.admit(Ask("probe", labels={"tenant": "acme"}, input_tokens=10**9, max_output_tokens=0))
    return caught.value.limit


@pytest.mark.parametrize("program", [changing, changing_async])
async def test_a_change_in_a_flow_is_made_again_by_a_replay(program) -> None:  # type: ignore[no-untyped-def]
    global sched, fails
    fails = True
    run = program.options(run_id="changes").start()
    with pytest.raises(RuntimeError):
        await run
    assert await limit_of_acme() == 20

    sched, fails = FairScheduler(), False  # as another process has it
    seen.clear()
    resumed = await asyncio.to_thread(program.resume, "changes")
    assert (resumed if program is changing else await resumed) == "last"
    assert seen == ["last"]
    assert await limit_of_acme() == 20


async def test_a_replay_does_not_take_back_what_was_changed_later(clock: SkippedTime) -> None:
    global fails
    fails = True
    with pytest.raises(RuntimeError):
        await changing.options(run_id="older").start()
    await sched.update("acme", Tenant(budget_tokens=50))
    fails = False
    await asyncio.to_thread(changing.resume, "older")
    assert await limit_of_acme() == 50
