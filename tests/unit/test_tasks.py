"""Tasks: plain functions outside a flow, durable calls in one, and refusals that say what to write instead."""

import asyncio
import inspect
import threading
import warnings
from collections.abc import Callable, Iterator
from itertools import count, repeat
from typing import Any

import pytest

import exoflow
from exoflow import Backoff, Ref, flow, task
from exoflow.driver.body import current_body


@pytest.fixture(autouse=True)
def memory(request: pytest.FixtureRequest) -> None:
    exoflow.configure(store=f"memory://{request.node.name}")


@task
def double(x: int, *, plus: int = 0) -> int:
    """Twice as much."""
    return 2 * x + plus


@task
async def double_later(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x


@task(effect="idempotent")
def key() -> str:
    return f"{exoflow.idempotency_key()} {exoflow.attempt()}"


@flow
def key_in_a_child() -> str:
    return key()


@flow
def keys(*, child: bool) -> str:
    return key_in_a_child() if child else key()


@task
def total(xs: list[int], extra: dict[str, int] | None = None) -> int:
    return sum(xs) + sum((extra or {}).values())


def in_flow(body: Callable[[], Any]) -> Any:
    @flow
    def trial() -> Any:
        return body()

    return trial()


def in_async_flow(body: Callable[[], Any]) -> Any:
    @flow
    async def trial() -> Any:
        answer = body()
        return await answer if inspect.isawaitable(answer) else answer

    return asyncio.run(trial())


# -- outside a flow ----------------------------------------------------------------------------------------------------


def test_outside_a_flow_a_task_is_its_function() -> None:
    assert double(2, plus=1) == 5
    assert asyncio.run(double_later(2)) == 4
    assert double.function(3) == 6


def test_a_task_looks_like_its_function() -> None:
    assert double.__doc__ == "Twice as much."
    assert double.__name__ == "double"
    assert str(inspect.signature(double)) == "(x: int, *, plus: int = 0) -> int"


def test_a_body_that_asks_for_its_key_can_be_called_plainly() -> None:
    first, second = key(), key()
    assert first != second
    assert first.endswith(" 1")


def test_a_task_called_in_a_task_is_its_function() -> None:
    @task
    def outer() -> list[Any]:
        return [double(4), key.function()]

    result = in_flow(outer)
    assert result[0] == 8
    assert "outer#0" in result[1]


def test_a_submitted_task_called_in_it_is_its_function_too() -> None:
    @task
    def in_thread(x: int) -> int:
        return double(x)

    @task
    async def on_the_loop(x: int) -> list[int]:
        return [in_thread(x), *await asyncio.gather(double_later(x), nested(x)), await asyncio.to_thread(double, x)]

    @task
    async def nested(x: int) -> int:
        return await double_later(double(x))

    @flow
    def child(x: int) -> list[int]:
        return on_the_loop.submit(x).result()

    @flow
    async def async_child(x: int) -> list[int]:
        return await on_the_loop.submit(x)

    @flow
    def in_sync_flow() -> list[Any]:
        threads = in_thread.map([1, 1]).result()
        return [*on_the_loop.map([1]).result(), child(1), async_child.submit(1).result(), *threads]

    @flow
    async def in_async_flow() -> list[Any]:
        threads = await in_thread.map([1, 1])
        awaited = [await on_the_loop(1), await on_the_loop.options(timeout=60)(1)]
        return [*await on_the_loop.map([1]), *awaited, await child.submit(1), await async_child(1), *threads]

    value = [2, 2, 4, 2]
    assert in_sync_flow() == [value, value, value, 2, 2]
    assert asyncio.run(in_async_flow()) == [*[value] * 5, 2, 2]


def test_an_effect_called_in_a_task_is_refused() -> None:
    @task(effect="irrevocable")
    async def later() -> None: ...

    @task(rollback=lambda key: None)
    def undoable() -> None: ...

    for inner in (key, later, undoable):
        told = rf"{inner.name} has an effect, and is called in the task outer: .*function"
        with pytest.raises(RuntimeError, match=told):
            in_flow(task(name="outer")(lambda inner=inner: inner()))


def test_no_other_call_of_any_run_has_the_key() -> None:
    one = keys.options(run_id="order").run(child=True)
    other = keys.options(run_id="order/key_in_a_child#0").run(child=False)
    assert (one, other) == ("order/key_in_a_child#0/key#0 1", "order%2Fkey_in_a_child%230/key#0 1")
    assert keys.options(run_id="order%2Fkey_in_a_child%230").run(child=False).startswith("order%252F")


def test_submit_and_map_outside_a_flow_are_refused() -> None:
    with pytest.raises(RuntimeError, match=r"double.submit\(...\) outside a flow.*double\(...\) calls the plain"):
        double.submit(1)
    with pytest.raises(RuntimeError, match="outside a flow"):
        double.map([1])


def test_submit_in_a_task_is_refused() -> None:
    @task
    def outer() -> int:
        double.submit(1)
        return 1

    with pytest.raises(RuntimeError, match="in a task"):
        in_flow(outer)


def test_a_thread_that_no_flow_knows_is_warned_or_refused_while_a_flow_is_live() -> None:
    found: list[object] = []

    def stray() -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found.append(double(1))
        found.append(str(caught[0].message))
        found.append(caught[0].filename)
        for refused in (key, lambda: double.submit(1), lambda: double.map([1])):
            try:
                refused()
            except RuntimeError as error:
                found.append(str(error))

    def body() -> None:
        thread = threading.Thread(target=stray)
        thread.start()
        thread.join()

    in_flow(body)
    assert found[0] == 2
    assert "nothing is recorded" in str(found[1])
    assert found[2] == __file__
    assert "has an effect" in str(found[3])
    assert "from a thread that no flow knows" in str(found[4])
    assert len(found) == 6


# -- in a flow ---------------------------------------------------------------------------------------------------------


def test_a_plain_call_gives_the_value_and_submit_a_ref() -> None:
    def body() -> list[int]:
        ref = double.submit(1)
        assert isinstance(ref, Ref)
        assert ref.call_id == "double#0"
        return [double(5), ref.result(), double(ref), double.submit(ref, plus=ref.arg).result()]

    assert in_flow(body) == [10, 2, 4, 6]


def test_a_plain_call_that_is_recorded_leaves_nothing_that_a_ref_would_need() -> None:
    @task(deterministic=True, checkpoint="never")
    def unsaved(x: int) -> int:
        return x

    @task
    def hand_out(x: int) -> list[Ref[int]]:
        return [exoflow.put(x)]

    def kept() -> tuple[list[str], int]:
        body = current_body()
        assert body is not None
        for n in range(100):
            double(n)
        ref = double.submit(7)
        unsaved(8)
        (handed,) = hand_out(9)
        return sorted(body.execution.handles), ref.result() + handed.result()

    assert in_flow(kept) == (["double#100", "hand_out#0", "unsaved#0"], 23)


def test_refs_go_in_anywhere() -> None:
    def body() -> list[int]:
        refs = double.map([1, 2])
        return [
            total(refs),
            total([refs[0].arg, 1]),
            total([], {"a": refs[1].arg}),
            total([], extra={"a": refs[1].arg}),
        ]

    assert in_flow(body) == [6, 3, 4, 4]


def test_an_async_task_in_a_sync_flow_is_submitted() -> None:
    assert in_flow(lambda: double_later.submit(2).result()) == 4
    with pytest.raises(RuntimeError, match=r"double_later is async.*`double_later.submit\(...\).result\(\)`"):
        in_flow(lambda: double_later(2))


def test_the_timeout_of_an_awaited_task_counts() -> None:
    @task(timeout=0.01)
    async def never_ends() -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError, match=r"timed out after 0.01 s"):
        in_async_flow(never_ends)


