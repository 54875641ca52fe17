"""One live run, as those see it who run its root body, end its attempts, wait for its result or cancel it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from exoflow import codec
from exoflow.attempts.spare import spare
from exoflow.driver import records
from exoflow.driver.async_body import AsyncBody
from exoflow.driver.handle import Handle
from exoflow.driver.loops import background_loop, mailbox
from exoflow.driver.outcomes import forget_outcome, forget_value, take_outcome
from exoflow.driver.shell import Shell
from exoflow.driver.sync_body import SyncBody
from exoflow.driver.values import value_of
from exoflow.errors import Interruption, RunCancelled, StorageError
from exoflow.journal.inbox import Message
from exoflow.journal.records import Kind as Code
from exoflow.kernel.call import Call, State
from exoflow.model import CallId, Held, Inline, Kind, Status, Stored, Version
from exoflow.protocols import Outcome


class Execution(Shell):
    """A run in this process and epoch. Its insides are in ``Shell``: two halves of one thing, apart to be read."""

    _in_report = False
    """Whether a thread that holds the lock is in the middle of a report."""
    _task: asyncio.Task[None] | None = None
    """The loop itself holds it weakly."""
    awaited = 0
    """So many wait for its result."""

    # -- running the root body ---------------------------------------------------------------------------------------

    def arguments(self) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """The flow's inputs, a fresh copy for each incarnation of the body."""
        if self.encoded_inputs is None:
            return self.args, self.kwargs
        args, kwargs = codec.decode(self.encoded_inputs)
        return args, kwargs

    def run(self) -> object:
        """Run a sync flow in this thread to its end, replaying it as often as the kernel says.

        Raises:
            Exception: as ``result``.
        """
        self.awaited += 1
        self._run()
        return self.result()

    def _run(self) -> None:
        try:
            while not (self.ended.is_set() or self.kernel.unwinding):
                body = SyncBody(self, self.flow)
                body.waits_for_end = True
                body.run()
                self._wait_for_end(body)
        except BaseException as error:
            self.stop(error)
            raise

    def _wait_for_end(self, body: SyncBody) -> None:
        with self.lock:
            while not (self.ended.is_set() or body.dead or self.end_position):
                body.park()
            if self.ended.is_set() or body.dead and not self.end_position:
                return
        self.log.wait(self.end_position)  # this thread itself does the durable write
        self.end(None)

    async def run_async(self) -> object:
        """The same for an async flow, on the running loop."""
        self.awaited += 1
        await self._live()
        try:
            return await self.result_async()
        except BaseException as error:
            self.stop(error)
            raise

    async def _live(self, *, quietly: bool = False) -> None:
        try:
            while not (self.over() or self.kernel.unwinding):
                body = AsyncBody(self, self.flow)
                await body.run()
                while (change := body.change()) is not None:
                    await change
        except BaseException as error:
            self.stop(error)
            if not (quietly and isinstance(error, Exception)):  # whoever asks for the result gets it
                raise
        finally:
            self._task = None

    def start(self) -> None:
        """Run it in the background: a thread for a sync flow, an asyncio task for an async one."""
        if not self.flow.is_async:
            threading.Thread(target=self._run_quietly, name=f"exoflow-{self.run_id}", daemon=True).start()
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            asyncio.run_coroutine_threadsafe(self._live(quietly=True), background_loop())
        else:
            self._task = loop.create_task(self._live(quietly=True))

    def _run_quietly(self) -> None:
        with contextlib.suppress(BaseException):  # whoever asks for the result gets it
            self._run()

    # -- what executors tell it --------------------------------------------------------------------------------------

    def report(self, handle: Handle, version: Version, outcome: Outcome) -> None:
        """An executor says what became of an attempt."""
        with self.lock:
            if self.fatal is not None or self.end_position:
                forget_outcome(self, version, outcome)
                return
            if spare.pool is None or self._in_report:
                self.event(take_outcome, self, handle, version, outcome)
                return
            self._turn_here(take_outcome, self, handle, version, outcome)
        self._write_here()

    def _turn_here(self, event: Callable[..., object], *args: Any) -> None:
        """A turn of a thread that will write afterwards: an attempt that is ended in it is reported inside of it."""
        self._in_report = True
        try:
            self.turn(event, *args)
        finally:
            self._in_report = False

    def _write_here(self) -> None:
        """Make durable in this thread what the run waits for, and go on, unless there is something to run."""
        pool = spare.pool
        assert pool is not None
        while True:
            with self.lock:
                if self.kernel.urgent <= self._asked or self.fatal is not None:
                    return
                position = self.urgent_position()
                if position is None or spare.item is not None or pool.has_work():
                    self.ask()
                    return
                self._asked = self.kernel.urgent
            try:
                self.log.wait(position)
            except (Exception, Interruption) as error:  # noqa: BLE001 -- who waits must hear of it, and the thread lives
                self.stop(error)
                return
            with self.lock:
                if self.fatal is None:
                    self._turn_here(self.catch_up)

    def value_lost(self, id: CallId) -> None:
        """An executor has lost a value that it held."""
        with self.lock:
            if self.fatal is None:
                self.event(forget_value, self, id)

    def secure(self) -> None:
        """Wait until its beginning is durable: whoever sends it something then sends it to a run that exists."""
        with self.lock:
            position = self.position_of(self.kernel.start_seq)
        if position is not None:
            self.log.wait(position)

    def receive(self, messages: Sequence[Message]) -> None:
        """Somebody outside has told the run something, durably."""
        with self.lock:
            if self.fatal is not None or self.end_position:
                return
            cancels = self.inbox.add(messages)
            self.event(self.inbox.serve)
        if cancels:
            try:
                self.cancel()
            except (Interruption, StorageError) as error:  # whoever told us is not to blame, and has others to tell
                self.stop(error)

    # -- its result --------------------------------------------------------------------------------------------------

    def result(self, timeout_s: float | None = None) -> object:
        """The run's result, once it is durable.

        Raises:
            TimeoutError: it is not there in time; the run goes on.
            RunCancelled: it was cancelled.
            Exception: the run failed: its own error.
        """
        if not self._wait(timeout_s):
            raise TimeoutError(f"{self.run_id} is still {self.status} after {timeout_s} s")
        if self.fatal is not None:
            raise self.fatal
        if self.status is Status.CANCELLED:
            raise RunCancelled(f"the run {self.run_id} was cancelled")
        if self.status is Status.FAILED:
            assert self.root_error is not None
            raise codec.decode_error(self.root_error)
        assert isinstance(self.outcome, Inline | Held | Stored)
        return codec.decode(self.values.fetch(self.outcome))

    def _wait(self, timeout_s: float | None) -> bool:
        if not self.ended.is_set():
            self.awaited += 1
            try:
                self.ended.wait(timeout_s)
            finally:
                self.awaited -= 1
        return self.ended.is_set()

    async def result_async(self) -> object:
        """As ``result``, without blocking the loop."""
        if not self.ended.is_set():
            loop = asyncio.get_running_loop()
            mail, ended = mailbox(loop), loop.create_future()
            self.when_ended(lambda: mail.post((ended,)))
            self.awaited += 1
            try:
                await ended
            finally:
                self.awaited -= 1
        return self.result()

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Call back when the run has ended here; at once, if it has."""
        with self.lock:
            if self.ended.is_set():
                callback()
            else:
                self.on_end = (*self.on_end, callback)

    def had_ended(self, status: Status, payload: records.Payload) -> None:
        """It is a run that ended before: there is only its result, or its error."""
        self.status = status
        if status is Status.FAILED:
            assert isinstance(payload, bytes)
            self.root_error = payload
        elif status is Status.DONE:
            self.outcome = value_of(payload)
        self.ended.set()

    def standing(self) -> Status:
        """How the run stands now; waiting: nothing but a timer will bring it on."""
        with self.lock:
            return Status.WAITING if self.pauses() else self.status

    def pauses(self) -> tuple[int, int, int] | None:
        """None, unless nothing but time or an event will bring the run on. Equal ones: nothing has happened between."""
        with self.lock:
            root, kernel = self.bodies.get(""), self.kernel
            if self.status is not Status.RUNNING or self.end_position or root is None or root.dead or self.looking:
                return None
            if kernel.urgent > kernel.durable_seq or not all(body.waits or body.dead for body in self.bodies.values()):
                return None
            if not all(self._only_waits(call) for call in kernel.calls.values()):
                return None
            paused = sum(body.pauses for body in self.bodies.values() if isinstance(body, AsyncBody))
            return len(kernel.calls), kernel.seq, paused

    def _only_waits(self, call: Call) -> bool:
        if call.state is State.RUNNING:
            return call.note.kind is not Kind.TASK or call.attempt in self.delayed
        return call.state is not State.DOUBT and not call.upload

    def go_on_failing(self, error: bytes) -> None:
        """The run had failed before, durably, and was being rolled back: no body runs, the rest is undone."""
        with self.lock:
            self.root_error = error
            self.event(self.kernel.goes_on_failing)

    def _take_answers(self) -> None:
        """No body asks any more: effects that are said not to have happened hold back no undo."""
        for call in list(self.kernel.calls.values()):
            if call.intent and call.note.effect == "irrevocable":
                answer = self.inbox.answer(call.id, call.intent)
                if answer is not None and answer.what == "did not happen":
                    self.kernel.declined(call)

    def cancel(self) -> None:
        """Cancel durably, then tell the body (V15)."""
        with self.lock:
            if self.ended.is_set() or self.kernel.cancelling or self.end_position:
                return
            position = self.log.append(records.Cancel(Code.CANCEL, self.index, self.clock.now()))
        self.log.wait(position)
        with self.lock:
            if self.fatal is None and not self.ended.is_set() and not self.end_position:
                self.event(self._take_answers)
                self.event(self.kernel.cancel)
                self.wake_bodies()
