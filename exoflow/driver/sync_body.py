"""A sync flow body: it waits in its thread, and what it waits for runs there, where that is possible."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from exoflow.driver import notes
from exoflow.driver.attempt import attempt_of, executor_of
from exoflow.driver.body import Body
from exoflow.driver.handle import PLAIN, Handle
from exoflow.driver.life import Life, arguments
from exoflow.driver.outcomes import take_outcome
from exoflow.driver.spec import FlowSpec, TaskSpec
from exoflow.driver.strands import current
from exoflow.driver.values import ValueLost
from exoflow.kernel.call import Call
from exoflow.model import Kind, Version
from exoflow.protocols import Outcome

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution


class SyncBody(Body):
    """A body that blocks its thread."""

    is_async = False

    def __init__(self, execution: Execution, flow: FlowSpec, path: str = "", owner: Handle | None = None) -> None:
        super().__init__(execution, flow, path, owner)
        self._pending: set[Call] = set()
        """It waits for all of these, and is not to be woken for one of them."""

    def run(self) -> None:
        """Run the body to its end, and tell the kernel what it came to."""
        begun = arguments(self)
        if begun is not None:
            args, kwargs = begun
            with Life(self) as life:
                life.value = self.flow.function(*args, **kwargs)

    # -- one call ----------------------------------------------------------------------------------------------------

    def call(self, spec: TaskSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> object:
        """Make a call and wait for its value; where it can, it runs in this very thread."""
        with self.lock:
            handle = self.make(spec, args, kwargs)
            handle.order = PLAIN
            if not handle.call.failed and self.execution.kernel.deliverable(handle.call):
                try:
                    return self.read(handle)  # it is recorded: there is nothing to wait for
                except ValueLost:
                    pass  # it is made again
            return self._wait_here(handle) if self._runs_here(spec) else self.wait(handle)

    def child(self, flow: FlowSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> object:
        """The same for a child flow."""
        with self.lock:
            handle = self.make_child(flow, args, kwargs)
            return self.wait(handle) if flow.is_async else self._wait_here(handle)

    def _wait_here(self, handle: Handle) -> object:
        """Wait for a call whose attempts are left to this thread."""
        offers = self.execution.offers
        offers[handle.call.id] = None
        try:
            return self.wait(handle)
        finally:
            offers.pop(handle.call.id, None)

    def _worked(self, call: Call) -> bool:
        stashed = self.execution.stash.pop(call.id, None)
        if stashed is None:
            return False
        self._run_here(*stashed)
        return True

    def _run_here(self, handle: Handle, version: Version) -> None:
        """Run an attempt in the body's own thread, without the lock."""
        execution = self.execution
        if handle.spec.note.kind is Kind.FLOW:
            self._run_child(handle)
            return
        attempt = attempt_of(execution, handle, version)
        executor = executor_of(execution, handle.spec)
        if execution.runtime_sources is not None:
            execution.runtime_sources(handle.spec.code, handle.spec.function)
        token = current.set(None)
        self.lock.release()
        try:
            outcome: Outcome = executor.run(attempt)  # type: ignore[attr-defined]  # only the local executor runs here
        except BaseException as error:  # the program is to end, whatever the flow's body does
            execution.stop(error)
            raise
        finally:
            self.lock.acquire()
            current.reset(token)
        if execution.fatal is None:
            execution.turn(take_outcome, execution, handle, version, outcome)

    def _run_child(self, handle: Handle) -> None:
        assert handle.flow is not None
        handle.started_s = self.execution.clock.now()
        body = SyncBody(self.execution, handle.flow, f"{handle.call.id}/", handle)
        self._lent = True
        self.lock.release()
        try:
            body.run()
        finally:
            self.lock.acquire()
            self._lent = False

    def value(self, handle: Handle, timeout_s: float | None = None) -> object:
        """The value of a call; waits for it.

        Raises:
            TimeoutError: it was not there in time. Recorded: a replay sees the same.
        """
        with self.lock:
            if timeout_s is not None and self._timed_out(handle, timeout_s):
                raise TimeoutError(f"{handle.call.id} was not done after {timeout_s} s")
            return self.wait(handle)

    def _timed_out(self, handle: Handle, timeout_s: float) -> bool:
        execution = self.execution
        kernel = execution.kernel
        note = notes.make(self, "timeout")
        execution.event(kernel.wants, note.call)
        if not kernel.deliverable(note.call):
            execution.event(kernel.wants, handle.call)
            execution.event(kernel.waits, self.scope)
        clock = execution.clock
        deadline = clock.monotonic() + timeout_s
        forget: Callable[[], None] | None = None
        while not kernel.deliverable(note.call):
            self.check()
            left_s = deadline - clock.monotonic()
            there = self.there(handle.call)
            if (there or left_s <= 0) and notes.is_open(note):
                execution.event(notes.take, execution, note, not there)
                if not there:
                    notes.leave(self, (handle,))
            elif not self._committed():
                self.still_wants(handle.call)
                forget = forget or clock.call_at(clock.now() + left_s, self._look_again)  # a test may skip the time
                self.park(left_s if left_s > 0 else None)
        if forget is not None:
            forget()
        return bool(self.wait(note))

    def _look_again(self) -> None:
        with self.lock:
            self.wake()

    # -- many calls --------------------------------------------------------------------------------------------------

    def values(self, handles: Sequence[Handle], *, return_exceptions: bool = False) -> list[object]:
        """The values of many calls, in order; waits for all of them at once."""
        execution = self.execution
        kernel = execution.kernel
        with self.lock:
            self.check()
            for handle in handles:
                if not kernel.deliverable(handle.call):
                    execution.event(kernel.wants, handle.call)
                    self._pending.add(handle.call)
            self._pending = {call for call in self._pending if not self.there(call)}
            if self._pending:
                execution.event(kernel.waits, self.scope)
            while self._pending:
                self.check()
                if not self._committed():
                    for call in list(self._pending):
                        self.still_wants(call)
                    self.park()
                self._pending = {call for call in self._pending if not self.there(call)}
            return [self._read_or(handle, return_exceptions) for handle in handles]

    def _read_or(self, handle: Handle, return_exceptions: bool) -> object:
        if not return_exceptions:
            return self.wait(handle)
        try:
            return self.wait(handle)
        except Exception as error:  # noqa: BLE001 -- whatever the user's code raises is an outcome
            return error

    def next_of(self, handles: Sequence[Handle]) -> int:
        """Index of a completed call among these; which one is recorded."""
        with self.lock:
            note = notes.start_choice(self, handles)
            kernel = self.execution.kernel
            while not kernel.deliverable(note.call):
                self.check()
                if not notes.choose(self, note, handles):
                    for handle in handles:
                        self.still_wants(handle.call)
                    self.park()
            index = self.wait(note)
            assert isinstance(index, int)
            return index

    # -- waking ------------------------------------------------------------------------------------------------------

    def wake_for(self, handle: Handle) -> None:
        if self._pending:
            self._pending.discard(handle.call)
            if self._pending:
                return
        super().wake_for(handle)