def test_an_async_flow_awaits() -> None:
    assert in_async_flow(lambda: double_later(2)) == 4
    assert in_async_flow(lambda: double.submit(2)) == 4
    with pytest.raises(RuntimeError, match=r"would block the event loop.*`await double.submit\(...\)`"):
        in_async_flow(lambda: double(2))


def test_arguments_that_do_not_fit_are_refused_before_anything_starts() -> None:
    def body() -> list[str]:
        told = []
        for call in (
            double,
            lambda: double(1, 2),
            lambda: double.submit(1, minus=2),
            lambda: double.map([1], y=2),
        ):
            try:
                call()
            except TypeError as error:
                told.append(str(error))
        assert double.submit(1).call_id == "double#0"  # nothing was counted
        return told

    told = in_flow(body)
    assert len(told) == 4
    assert all("double(x: int, *, plus: int = 0) -> int: " in each for each in told)
    assert "missing a required argument: 'x'" in told[0]


def test_map_makes_one_call_for_each_element() -> None:
    assert in_flow(lambda: double.map([1, 2, 3]).result()) == [2, 4, 6]
    assert in_flow(lambda: double.map(iter([1, 2]), plus=1).result()) == [3, 5]
    assert in_flow(lambda: double.map([]).result()) == []


def test_map_repeats_what_is_repeated() -> None:
    @task
    def joined(a: int, b: str, c: int) -> str:
        return f"{a}{b}{c}"

    assert in_flow(lambda: joined.map([1, 2], repeat("x"), (n for n in (3, 4))).result()) == ["1x3", "2x4"]
    assert in_flow(lambda: joined.map([], repeat("x"), []).result()) == []
    assert in_flow(lambda: joined.map([1, 2], repeat("x", 2), [3, 4]).result()) == ["1x3", "2x4"]


