"""What is given again against what was recorded: the arguments of a call (I3), its code (I4), the inputs of a run."""

from __future__ import annotations

import difflib
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from exoflow import codec
from exoflow.driver.spec import FlowSpec
from exoflow.errors import NondeterministicFlow, RunError, RunMismatch
from exoflow.journal.records import Kind as Code
from exoflow.kernel.call import Call, State

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution
    from exoflow.driver.handle import Handle
    from exoflow.driver.history import Recorded


Arguments = tuple[tuple[Any, ...], Mapping[str, Any]]


def check_same(call: Call, past: Recorded, handle: Handle, execution: Execution) -> None:
    """Refuse a call that is not the recorded one, if the record still agrees with what the call stands on.

    Raises:
        NondeterministicFlow: other arguments, though everything that the body has read is the same.
        RunMismatch: the task's code has changed, and its recorded result would be used.
    """
    kind, version, arguments, code = past
    if call.state is not State.DONE or call.version != version:
        return  # it has fallen, or was not saved: it runs again, as it is called now
    given = handle.fingerprint
    difference = None if codec.same(arguments, given) else codec.difference(arguments, given, handle.spec.function)
    if difference is not None:
        raise NondeterministicFlow(
            f"{call.id} was called with other arguments than recorded, though everything that the flow body has read "
            f"is the same: {difference}. Take the time, random numbers and the like from exoflow.now(), exoflow.rng(), "
            f"exoflow.uuid4() or from a task. If you have edited it, undo that and resume, which keeps what is "
            f"recorded, or start another run, with another run_id"
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


def check_inputs(
    run_id: str, name: str, recorded: codec.Encoded | Arguments | None, flow: FlowSpec, given: codec.Encoded
) -> None:
    """Refuse another flow or other inputs under a run's id; warn where an input cannot be compared.

    Raises:
        RunMismatch: it is another flow, or an input differs.
    """
    if name != flow.name:
        raise _taken(run_id, f"it is a run of {name}, not of {flow.name}")
    if recorded is None:
        return
    old, _ = codec.whole_fingerprint(*(codec.decode(recorded) if isinstance(recorded, codec.Encoded) else recorded))
    new, blind = codec.whole_fingerprint(*codec.decode(given))
    difference = codec.difference(old, new, flow.function)
    if difference is not None:
        raise _taken(run_id, difference)
    unknown = [repr(name) for name, is_blind in codec.by_parameter(blind, flow.function).items() if is_blind]
    if unknown and isinstance(recorded, codec.Encoded) and not _same_bytes(recorded, given):
        warnings.warn(
            f"the run {run_id!r} is known, and its input {' and '.join(unknown)} holds what cannot be compared with "
            "what was given then: it counts as the same, and the recorded results are used. Choose another run id if "
            "it is not the same",
            RuntimeWarning,
            stacklevel=_users_frame(),
        )


def _taken(run_id: str, why: str) -> RunMismatch:
    error = RunMismatch(f"the run id {run_id!r} is taken: {why}. Choose another id, or give the same inputs")
    error.run_id = run_id
    return error


def _same_bytes(one: codec.Encoded, other: codec.Encoded) -> bool:
    """Then they are equal. Where they differ, they may be so all the same: pickle bytes are not canonical."""
    return bytes(one.head) == bytes(other.head) and one.buffers == other.buffers


def _users_frame() -> int:
    """The stacklevel of the nearest frame that is not ours, for whoever called this."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "exoflow":
        level, frame = level + 1, frame.f_back
    return level


def check_accepted(run_id: str, accepted: Iterable[str], recorded: Iterable[str]) -> None:
    """Refuse to accept the result of a call that has none.

    Raises:
        RunError: there is no such call; the message names the nearest.
    """
    known = list(recorded)
    for call in accepted:
        if call not in known:
            near = difflib.get_close_matches(call, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            error = RunError(f"the run {run_id} has recorded no result of a call {call!r} that could be accepted{hint}")
            error.run_id = run_id
            raise error


class _Home(NamedTuple):
    name: str
    file: str | None
    qualname: str


_homes: dict[tuple[str, bytes], _Home] = {}
"""Where the tasks of this program are at home, by their names and marks: several may have one name."""


def keep_home(task: str, mark: bytes, name: str, function: Callable[..., Any]) -> None:
    """Remember where a task of this program lies."""
    file = inspect.unwrap(function).__code__.co_filename
    real = os.path.realpath(file) if os.path.exists(file) else None
    _homes[task, codec.home_of(mark)] = _Home(name, real, function.__qualname__)


def _refuse_code(code: bytes, handle: Handle, execution: Execution) -> None:
    """The recorded code is not the task's mark: refuse, unless it is the same code elsewhere, or accepted."""
    call, spec = handle.call, handle.spec
    if call.id in execution.accepted:
        return
    accept = f"Go on with the recorded result: `exoflow resume {execution.run_id} --accept {call.id}`"
    if not codec.same_code(code, spec.code):
        raise RunMismatch(
            f"the code of {spec.name} has changed since {call.id} ran, and its recorded result would be used."
            f"{_code_difference(code, handle, execution)}\n{accept}; or start a new run."
        )
    then, now = (_homes.get((spec.name, codec.home_of(mark))) for mark in (code, spec.code))
    if then and now and (then.file is None or then[1:] != now[1:]):
        raise RunMismatch(
            f"{call.id} was a call of {then.name}, and is one of {now.name} now: they have one name and the same code, "
            f"and the recorded result would be used. Give one of them another name, by @task(name=...). {accept}; or "
            "start a new run."
        )


def _code_difference(code: bytes, handle: Handle, execution: Execution) -> str:
    name = code_name(code)
    try:
        old = bytes(execution.values.store.read(name)).decode()
    except FileNotFoundError:
        return ""
    new = codec.source_of(handle.spec.function)
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), "recorded", "now", lineterm="", n=1))
    if not lines:
        return " Its text is the same: the value of a default is another one, or a decorator or a captured function."
    return "\n" + "\n".join(lines)


def code_name(code: bytes) -> str:
    """Object that holds the source of a task's code."""
    return f"code/{code.hex()}"
