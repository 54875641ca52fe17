"""The life of a body: the arguments that it begins with, and what it came to."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Mapping, Sequence
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Any

from exoflow import codec
from exoflow.driver import notes
from exoflow.driver.body import Body, cause_of
from exoflow.driver.outcomes import forget_value, take_value
from exoflow.driver.strands import Strand, current
from exoflow.driver.values import ValueLost
from exoflow.errors import CodecError, Interruption
from exoflow.kernel.call import State
from exoflow.model import CallId
from exoflow.protocols import Computed

if TYPE_CHECKING:
    from exoflow.driver.handle import Handle

_live = [0]


def live_bodies() -> int:
    """Flow bodies at work in this process."""
    return _live[0]


class Life:
    """A block in which the user's code runs. Whatever comes of it goes to the kernel; nothing is raised.

    What the body returned is to be left in ``value``.
    """

    __slots__ = ("_body", "_token", "value")

    def __init__(self, body: Body) -> None:
        self._body = body
        self.value: object = None

    def __enter__(self) -> Life:
        self._token: Token[Strand | None] = current.set(Strand(self._body, ""))
        self._body.thread = threading.get_ident()
        _live[0] += 1
        return self

    def __exit__(self, _: object, error: BaseException | None, __: TracebackType | None) -> bool:
        try:
            if error is None or isinstance(error, Exception):
                self._body.leave()
                _returned(self._body, self.value, error)
            elif not (isinstance(error, Interruption) and self._body.over()):
                self._body.execution.stop(error)  # Ctrl-C, SystemExit, a task that is cancelled: it can be resumed
        except BaseException as fault:  # noqa: BLE001 -- not the body's: its parent would wait for its end for ever
            self._body.execution.stop(fault)
        finally:
            _live[0] -= 1
            current.reset(self._token)
        return True


def arguments(body: Body) -> tuple[tuple[Any, ...], Mapping[str, Any]] | None:
    """What the body is called with; None: a value is lost and is made again, and then this body begins anew."""
    execution = body.execution
    owner = body.owner
    if owner is None:
        return execution.arguments()
    with body.lock:
        try:
            return _child_arguments(body, owner)
        except ValueLost as lost:
            if not body.over():
                body.dead = True
                execution.event(forget_value, execution, lost.args[0])
                execution.event(execution.kernel.not_begun, owner.call.id)
            return None


def _child_arguments(body: Body, owner: Handle) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Values in the places of Refs; a parameter that is annotated as a Ref gets the Ref, to be read in here."""
    value_of_ref = body.execution.values.value_of_ref
    args, kwargs = owner.args, owner.kwargs
    if owner.encoded is not None:
        bring = body.execution.values.show
        args, kwargs = codec.decode(owner.encoded, lookup=body.reference, bring=bring)  # type: ignore[arg-type]
    wanted = owner.spec.ref_parameters
    if not wanted:
        return codec.substitute(args, kwargs, value_of_ref)
    bound = inspect.signature(body.flow.function).bind(*args, **kwargs)
    for name, value in bound.arguments.items():
        if name not in wanted:
            (bound.arguments[name],), _ = codec.substitute((value,), {}, value_of_ref)
    return bound.args, bound.kwargs


def _returned(body: Body, value: object, error: Exception | None) -> None:
    """The body has ended. Its result is encoded here, in its own thread, unless Refs stand in it."""
    refs: Sequence[codec.Reference] = ()
    if error is None:
        try:
            refs = () if codec.immutable(value) else codec.find_references((value,), {})
            if body.owner is not None:
                body.result = codec.encode_result(value, task=body.flow.name, own=True)
            elif not refs:
                body.result = _whole(body, value)
        except Exception as refused:  # noqa: BLE001 -- whatever the user's code raises is an outcome
            error = refused
    body.value_with_refs = value if refs else None
    with body.lock:
        if body.over():
            return
        body.error = codec.encode_error(error) if error is not None else None
        body.execution.event(_tell_returned, body, refs, error is not None)


def _tell_returned(body: Body, refs: Sequence[codec.Reference], raised: bool) -> None:
    kernel = body.execution.kernel
    left = [call for call in body.scope.calls if call.note.may_be_left and call.state is not State.DONE]
    notes.leave(body, [body.execution.handles[call.id] for call in left])
    calls = [kernel.reference(CallId(ref.call_id.partition("!")[0])) for ref in refs]
    kernel.returned(body.scope, tuple(calls), raised=raised)
    for call in calls:
        body.there(call)  # an event that has come is taken now: no body will look for it


def _whole(body: Body, value: object) -> codec.Encoded:
    """The result of a run, encoded; the Refs in it have become values.

    Raises:
        CodecError: it cannot be encoded, or there is a Ref that was not found.
    """
    encoded = codec.encode_result(value, task=body.flow.name, own=True)
    if encoded.refs:
        raise CodecError(
            f"the result of {body.flow.name} holds the Ref to {encoded.refs[0]} in a set or in an object: Refs are "
            "found in lists, tuples, dicts (as values) and dataclasses. Return it there, or its value: ref.result()"
        )
    return encoded


def settle(body: Body, unread: CallId | None) -> None:
    """All calls of this body have ended: what it came to counts. Under the lock.

    Args:
        unread: A call whose error the body has not seen: it is the body's own.
    """
    execution = body.execution
    error = body.error
    if unread is not None and error is None:
        error = codec.encode_error(execution.values.error(cause_of(execution.kernel.calls[unread]).id))
    owner = body.owner
    if owner is None:
        _settle_root(body, error)
    elif error is not None:
        execution.values.errors[owner.call.id] = error
        execution.kernel.failed(owner.call.id, owner.call.attempt)
    else:
        assert body.result is not None
        value = execution.values.keep(body.result)
        seconds = execution.clock.now() - owner.started_s
        take_value(execution, owner, owner.call.attempt, Computed(value, seconds, body.result.refs))


def _settle_root(body: Body, error: bytes | None) -> None:
    execution = body.execution
    if error is None and body.result is None:
        try:
            (value,), _ = codec.substitute((body.value_with_refs,), {}, execution.values.value_of_ref)
        except ValueLost as lost:
            forget_value(execution, lost.args[0])
            execution.kernel.unsettled()
            return
        try:
            body.result = _whole(body, value)
        except CodecError as refused:
            error = codec.encode_error(refused)
    execution.root_error = error
    execution.outcome = execution.values.keep(body.result) if body.result is not None else None
    body.result = None
    execution.kernel.settled(failed=error is not None)