@pytest.mark.parametrize(
    "iterables", [([1], [1, 2]), ([1], repeat(1, 2)), ([1], count()), (iter([1]), iter([])), (repeat(1), repeat(2)), ()]
)
def test_map_refuses_unequal_lengths(iterables: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="map"):
        in_flow(lambda: total.map(*iterables))


def test_map_passes_on_what_an_iterable_raises() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    with pytest.raises(ValueError, match=r"\Abroken\b"):
        in_flow(lambda: double.map(broken()).result())


def test_a_ref_cannot_be_mapped_over() -> None:
    with pytest.raises(TypeError, match=r"for x in `ref.result\(\)`"):
        in_flow(lambda: double.map(double.submit(1)))


# -- options -----------------------------------------------------------------------------------------------------------


def test_options_make_another_task_for_one_call() -> None:
    tries: list[int] = []

    @task
    def flaky() -> int:
        tries.append(exoflow.attempt())
        if len(tries) < 3:
            raise ConnectionError
        return len(tries)

    assert in_flow(flaky.options(retries=2, backoff=Backoff(initial_s=0.0, jitter=0.0))) == 3
    assert tries == [1, 2, 3]


def test_a_key_names_the_call() -> None:
    def body() -> list[str]:
        return [
            double.options(key="a/b").submit(1).call_id,
            double.options(key=7).submit(1).call_id,
            double.options(key="[!]%").submit(1).call_id,
        ]

    assert in_flow(body) == ["double[a/b]", "double[7]", "double[%5B%21%5D%25]"]


def test_a_key_used_twice_is_refused_at_once() -> None:
    def body() -> None:
        double.options(key="a").submit(1)
        double.options(key="b").submit(1)
        double.options(key="a").submit(2)

    with pytest.raises(exoflow.RunError, match="key 'a' is already taken"):
        in_flow(body)


def test_a_key_cannot_be_mapped() -> None:
    with pytest.raises(ValueError, match="every call the key"):
        in_flow(lambda: double.options(key="a").map([1]))


@pytest.mark.parametrize("wrong", ["", True, None, 1.5])
def test_a_key_is_text_or_a_number(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="key="):
        double.options(key=wrong)


def test_what_a_task_is_cannot_be_changed_for_a_call() -> None:
    with pytest.raises(TypeError, match=r"says what the task is.*@task\(effect=...\)"):
        double.options(effect="idempotent")  # type: ignore[call-arg]


