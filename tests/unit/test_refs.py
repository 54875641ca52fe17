"""Refs: what may be done with one, and what the refusals say."""

import asyncio
import copy
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import exoflow
from exoflow import Ref, Refs, as_completed, flow, gather, task
from exoflow.attempts import current_attempt
from exoflow.model import CallId


@pytest.fixture(autouse=True)
def memory(request: pytest.FixtureRequest) -> None:
    exoflow.configure(store=f"memory://{request.node.name}")


@task
def same(x: int) -> int:
    return x


@task
def fails() -> int:
    raise ValueError("no")


@task
def error_as_value() -> ValueError:
    return ValueError("a value")


def in_flow(body: Callable[[], Any]) -> Any:
    @flow
    def trial() -> Any:
        return body()

    return trial()


def in_async_flow(body: Callable[[], Any]) -> Any:
    @flow
    async def trial() -> Any:
        return await body()

    return asyncio.run(trial())


REF: Any = Ref(CallId("read#0"))


@pytest.mark.parametrize(
    ("use", "told"),
    [
        (lambda: bool(REF), r"neither true nor false: write `ref.result\(\)`"),
        (lambda: not REF, "neither true nor false"),
        (lambda: REF == 3, "cannot be compared.*`a is b`"),
        (lambda: REF != REF, "cannot be compared"),
        (lambda: list(REF), r"for x in `ref.result\(\)`"),
        (lambda: 3 in REF, "not iterable"),
        (lambda: REF[0], "not subscriptable"),
        (lambda: REF + 1, "unsupported operand"),
        (lambda: f"Summarize: {REF}", r"in a text is not its value: write `ref.result\(\)`, or {ref!r}"),
        (lambda: "{:>9}".format(gather(REF)), r"<1 Refs to read#0> in a text"),  # noqa: UP032 -- what people write
    ],
)
def test_a_ref_is_not_its_value(use: Callable[[], object], told: str) -> None:
    with pytest.raises(TypeError, match=told):
        use()


def test_a_ref_can_be_logged() -> None:
    assert f"{REF!r} {REF!s}" == "%s %s" % (REF, str(REF)) == "<Ref to read#0> <Ref to read#0>"  # noqa: UP031


def test_a_ref_can_be_a_key_and_is_found_by_itself() -> None:
    assert {REF: 1}[REF] == 1
    assert copy.copy(REF) is REF
    assert copy.deepcopy([REF])[0] is REF


def test_a_set_of_refs_has_the_same_order_in_every_process() -> None:
    assert hash(Ref(CallId("read#0"))) == hash(Ref(CallId("read#0"))) == 4073603331


def test_a_ref_cannot_be_pickled_by_hand() -> None:
    with pytest.raises(exoflow.CodecError, match=r"read#0 cannot be pickled by hand.*ref.result\(\)"):
        pickle.dumps(REF)


def test_a_ref_outside_its_flow_cannot_be_read() -> None:
    for read in (REF.result, REF.done, REF.exception):
        with pytest.raises(RuntimeError, match="only in the body of its flow"):
            read()
    kept = in_flow(lambda: LEAKED.append(same.submit(1)))
    assert kept is None
    with pytest.raises(RuntimeError, match="belongs to another run"):
        in_flow(LEAKED[0].result)


LEAKED: list[Ref[int]] = []


async def awaited(ref: Any) -> object:
    return await ref


async def first_of(refs: Any) -> object:
    return [ref async for ref in as_completed(refs)]


@pytest.mark.parametrize(
    ("wait", "told"),
    [
        (lambda: awaited(same.submit(1)), r"await ref .*write `ref.result\(\)`"),
        (lambda: awaited(same.map([1])), r"await refs .*write `refs.result\(\)`"),
        (lambda: first_of([same.submit(1)]), r"async for .* write `for ... in as_completed\(...\)`"),
    ],
)
def test_a_sync_flow_that_awaits_is_told_what_to_write(wait: Callable[[], Any], told: str) -> None:
    """Nobody would wake it: its loop is not one that the flow knows."""
    with pytest.raises(RuntimeError, match=told):
        in_flow(lambda: asyncio.run(wait()))


def test_a_ref_cannot_be_read_in_another_thread() -> None:
    told: list[str] = []

    def read(ref: Ref[int]) -> None:
        try:
            ref.result()
        except RuntimeError as error:
            told.append(str(error))

    def body() -> None:
        thread = threading.Thread(target=read, args=[same.submit(1)])
        thread.start()
        thread.join()

    in_flow(body)
    assert "in the thread or asyncio task that runs it" in told[0]


