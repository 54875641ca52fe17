import asyncio
import gc
import threading
import weakref
from functools import partial
from typing import Generic, TypeVar

import pytest

from exoflow.attempts import current_attempt, inputs_of, is_async, run_attempt, run_attempt_async, wants_refs
from exoflow.codec import decode, decode_error, encode, encode_arguments, from_bytes, make_reference, to_bytes
from exoflow.errors import Cancelled, Corrupt, DidNotHappen, StorageError, TaskFailed
from exoflow.model import CallId, Held, Inline, RunId, Stored, version
from exoflow.protocols import Attempt, Computed, Raised, Vanished

R = TypeVar("R")


class Ref(Generic[R]):
    pass


A, B = make_reference(CallId("a")), make_reference(CallId("b"))


def nowhere(value):
    raise AssertionError(f"nobody should fetch {value}")


def attempt(function, *args, **options):
    kwargs = options.pop("kwargs", {})
    fixed = {"run_id": RunId("r"), "call": CallId("c"), "version": version(1, 1), "number": 2, "key": "r/c"}
    return Attempt(**fixed, task="t", function=function, args=args, kwargs=kwargs, **{"inputs": {}, **options})


def ran(function, *args, fetch=nowhere, keep=nowhere, **options):
    return run_attempt(attempt(function, *args, **options), fetch, keep)


def result(*args, **options):
    outcome = ran(*args, **options)
    assert isinstance(outcome, Computed), decode_error(outcome.error) if isinstance(outcome, Raised) else outcome
    return decode(from_bytes(outcome.value), lookup=make_reference)


def inline(value):
    return Inline(to_bytes(encode(value)))


def test_the_result_is_encoded_and_the_body_timed():
    outcome = ran(lambda x: x + 1, 1)
    assert outcome.value == Inline(b"i\x02")
    assert outcome.seconds >= 0


def test_inputs_stand_in_the_places_of_refs():
    def body(x, *, y):
        return [x, y]

    inputs = {CallId("a"): inline([1]), CallId("b"): inline(2)}
    assert result(body, [A], kwargs={"y": (B, A)}, inputs=inputs) == [[[1]], (2, [1])]


def test_each_attempt_gets_its_own_copy_of_an_input():
    def body(x):
        x.append(1)
        return x

    inputs = {CallId("a"): inline([])}
    assert result(body, A, inputs=inputs) == result(body, A, inputs=inputs) == [1]


def test_an_attempt_is_freed_when_it_ends_with_what_it_was_given():
    class Body:
        def __call__(self, x):
            return 1

    body = Body()
    freed = weakref.ref(body)
    gc.disable()  # large inputs would wait for it
    try:
        ran(body, A, inputs={CallId("a"): inline([1])})
        del body
        assert freed() is None
    finally:
        gc.enable()


def test_encoded_arguments_are_decoded_and_their_refs_replaced():
    encoded = encode_arguments(([A], 1), {}, task="t")
    assert result(lambda x, y: [x, y], encoded=encoded, inputs={CallId("a"): inline(5)}) == [[5], 1]


def test_a_ref_inside_an_input_stays_a_ref():
    outcome = ran(lambda x: x, A, inputs={CallId("a"): inline([B])})
    assert outcome.refs == ("b",)


def test_a_ref_inside_an_input_is_its_content_where_that_was_given_too():
    inputs = {CallId("a"): inline([B, 1]), CallId("b"): inline("content")}
    assert result(lambda x: x, A, inputs=inputs) == ["content", 1]


def test_a_parameter_annotated_with_ref_gets_the_ref_and_every_other_the_value():
    def body(first, ref: "Ref[int]", *rest, named: Ref[int]):
        return [first, ref.call_id, list(rest), named.call_id]

    inputs = {CallId("a"): inline(1)}
    assert result(body, A, A, [A], A, kwargs={"named": A}, inputs=inputs) == [1, "a", [[1], 1], "a"]


def test_refs_for_ref_parameters_are_no_inputs():
    def body(first, ref: Ref[int], *rest: Ref[int], **named: "list[Ref[int]]"): ...

    def ids(*args, **kwargs):
        return [reference.call_id for reference in inputs_of(body, args, kwargs)]

    assert ids(B, A, A) == ["b"]
    assert ids(1, A, A) == []
    assert ids(ref=A, first=[B]) == ["b"]


def test_wants_refs_reads_annotations_without_evaluating_them():
    def body(a, b, c, d: Ref[int] | None, e: int, f: Ref): ...

    text = {"a": "Ref[int]", "b": "list[Refs[Missing]]", "c": "Reference[int]", "return": "Ref[int]"}
    body.__annotations__.update(text)
    assert wants_refs(body) == {"a", "b", "d", "f"}
    assert wants_refs(partial(body, 1)) == {"a", "b", "d", "f"}
    assert wants_refs(len) == frozenset()


def test_an_error_of_the_body_is_an_outcome():
    outcome = ran([].pop)
    assert isinstance(outcome, Raised)
    assert type(decode_error(outcome.error)) is IndexError
    assert not outcome.did_not_happen


