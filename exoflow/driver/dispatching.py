"""What the body of a paid call asks of its run: its intent, when it is about to send, and word of its record."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from exoflow.errors import TaskFailed
from exoflow.kernel import commands as do
from exoflow.kernel.call import State
from exoflow.model import CallId, Version

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution


class Dispatching:
    """Of one attempt. A ``protocols.Dispatching``."""

    def __init__(self, execution: Execution, call: CallId, version: Version) -> None:
        self._execution: Execution | None = execution
        """None when it is over: what a body has begun, a connection's timer say, may remember the attempt for long."""
        self._lock = execution.lock
        self._call = call
        self.version = version
        self._waiting: list[Callable[[BaseException | None], None]] = []
        self._unrecorded: list[Callable[[], None]] = []

    def ask(self, callback: Callable[[BaseException | None], None]) -> None:
        with self._lock:
            execution = self._execution
            self._waiting.append(callback)
            if execution is None or execution.fatal is not None or execution.over():
                self._refuse()
            else:
                execution.event(self._ask)

    def wait(self) -> None:
        execution, told = self._execution, list[BaseException | None]()
        self.ask(told.append)
        while not told and execution is not None:  # this thread itself does the durable write
            with execution.lock:
                position = execution.urgent_position()
            if position is not None:
                execution.log.wait(position)
            with execution.lock:
                execution.event(execution.catch_up)
        if told[0] is not None:
            raise told[0]

    def when_recorded(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if self._execution is not None:
                self._unrecorded.append(callback)
                return
        callback()

    def _ask(self) -> None:
        if self._execution is None or not self._execution.kernel.dispatching(self._call, self.version):
            self._refuse()

    def _refuse(self) -> None:
        self._tell(TaskFailed(f"{self._call}: nobody waits for this attempt any more, and nothing was sent"))

    def _tell(self, error: BaseException | None) -> None:
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback(error)

    def granted(self) -> None:
        """Its intent is durable. Under the lock."""
        self._tell(None)

    def end(self, _: BaseException | None = None) -> None:
        """Its record is durable, or there will be none. From any thread."""
        with self._lock:
            self._execution = None
            self._refuse()
            unrecorded, self._unrecorded = self._unrecorded, []
        for callback in unrecorded:
            callback()


def begin(execution: Execution, call: CallId, version: Version) -> Dispatching:
    """An attempt at a paid call begins. Under the lock."""
    former = execution.dispatching.get(call)
    dispatching = execution.dispatching[call] = Dispatching(execution, call, version)
    if former is not None:
        former.end()
    return dispatching


def grant(execution: Execution, command: do.Dispatch) -> None:
    """Tell the body that it may send."""
    dispatching = execution.dispatching.get(command.call)
    if dispatching is not None and dispatching.version == command.version:
        dispatching.granted()


def recorded(execution: Execution, call: CallId, position: int) -> None:
    """The record of what became of the call has been appended there. Under the lock."""
    dispatching = execution.dispatching.pop(call, None)
    if dispatching is not None:
        execution.log.notify(position, dispatching.end)


def ended(execution: Execution, call: CallId, version: Version) -> None:
    """An attempt has ended; another one may follow. Under the lock."""
    dispatching = execution.dispatching.get(call)
    if dispatching is None or dispatching.version != version:
        return
    if execution.kernel.calls[call].state is not State.DONE:  # else its record is to come, perhaps when it is stored
        del execution.dispatching[call]
        dispatching.end()


def end_all(execution: Execution) -> None:
    """The run has ended here. Under the lock."""
    while execution.dispatching:
        execution.dispatching.popitem()[1].end()
