"""A replayed call against its record: same arguments (I3), same code (I4)."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from exoflow import codec
from exoflow.errors import NondeterministicFlow, RunError, RunMismatch
from exoflow.journal.records import Kind as Code
from exoflow.kernel.state import Call, State
from exoflow.model import RunId

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution
    from exoflow.driver.handle import Handle
    from exoflow.driver.history import Recorded


def check_same(call: Call, past: Recorded, handle: Handle, execution: Execution) -> None:
    """Refuse a call that is not the recorded one, if the record still agrees with what the call stands on.

    Raises:
        NondeterministicFlow: other arguments, though everything that the body has read is the same.
        RunMismatch: the task's code has changed, and its recorded result would be used.
    """
    kind, version, arguments, code = past
    if call.state is not State.DONE or call.version != version:
        return  # it has fallen, or was not saved: it runs again, as it is called now
    if handle.rare is None and arguments == (handle.args, handle.kwargs):
        difference = None  # nothing mutable among them: most such values are their own fingerprints
    else:
        difference = codec.difference(arguments, handle.fingerprint, handle.spec.function)
    if difference is not None:
        raise NondeterministicFlow(
            f"{call.id} was called with other arguments than recorded, though everything that the flow body has read "
            f"is the same: {difference}. Take the time, random numbers and the like from exoflow.now(), exoflow.rng(), "
            f"exoflow.uuid4() or from a task."
        )
    if kind == Code.SAVED and code != handle.spec.code:
        _refuse_code(code, handle, execution)


def check_error(call: Call, execution: Execution) -> None:
    """Refuse a recorded error of other code when the body is to see it: until then ``resume`` may forget it (V14).

    Raises:
        RunMismatch: the task's code has changed.
    """
    past, handle = execution.history.results.get(call.id), execution.handles.get(call.id)
    if past is None or handle is None:
        return
    kind, version, _, code = past
    if kind == Code.FAILED and version == call.version and code != handle.spec.code:
        _refuse_code(code, handle, execution)


def check_accepted(accepted: Sequence[str], recorded: Collection[str], run_id: str) -> None:
    """Refuse to keep the results of calls that have none: it would go unnoticed.

    Raises:
        RunError: with the nearest call.
    """
    for id in accepted:
        if id not in recorded:
            near = difflib.get_close_matches(id, recorded, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            error = RunError(f"the run {run_id} has no recorded result of a call {id}, to be accepted{hint}")
            error.run_id = RunId(run_id)
            raise error


def _refuse_code(code: bytes, handle: Handle, execution: Execution) -> None:
    """The code is another than recorded; unless the user has said that the result stands all the same."""
    call = handle.call
    if call.id not in execution.accepted:
        raise RunMismatch(
            f"the code of {handle.spec.name} has changed since {call.id} ran, and its recorded result would be used."
            f"{_code_difference(code, handle, execution)}\nGo on with the recorded result: `exoflow resume "
            f"{execution.run_id} --accept {call.id}`; or start a new run."
        )


def _code_difference(code: bytes, handle: Handle, execution: Execution) -> str:
    name = code_name(code)
    try:
        old = bytes(execution.values.store.read(name)).decode()
    except FileNotFoundError:
        return ""
    new = codec.source_of(handle.spec.function)
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), "recorded", "now", lineterm="", n=1)
    return "\n" + "\n".join(lines)


def code_name(code: bytes) -> str:
    """Object that holds the source of a task's code."""
    return f"code/{code.hex()}"
