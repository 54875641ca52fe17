"""I1: a call's id comes from where it is written, whatever order things happen in."""

import asyncio
import random

import pytest

import exoflow
from exoflow import flow, task

SEEDS = 1_000
BRANCHES = 5


@pytest.fixture(autouse=True)
def memory(request: pytest.FixtureRequest) -> None:
    exoflow.configure(store=f"memory://{request.node.name}")


@task
async def step(branch: int, n: int) -> None: ...


@task
async def other(branch: int) -> None: ...


async def switch(chance: random.Random) -> None:
    """Let others go first, or not."""
    for _ in range(chance.randrange(4)):
        await asyncio.sleep(0)


def assignment(chance: random.Random) -> dict[tuple[int, str, int], str]:
    """Which id each call got: five branches, children of theirs among them, in an order that chance chooses."""
    ids: dict[tuple[int, str, int], str] = {}

    async def call(branch: int, what: str, n: int) -> None:
        ref = step.submit(branch, n) if what == "step" else other.submit(branch)
        ids[branch, what, n] = ref.call_id
        await switch(chance)
        if chance.random() < 0.5:
            await ref

    async def branch(number: int) -> None:
        await switch(chance)
        for n in range(3):
            await call(number, "step", n)
        await asyncio.gather(*(nested(number, n) for n in range(2)))
        await call(number, "other", 2)

    async def nested(number: int, n: int) -> None:
        await switch(chance)
        await call(number, "other", n)

    @flow
    async def five() -> None:
        await asyncio.gather(*(branch(number) for number in range(BRANCHES)))

    asyncio.run(five())
    return ids


def test_1000_random_interleavings_of_five_branches_give_one_assignment() -> None:
    first = assignment(random.Random(0))
    assert len(set(first.values())) == len(first) == BRANCHES * 6
    different = sum(assignment(random.Random(seed)) != first for seed in range(1, SEEDS))
    assert different == 0


def test_a_strand_is_named_by_its_place_in_its_parent() -> None:
    ids = assignment(random.Random(1))
    assert ids[0, "step", 0] == "~0:step#0"
    assert ids[4, "step", 2] == "~4:step#2"
    assert ids[2, "other", 1] == "~2.1:other#0"
    assert ids[2, "other", 2] == "~2:other#0"


def test_the_body_itself_needs_no_strand_in_its_ids() -> None:
    @flow
    async def plain() -> list[str]:
        refs = [step.submit(0, n) for n in range(2)]
        return [ref.call_id for ref in refs]

    assert asyncio.run(plain()) == ["step#0", "step#1"]
