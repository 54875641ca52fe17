"""Errors of code that has changed: ``resume`` runs such a call again, or refuses where a later call stands on it.

``version`` stands for the code.
"""

import pytest

import exoflow
from exoflow import Flow, RunMismatch, flow, task


@pytest.fixture(autouse=True)
def memory(request: pytest.FixtureRequest) -> None:
    exoflow.configure(store=f"memory://{request.node.name}")


def made(parse: str = "1", last: str = "1") -> tuple[Flow[[], int], Flow[[], int]]:
    @task(name="load", version="1")
    def load() -> str:
        loads.append(1)
        return "3,x"

    @task(name="parse", version=parse)
    def parsed(text: str) -> int:
        return sum(int(word) for word in text.split(",") if parse == "1" or word.isdigit())

    @task(name="last", version=last)
    def ends(n: int) -> int:
        if last == "1":
            raise LookupError("no")
        return n

    @flow(name="sums", version="1")
    def sums() -> int:
        return parsed(load())

    @flow(name="survives", version="1")
    def survives() -> int:
        try:
            n = parsed(load())
        except ValueError:
            n = -1
        return ends(n)

    return sums, survives


loads: list[int] = []


@pytest.fixture(autouse=True)
def nothing_loaded() -> None:
    loads.clear()


def test_a_failed_call_whose_code_is_mended_runs_again_and_nothing_else_does() -> None:
    with pytest.raises(ValueError, match="'x'"):
        made()[0].options(run_id="a")()
    with pytest.raises(ValueError, match="'x'"):
        made()[0].resume("a")
    assert made(parse="2")[0].resume("a") == 3
    assert loads == [1]


def test_an_error_that_a_later_call_stands_on_is_not_mixed_with_other_code() -> None:
    with pytest.raises(LookupError, match="no"):
        made()[1].options(run_id="a")()
    with pytest.raises(RunMismatch, match="parse has changed since parse#0 ran"):
        made(parse="2", last="2")[1].resume("a")
    assert made(last="2")[1].resume("a") == -1
    assert loads == [1]