def test_a_task_gets_the_ref_only_if_it_asks_for_it() -> None:
    @task
    def passes_on(ref: Ref[int], other: int) -> tuple[str, int, Ref[int]]:
        with pytest.raises(RuntimeError, match="take the value"):
            ref.result()
        return ref.call_id, other, ref

    def body() -> tuple[str, int, int]:
        ref = same.submit(5)
        call_id, other, again = passes_on(ref, ref)
        return call_id, other, again.result()

    assert in_flow(body) == ("same#0", 5, 5)


def test_what_a_task_puts_is_read_through_its_ref() -> None:
    @task
    def parts(n: int) -> list[Ref[str]]:
        return [exoflow.put(f"part {i}") for i in range(n)]

    @task
    def join(texts: list[str]) -> str:
        return ", ".join(texts)

    def body() -> list[object]:
        refs = parts(2)
        return [refs[1].result(), gather(refs).result(), join(gather(refs)), join([refs[0].arg])]

    assert in_flow(body) == ["part 1", ["part 0", "part 1"], "part 0, part 1", "part 0"]


def test_refs_in_the_result_of_a_run_become_their_values() -> None:
    assert in_flow(lambda: {"a": same.submit(1), "b": [same.submit(2)], "c": same.map([3, 4])}) == {
        "a": 1,
        "b": [2],
        "c": [3, 4],
    }


def test_the_bodys_own_errors_come_out_and_can_be_asked_for() -> None:
    def body() -> list[object]:
        bad, good, strange = fails.submit(), same.submit(1), error_as_value.submit()
        with pytest.raises(ValueError, match="no"):
            bad.result()
        error = bad.exception()
        assert isinstance(error, ValueError)
        return [str(error.args[0]), good.exception(), strange.exception(), str(strange.result()), good.done()]

    assert in_flow(body) == ["no", None, None, "a value", True]


def test_a_timeout_is_an_error_that_can_be_caught() -> None:
    go = threading.Event()

    @task
    def slow() -> int:
        assert go.wait(60)
        return 1

    def body() -> list[object]:
        ref = slow.submit()
        for late in (ref, gather(ref), gather(same.submit(1), ref)):
            with pytest.raises(TimeoutError):
                late.result(timeout=0.0)
        with pytest.raises(TimeoutError):
            ref.exception(timeout=0.0)
        done = ref.done()
        go.set()
        return [done, ref.result(timeout=60), gather(ref).result(timeout=60), ref.exception(timeout=60)]

    assert in_flow(body) == [False, 1, [1], None]


# -- several -----------------------------------------------------------------------------------------------------------


def test_refs_are_a_row_and_one_ref() -> None:
    def body() -> None:
        refs = same.map([1, 2, 3])
        assert len(refs) == 3
        assert bool(refs)
        assert not same.map([])
        assert isinstance(refs[1:], Refs)
        assert refs[1:].result() == [2, 3]
        assert [ref.result() for ref in refs] == [1, 2, 3]
        assert refs.done()
        assert refs.exception() is None
        assert isinstance(refs, Ref)
        with pytest.raises(TypeError, match="cannot be compared"):
            assert refs == [1, 2, 3]

    in_flow(body)


def test_gather_takes_refs_or_one_iterable_of_them() -> None:
    def body() -> list[object]:
        a, b = same.submit(1), same.submit(2)
        rows = same.map([3, 4])
        return [gather(a, b), gather([a, b]), gather(ref for ref in (a, b)), gather(a), gather(rows), gather()]

    assert in_flow(body) == [[1, 2], [1, 2], [1, 2], [1], [3, 4], []]
    assert in_flow(lambda: gather(same.map([1]), same.map([2, 3])).result()) == [[1], [2, 3]]


def test_gather_returns_errors_where_it_is_told_to() -> None:
    def body() -> None:
        refs = gather(same.submit(1), fails.submit(), return_exceptions=True)
        first, second = refs.result()
        assert first == 1
        assert isinstance(second, ValueError)
        assert isinstance(refs.exception(), ValueError)
        with pytest.raises(ValueError, match="no"):
            gather(*refs).result()

    in_flow(body)


def test_gather_and_as_completed_take_refs_only() -> None:
    async def coroutine() -> None: ...

    for wrong in (3, [3], "ab", coroutine()):
        with pytest.raises(TypeError, match=r"takes Refs, not .*start it with .submit"):
            gather(wrong)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="into a list"):
        as_completed(REF)


def test_as_completed_gives_each_ref_once() -> None:
    def body() -> list[int]:
        by_ref = {ref: n for n, ref in enumerate(same.map(range(5)))}
        return sorted(by_ref[ref] for ref in as_completed(by_ref))

    assert in_flow(body) == [0, 1, 2, 3, 4]