def test_did_not_happen_is_told_apart():
    def body():
        raise DidNotHappen("declined")

    assert ran(body).did_not_happen


def test_a_body_that_raises_what_is_no_error_has_raised():
    def body():
        raise GeneratorExit

    assert type(decode_error(ran(body).error)) is TaskFailed


def test_an_interruption_passes_through():
    def body():
        raise Cancelled

    with pytest.raises(Cancelled):
        ran(body)
    assert current_attempt() is None


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_in_the_main_thread_is_no_error_of_the_body(kind):
    def body():
        raise kind

    async def body_async():
        raise kind

    with pytest.raises(kind):
        ran(body)
    with pytest.raises(kind):
        asyncio.run(run_attempt_async(attempt(body_async), nowhere, nowhere))
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(ran(body)))
    thread.start()
    thread.join()
    assert isinstance(outcomes[0], Raised)


@pytest.mark.parametrize("error", [KeyError("x"), FileNotFoundError("x"), Corrupt("x")])
def test_a_lost_input_is_named_and_the_body_does_not_start(error):
    def fetch(value):
        raise error

    outcome = ran(nowhere, A, inputs={CallId("a"): Stored("v", 1)}, fetch=fetch)
    assert isinstance(outcome, Vanished)
    assert outcome.lost == ("a",)


def test_a_store_that_fails_loses_the_attempt_but_not_the_input():
    def fetch(value):
        raise StorageError("no answer")

    outcome = ran(nowhere, A, inputs={CallId("a"): Stored("v", 1)}, fetch=fetch)
    assert outcome == Vanished("its input a could not be read: no answer")


def test_a_key_error_of_the_body_is_the_bodys():
    outcome = ran(lambda x: {}[x], A, inputs={CallId("a"): inline(1)})
    assert type(decode_error(outcome.error)) is KeyError


def test_a_large_result_is_kept_where_the_executor_says():
    kept = []

    def keep(made, name):
        kept.append(([encoded.size > 65536 for encoded in made], name))
        return [Held("x", 0, encoded.size) for encoded in made]

    assert isinstance(ran(lambda: bytearray(100_000), keep=keep, save_to="values/v").value, Held)
    assert kept == [([True], "values/v")]


def test_what_is_put_is_named_after_the_call_and_cannot_be_changed_any_more():
    def body():
        values = [1]
        ref = make_reference(current_attempt().put(values))
        values.append(2)
        big = make_reference(current_attempt().put(bytes(100_000)))
        return [ref, big]

    outcome = ran(body, keep=lambda made, name: [Stored(name, one.size) for one in made], save_to="values/v")
    assert outcome.refs == ("c!0", "c!1")
    assert decode(from_bytes(outcome.puts[0][1])) == [1]
    ((call, stored),) = outcome.puts[1:]
    assert call == "c!1"
    assert stored.name == "values/v"
    assert stored.size > 100_000


def test_the_body_knows_its_attempt_and_nobody_else_does():
    def body():
        context = current_attempt()
        return [context.run_id, context.call, context.key, context.number, context.version, context.task]

    assert result(body) == ["r", "c", "r/c", 2, version(1, 1), "t"]
    assert current_attempt() is None


def test_a_coroutine_from_a_plain_function_is_refused():
    async def work(): ...

    outcome = ran(lambda: work() if work else None)
    assert "declare the task itself as async def" in str(decode_error(outcome.error))


async def test_async_bodies_run_side_by_side_and_each_knows_its_own_attempt():
    async def body(x):
        await asyncio.sleep(0)
        return [x, current_attempt().call]

    attempts = [attempt(body, A, inputs={CallId("a"): inline(n)}) for n in range(3)]
    for n, one in enumerate(attempts):
        one.call = CallId(f"c{n}")
    outcomes = await asyncio.gather(*(run_attempt_async(one, nowhere, nowhere) for one in attempts))
    assert [decode(from_bytes(outcome.value)) for outcome in outcomes] == [[0, "c0"], [1, "c1"], [2, "c2"]]


async def test_errors_and_lost_inputs_of_async_bodies_are_outcomes_too():
    async def body(x):
        raise LookupError(x)

    outcome = await run_attempt_async(attempt(body, 1), nowhere, nowhere)
    assert type(decode_error(outcome.error)) is LookupError

    def lost(value):
        raise KeyError

    outcome = await run_attempt_async(attempt(body, A, inputs={CallId("a"): Stored("v", 1)}), lost, nowhere)
    assert outcome.lost == ("a",)


async def test_a_cancelled_attempt_is_cancelled():
    async def body():
        await asyncio.Event().wait()

    task = asyncio.ensure_future(run_attempt_async(attempt(body), nowhere, nowhere))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_is_async_sees_through_partial_and_not_into_results():
    async def body(): ...

    assert is_async(body)
    assert is_async(partial(body))
    assert not is_async(lambda x: body() if x else None)
    assert not is_async(len)
