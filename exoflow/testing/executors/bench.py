"""An executor that is tried out, and what its attempts report."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from exoflow.codec import Encoded, decode, decode_error, from_bytes, make_reference
from exoflow.model import CallId, Held, Inline, RunId, Stored, Value, version
from exoflow.protocols import ActorPart, Attempt, Computed, Executor, Outcome, Raised, Store
from exoflow.storage import LocalStore
from exoflow.testing.executors.bodies import WAIT_S, returned, wait_until


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

    def held(self, function: Callable[..., Any], *args: Any, **options: Any) -> Held:
        value = self.compute(function, *args, **options)
        assert isinstance(value, Held), value
        return value

    def put_by(self, function: Callable[..., Any], *args: Any) -> list[Held]:
        outcome = self.run(function, *args)
        assert isinstance(outcome, Computed), outcome
        return [put for _, put in outcome.puts if isinstance(put, Held)]

    def fetched(self, held: Held) -> Any:
        encoded = self.executor.fetch(held)
        assert isinstance(encoded, Encoded)
        return decode(encoded)

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


class OnBench:
    """Tests that have an executor of the implementer's on the bench."""

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

    def has_ended(self, started: Path) -> None:
        """No body that has left its line there runs any more, if the executor can end one at all."""
        if self.kills and started.exists():  # else it had not even begun
            with open(started, "rb") as file:  # its threads have ended; the system may still be clearing up
                wait_until(lambda: _is_free(file.fileno()), "a body runs on")


def _is_free(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