def test_as_completed_with_a_timer_is_a_deadline() -> None:
    go = threading.Event()

    @task
    def slow() -> bool:
        return go.wait(60)

    def body() -> bool:
        work, deadline = slow.submit(), exoflow.timer(0.0)
        first = next(as_completed([work, deadline]))
        go.set()
        return first is deadline

    assert in_flow(body)


def test_an_async_flow_awaits_refs_and_nothing_else() -> None:
    async def body() -> list[object]:
        ref = same.submit(1)
        for wrong, told in (
            (ref.result, "`await ref`"),
            (ref.exception, "`try: await ref`"),
            (same.map([1]).result, "`await refs`"),
            (lambda: next(as_completed([ref])), "`async for"),
            (lambda: bool(ref), r"`\(await ref\)`"),
            (lambda: exoflow.sleep(1), r"`await exoflow.timer\(1\)`"),
        ):
            with pytest.raises((RuntimeError, TypeError), match=told):
                wrong()
        assert ref.done() in (True, False)
        completed = [await each async for each in as_completed(same.map([7, 8]))]
        await exoflow.timer(0.0)
        both = await gather(same.submit(2), fails.submit(), return_exceptions=True)
        return [await ref, await same.map([5, 6]), sorted(completed), both[0], type(both[1]).__name__]

    assert in_async_flow(body) == [1, [5, 6], [7, 8], 2, "ValueError"]


# -- time and chance ---------------------------------------------------------------------------------------------------


def test_time_and_chance_outside_a_flow_say_what_to_use_there() -> None:
    for word in (exoflow.now, exoflow.uuid4, exoflow.rng, lambda: exoflow.timer(1), lambda: exoflow.sleep(1)):
        with pytest.raises(RuntimeError, match="for the body of a flow"):
            word()
    for word in (exoflow.idempotency_key, exoflow.attempt):
        with pytest.raises(RuntimeError, match="for the body of a task"):
            word()
    with pytest.raises(RuntimeError, match="there is no run here"):
        exoflow.run_id()
    with pytest.raises(RuntimeError, match="in a flow, pass x itself"):
        exoflow.put(1)


def test_time_and_chance_in_a_flow() -> None:
    def body() -> str:
        assert exoflow.uuid4() != exoflow.uuid4()
        assert exoflow.rng().random() != exoflow.rng().random()
        exoflow.sleep(0)
        with pytest.raises(ValueError, match="must be a number"):
            exoflow.timer(float("nan"))
        assert exoflow.now() <= exoflow.now()
        return exoflow.run_id()

    assert "trial" in in_flow(body)


def test_a_task_is_given_what_it_takes_of_what_another_has_put_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []

    @task
    def parts(n: int) -> list[Ref[str]]:
        return [exoflow.put(f"part {i}") for i in range(n)]

    @task
    def join(texts: list[str]) -> str:
        given.append(len(_given()))
        return ", ".join(texts)

    @task
    def whole(texts: list[str]) -> str:
        given.append(len(_given()))
        return ", ".join(texts)

    def _given() -> Any:
        context = current_attempt()
        assert context is not None
        return context.attempt.inputs

    def body() -> list[str]:
        made = [parts.submit(3), parts.submit(3)]
        columns = [[refs.result()[n].arg for refs in made] for n in range(3)]
        return [*(join(column) for column in columns), whole(made[0])]  # type: ignore[arg-type]

    assert in_flow(body) == ["part 0, part 0", "part 1, part 1", "part 2, part 2", "part 0, part 1, part 2"]
    assert given == [2, 2, 2, 4]


def test_refs_inside_of_what_a_task_put_are_followed_in_this_life_and_the_next(tmp_path: Path) -> None:
    lives: list[int] = []

    @task
    def nested(text: str) -> Ref[list[Ref[str]]]:
        return exoflow.put([exoflow.put(text), exoflow.put(text.upper())])

    @task
    def join(texts: list[str]) -> str:
        return ", ".join(texts)

    @flow(name="nested_puts")
    def nests() -> str:
        refs = nested.submit("a")
        first = join(refs.result())  # type: ignore[arg-type]
        lives.append(1)
        if len(lives) == 1:
            raise LookupError(first)
        return join.options(key="again")(refs.result())  # type: ignore[arg-type]

    run = nests.options(store=str(tmp_path), run_id="r")
    with pytest.raises(LookupError, match="a, A"):
        run.run()
    assert exoflow.resume("r", store=str(tmp_path)) == "a, A"
