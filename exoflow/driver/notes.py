"""A body's notes of the world: time, chance, timers, which of several calls was first. A replay sees the same."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from exoflow import codec
from exoflow.driver.handle import Handle
from exoflow.driver.outcomes import take_value
from exoflow.driver.spec import TaskSpec
from exoflow.driver.strands import current
from exoflow.kernel.call import Call, State
from exoflow.model import Annotations, Inline, Kind
from exoflow.protocols import Computed

if TYPE_CHECKING:
    from exoflow.driver.body import Body
    from exoflow.driver.execution import Execution

_IN_NAMES = str.maketrans({c: f"%{ord(c):02X}" for c in "%/#~!:[]()"})
"""They divide the parts of a call's id."""

_NOTE = Annotations(kind=Kind.NOTE)
_EVENT = Annotations(kind=Kind.EVENT)
_TIMER = Annotations(deterministic=True, checkpoint="never", kind=Kind.TIMER)


def make(body: Body, name: str, choose: Callable[[], object] | None = None) -> Handle:
    """A call that stands for a reading of the world: of ``choose``, or of what is taken later. Under the lock."""
    return body.make(TaskSpec(name, _nothing, _NOTE), (), {}, choose)


def take(execution: Execution, note: Handle, value: object) -> None:
    """The world has been read: recorded like any choice (L7). Under the lock."""
    data = codec.to_bytes(codec.encode(value))
    take_value(execution, note, note.call.attempt, Computed(Inline(data), 0.0))


def is_open(note: Handle) -> bool:
    """Whether the reading is still to be taken."""
    return note.call.state is State.RUNNING


def now(body: Body) -> float:
    """Seconds since the epoch."""
    with body.lock:
        value = body.wait(make(body, "now", body.execution.clock.now))
    assert isinstance(value, float)
    return value


def done(body: Body, handle: Handle) -> bool:
    """Whether the call's value is there."""
    with body.lock:
        return bool(body.wait(make(body, "done", lambda: _is_there(body.execution, handle))))


def _is_there(execution: Execution, handle: Handle) -> bool:
    """Of what runs only while it is waited for also: whether whoever reads it will get it at once."""
    if has_come(execution, handle.call):
        return True
    kind = handle.spec.note.kind
    if kind is Kind.TIMER and execution.kernel.deliverable(handle.call.inputs[0]):
        return execution.clock.now() >= due_s(execution, handle)
    return kind is Kind.EVENT and execution.inbox.holds(handle.event_name)


def due_s(execution: Execution, timer: Handle) -> float:
    """When a timer is to be done, as it was recorded."""
    when = codec.decode(execution.values.fetch(execution.values.at[timer.call.inputs[0].id]))
    assert isinstance(when, float)
    return when


def uuid4(body: Body) -> uuid.UUID:
    """A random UUID."""
    return uuid.UUID(int=_chance(body, "uuid4").getrandbits(128), version=4)


def rng(body: Body) -> random.Random:
    """A generator of random numbers."""
    return _chance(body, "rng")


def _chance(body: Body, what: str) -> random.Random:
    strand = current.get()
    assert strand is not None
    n = strand.counts.get(what, 0)
    strand.counts[what] = n + 1
    return random.Random(f"{body.execution.seed}/{strand.prefix}{what}#{n}")  # replayable by design


def timer(body: Body, seconds: float) -> Handle:
    """A call that completes after so many seconds; when is recorded, so a replay does not wait anew."""
    execution = body.execution
    with body.lock:
        at = make(body, "timer_at", lambda: execution.clock.now() + seconds)
        execution.advance()
        if not execution.kernel.deliverable(at.call):
            execution.event(execution.kernel.wants, at.call)
        handle = body.make(TaskSpec("timer", _nothing, _TIMER), (codec.make_reference(at.call.id),), {})
        execution.advance()
        return handle


def event(body: Body, name: str, kind: object) -> Handle:
    """A call that completes when somebody sends an event of this name; it runs while it is waited for."""
    with body.lock:
        spec = TaskSpec(f"event({name.translate(_IN_NAMES)})", _nothing, _EVENT)
        handle = body.make(spec, (), {})
        handle.event_name, handle.event_type = name, kind
        body.execution.advance()
        return handle


def leave(body: Body, handles: Iterable[Handle]) -> None:
    """The body has stopped to wait for these before they were there. Under the lock."""
    execution = body.execution
    for handle in handles:
        if handle.spec.note.may_be_left and not body.over():
            execution.event(_left, execution, handle)
            handle.body.wake_for(handle)  # who waits for it still says so again
            execution.wake_onlookers(handle)


def _left(execution: Execution, handle: Handle) -> None:
    execution.kernel.left(handle.call)
    if handle.spec.note.kind is Kind.EVENT:
        execution.inbox.left(handle)
    elif handle.call.state is State.IDLE:
        execution.forget_timer(handle.call.attempt)


def start_choice(body: Body, handles: Sequence[Handle]) -> Handle:
    """The note of which of these calls is the next one; it is still to be taken, by ``choose``. Under the lock."""
    execution = body.execution
    kernel = execution.kernel
    note = make(body, "as_completed")
    execution.event(kernel.wants, note.call)
    if not kernel.deliverable(note.call):
        for handle in handles:
            kernel.wants(handle.call)
        execution.event(lambda: kernel.waits(body.scope, settled=not body.is_async))
    return note


def choose(body: Body, note: Handle, handles: Sequence[Handle]) -> bool:
    """Record which call is the next one, if one is there and the choice may be made now. Whether it is made."""
    kernel = body.execution.kernel
    if is_open(note):
        ready = [(handle.order, i) for i, handle in enumerate(handles) if has_come(body.execution, handle.call)]
        chosen = next((i for _, i in sorted(ready) if body.there(handles[i].call)), None)
        if chosen is not None:
            body.execution.event(take, body.execution, note, chosen)
            leave(body, (handle for i, handle in enumerate(handles) if i != chosen))
    return kernel.deliverable(note.call)


def has_come(execution: Execution, call: Call) -> bool:
    """Whether the call's value is there, or an event that it can take."""
    if execution.kernel.deliverable(call):
        return True
    return call.note.kind is Kind.EVENT and execution.inbox.keeps(call)


def _nothing() -> None: ...
