"""An async flow body: each of its strands waits in an asyncio task."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from exoflow import codec
from exoflow.driver import notes
from exoflow.driver.attempt import attempt_of
from exoflow.driver.body import Body
from exoflow.driver.handle import PLAIN, Handle
from exoflow.driver.life import Life, arguments
from exoflow.driver.loops import mailbox
from exoflow.driver.order import Order
from exoflow.driver.sleepers import Sleepers
from exoflow.driver.spec import FlowSpec, TaskSpec
from exoflow.driver.strands import current
from exoflow.driver.values import ValueLost
from exoflow.errors import TaskFailed
from exoflow.kernel import commands as do
from exoflow.kernel.call import Call
from exoflow.model import Version
from exoflow.protocols import Attempt, Outcome, Vanished

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution

logger = logging.getLogger(__name__)

HELD_BACK_S = 30.0
"""How long a replay waits for a recorded call before it says so."""

IDLE_CYCLES = 3
"""Of the event loop without a call, before the body counts as waiting."""


class AsyncBody(Body):
    """A body that never blocks its event loop."""

    is_async = True

    def __init__(self, execution: Execution, flow: FlowSpec, path: str = "", owner: Handle | None = None) -> None:
        super().__init__(execution, flow, path, owner)
        self.loop: asyncio.AbstractEventLoop | None = None
        self._sleepers = Sleepers()
        self._order: Order | None = None
        self._held_back: asyncio.TimerHandle | None = None
        self._given_up: list[tuple[Handle, Version]] = []

    async def run(self) -> None:
        """Run the body to its end, and tell the kernel what it came to."""
        self.loop = asyncio.get_running_loop()
        self._sleepers.mail = mailbox(self.loop)
        begun = arguments(self)
        if begun is not None:
            args, kwargs = begun
            with Life(self) as life:
                life.value = await self.flow.function(*args, **kwargs)

    # -- one call ----------------------------------------------------------------------------------------------------

    def call(self, spec: TaskSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Coroutine[Any, Any, object]:
        """Make a call now, where it is written; awaited, it waits for the value (I1)."""
        execution = self.execution
        here = self._runs_here(spec)
        with self.lock:
            handle = self.make(spec, args, kwargs)
            handle.order = PLAIN
            if here:
                execution.offers[handle.call.id] = None
            execution.event(execution.kernel.wants, handle.call)
        return self._value_here(handle) if here else self.value(handle)

    def child(self, flow: FlowSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Coroutine[Any, Any, object]:
        """The same for a child flow."""
        return self.value(self.submit_child(flow, args, kwargs))

    async def _value_here(self, handle: Handle) -> object:
        """Wait for a call whose attempts run in this asyncio task, if nowhere else."""
        execution, call = self.execution, handle.call
        attempt: Attempt | None = None
        outcome: Outcome | None = None
        try:
            await self._let_others_begin()
            while True:
                with self.lock:
                    if attempt is not None and outcome is not None:
                        execution.report(handle, attempt.version, outcome)
                    self.check()
                    if self._ready(call):
                        try:
                            return self._give(handle)
                        except ValueLost:
                            pass  # it is being made again
                    stashed = execution.stash.pop(call.id, None)
                    attempt = None if stashed is None else attempt_of(execution, *stashed)
                    future = self._woken(call) if attempt is None else None
                if attempt is not None:
                    outcome = await self._run_here(handle, attempt)
                elif future is not None:
                    await self._sleepers.sleep(future)
        except asyncio.CancelledError:
            with self.lock:
                execution.kernel.abandoned(call)
            raise
        finally:
            execution.offers.pop(call.id, None)

    async def _let_others_begin(self) -> None:
        """Several strands: those that were made before go on to where they wait, before this one is given a value.

        So a value that is there at once and one that has to be made again are read at the same place among the calls.
        """
        if self.strands > 1:
            await asyncio.sleep(0)

    async def _run_here(self, handle: Handle, attempt: Attempt) -> Outcome:
        """Run an attempt in this asyncio task. The task may be cancelled: by its flow, or to end the attempt alone."""
        execution, version, strand = self.execution, attempt.version, asyncio.current_task()
        assert strand is not None
        execution.inner[version] = strand
        token = current.set(None)
        try:
            return await _within(attempt.timeout_s, execution.executors["local"].run_async(attempt))  # type: ignore[attr-defined]
        except asyncio.CancelledError:
            if version in execution.inner:
                self._given_up.append((handle, version))
                raise
            strand.uncancel()
            return Vanished("cancelled")
        except BaseException as error:  # the program is to end, whatever the flow's body does
            execution.stop(error)
            raise
        finally:
            execution.inner.pop(version, None)
            current.reset(token)

    def check(self) -> None:
        """Raise why the body can go no further, if so."""
        super().check()
        if self._given_up:
            self._give_up()

    def _give_up(self) -> None:
        """Strands were cancelled while they ran attempts, and the body goes on: it was not the end of the program."""
        given_up, self._given_up = self._given_up, []
        for handle, version in given_up:
            error = TaskFailed(f"{handle.call.id} was given up: what waited for it in the flow was cancelled")
            self.execution.values.errors[handle.call.id] = codec.encode_error(error)
            self.execution.event(self.execution.kernel.given_up, handle.call.id, version)

    def leave(self) -> None:
        """The user's code has ended: calls that it made and never awaited run all the same."""
        execution = self.execution
        with self.lock:
            if self.over():
                return
            self._give_up()
            for id, (handle, version) in list(execution.stash.items()):
                if handle.body is self:
                    execution.offers.pop(id, None)
                    del execution.stash[id]
                    again = do.Run(handle.call.id, version, handle.number, handle.why or "first")
                    execution.event(execution.carry_out[do.Run], execution, again)

    async def value(self, handle: Handle) -> object:
        """The value of a call, for one strand."""
        call = handle.call
        with self.lock:
            self.check()
            self.execution.event(self.execution.kernel.wants, call)
        await self._let_others_begin()
        while True:
            with self.lock:
                self.check()
                if self._ready(call):
                    try:
                        return self._give(handle)
                    except ValueLost:
                        pass  # it is being made again
                future = self._woken(call)
            try:
                await self._sleepers.sleep(future)
            except asyncio.CancelledError:
                with self.lock:
                    notes.leave(self, (handle,))
                raise

    def _ready(self, call: Call) -> bool:
        """Whether the strand may be given the value now: not before what a recorded run was given first (L9)."""
        if not self.there(call):
            return False
        return self.strands == 1 or self._in_order().allows(call)

    def _in_order(self) -> Order:
        if self._order is None:
            log = self.execution.history.reads.setdefault(self.scope.path, [])
            self._order = Order(self.execution.kernel, self.scope, log)
        return self._order

    def _record(self, call: Call) -> None:
        read = self._in_order().took(self.execution.index, call)
        if read is not None:
            self.execution.append_own(read)

    def make(self, *args: Any, **kwargs: Any) -> Handle:
        """Give the call its id and tell the kernel; a strand may have waited for another to make it."""
        handle = super().make(*args, **kwargs)
        if self._order:
            self._sleepers.wake_all()
        if self.strands > 1 and handle.spec.note.effect == "idempotent":
            called = self._in_order().called(self.execution.index, handle.call)
            if called is not None:
                self.execution.append_own(called)
        return handle

    def _give(self, handle: Handle) -> object:
        """Read a value whose turn it is; under the lock. Whoever waits for theirs looks again."""
        in_order = bool(self._order)
        try:
            return self.read(handle)
        finally:
            if in_order:
                self._sleepers.wake_all()

    def _woken(self, call: Call) -> asyncio.Future[None]:
        """Done when there is news of the call. Under the lock, under which there was none."""
        loop = asyncio.get_running_loop()
        if self._order and self._held_back is None and self.execution.kernel.deliverable(call):
            self._held_back = loop.call_later(HELD_BACK_S, self._say_what_holds, len(self.scope.reads))
        if self.scope.deferred or self._order:
            loop.call_soon(self._idle, len(self.scope.calls), IDLE_CYCLES)
        return self._await_one_of(loop, (call,))

    def _say_what_holds(self, reads: int) -> None:
        """Nothing was read for long, though a value is there: the body may not be the one that was recorded."""
        self._held_back = None
        with self.lock:
            call = None if self.over() or reads != len(self.scope.reads) else self._in_order().waits_for()
            if call is not None:
                logger.warning(
                    "%s waits for the recorded call %s: the flow body made it before it read on, and has not made it "
                    "again. A flow body may only branch on what it got from tasks and from exoflow.",
                    self.run_id, call.id, extra={"run": self.run_id, "call": call.id},
                )  # fmt: skip

    def _await_one_of(self, loop: asyncio.AbstractEventLoop, calls: Sequence[Call]) -> asyncio.Future[None]:
        for call in calls:
            self.still_wants(call)
        self.check()  # what was found may have set this body aside, and that wakes it only once
        self.loop = loop
        return self._sleepers.until_news(loop, calls)

    def _idle(self, made: int, cycles: int) -> None:
        """No call was made for some cycles of the loop: the body waits."""
        if made != len(self.scope.calls) or self.dead:
            return
        if cycles and self.loop is not None:
            self.loop.call_soon(self._idle, made, cycles - 1)
            return
        with self.lock:
            if self.execution.fatal is None:
                self.execution.event(lambda: self.execution.kernel.waits(self.scope, settled=False))

    # -- many calls --------------------------------------------------------------------------------------------------

    async def values(self, handles: Sequence[Handle], *, return_exceptions: bool = False) -> list[object]:
        """The values of many calls, in order."""
        kernel = self.execution.kernel
        with self.lock:
            self.check()
            for handle in handles:
                self.execution.event(kernel.wants, handle.call)
        try:
            return [await self._value_or(handle, return_exceptions) for handle in handles]
        except BaseException:
            with self.lock:
                notes.leave(self, handles)
            raise

    async def _value_or(self, handle: Handle, return_exceptions: bool) -> object:
        try:
            return await self.value(handle)
        except Exception as error:
            if not return_exceptions:
                raise
            return error

    async def next_of(self, handles: Sequence[Handle]) -> int:
        """Index of a completed call among these; which one is recorded."""
        with self.lock:
            note = notes.start_choice(self, handles)
        while True:
            with self.lock:
                self.check()
                if notes.choose(self, note, handles):
                    break
                calls = [*(handle.call for handle in handles), note.call]
                future = self._await_one_of(asyncio.get_running_loop(), calls)
            try:
                await self._sleepers.sleep(future)
            except asyncio.CancelledError:
                with self.lock:
                    notes.leave(self, handles)
                raise
        index = await self.value(note)
        assert isinstance(index, int)
        return index

    def change(self) -> asyncio.Future[None] | None:
        """Done when something about the run has changed, its end or a body set aside; None: it has."""
        with self.lock:
            if self.dead or self.execution.over():
                return None
            return self._sleepers.until_change(asyncio.get_running_loop())

    # -- waking ------------------------------------------------------------------------------------------------------

    @property
    def waits(self) -> bool:
        return self.scope.returned or bool(self._sleepers)

    @property
    def pauses(self) -> int:
        """How often strands have waited."""
        return self._sleepers.pauses

    def wake_for(self, handle: Handle) -> None:
        super().wake_for(handle)
        self._sleepers.wake_for(handle.call)

    def wake(self) -> None:
        super().wake()
        self._sleepers.wake_all()
        self._sleepers.wake_watchers()


async def _within(timeout_s: float | None, attempt: Awaitable[Outcome]) -> Outcome:
    if timeout_s is None:
        return await attempt
    try:
        async with asyncio.timeout(timeout_s):
            return await attempt
    except TimeoutError:  # a body's own is an outcome, and does not come here
        return Vanished(f"timed out after {timeout_s} s")
