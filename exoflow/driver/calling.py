"""A call is made: it gets its id where it is written, and a replay finds what was recorded of it (I1 to I4)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from exoflow.driver.arguments import taken
from exoflow.driver.depth import leave_room
from exoflow.driver.handle import Handle
from exoflow.driver.identity import check_same
from exoflow.driver.letting_go import note_passes
from exoflow.driver.spec import TaskSpec
from exoflow.driver.strands import current
from exoflow.errors import RunError
from exoflow.model import CallId

if TYPE_CHECKING:
    from exoflow.driver.body import Body


def called(
    body: Body,
    spec: TaskSpec,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    choose: Callable[[], object] | None,
) -> Handle:
    """A call of the body, which the kernel knows now. Under the lock; commands are not carried out yet.

    Raises:
        RecursionError: the body has recursed too deep to make a call.
        RunError: its key is taken.
    """
    execution = body.execution
    kernel = execution.kernel
    leave_room()
    body.check()
    strand = current.get()
    assert strand is not None
    assert strand.body is body
    if threading.get_ident() != body.thread:  # asyncio.to_thread takes the strand along, and ids would race
        raise RuntimeError(
            f"{spec.name} is called in another thread than its flow's: make the call in the flow's own body, and "
            f"hand its value to the thread"
        )
    if spec.actor is not None:
        spec.actor.check(strand)
    name = spec.name
    if spec.key is None:
        n = strand.counts.get(name, 0)
        strand.counts[name] = n + 1
        id = CallId(f"{strand.prefix}{name}#{n}")
    else:
        id = _keyed(body, name, spec.key)
    given = taken(body, spec, args, kwargs)
    past = execution.history.results.get(id) if execution.history.results else None
    try:
        turn = None if spec.actor is None else spec.actor.turn(spec.note)
        call = kernel.called(body.scope, id, spec.note, given.inputs, given.passes, turn)
        handle = Handle(call, body, spec, args, kwargs, given.encoded, given.fingerprint)
        if choose is not None:
            handle.choose = choose
        execution.handles[id] = handle
        if given.passes:
            note_passes(execution, handle)
        if spec.actor is not None:
            spec.actor.called(handle)
        if past is not None:
            check_same(call, past, handle, execution)
    except Exception as error:  # the kernel may know half of the call
        execution.stop(error)
        raise
    return handle


def _keyed(body: Body, name: str, key: object) -> CallId:
    id = CallId(f"{body.scope.path}{name}[{key}]")
    known = body.execution.kernel.calls.get(id)
    if known is not None and known.attached:
        raise RunError(f"the key {key!r} is already taken by another call of {name} in this flow: {id}")
    return id
