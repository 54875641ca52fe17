"""An async flow body: each of its strands waits in an asyncio task."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from exoflow.driver import notes
from exoflow.driver.attempt import attempt_of, executor_of
from exoflow.driver.body import Body
from exoflow.driver.handle import Handle
from exoflow.driver.life import Life, arguments
from exoflow.driver.loops import Mailbox, mailbox
from exoflow.driver.outcomes import take_outcome
from exoflow.driver.spec import FlowSpec, TaskSpec
from exoflow.driver.strands import current, hook
from exoflow.driver.values import ValueLost
from exoflow.kernel.state import Call
from exoflow.model import Version

IDLE_CYCLES = 3
"""Of the event loop without a call, before the body counts as waiting."""


class AsyncBody(Body):
    """A body that never blocks its event loop."""

    is_async = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loop: asyncio.AbstractEventLoop | None = None
        self._mail: Mailbox | None = None
        self._futures: dict[Call, list[asyncio.Future[None]]] = {}
        self._watchers: list[asyncio.Future[None]] = []

    async def run(self) -> None:
        """Run the body to its end, and tell the kernel what it came to."""
        self.loop = asyncio.get_running_loop()
        self._mail = mailbox(self.loop)
        hook(self.loop)
        begun = arguments(self)
        if begun is not None:
            args, kwargs = begun
            with Life(self) as life:
                life.value = await self.flow.function(*args, **kwargs)

    # -- one call ----------------------------------------------------------------------------------------------------

    def call(self, spec: TaskSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Coroutine[Any, Any, object]:
        """Make a call now, where it is written; awaited, it waits for the value (I1)."""
        execution = self.execution
        here = spec.is_async and executor_of(execution, spec) is execution.executors.get("local")
        with self.lock:
            handle = self.make(spec, args, kwargs)
            if here:
                execution.offers.add(handle.call.id)
            execution.event(execution.kernel.wants, handle.call)
        return self._value_here(handle) if here else self.value(handle)

    def child(self, flow: FlowSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Coroutine[Any, Any, object]:
        """The same for a child flow."""
        return self.value(self.submit_child(flow, args, kwargs))

    async def _value_here(self, handle: Handle) -> object:
        """Wait for a call whose attempts run in this asyncio task, if nowhere else."""
        execution = self.execution
        call = handle.call
        try:
            while True:
                stashed = execution.stash.pop(call.id, None)
                if stashed is not None:
                    await self._run_here(*stashed)
                with self.lock, contextlib.suppress(ValueLost):  # lost: it is being made again
                    self.check()
                    if self._ready(call):
                        return self._give(handle)
                await self._suspend(call)
        finally:
            execution.offers.discard(call.id)

    async def _run_here(self, handle: Handle, version: Version) -> None:
        execution = self.execution
        with self.lock:
            attempt = attempt_of(execution, handle, version)
        token = current.set(None)
        try:
            outcome = await execution.executors["local"].run_async(attempt)  # type: ignore[attr-defined]
        except BaseException as error:
            if not isinstance(error, asyncio.CancelledError):  # the program is to end, whatever the flow's body does
                execution.stop(error)
            raise
        finally:
            current.reset(token)
        with self.lock:
            if execution.fatal is None:
                execution.event(take_outcome, execution, handle, version, outcome)

    async def value(self, handle: Handle) -> object:
        """The value of a call, for one strand."""
        call = handle.call
        with self.lock:
            self.check()
            self.execution.event(self.execution.kernel.wants, call)
        while True:
            with self.lock:
                self.check()
                if self._ready(call):
                    with contextlib.suppress(ValueLost):  # it is being made again
                        return self._give(handle)
            await self._suspend(call)

    def _ready(self, call: Call) -> bool:
        """Whether the strand may be given the value now: not before what a recorded run was given first (L9)."""
        if not self.execution.kernel.deliverable(call):
            return False
        order, reads = self.order, len(self.scope.reads)
        while order and order[0].reads_at < reads:
            order.popleft()
        if not order or order[0].reads_at > reads:
            return True
        if order[0].version != self.scope.stamp:
            order.clear()  # another history: what was read before is not what it was
            return True
        return order[0].call == call.id

    def _give(self, handle: Handle) -> object:
        """Read a value whose turn it is; under the lock. Whoever waits for theirs looks again."""
        try:
            return self.read(handle)
        finally:
            if self.order:
                for waiting in list(self._futures):
                    self._wake_futures(waiting)

    async def _suspend(self, call: Call) -> None:
        loop = asyncio.get_running_loop()
        with self.lock:
            self.check()
            if self._ready(call) or call.id in self.execution.stash:
                return
            future = self._await_one_of(loop, (call,))
            if self.scope.deferred or self.order:
                loop.call_soon(self._idle, len(self.scope.calls), IDLE_CYCLES)
        await future

    def _await_one_of(self, loop: asyncio.AbstractEventLoop, calls: Sequence[Call]) -> asyncio.Future[None]:
        self.loop = loop
        future: asyncio.Future[None] = loop.create_future()
        for call in calls:
            self._futures.setdefault(call, []).append(future)
        return future

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
        found: list[object] = []
        for handle in handles:
            try:
                found.append(await self.value(handle))
            except Exception as error:
                if not return_exceptions:
                    raise
                found.append(error)
        return found

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
            await future
        index = await self.value(note)
        assert isinstance(index, int)
        return index

    async def changed(self) -> None:
        """Until something about the run has changed: its end, a body set aside."""
        with self.lock:
            if self.dead or self.execution.ended.is_set():
                return
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._watchers.append(future)
        await future

    # -- waking ------------------------------------------------------------------------------------------------------

    @property
    def waits(self) -> bool:
        return bool(self._futures)

    def wake_for(self, handle: Handle) -> None:
        super().wake_for(handle)
        self._wake_futures(handle.call)

    def wake(self) -> None:
        super().wake()
        for call in list(self._futures):
            self._wake_futures(call)
        if self._watchers and self._mail is not None:
            watchers, self._watchers = self._watchers, []
            self._mail.post(watchers)

    def _wake_futures(self, call: Call) -> None:
        futures = self._futures.pop(call, None)
        if futures and self._mail is not None:
            self._mail.post(futures)
