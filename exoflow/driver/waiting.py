"""A run that only waits says for what, in the journal: so that other processes can tell it from one that works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exoflow.driver import notes, records
from exoflow.journal.records import Kind as Code
from exoflow.kernel.call import Call, State
from exoflow.model import Kind

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution

LOOK_S = 2.0
"""How often runs are looked at. One that waits for less long says nothing."""

_CALLS_MAX = 10


class Idle:
    """What is known of a run in which nothing has happened for a while."""

    __slots__ = ("calls", "looks", "seq", "told")

    def __init__(self, seq: int, calls: int) -> None:
        self.seq = seq
        self.calls = calls
        self.looks = 0
        self.told = False


def look(execution: Execution) -> None:
    """Append a note, once, if the run waits now as it did at the last look. Not under the lock.

    Raises:
        Fenced, StorageError: the journal takes nothing any more.
    """
    idle, seq, calls = execution.idle, execution.kernel.seq, len(execution.kernel.calls)
    if idle is None or idle.seq != seq or idle.calls != calls:
        execution.idle = Idle(seq, calls)
        if idle is not None and idle.told and idle.seq == seq:
            _append(execution, [])  # else its last record says that it goes on
        return
    idle.looks += 1
    # It takes a look at all calls, so a run that works for hours without a record is asked ever less often.
    if not idle.told and idle.looks & (idle.looks - 1) == 0:
        with execution.lock:
            idle.told = execution.kernel.seq == seq and execution.pauses() is not None and _tell(execution)


def _tell(execution: Execution) -> bool:
    """Say what the run waits for; whether it waits for anything but the next try at a task."""
    running = [call for call in execution.kernel.calls.values() if call.state is State.RUNNING]
    if any(call.note.kind is Kind.TASK for call in running):
        return False
    waits = [_told(execution, call) for call in running if call.note.kind in (Kind.TIMER, Kind.EVENT)]
    if waits:
        _append(execution, sorted(waits, key=_tellingly))
    return bool(waits)


def _append(execution: Execution, waits: list[list[Any]]) -> None:
    with execution.lock:
        if execution.fatal is None and not execution.end_position:
            now_s = execution.clock.now()
            execution.log.append(
                records.Waiting(Code.NOTE, execution.index, records.WAITING, now_s, waits[:_CALLS_MAX], len(waits))
            )


def _told(execution: Execution, call: Call) -> list[Any]:
    handle = execution.handles[call.id]
    if call.note.kind is Kind.EVENT:
        return [call.id, handle.event_name, None]
    return [call.id, None, notes.due_s(execution, handle)]


def _tellingly(told: list[Any]) -> tuple[bool, str, float]:
    """Events first, then the soonest timer."""
    _, event, due_s = told
    return event is None, event or "", due_s or 0.0
