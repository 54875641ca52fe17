"""What every executor MUST do, as tests: subclass ``ExecutorConformance`` and open yours.

    class TestMyExecutor(ExecutorConformance):
        kills = True

        def open(self, store):
            return MyExecutor(store=store)

Bodies are told what to do by files: they run in whichever process the executor chose, and what they did is counted
outside of any store.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from exoflow.attempts import current_attempt
from exoflow.codec import Encoded, decode, decode_error, encode_arguments, from_bytes, make_reference
from exoflow.errors import DidNotHappen, ExecutorError
from exoflow.model import CallId, Held, Inline, RunId, Stored, Value, Version, version
from exoflow.protocols import ActorPart, Attempt, Computed, Creating, Executor, Outcome, Raised, Store, Vanished
from exoflow.states import STATE, Creation, Method
from exoflow.storage import LocalStore
from exoflow.tasks import task

LARGE = 300_000
"""Bytes; more than fit into a record."""

WAIT_S = 60.0
_POLL_S = 0.01


def returned(value: object) -> object:
    return value


def both(first: object, second: object) -> list[object]:
    return [first, second]


async def returned_async(value: object) -> object:
    return value


def large(byte: int) -> bytearray:
    return bytearray([byte]) * LARGE


def puts_large(count: int) -> None:
    attempt = current_attempt()
    assert attempt is not None
    for number in range(count):
        attempt.put(bytes([number]) * LARGE)


def array(length: int) -> object:
    import numpy as np

    return np.arange(length)


def written_to(values: Any) -> str:
    """What comes of writing to an input."""
    try:
        values[0] = 7
    except ValueError as error:
        return f"refused: {error}"
    return "written"


def appended(values: list[int]) -> list[int]:
    values.append(len(values))
    return values


def failing(message: str) -> None:
    raise LookupError(message)


def did_not(message: str) -> None:
    raise DidNotHappen(message)


def exits() -> None:
    raise SystemExit(3)


def about_itself() -> list[object]:
    context = current_attempt()
    assert context is not None
    return [context.run_id, context.call, context.key, context.number, context.version]


def puts(size: int) -> object:
    context = current_attempt()
    assert context is not None
    return [make_reference(context.put("a")), make_reference(context.put(b"b" * size))]


def follows(plan: list[str], log: str) -> int:
    """Do what the plan says for this attempt: ``ok``, ``fail`` or ``lost``; leave a line for each time."""
    context = current_attempt()
    assert context is not None
    _note(log, f"{context.call} {context.number}")
    what = plan[context.number - 1]
    if what == "fail":
        raise LookupError(f"attempt {context.number}")
    if what == "lost":
        os.kill(os.getpid(), signal.SIGKILL)
    return context.number


def waits(started: str, gate: str) -> str:
    """Leave a line, then wait until there is a file ``gate``."""
    with _running(started):
        while not os.path.exists(gate):
            time.sleep(_POLL_S)
    return "through"


async def waits_async(started: str, gate: str) -> str:
    import asyncio

    with _running(started):
        while not os.path.exists(gate):  # noqa: ASYNC110, ASYNC240 -- a file: it may be another process's loop
            await asyncio.sleep(_POLL_S)
    return "through"


@contextmanager
def _running(path: str) -> Iterator[None]:
    """Note the process's id, and keep the file locked for as long as the body runs, however it ends."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_SH)
        os.write(file, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(file)


def _note(path: str, line: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, f"{line}\n".encode())
    os.close(file)


def lines(path: Path) -> list[str]:
    """What bodies have noted in the file."""
    return path.read_text().splitlines() if path.exists() else []


def wait_for_line(path: Path) -> str:
    """The first line of a file that a body writes."""
    deadline = time.monotonic() + WAIT_S
    while not lines(path):
        assert time.monotonic() < deadline, f"nothing was written to {path}"
        time.sleep(_POLL_S)
    return lines(path)[0]


class Tally:
    """An actor: counts, and says in which process."""

    def __init__(self, start: int) -> None:
        self.count = start
        self.zeros = bytearray(LARGE)

    @task
    def add(self, amount: int) -> tuple[int, int]:
        self.count += amount
        return self.count, os.getpid()

    @task
    async def add_later(self, amount: int) -> tuple[int, int]:
        return self.add(amount)

    @task
    def add_and_fail(self, amount: int) -> None:
        self.count += amount
        raise ArithmeticError(self.count)

    @task
    def add_when(self, amount: int, started: str, gate: str) -> int:
        self.count += amount
        waits(started, gate)
        return self.count


TALLY = CallId("tally#0")
HOLDER = CallId("holder#0")
LOST_STATE = (CallId(f"{HOLDER}{STATE}"),)


def with_state(state: Held | None, snapshot_to: str | None = None) -> ActorPart:
    assert state is not None
    return ActorPart(TALLY, HOLDER, state, snapshot_to=snapshot_to)


def from_snapshot(snapshot: Value) -> ActorPart:
    return ActorPart(TALLY, HOLDER, None, snapshot, Creating(Creation(Tally), (0,), {}, None))


class Bench:
    """An executor with what its attempts report."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.reports: SimpleQueue[tuple[int, Outcome]] = SimpleQueue()
        self._number = 0

    def start(
        self,
        function: Callable[..., Any],
        *args: Any,
        number: int = 1,
        inputs: dict[CallId, Value] | None = None,
        encoded: Encoded | None = None,
        timeout_s: float | None = None,
        save_to: str | None = None,
        undoes: Attempt | None = None,
        actor: ActorPart | None = None,
        resources: dict[str, float] | None = None,
        batchable: bool = False,
    ) -> Attempt:
        self._number += 1
        attempt = Attempt(
            run_id=RunId("run"),
            call=CallId(f"call#{self._number}"),
            version=version(1, self._number) if undoes is None else undoes.version,
            number=number,
            key=f"run/call#{self._number}",
            task=getattr(function, "name", "actor") if actor else function.__name__,
            function=function,
            args=args,
            kwargs={},
            inputs=inputs or {},
            resources=resources or {},
            timeout_s=timeout_s,
            save_to=save_to,
            encoded=encoded,
            actor=actor,
            batchable=batchable,
        )
        serial = self._number
        self.executor.start(attempt, lambda outcome: self.reports.put((serial, outcome)))
        return attempt

    def outcome(self) -> Outcome:
        return self.reports.get(timeout=WAIT_S)[1]

    def run(self, function: Callable[..., Any], *args: Any, **options: Any) -> Outcome:
        self.start(function, *args, **options)
        return self.outcome()

    def compute(self, function: Callable[..., Any], *args: Any, **options: Any) -> Value:
        outcome = self.run(function, *args, **options)
        assert isinstance(outcome, Computed), outcome
        return outcome.value

    def result(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        value = self.compute(function, *args, **options)
        assert isinstance(value, Inline), value
        return decode(from_bytes(value), lookup=make_reference)

    def error(self, function: Callable[..., Any], *args: Any, **options: Any) -> tuple[BaseException, bool]:
        outcome = self.run(function, *args, **options)
        assert isinstance(outcome, Raised), outcome
        return decode_error(outcome.error), outcome.did_not_happen

    def act(self, function: Callable[..., Any], *args: Any, actor: ActorPart, **options: Any) -> tuple[Any, Any]:
        """What an actor's call gave, and the outcome, which has the state that it left."""
        outcome = self.run(function, *args, actor=actor, **options)
        if isinstance(outcome, Raised):
            return decode_error(outcome.error), outcome
        assert isinstance(outcome, Computed), outcome
        assert isinstance(outcome.value, Inline)
        return decode(from_bytes(outcome.value)), outcome

    def save(self, value: Held, name: str) -> Stored | BaseException:
        saved: SimpleQueue[Stored | BaseException] = SimpleQueue()
        self.executor.save(value, name, saved.put)
        return saved.get(timeout=WAIT_S)

    def save_together(self, values: Sequence[Held], name: str) -> Sequence[Stored] | BaseException:
        saved: SimpleQueue[Sequence[Stored] | BaseException] = SimpleQueue()
        self.executor.save_together(values, name, saved.put)
        return saved.get(timeout=WAIT_S)

    def has_nothing_more(self) -> bool:
        """After another attempt went through, which all reports of before would have preceded."""
        outcome = self.run(returned, "last")
        return isinstance(outcome, Computed) and self.reports.empty()


class ExecutorConformance:
    """Every MUST of ``protocols.Executor``."""

    has_actors = True
    """Whether it runs attempts at the calls of actors."""
    kills = False
    """Whether it can end a running body, so that a vanished one has ended when it is reported."""

    def open(self, store: Store) -> Executor:
        """An executor with at least two workers."""
        raise NotImplementedError("return your executor")

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return LocalStore(str(tmp_path / "store"))

    @pytest.fixture
    def bench(self, store: Store) -> Iterator[Bench]:
        executor = self.open(store)
        yield Bench(executor)
        executor.close()

    def test_a_result_comes_back(self, bench: Bench) -> None:
        assert bench.result(returned, {"a": [1, 2.5, None]}) == {"a": [1, 2.5, None]}

    def test_a_coroutine_is_awaited(self, bench: Bench) -> None:
        assert bench.result(returned_async, "x") == "x"

    @pytest.mark.parametrize("batchable", [False, True])
    def test_each_attempt_is_reported_exactly_once(self, bench: Bench, *, batchable: bool) -> None:
        for number in range(200):
            bench.start(returned_async if number % 7 == 0 else returned, number, batchable=batchable)
        reports = [bench.reports.get(timeout=WAIT_S) for _ in range(200)]
        assert sorted(serial for serial, _ in reports) == list(range(1, 201))
        for serial, outcome in reports:
            assert isinstance(outcome, Computed)
            assert isinstance(outcome.value, Inline)
            assert decode(from_bytes(outcome.value)) == serial - 1
        assert bench.has_nothing_more()

    def test_an_error_comes_back_as_itself(self, bench: Bench) -> None:
        error, did_not_happen = bench.error(failing, "no such row")
        assert type(error) is LookupError
        assert error.args == ("no such row",)
        assert "in failing" in error.__notes__[0]
        assert not did_not_happen

    def test_a_body_can_say_that_its_effect_did_not_happen(self, bench: Bench) -> None:
        error, did_not_happen = bench.error(did_not, "card declined")
        assert isinstance(error, DidNotHappen)
        assert did_not_happen

    def test_a_body_that_exits_ends_neither_the_worker_nor_the_program(self, bench: Bench) -> None:
        error, _ = bench.error(exits)
        assert "SystemExit: 3" in str(error)
        assert bench.result(returned, 1) == 1

    def test_a_result_that_cannot_be_pickled_is_an_error_that_says_where(self, bench: Bench) -> None:
        error, _ = bench.error(eval, "{'rows': [1, (x for x in ())]}")
        assert "['rows'][1]: a generator cannot be pickled" in str(error)

    def test_a_body_knows_which_attempt_it_is(self, bench: Bench) -> None:
        assert bench.result(about_itself, number=3) == ["run", "call#1", "run/call#1", 3, version(1, 1)]

    def test_a_function_without_a_name_goes_by_value(self, bench: Bench) -> None:
        factor = 3
        assert bench.result(lambda x: factor * x, 14) == 42

    def test_inputs_stand_in_the_places_of_refs(self, bench: Bench) -> None:
        ref = make_reference(CallId("a"))
        inputs = {CallId("a"): Inline(b"i\x05")}
        assert bench.result(both, [ref, {"deep": (ref,)}], 1, inputs=inputs) == [[5, {"deep": (5,)}], 1]

    def test_encoded_arguments_are_decoded_for_each_attempt(self, bench: Bench) -> None:
        encoded = encode_arguments(([0],), {}, task="appended")
        assert [bench.result(appended, encoded=encoded) for _ in range(2)] == [[0, 1], [0, 1]]

    def test_what_a_body_puts_is_reported_beside_its_result(self, bench: Bench) -> None:
        outcome = bench.run(puts, LARGE)
        assert isinstance(outcome, Computed)
        assert outcome.refs == ("call#1!0", "call#1!1")
        (first, small), (second, big) = outcome.puts
        assert (first, second) == outcome.refs
        assert small == Inline(b"sa")
        assert isinstance(big, Held)
        assert len(_fetched(bench, big)) == LARGE

    def test_failures_follow_the_table_and_no_attempt_is_run_again(self, bench: Bench, tmp_path: Path) -> None:
        log = tmp_path / "log"
        tables = {"steady": ["ok"], "flaky": ["fail", "fail", "ok"], "doomed": ["fail", "fail"]}
        if self.kills:
            tables |= {"killed": ["lost", "ok"], "unlucky": ["lost", "fail", "lost", "ok"]}
        expected = {"ok": Computed, "fail": Raised, "lost": Vanished}
        for plan in tables.values():
            for number, what in enumerate(plan, 1):
                assert type(bench.run(follows, plan, str(log), number=number)) is expected[what]
        assert bench.has_nothing_more()
        attempts = sum(map(len, tables.values()))
        assert len(lines(log)) == attempts
        assert len(set(lines(log))) == attempts

    def test_a_killed_worker_is_one_vanished_attempt(self, bench: Bench, tmp_path: Path) -> None:
        if not self.kills:
            pytest.skip("its bodies run in this process")
        gate, started = tmp_path / "gate", tmp_path / "started"
        bench.start(waits, str(started), str(gate))
        pid = int(wait_for_line(started))
        bench.start(waits, str(tmp_path / "other"), str(gate))
        wait_for_line(tmp_path / "other")
        os.kill(pid, signal.SIGKILL)
        serial, outcome = bench.reports.get(timeout=WAIT_S)
        assert serial == 1
        assert isinstance(outcome, Vanished)
        assert "died" in outcome.reason
        gate.touch()
        assert isinstance(bench.outcome(), Computed)
        assert bench.has_nothing_more()

    @pytest.mark.parametrize("body", [waits, waits_async])
    def test_a_timeout_is_a_vanished_attempt(self, bench: Bench, tmp_path: Path, body: Callable[..., Any]) -> None:
        gate, started = tmp_path / "gate", tmp_path / "started"
        outcome = bench.run(body, str(started), str(gate), timeout_s=0.5)
        assert isinstance(outcome, Vanished)
        assert "timed out after 0.5 s" in outcome.reason
        self._has_ended(started)
        gate.touch()
        assert bench.has_nothing_more()

    def test_what_ends_in_time_is_not_timed_out(self, bench: Bench) -> None:
        assert bench.result(returned, 1, timeout_s=WAIT_S) == 1

    @pytest.mark.parametrize("body", [waits, waits_async])
    def test_a_running_attempt_can_be_cancelled(self, bench: Bench, tmp_path: Path, body: Callable[..., Any]) -> None:
        gate, started = tmp_path / "gate", tmp_path / "started"
        attempt = bench.start(body, str(started), str(gate))
        wait_for_line(started)
        bench.executor.cancel(attempt.version, attempt.run_id)
        outcome = bench.outcome()
        assert isinstance(outcome, Vanished)
        assert outcome.reason == "cancelled"
        self._has_ended(started)
        gate.touch()
        assert bench.has_nothing_more()

    def test_an_attempt_that_waits_for_a_worker_can_be_cancelled(self, bench: Bench, tmp_path: Path) -> None:
        gate, never = tmp_path / "gate", tmp_path / "never"
        busy = 64
        for _ in range(busy):
            bench.start(waits, str(tmp_path / "started"), str(gate))
        queued = bench.start(waits, str(never), str(gate))
        bench.executor.cancel(queued.version, queued.run_id)
        assert bench.reports.get(timeout=WAIT_S) == (busy + 1, Vanished("cancelled"))
        gate.touch()
        assert all(isinstance(bench.outcome(), Computed) for _ in range(busy))
        assert lines(never) == []

    def test_an_attempt_that_was_cancelled_does_not_begin_in_the_place_of_its_undo(
        self, bench: Bench, tmp_path: Path
    ) -> None:
        gate, never = tmp_path / "gate", tmp_path / "never"
        for _ in range(64):
            bench.start(waits, str(tmp_path / "started"), str(gate))
        queued = bench.start(waits, str(never), str(gate))
        bench.executor.cancel(queued.version, queued.run_id)
        assert bench.outcome() == Vanished("cancelled")
        bench.start(returned, "undone", undoes=queued)
        gate.touch()
        assert all(isinstance(bench.outcome(), Computed) for _ in range(65))
        assert bench.has_nothing_more()
        assert lines(never) == []

    def test_the_deadline_of_an_attempt_is_not_that_of_its_undo(self, bench: Bench, tmp_path: Path) -> None:
        gate, started = tmp_path / "gate", tmp_path / "started"
        failed = bench.start(failing, "no", timeout_s=0.5)
        bench.outcome()  # its error; on a machine that is busy it is late already
        bench.start(waits, str(started), str(gate), undoes=failed)
        bench.start(waits, str(started), str(gate), timeout_s=1.0)  # its deadline is behind that one
        assert bench.reports.get(timeout=WAIT_S)[0] == 3
        gate.touch()
        assert isinstance(bench.outcome(), Computed)

    def test_cancelling_what_has_ended_or_never_was_does_nothing(self, bench: Bench) -> None:
        attempt = bench.start(returned, 1)
        assert isinstance(bench.outcome(), Computed)
        bench.executor.cancel(attempt.version, attempt.run_id)
        bench.executor.cancel(Version(99), RunId("nobody"))
        assert bench.has_nothing_more()

    def test_a_large_result_is_held_and_can_be_fetched(self, bench: Bench) -> None:
        held = _held(bench.compute(large, 1))
        assert held.size >= LARGE
        assert _fetched(bench, held) == bytes([1]) * LARGE

    def test_a_held_value_is_an_input(self, bench: Bench) -> None:
        held = _held(bench.compute(large, 2))
        inputs = {CallId("a"): held}
        value = bench.compute(both, make_reference(CallId("a")), 0, inputs=inputs)
        assert _fetched(bench, _held(value)) == [bytes([2]) * LARGE, 0]

    def test_a_large_argument_arrives(self, bench: Bench) -> None:
        assert bench.result(len, b"x" * LARGE) == LARGE

    def test_a_held_value_can_be_saved(self, bench: Bench, store: Store) -> None:
        held = _held(bench.compute(large, 3))
        saved = bench.save(held, "values/j/3")
        assert isinstance(saved, Stored)
        assert store.exists("values/j/3")
        bench.executor.release(held)
        assert bench.result(len, make_reference(CallId("a")), inputs={CallId("a"): saved}) == LARGE

    def test_what_a_body_put_can_be_saved_together(self, bench: Bench, store: Store) -> None:
        held = _put_by(bench.run(puts_large, 3))
        saved = bench.save_together(held, "values/j/9")
        assert not isinstance(saved, BaseException)
        assert [part.name for part in saved] == ["values/j/9"] * 3
        assert len({part.at for part in saved}) == 3
        for number, part in enumerate(saved):
            bench.executor.release(held[number])
            inputs: dict[CallId, Value] = {CallId("a"): part}
            assert bench.result(len, make_reference(CallId("a")), inputs=inputs) == LARGE
            assert bench.result(set, make_reference(CallId("a")), inputs=inputs) == {number}

    def test_values_of_which_one_is_lost_are_not_saved_together(self, bench: Bench, store: Store) -> None:
        held = _put_by(bench.run(puts_large, 2))
        for one in held:  # on some executors they lie in one object, which goes with the last of them
            bench.executor.drop(one)
        assert isinstance(bench.save_together(held, "values/j/10"), KeyError)
        assert not store.exists("values/j/10")

    def test_a_large_result_is_stored_by_whoever_computed_it(self, bench: Bench, store: Store) -> None:
        value = bench.compute(large, 4, save_to="values/j/4")
        assert isinstance(value, Stored)
        assert value.name == "values/j/4"
        assert store.exists("values/j/4")
        assert bench.result(len, make_reference(CallId("a")), inputs={CallId("a"): value}) == LARGE

    def test_a_small_result_is_inline_wherever_it_could_be_saved(self, bench: Bench, store: Store) -> None:
        assert bench.compute(returned, 1, save_to="values/j/5") == Inline(b"i\x01")
        assert not store.exists("values/j/5")

    @pytest.mark.parametrize("lose", ["release", "drop"])
    def test_a_lost_value_cannot_be_fetched_and_says_so(self, bench: Bench, lose: str) -> None:
        held = _held(bench.compute(large, 6))
        getattr(bench.executor, lose)(held)
        with pytest.raises(KeyError):
            bench.executor.fetch(held)
        assert isinstance(bench.save(held, "values/j/6"), KeyError)
        bench.executor.release(held)

    def test_an_attempt_whose_input_is_lost_vanishes_and_names_it(self, bench: Bench, tmp_path: Path) -> None:
        held = _held(bench.compute(large, 7))
        bench.executor.drop(held)
        ref = make_reference(CallId("a"))
        outcome = bench.run(follows, ["ok"], ref, inputs={CallId("a"): held})
        assert isinstance(outcome, Vanished)
        assert outcome.lost == ("a",)

    def test_a_damaged_input_is_named_too(self, bench: Bench, store: Store) -> None:
        store.create("values/j/8", b"rubbish" * 20_000)
        inputs: dict[CallId, Value] = {CallId("a"): Stored("values/j/8", 140_000)}
        outcome = bench.run(len, make_reference(CallId("a")), inputs=inputs)
        assert isinstance(outcome, Vanished)
        assert outcome.lost == ("a",)
        assert "values/j/8 is damaged" in outcome.reason

    def test_no_consumer_can_write_to_a_large_input(self, bench: Bench) -> None:
        pytest.importorskip("numpy")
        held = _held(bench.compute(array, LARGE))
        for _ in range(2):
            answer = bench.result(written_to, make_reference(CallId("a")), inputs={CallId("a"): held})
            assert answer.startswith("refused")

    # -- actors ----------------------------------------------------------------------------------------------------

    @pytest.fixture
    def actors(self, bench: Bench) -> Bench:
        if not self.has_actors:
            pytest.skip("it has no actors")
        return bench

    def test_a_state_is_left_and_given_to_the_next_attempt_where_it_is(self, actors: Bench) -> None:
        _, created = actors.act(Creation(Tally), 3, actor=ActorPart(TALLY))
        first, added = actors.act(Method(Tally, "add"), 4, actor=with_state(created.state))
        second, _ = actors.act(Method(Tally, "add_later"), 1, actor=with_state(added.state))
        assert (first[0], second[0]) == (7, 8)
        assert first[1] == second[1]

    def test_a_state_is_given_once(self, actors: Bench) -> None:
        _, created = actors.act(Creation(Tally), 0, actor=ActorPart(TALLY))
        actors.act(Method(Tally, "add"), 1, actor=with_state(created.state))
        again = actors.run(Method(Tally, "add"), 1, actor=with_state(created.state))
        assert isinstance(again, Vanished)
        assert again.lost == LOST_STATE

    def test_an_error_leaves_the_state_as_it_is_then(self, actors: Bench) -> None:
        _, created = actors.act(Creation(Tally), 0, actor=ActorPart(TALLY))
        error, failed = actors.act(Method(Tally, "add_and_fail"), 5, actor=with_state(created.state))
        assert isinstance(error, ArithmeticError)
        assert actors.act(Method(Tally, "add"), 1, actor=with_state(failed.state))[0][0] == 6

    def test_a_snapshot_is_stored_by_the_attempt_and_restored_into_a_new_actor(self, actors: Bench) -> None:
        _, created = actors.act(Creation(Tally), 0, actor=ActorPart(TALLY))
        _, added = actors.act(Method(Tally, "add"), 9, actor=with_state(created.state, snapshot_to="values/state"))
        assert isinstance(added.snapshot, Stored)
        actors.executor.release(added.state)
        assert actors.act(Method(Tally, "add"), 1, actor=from_snapshot(added.snapshot))[0][0] == 10

    def test_a_state_can_be_saved_between_two_attempts(self, actors: Bench) -> None:
        _, created = actors.act(Creation(Tally), 2, actor=ActorPart(TALLY))
        saved = actors.save(created.state, "values/between")
        assert isinstance(saved, Stored)
        assert actors.act(Method(Tally, "add"), 1, actor=with_state(created.state))[0][0] == 3
        assert actors.act(Method(Tally, "add"), 5, actor=from_snapshot(saved))[0][0] == 7

    @pytest.mark.parametrize("lose", ["release", "drop"])
    def test_a_state_that_is_gone_is_named_and_nothing_is_run(self, actors: Bench, lose: str) -> None:
        _, created = actors.act(Creation(Tally), 0, actor=ActorPart(TALLY))
        getattr(actors.executor, lose)(created.state)
        outcome = actors.run(Method(Tally, "add"), 1, actor=with_state(created.state))
        assert isinstance(outcome, Vanished)
        assert outcome.lost == LOST_STATE
        assert isinstance(actors.save(created.state, "values/gone"), KeyError)

    def test_an_attempt_that_cannot_begin_gives_the_state_back(self, actors: Bench) -> None:
        _, created = actors.act(Creation(Tally), 0, actor=ActorPart(TALLY))
        lost = actors.compute(large, 1)
        assert isinstance(lost, Held)
        actors.executor.drop(lost)
        source = CallId("source#0")
        taken = actors.run(
            Method(Tally, "add"), make_reference(source), inputs={source: lost}, actor=with_state(created.state)
        )
        assert isinstance(taken, Vanished)
        assert taken.lost == (source,)
        assert actors.act(Method(Tally, "add"), 1, actor=with_state(taken.state))[0][0] == 1

    def test_actors_do_not_wait_for_each_other(self, actors: Bench, tmp_path: Path) -> None:
        parts = [actors.act(Creation(Tally), 0, actor=ActorPart(TALLY))[1].state for _ in range(3)]
        for number, state in enumerate(parts):
            started, gate = str(tmp_path / f"started-{number}"), str(tmp_path / f"gate-{number}")
            actors.start(Method(Tally, "add_when"), number, started, gate, actor=with_state(state))
        for number in reversed(range(3)):
            wait_for_line(tmp_path / f"started-{number}")
            (tmp_path / f"gate-{number}").touch()
        outcomes = [actors.outcome() for _ in parts]
        assert all(isinstance(outcome, Computed) for outcome in outcomes), outcomes

    def test_nothing_starts_after_close(self, bench: Bench) -> None:
        bench.executor.close()
        with pytest.raises(ExecutorError):
            bench.start(returned, 1)

    def test_close_ends_what_it_can(self, bench: Bench, tmp_path: Path) -> None:
        gate, started = tmp_path / "gate", tmp_path / "started"
        bench.start(waits, str(started), str(gate))
        wait_for_line(started)
        bench.executor.close()
        self._has_ended(started)
        gate.touch()

    def _has_ended(self, started: Path) -> None:
        """No body that has left its line there runs any more, if the executor can end one at all."""
        if self.kills:
            deadline = time.monotonic() + WAIT_S
            with open(started, "rb") as file:
                while not _is_free(file.fileno()):  # its threads have ended; the system may still be clearing up
                    assert time.monotonic() < deadline, "a body runs on"
                    time.sleep(_POLL_S)


def _is_free(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _put_by(outcome: Outcome) -> list[Held]:
    assert isinstance(outcome, Computed), outcome
    return [_held(put) for _, put in outcome.puts]


def _held(value: Value) -> Held:
    assert isinstance(value, Held), value
    return value


def _fetched(bench: Bench, held: Held) -> Any:
    encoded = bench.executor.fetch(held)
    assert isinstance(encoded, Encoded)
    return decode(encoded)
