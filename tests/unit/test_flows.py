"""Flows: run, joined, gone on with, nested; and refusals that say what to write instead."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import exoflow
from exoflow import RunMismatch, Status, flow, task
from exoflow.flows import defined


@pytest.fixture(autouse=True)
def memory(request: pytest.FixtureRequest) -> None:
    exoflow.configure(store=f"memory://{request.node.name}")


entered: list[int] = []


@task
def count(x: int) -> int:
    entered.append(x)
    return x + 1


@flow
def plus_one(x: int, *, times: int = 1) -> int:
    """One more."""
    for _ in range(times):
        x = count(x)
    return x


@flow
async def plus_one_later(x: int) -> int:
    return await count.submit(x)


@flow
def fails(x: int) -> int:
    entered.append(x)
    raise LookupError("no")


@pytest.fixture(autouse=True)
def nothing_entered() -> Iterator[None]:
    entered.clear()
    return


# -- running -----------------------------------------------------------------------------------------------------------


def test_a_flow_is_run_by_calling_it() -> None:
    assert plus_one(1) == 2
    assert plus_one.run(1, times=3) == 4
    assert plus_one.start(5).result(timeout=60) == 6


def test_the_plain_function_is_there() -> None:
    assert plus_one.function(1) == 2
    assert plus_one.__doc__ == "One more."
    assert plus_one.name == f"{__name__}.plus_one"


def test_an_async_flow_is_awaited_or_started() -> None:
    async def several() -> list[int]:
        run = plus_one_later.start(1)
        with pytest.raises(RuntimeError, match="write `await run`"):
            run.result()
        return [await run, await plus_one_later(2), await plus_one_later.run(3), await plus_one.start(4)]

    assert asyncio.run(several()) == [2, 3, 4, 5]
    assert plus_one_later.start(1).result(timeout=60) == 2


def test_arguments_that_do_not_fit_are_refused_before_a_run_exists() -> None:
    for wrong in ((), (1, 2)):
        with pytest.raises(TypeError, match=r"plus_one\(x: int, \*, times: int = 1\) -> int: "):
            plus_one(*wrong)
    with pytest.raises(TypeError, match="missing a required argument"):
        plus_one_later()  # type: ignore[call-overload]
    assert exoflow.runs() == []


def test_a_ref_means_nothing_to_a_run() -> None:
    kept: list[Any] = []

    @flow
    def leaks() -> None:
        kept.append(count.submit(1))

    leaks()
    with pytest.raises(TypeError, match="means nothing outside its flow"):
        plus_one(kept)


# -- an id again (scenario 86) -----------------------------------------------------------------------------------------


def test_a_run_that_is_done_gives_its_stored_result() -> None:
    named = plus_one.options(run_id="a")
    assert [named(1), named(1), named.resume("a"), exoflow.resume("a")] == [2, 2, 2, 2]
    assert entered == [1]


def test_a_run_that_failed_gives_its_error() -> None:
    for _ in range(2):
        with pytest.raises(LookupError, match="no"):
            fails.options(run_id="a")(1)
    assert entered == [1]
    with pytest.raises(LookupError, match="no"):
        fails.resume("a")
    assert entered == [1, 1]


def test_other_inputs_or_another_flow_are_a_mismatch() -> None:
    plus_one.options(run_id="a")(1)
    with pytest.raises(RunMismatch, match="the argument x was 1, and is 2 now"):
        plus_one.options(run_id="a")(2)
    with pytest.raises(RunMismatch, match="it is a run of"):
        fails.options(run_id="a")(1)
    with pytest.raises(RunMismatch, match=r"is one of .*plus_one, not of .*fails: exoflow.resume\('a'\)"):
        fails.resume("a")


def test_a_live_run_is_joined() -> None:
    go, begun = threading.Event(), threading.Event()

    @task
    def slow() -> int:
        begun.set()
        assert go.wait(60)
        return 7

    @flow
    def waits() -> int:
        entered.append(1)
        return slow()

    named = waits.options(run_id="a")
    first = named.start()
    assert begun.wait(60)
    results: list[int] = []
    joining = [threading.Thread(target=lambda: results.append(named())) for _ in range(3)]
    for thread in joining:
        thread.start()
    second = named.start()
    assert second.status is Status.RUNNING
    with pytest.raises(TimeoutError):
        second.result(timeout=0)
    go.set()
    for thread in joining:
        thread.join()
    assert results == [7, 7, 7]
    assert [first.result(60), second.result(60)] == [7, 7]
    assert entered == [1]


def test_of_two_threads_that_run_one_id_at_the_same_moment_one_joins() -> None:
    for n in range(20):  # without turns it went wrong in nine of ten
        results: list[object] = []

        def go(run_id: str, results: list[object]) -> None:
            try:
                results.append(plus_one.options(run_id=run_id).run(1))
            except exoflow.RunError as error:
                results.append(error)

        threads = [threading.Thread(target=go, args=(f"at once {n}", results)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [2, 2]


def test_a_live_run_with_other_inputs_is_not_joined() -> None:
    go = threading.Event()

    @flow
    def waits(x: object) -> object:
        assert go.wait(60)
        return x

    for run_id, first, other in (("number", 1, 2), ("list", [1], [2])):
        run = waits.options(run_id=run_id).start(first)
        with pytest.raises(RunMismatch, match="the argument x"):
            waits.options(run_id=run_id).start(other)
        assert waits.options(run_id=run_id).start(first).id == run_id
    go.set()
    assert run.result(60) == [1]


def test_an_async_run_whose_asyncio_task_is_cancelled_can_be_resumed() -> None:
    first = [True]

    @task
    async def waits_once() -> int:
        entered.append(1)
        if first.pop() if first else False:
            await asyncio.Event().wait()
        return 5

    @flow
    async def waits() -> int:
        return await waits_once()

    async def cancelled() -> None:
        running = asyncio.create_task(waits.options(run_id="a").run())
        while not entered:  # noqa: ASYNC110 - nothing else tells that it is there
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert exoflow.get("a").status is Status.BROKEN_OFF
        assert await waits.resume("a") == 5

    asyncio.run(cancelled())
    assert exoflow.get("a").status is Status.DONE


def test_an_unknown_id_is_answered_with_the_nearest() -> None:
    plus_one.options(run_id="monday")(1)
    for resume in (plus_one.resume, exoflow.resume, exoflow.get):
        with pytest.raises(exoflow.RunNotFound, match="did you mean 'monday'") as caught:
            resume("mondy")
        assert caught.value.run_id == "mondy"


# -- looking at runs ---------------------------------------------------------------------------------------------------


def test_runs_are_listed_and_looked_at() -> None:
    plus_one.options(run_id="a", labels={"team": "x"})(1)
    plus_one.options(run_id="b", labels={"team": "y"})(1)
    with pytest.raises(LookupError):
        fails.options(run_id="c")(1)
    assert {run.id for run in exoflow.runs()} == {"a", "b", "c"}
    assert [run.id for run in exoflow.runs(labels={"team": "y"})] == ["b"]
    assert [run.id for run in exoflow.runs(status="failed")] == ["c"]
    assert {run.id for run in exoflow.runs(flow=plus_one.name)} == {"a", "b"}
    assert len(exoflow.runs(limit=2)) == 2
    with pytest.raises(ValueError, match="lost"):
        exoflow.runs(status="lost")
    run = exoflow.get("a")
    assert (run.status, run.flow, dict(run.labels)) == (Status.DONE, plus_one.name, {"team": "x"})
    assert run.result() == 2
    assert asyncio.run(_awaited(run)) == 2
    with pytest.raises(LookupError, match="no"):
        exoflow.get("c").result()


async def _awaited(run: exoflow.Run[object]) -> object:
    return await run


def test_the_events_of_a_run_are_in_order() -> None:
    run = plus_one.options(run_id="a").start(1)
    run.result(60)
    events = list(run.events())
    assert [(event.what, event.call) for event in events] == [
        ("started", None),
        ("started", "count#0"),
        ("done", "count#0"),
        ("done", None),
    ]
    assert [event.time_s for event in events] == sorted(event.time_s for event in events)


def test_a_run_that_stopped_in_doubt_says_so_to_whoever_asks_in_its_process() -> None:
    @task(effect="irrevocable")
    def charge() -> None:
        raise OSError("the line is dead")

    @flow
    def pay() -> None:
        charge()

    with pytest.raises(exoflow.InDoubt):
        pay.options(run_id="a").run()
    assert exoflow.get("a").status is Status.IN_DOUBT
    with pytest.raises(exoflow.InDoubt):
        exoflow.get("a").result()


def test_a_cancelled_run_says_so() -> None:
    go, begun = threading.Event(), threading.Event()

    @task
    def slow() -> None:
        begun.set()
        assert go.wait(60)

    @flow
    def waits() -> None:
        slow()
        count(1)

    run = waits.options(run_id="a").start()
    assert begun.wait(60)
    exoflow.cancel("a")
    go.set()
    with pytest.raises(exoflow.RunCancelled):
        run.result(60)
    assert run.status is Status.CANCELLED
    assert entered == []
    for ask in (exoflow.get("a").result, lambda: waits.resume("a"), waits.options(run_id="a")):
        with pytest.raises(exoflow.RunCancelled):
            ask()
    exoflow.cancel("a")  # it is over already


# -- where flows may stand ---------------------------------------------------------------------------------------------


def test_a_flow_in_a_task_is_refused() -> None:
    @task
    def outer(how: int) -> None:
        [lambda: plus_one(1), lambda: plus_one.run(1), lambda: plus_one.submit(1), lambda: plus_one.resume("x")][how]()

    @flow
    def trial(how: int) -> None:
        outer(how)

    for how in range(4):
        with pytest.raises(RuntimeError, match=r"is called in a task.*plus_one.function\(...\)"):
            trial(how)


def test_a_run_begun_in_a_flow_is_refused() -> None:
    @flow
    def trial(how: int) -> None:
        [lambda: plus_one.run(1), lambda: plus_one.start(1), lambda: exoflow.resume("x")][how]()

    for how, told in enumerate(["calls another as a child", "calls another as a child", "resume runs from outside"]):
        with pytest.raises(RuntimeError, match=told):
            trial(how)


def test_submit_outside_a_flow_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"start\(...\) starts a run"):
        plus_one.submit(1)
    with pytest.raises(RuntimeError, match="outside a flow"):
        plus_one.map([1])


def test_a_child_flow_is_a_call_of_its_parent() -> None:
    @flow
    def parent() -> list[int]:
        first = plus_one(1)
        refs = plus_one.map([2, 3], times=2)
        keyed = plus_one.options(key="k").submit(4)
        assert refs[0].call_id == "plus_one#1"
        assert keyed.call_id == "plus_one[k]"
        return [first, *refs.result(), keyed.result(), plus_one_later.submit(1).result()]

    assert parent() == [2, 4, 5, 5, 2]


def test_a_child_flow_has_no_options_of_a_run() -> None:
    @flow
    def parent() -> int:
        return plus_one.options(labels={"a": "b"})(1)

    with pytest.raises(RuntimeError, match=r"options\(labels=...\) is for a run"):
        parent()


def test_sync_and_async_flows_as_children_are_spelled_right() -> None:
    @flow
    def calls_async() -> Any:
        return plus_one_later(1)

    @flow
    async def calls_sync() -> Any:
        with pytest.raises(RuntimeError, match=r"`await plus_one.submit\(...\)`"):
            plus_one(1)
        return [await plus_one.submit(1), await plus_one_later(2)]

    with pytest.raises(RuntimeError, match=r"`plus_one_later.submit\(...\).result\(\)`"):
        calls_async()
    assert asyncio.run(calls_sync()) == [2, 3]


# -- options and declaration -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"run": "a"}, "did you mean 'run_id'"),
        ({"run_id": ""}, "run_id=''"),
        ({"run_id": 3}, "run_id=3"),
        ({"run_id": "a\nb"}, "printable"),
        ({"labels": "a"}, "labels='a'"),
        ({"labels": {"a": 1}}, "labels must be text"),
        ({"key": ""}, "key=''"),
    ],
)
def test_a_wrong_option_of_a_run_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        plus_one.options(**options)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"on_fail": "rollback"}, "did you mean 'on_failure'"),
        ({"on_failure": "undo"}, "'keep', 'rollback'"),
        ({"executor": 1}, "must be a name"),
        ({"name": "a/b"}, "without"),
        ({"version": ""}, "must be text"),
    ],
)
def test_a_wrong_option_of_a_flow_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        flow(**options)(lambda: None)


def test_only_a_function_that_returns_once_can_be_a_flow() -> None:
    def generator() -> Iterator[int]:
        yield 1

    for wrong in (generator, int, count, plus_one, 3):
        with pytest.raises(TypeError):
            flow(wrong)  # type: ignore[call-overload]


def test_an_error_says_where_it_was_raised() -> None:
    with pytest.raises(LookupError) as told:
        fails(1)
    assert told.value.__notes__[0].startswith("Where it was raised:\n")


def test_a_flow_is_known_by_its_name_and_the_newest_counts() -> None:
    first = flow(name="named")(lambda: 1)
    second = flow(name="named")(lambda: 2)
    assert first.name == second.name == "named"
    assert defined["named"].function is second.function
    assert second() == 2


def test_memory_and_other_processes_do_not_go_together() -> None:
    with pytest.raises(exoflow.ExecutorError, match="this one's alone"):
        plus_one.options(executor="processes")(1)
    with pytest.raises(exoflow.ExecutorError, match="there is no executor 'threads'"):
        plus_one.options(executor="threads")(1)


def test_a_strict_flow_stops_rather_than_save_what_is_never_to_be_saved() -> None:
    @task(checkpoint="never")
    def choose() -> int:
        return 1

    @task(effect="idempotent")
    def publish(x: int) -> int:
        entered.append(x)
        return x

    def publishes() -> int:
        return publish(choose.submit())

    with pytest.raises(exoflow.RunError, match=r"choose#0 is never to be saved.*the flow is strict"):
        flow(strict=True)(publishes).run()
    assert entered == []
    assert flow(publishes).run() == 1
    with pytest.raises(TypeError, match="strict='no' must be True or False"):
        flow(strict="no")(publishes)  # type: ignore[call-overload]