def test_an_unknown_option_is_answered_with_the_nearest() -> None:
    with pytest.raises(TypeError, match="'retry'; did you mean 'retries'"):
        double.options(retry=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'determinstic'; did you mean 'deterministic'"):
        task(determinstic=True)(lambda: None)  # type: ignore[call-overload]


def undo(key: str, x: int) -> None: ...


def narrow(key: str) -> None: ...


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"deterministic": 1}, "True or False"),
    ({"effect": "often"}, "'idempotent', 'irrevocable'"),
    ({"checkpoint": "later"}, "'auto', 'sync', 'async', 'never'"),
    ({"effect": "idempotent", "rollback": undo}, "exclude each other"),
    ({"rollback": "undo"}, "must be a function"),
    ({"rollback": narrow}, r"must take \(key, x\)"),
    ({"on_doubt": "retry"}, "needs effect='irrevocable'"),
    ({"effect": "irrevocable", "on_doubt": "ask"}, r"'stop', 'retry' or a function"),
    ({"effect": "irrevocable", "on_doubt": narrow}, r"must take \(key, x\)"),
    ({"retries": -1}, "must not be negative"),
    ({"retries": 1.5}, "whole number"),
    ({"losses": True}, "whole number"),
    ({"timeout": 0}, "above 0"),
    ({"timeout": "1s"}, "must be a number"),
    ({"timeout": float("nan")}, "above 0"),
    ({"backoff": 3}, "exoflow.Backoff"),
    ({"backoff": Backoff(factor=0.5)}, "at least 1"),
    ({"backoff": Backoff(jitter=2)}, "at most 1"),
    ({"resources": 3}, "mapping"),
    ({"resources": {"gpu": "1"}}, "must be a number"),
    ({"executor": 3}, "must be a name"),
    ({"name": "a/b"}, "without"),
    ({"name": ""}, "printable text"),
    ({"name": "a:b"}, "without"),
    ({"version": 2}, "must be text"),
]


@pytest.mark.parametrize(("options", "told"), WRONG, ids=[f"{n}-{'-'.join(each[0])}" for n, each in enumerate(WRONG)])
def test_a_wrong_annotation_is_refused_where_it_is_written(options: dict[str, Any], told: str) -> None:
    def wrong(x: int) -> None: ...

    with pytest.raises((TypeError, ValueError), match=told):
        task(**options)(wrong)


def test_only_a_function_that_returns_once_can_be_a_task() -> None:
    def generator() -> Iterator[int]:
        yield 1

    async def async_generator() -> Any:
        yield 1

    class Shop:
        def method(self) -> None: ...

        def of_class(cls) -> None: ...  # noqa: N805 -- as below @classmethod

        @staticmethod
        @task
        def half(x: float) -> float:
            return x / 2

    assert Shop().half(3) == 1.5
    with pytest.raises(TypeError, match=r"is a method, and a task is a function.*@staticmethod \(above @task\)"):
        task(Shop.of_class)
    assert task(Shop.method).is_method  # for actors
    for wrong in (generator, async_generator, int, len, staticmethod(undo), double, 3):
        with pytest.raises(TypeError):
            task(wrong)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="write @task"):
        task(undo, retries=3)  # type: ignore[call-overload]


def test_an_undo_must_take_the_keywords_that_a_call_gives() -> None:
    undone: list[tuple[str, int]] = []

    def undo_first(key: str, first: int) -> None:
        undone.append((key, first))

    @task(rollback=undo_first)
    def reserve(x: int) -> int:
        return x

    assert in_flow(lambda: reserve(1)) == 1
    with pytest.raises(TypeError, match=r"undo_first.*missing a required argument: .first."):
        in_flow(lambda: reserve(x=1))


def test_a_task_inside_a_function_is_named_by_itself() -> None:
    def outer() -> list[str]:
        @task
        def inner(x: int) -> int:
            return x

        named = task(name="other")(lambda: 1)
        return [inner.submit(1).call_id, named.submit().call_id, task(lambda: 1).submit().call_id]

    assert in_flow(outer) == ["inner#0", "other#0", "lambda#0"]
