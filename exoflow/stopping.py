"""Ctrl-C: the first stops a run in good order, so that it can be resumed; the second ends whatever hangs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution

_BODIES = {("exoflow.attempts", "run_attempt"), ("exoflow.driver.body", "run")}
"""The functions that call into the user's code: where that is interrupted, no state of ours is."""


@contextmanager
def stopped_by_ctrl_c(execution: Execution) -> Iterator[None]:
    """While a run is in this thread, Ctrl-C stops it, and says how to go on.

    A program's own handler of SIGINT stays as it is; so does another thread's run.

    Raises:
        KeyboardInterrupt: the run was stopped, and can be resumed.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    told = KeyboardInterrupt(f"the run was stopped; go on with it by: exoflow resume {execution.run_id}")

    def interrupt(_: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Not here: this thread may be in the middle of a step, holding the run's lock.
        threading.Thread(target=execution.stop, args=(told,), name="exoflow-stop", daemon=True).start()
        if _in_users_code(frame):
            raise told

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except KeyboardInterrupt as error:
        execution.stop(told)
        raise told from (None if error is told else error)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _in_users_code(frame: FrameType | None) -> bool:
    """Whether the nearest frame of ours has called into a task's or a flow's body."""
    innermost = frame
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name == "exoflow" or name.startswith("exoflow."):
            return frame is not innermost and (name, frame.f_code.co_name) in _BODIES
        frame = frame.f_back
    return False
