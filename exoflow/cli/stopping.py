"""The first Ctrl-C or SIGTERM stops a command in good order; the second ends the process at once."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from exoflow.driver.signals import look_on
from exoflow.flows import run_here, run_here_async
from exoflow.hosting import in_users_code

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A signal stopped the command; the message says how to go on."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


def run_stoppable(execution: Execution, go_on: str) -> object:
    """Run a flow's body here, to its end.

    Args:
        execution: The run.
        go_on: The command that goes on with it.

    Raises:
        Stopped: the first Ctrl-C or SIGTERM. All that was recorded is durable, and the run can be resumed.
    """
    stop = _Stop(execution, go_on)
    with _listening(stop):
        return asyncio.run(stop.run_async()) if execution.flow.is_async else run_here(execution)


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM, like Ctrl-C, ends the block by an exception, so that what the command has begun is cleared away.

    Raises:
        Stopped: as it says.
    """

    def stop(number: int, _: FrameType | None) -> None:
        _let_the_next_one_kill()
        raise Stopped(f"stopped by {_name(number)}", number)

    with _listening(stop):
        yield


class _Stop:
    """What the first signal does to a run."""

    def __init__(self, execution: Execution, go_on: str) -> None:
        self._execution = execution
        self._go_on = go_on
        self._told: Stopped | None = None
        self._cancel: Callable[[], object] | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        _let_the_next_one_kill()
        told = self._told = Stopped(
            f"stopped by {_name(number)}; nothing that was recorded is lost. Go on with it: {self._go_on}", number
        )
        # Not here: this thread may be in the middle of a step, holding the run's lock.
        threading.Thread(target=self._execution.stop, args=(told,), name="exoflow-stop", daemon=True).start()
        if self._cancel is not None:
            self._cancel()
        elif in_users_code(frame):
            raise told

    async def run_async(self) -> object:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        look_on(loop)
        self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
        try:
            return await run_here_async(self._execution)
        except asyncio.CancelledError:
            if self._told is None:
                raise
            raise self._told from None


@contextmanager
def _listening(stop: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Call ``stop`` at the first signal. One that is ignored, as by nohup, stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    heard = [number for number in _SIGNALS if before[number] is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in heard:
            if signal.getsignal(number) is stop:  # else the command is ending, and the next one kills
                signal.signal(number, before[number])


def _let_the_next_one_kill() -> None:
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def _name(number: int) -> str:
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
