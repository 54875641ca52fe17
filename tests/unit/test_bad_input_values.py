"""Values and errors that do not survive a process: refused at once, by name and place, or carried as they can be."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import exoflow
from exoflow import CodecError, TaskFailed, flow, task


@pytest.fixture(autouse=True)
def store(request: pytest.FixtureRequest) -> str:
    url = f"memory://{request.node.name}"
    exoflow.configure(store=url, executor="local")
    return url


def in_a_flow(body: Callable[[], object]) -> object:
    return flow(name="body")(body).run()


@task
def give(make: Callable[[], Any]) -> Any:
    return make()


@task
def one(x: Any) -> Any:
    return x


def opened() -> Any:
    with Path(__file__).open() as file:
        return file


async def later() -> int:
    return 1


def awaited() -> Any:
    coroutine = later()
    coroutine.close()
    return coroutine


UNFIT = {
    "generator": (lambda: (n for n in [1]), r"a generator cannot be pickled.*return a list"),
    "lock": (threading.Lock, r"a _thread.lock cannot be pickled.*make it where it is used"),
    "lock inside": (lambda: {"a": [1, {"b": threading.Lock()}]}, r"\['a'\]\[1\]\['b'\]: a _thread.lock cannot be"),
    "open file": (opened, r"TextIOWrapper cannot be pickled.*pass the path"),
    "frame": (sys._getframe, r"a frame cannot be pickled.*traceback.format_exc"),
}


@pytest.mark.parametrize("unfit", UNFIT)
def test_a_result_that_cannot_be_kept_is_named_with_its_place(unfit: str) -> None:
    make, match = UNFIT[unfit]
    with pytest.raises(CodecError, match=f"the result of give.*{match}"):
        in_a_flow(lambda: give(make))
    with pytest.raises(CodecError, match=f"the result of body.*{match}"):
        in_a_flow(lambda: [make()][0])


@pytest.mark.parametrize("unfit", UNFIT)
def test_an_argument_that_cannot_be_kept_is_named_with_its_place(unfit: str) -> None:
    make, match = UNFIT[unfit]
    with pytest.raises(CodecError, match=f"the argument 'x' of one.*{match}"):
        in_a_flow(lambda: one(make()))
    with pytest.raises(CodecError, match=f"the argument 'x' of .*named.*{match}"):
        flow(name="named")(lambda x: x).run(make())


def test_a_task_that_returns_a_coroutine_is_told_to_be_async() -> None:
    with pytest.raises(CodecError, match="give returned a coroutine: declare the task itself as async def"):
        in_a_flow(lambda: give(awaited))


@pytest.mark.parametrize("declare", [task, flow])
def test_a_generator_function_is_refused_where_it_is_declared(declare: Any) -> None:
    def parts() -> Any:
        yield 1

    with pytest.raises(TypeError, match=r"parts is a generator.*return a list instead of yielding"):
        declare(parts)


def test_a_task_may_return_a_task() -> None:
    assert in_a_flow(lambda: give(lambda: one)).name == one.name  # type: ignore[attr-defined]  # it is the task


def nested(depth: int) -> list[Any]:
    data: list[Any] = []
    for _ in range(depth):
        data = [data]
    return data


def depth_of(data: list[Any]) -> int:
    depth = 0
    while data:
        data, depth = data[0], depth + 1
    return depth


@task
def measure(data: list[Any]) -> int:
    return depth_of(data)


def test_data_nested_ten_thousand_deep_is_taken_and_given() -> None:
    assert in_a_flow(lambda: measure(nested(10_000))) == 10_000
    assert in_a_flow(lambda: measure(give.submit(lambda: nested(10_000)))) == 10_000
    assert depth_of(flow(name="deep")(lambda data: data).options(run_id="deep").run(nested(10_000))) == 10_000
    assert depth_of(exoflow.resume("deep")) == 10_000  # type: ignore[arg-type]  # it is a list


def test_data_that_holds_itself_comes_back_so() -> None:
    def endless() -> Any:
        data: list[Any] = []
        data.append(data)
        return data

    result: Any = in_a_flow(lambda: give(endless))
    assert result[0] is result


class WithLock(Exception):
    def __init__(self, account: str) -> None:
        super().__init__(f"no money in {account}")
        self.lock = threading.Lock()


class TwoArguments(Exception):
    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


class Unsayable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


def throw(error: Callable[[], BaseException]) -> Any:
    raise error()


@task
def fail(error: Callable[[], BaseException]) -> Any:
    throw(error)


@pytest.mark.parametrize("call", [fail, lambda error: fail.submit(error).result()], ids=["called", "submitted"])
def test_an_error_that_does_not_pickle_is_told_in_words(call: Callable[[Any], object]) -> None:
    with pytest.raises(TaskFailed, match="WithLock: no money in savings"):
        in_a_flow(lambda: call(lambda: WithLock("savings")))
    with pytest.raises(TaskFailed, match="Unsayable"):
        in_a_flow(lambda: call(Unsayable))
    with pytest.raises(TaskFailed, match="SystemExit"):
        in_a_flow(lambda: fail.submit(lambda: SystemExit(4)).result())


def test_an_error_whose_constructor_takes_other_arguments_keeps_its_type() -> None:
    with pytest.raises(TwoArguments, match="402: broke") as told:
        in_a_flow(lambda: fail(lambda: TwoArguments(402, reason="broke")))
    assert told.value.code == 402


class Hostile:
    """Everything that a value may be asked raises."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("__eq__")

    def __bool__(self) -> bool:
        raise RuntimeError("__bool__")

    def __repr__(self) -> str:
        raise RuntimeError("__repr__")


ODD = [
    {"a"}, [{}], {b"a": 1, None: 2, (1, 2): 3}, float("nan"), 10**5000, "\ud800", bytearray(b"x"), Hostile(),
    [Hostile()], object, len, lambda: 3, Ellipsis, range(3), {}.keys(), ValueError("x"), -0.0, "", b"", (), 1j,
]  # fmt: skip


@pytest.mark.parametrize("x", ODD, ids=[f"{type(x).__name__}-{number}" for number, x in enumerate(ODD)])
def test_odd_arguments_arrive(x: object) -> None:
    @flow(name="odd")
    def odd(x: object) -> str:
        return type(one(x)).__name__ + type(one(x=[x])).__name__ + type(one(one.submit(x))).__name__

    assert odd.options(run_id="odd").run(x) == f"{type(x).__name__}list{type(x).__name__}"
    assert odd.options(run_id="odd").run(x) == f"{type(x).__name__}list{type(x).__name__}"


@pytest.mark.big
@pytest.mark.slow
def test_a_hundred_thousand_elements_are_mapped() -> None:
    assert in_a_flow(lambda: sum(one.map(range(100_000)).result())) == sum(range(100_000))
