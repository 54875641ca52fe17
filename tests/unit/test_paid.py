"""Paid calls in runs: what their bodies can ask, what they tell, and what a resumed run had spent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import exoflow
from exoflow import flow, paid, task
from exoflow.journal import Journal, Kind
from exoflow.paid import Bill
from exoflow.storage import LocalStore

pytestmark = pytest.mark.usefixtures("memory")

asked: list[str] = []
fails: set[str] = set()
told: dict[str, Mapping[Any, Bill]] = {}


@pytest.fixture(autouse=True)
def fresh() -> None:
    asked.clear()
    fails.clear()
    told.clear()


@paid.paid_task()
async def ask(name: str) -> str:
    await paid.dispatching()
    asked.append(name)
    told[name] = dict(paid.bills_before())
    paid.tell_bill(Bill(10, 2, 0, 500, paid.may_be_paid_twice(), (("user", name),)))
    if name in fails:
        raise ValueError(name)
    return f"{name} for {paid.labels().get('tenant')} in {paid.job()!r}"


@paid.paid_task()
def ask_here(name: str) -> str:
    paid.dispatching_here()
    paid.dispatching_here()
    return f"{name} for {paid.labels().get('tenant')} in {paid.job()!r}"


@flow
async def inner() -> list[str]:
    return [f"{paid.labels()['tenant']} {paid.job()!r}", await ask("b")]


@flow
async def outer() -> list[str]:
    return [f"{paid.labels()['tenant']} {paid.job()!r}", await ask("a"), *await inner()]


async def test_labels_are_inherited_and_the_job_is_the_flow_whose_body_calls() -> None:
    assert await outer.options(labels={"tenant": "acme"}).run() == [
        "acme ''", "a for acme in ''", "acme 'inner#0/'", "b for acme in 'inner#0/'",
    ]  # fmt: skip


def test_a_sync_flow_may_call_one_too() -> None:
    @flow
    def asks() -> str:
        return ask_here("a")

    assert asks.options(labels={"tenant": "acme"}).run() == "a for acme in ''"


@flow
async def breaks() -> str:
    await ask("a")
    await inner()
    answers = await asyncio.gather(ask("c"), ask("d"))
    return answers[0]


async def test_a_resumed_run_knows_what_it_had_spent_before_its_body_comes_to_it() -> None:
    fails.add("d")
    with pytest.raises(ValueError, match="d"):
        await breaks.options(run_id="r", labels={"tenant": "acme"}).run()
    assert all(bills == {} for bills in told.values())
    fails.clear()
    assert await breaks.resume("r") == "c for acme in ''"
    assert asked == ["a", "b", "c", "d", "d"]
    calls = {"ask#0": "a", "inner#0/ask#0": "b", "ask#1": "c", "ask#2": "d"}
    assert told["d"] == {call: Bill(10, 2, 0, 500, labels=(("user", name),)) for call, name in calls.items()}, (
        "its own error had a price, too"
    )


@flow
async def looks() -> list[int]:
    before = len(paid.bills_before())
    await ask("a")
    await ask("b")
    return [before, len(paid.bills_before())]


async def test_a_flow_can_ask_as_well() -> None:
    fails.add("b")
    with pytest.raises(ValueError, match="b"):
        await looks.options(run_id="r").run()
    fails.clear()
    assert await looks.resume("r") == [2, 2], "all that is recorded, once"


@paid.paid_task()
async def slow() -> None:
    await paid.dispatching()
    asked.append("slow")
    await asyncio.sleep(3600)


@flow
async def gives_up() -> None:
    strand = asyncio.create_task(slow())
    await ask("a")
    strand.cancel()
    await asyncio.gather(strand, return_exceptions=True)
    await ask("b")


async def test_a_call_that_was_given_up_is_not_made_again_by_a_replay() -> None:
    fails.add("b")
    with pytest.raises(ValueError, match="b"):
        await gives_up.options(run_id="r").run()
    fails.clear()
    await gives_up.resume("r")
    assert sorted(asked) == ["a", "b", "b", "slow"]  # two that are under way at once come in any order


async def test_a_call_that_raised_is_not_in_doubt_when_the_run_is_resumed() -> None:
    @paid.paid_task()
    async def is_in_doubt() -> bool:
        await paid.dispatching()
        if fails:
            raise ValueError("not now")
        return paid.may_be_paid_twice()

    @flow
    async def asks() -> bool:
        return await is_in_doubt()

    fails.add("it")
    with pytest.raises(ValueError, match="not now"):
        await asks.options(run_id="r").run()
    fails.clear()
    assert not await asks.resume("r")


async def test_the_bills_of_attempts_that_failed_are_in_the_record_of_the_one_that_did_not() -> None:
    @paid.paid_task(retries=1, backoff=exoflow.Backoff(initial_s=0.0))
    async def second_time() -> int:
        await paid.dispatching()
        paid.tell_bill(Bill(10, exoflow.attempt(), 0, 500, paid.may_be_paid_twice()))
        if exoflow.attempt() == 1:
            raise ValueError
        return exoflow.attempt()

    @flow
    async def retries() -> int:
        result = await second_time()
        await ask("x")
        return result

    fails.add("x")
    with pytest.raises(ValueError, match="x"):
        await retries.options(run_id="r").run()
    fails.clear()
    assert await retries.resume("r") == 2
    assert told["x"]["second_time#0"] == Bill(20, 3, 0, 1000, maybe_rebilled=True)


async def test_an_attempt_that_sent_nothing_leaves_no_doubt() -> None:
    @paid.paid_task(retries=1, backoff=exoflow.Backoff(initial_s=0.0))
    async def is_in_doubt() -> bool:
        if exoflow.attempt() == 1:
            raise ValueError("its turn did not come")
        doubt = paid.may_be_paid_twice()
        await paid.dispatching()
        return doubt

    @flow
    async def asks() -> bool:
        return await is_in_doubt()

    assert not await asks.run()


async def test_a_call_hears_when_what_has_become_of_it_is_durable() -> None:
    heard: list[str] = []

    @paid.paid_task(retries=1, backoff=exoflow.Backoff(initial_s=0.0))
    async def asks(name: str) -> str:
        await paid.dispatching()
        paid.when_recorded(lambda: heard.append(name))
        if name == "a" and exoflow.attempt() == 1 or name == "c":
            raise ValueError(name)
        return name * 100_000 if name == "b" else name

    @flow
    async def several() -> None:
        for name in "abc":
            await asyncio.gather(asks(name), return_exceptions=True)

    await several.run()
    paid.when_recorded(lambda: heard.append("outside"))
    assert heard == ["a", "a", "b", "c", "c", "outside"], "each attempt does, once"


async def test_what_it_hears_of_is_durable(tmp_path: Path) -> None:
    durable: list[set[str]] = []
    """What is told of the call, in the store."""

    def look() -> None:
        records = Journal(LocalStore(str(tmp_path))).find("r").records
        durable.append({Kind(record[0]).name for record in records if record[2] == "asks#0"})

    @paid.paid_task()
    async def asks() -> None:
        await paid.dispatching()
        look()
        paid.when_recorded(look)

    @flow
    async def once() -> None:
        await asks()

    await once.options(run_id="r", store=tmp_path).run()
    assert durable == [{"INTENT"}, {"INTENT", "SAVED"}]


async def test_outside_of_a_flow_it_simply_calls() -> None:
    assert await ask("a") == "a for None in ''"
    assert not paid.may_be_paid_twice()
    assert paid.job() == ""
    assert paid.labels() == paid.bills_before() == {}


def test_what_is_fixed_is_refused() -> None:
    for option in ({"checkpoint": "never"}, {"executor": "processes"}, {"effect": "idempotent"}):
        with pytest.raises(TypeError, match=f"a paid task has no option '{next(iter(option))}'"):
            paid.paid_task(**option)  # type: ignore[arg-type]  # that is what is tested
    with pytest.raises(TypeError, match="'executor' is fixed: ask is paid for"):
        ask.options(executor="processes")
    assert ask.options(key="k").spec.note.paid


def test_a_public_task_cannot_be_paid_for() -> None:
    with pytest.raises(TypeError, match="has no option 'paid'"):
        task(paid=True)(lambda: None)  # type: ignore[call-overload]  # that is what is tested
