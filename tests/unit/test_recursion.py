"""Recursion that goes too deep is an error of the body that has recursed, as in any program."""

from collections.abc import Callable
from typing import Any

import pytest

import exoflow
from exoflow import AsyncFlow, Flow, Status, flow, task
from exoflow.driver import body


@pytest.fixture(autouse=True)
def memory(request: pytest.FixtureRequest) -> None:
    exoflow.configure(store=f"memory://{request.node.name}")


@task
def one() -> int:
    return 1


@flow
def called(n: int) -> int:
    return one() + (called(n - 1) if n else 0)


@flow
def submitted(n: int) -> int:
    return 1 + (submitted.submit(n - 1).result() if n else 0)


@flow
async def awaited(n: int) -> int:
    return 1 + (await awaited(n - 1) if n else 0)


@flow
def caught(n: int) -> int:
    try:
        return called(n)
    except RecursionError:
        return called(3)


def test_child_flows_may_be_deep_inside_each_other() -> None:
    assert called.start(50).result(60) == 51
    assert submitted.start(200).result(60) == 201
    assert awaited.start(200).result(60) == 201


def test_child_flows_too_deep_inside_each_other_are_a_recursion_error() -> None:
    run = called.start(500)
    with pytest.raises(RecursionError):
        run.result(60)
    assert run.status is Status.FAILED


@pytest.mark.parametrize("deep", [submitted, awaited])
def test_child_flows_with_stacks_of_their_own_are_limited_too(
    deep: Flow[[int], int] | AsyncFlow[[int], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "NESTED_COST", 50)
    run = deep.start(30)
    with pytest.raises(RecursionError, match="20 child flows inside each other"):
        run.result(60)


def test_the_body_that_recursed_can_catch_the_error_and_go_on() -> None:
    assert caught.start(500).result(60) == 4


def deepened(depth: int, call: Callable[[], Any]) -> Any:
    return call() if depth == 0 else deepened(depth - 1, call)


@pytest.mark.parametrize("call", [one, lambda: one.submit().result(), exoflow.now], ids=["call", "submit", "now"])
def test_a_call_from_any_depth_is_made_or_refused_to_the_body(call: Callable[[], Any]) -> None:
    told: list[str] = []

    @flow
    def body() -> int:
        for depth in range(700, 1000, 3):
            try:
                deepened(depth, call)
            except RecursionError as error:
                told.append(str(error))
        return one()

    assert body.start().result(60) == 1
    assert "frames that a durable call may need" in told[0]
