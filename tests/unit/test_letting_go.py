"""Large values that nobody needs any more leave the memory while the run goes on."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

import exoflow
from exoflow import Ref, flow, task
from exoflow.driver.runtime import live_executions
from exoflow.executors.local import LocalHandle
from exoflow.model import Held

SIZE = 200_000
entered: list[str] = []


@pytest.fixture(autouse=True)
def nothing_entered() -> None:
    entered.clear()


@task(deterministic=True, checkpoint="never")
def make(number: int) -> bytearray:
    entered.append(f"make {number}")
    return bytearray(SIZE)


@task
def size(data: bytearray) -> int:
    return len(data)


@task
def chosen(number: int) -> bytearray:
    return bytearray(SIZE)


@task(deterministic=True, checkpoint="never")
def parts(count: int) -> list[Ref[bytearray]]:
    return [exoflow.put(bytearray(SIZE)) for _ in range(count)]


def held() -> int:
    """So many large values are in memory."""
    (execution,) = live_executions()
    values: list[Any] = list(execution.values.at.values())
    handles = [value.handle for value in values if isinstance(value, Held)]
    return sum(isinstance(handle, LocalHandle) and handle.made is not None for handle in handles)


def run(body: Any, store: Path) -> Any:
    return flow(name="letting_go")(body).options(store=str(store)).run()


def test_what_was_taken_and_is_not_in_anybodys_hands_goes(tmp_path: Path) -> None:
    def body() -> list[int]:
        counts = []
        for number in range(20):
            assert size(make.submit(number)) == SIZE
            counts.append(held())
        return counts

    assert max(run(body, tmp_path)) <= 2
    assert len(entered) == 20


def test_what_somebody_has_a_ref_to_stays(tmp_path: Path) -> None:
    def body() -> list[int]:
        refs = [make.submit(number) for number in range(5)]
        first = [size(ref) for ref in refs]
        assert held() == 5
        second = [size(ref) for ref in refs]
        del refs
        gc.collect()
        size(make.submit(9))
        size(make.submit(10))
        return [*first, *second, held()]

    found = run(body, tmp_path)
    assert found[:-1] == [SIZE] * 10
    assert found[-1] <= 2
    assert len(entered) == 7


def test_what_is_still_to_be_taken_stays(tmp_path: Path) -> None:
    def body() -> list[int]:
        sizes = size.map([make.submit(number) for number in range(20)])
        return sizes.result()

    assert run(body, tmp_path) == [SIZE] * 20
    assert len(entered) == 20


def test_what_a_task_put_goes_with_its_result(tmp_path: Path) -> None:
    def body() -> int:
        for _ in range(5):
            refs = parts(3)
            assert [size(ref) for ref in refs] == [SIZE] * 3
            del refs
        size(make.submit(1))
        return held()

    assert run(body, tmp_path) <= 4


def test_a_choice_is_not_let_go_before_it_is_saved(tmp_path: Path) -> None:
    def body() -> int:
        for number in range(3):
            assert size(chosen.options(checkpoint="never").submit(number)) == SIZE
        return held()

    assert run(body, tmp_path) == 3


def test_what_was_let_go_is_made_again_for_who_asks_all_the_same(tmp_path: Path) -> None:
    lives = []

    def body() -> int:
        made = size(make.submit(1))
        size(make.submit(2))
        lives.append(1)
        if len(lives) == 1:
            raise LookupError("once")
        return made

    options = flow(name="letting_go")(body).options(store=str(tmp_path), run_id="r")
    with pytest.raises(LookupError):
        options.run()
    assert exoflow.resume("r", store=str(tmp_path)) == SIZE
    assert len(entered) == 2
