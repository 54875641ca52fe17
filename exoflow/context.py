"""What a running body can ask for: a task about its attempt, a flow for time and chance that a replay sees again."""

from __future__ import annotations

import random
import uuid
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from exoflow.attempts import current_attempt
from exoflow.driver import notes
from exoflow.driver.body import current_body
from exoflow.driver.inbox import check_event_name
from exoflow.gathering import as_completed
from exoflow.refs import Ref

if TYPE_CHECKING:
    from exoflow.driver.body import Body

T = TypeVar("T")


class PlainCall:
    """A task that was called outside any flow: it has a key, so that a body which asks for one can be tested."""

    __slots__ = ("_key",)

    def __init__(self) -> None:
        self._key: str | None = None

    @property
    def key(self) -> str:
        """The same for the whole call, and no other call's."""
        if self._key is None:
            self._key = f"plain/{uuid.uuid4()}"
        return self._key


plain_call: ContextVar[PlainCall | None] = ContextVar("exoflow_plain_call", default=None)


def idempotency_key() -> str:
    """In a task: the key to hand to the other side.

    The same for every attempt at this call, in every process, and no other call's. In a task with a rollback each
    attempt has its own, so that a service does not answer it with what was undone. In a task that was called outside
    any flow it is a new one for each call.

    Raises:
        RuntimeError: not in a task.
    """
    attempt = current_attempt()
    if attempt is not None:
        return attempt.key
    plain = plain_call.get()
    if plain is not None:
        return plain.key
    raise RuntimeError("exoflow.idempotency_key() is for the body of a task: call it there, in the task's own thread")


def attempt() -> int:
    """In a task: which try at this call it is, from 1.

    Raises:
        RuntimeError: not in a task.
    """
    context = current_attempt()
    if context is not None:
        return context.number
    if plain_call.get() is not None:
        return 1
    raise RuntimeError("exoflow.attempt() is for the body of a task: call it there, in the task's own thread")


def run_id() -> str:
    """The id of the run, in a task or in a flow.

    Raises:
        RuntimeError: there is no run here.
    """
    context = current_attempt()
    if context is not None:
        return context.run_id
    body = current_body()
    if body is not None:
        return body.run_id
    raise RuntimeError("there is no run here: exoflow.run_id() is for the bodies of flows, and of tasks called in them")


def put(value: T) -> Ref[T]:
    """In a task: a Ref to the value, to be returned; whoever is passed it gets the value, and nobody else carries it.

    Raises:
        RuntimeError: not in a task that a flow has called.
        CodecError: the value cannot be encoded.
    """
    context = current_attempt()
    if context is None:
        raise RuntimeError("exoflow.put(x) is for the body of a task that a flow calls; in a flow, pass x itself")
    return Ref(context.put(value))


def calling_body() -> Body | None:
    """The flow's body that calls; in a task there is none, though one on an event loop has its context."""
    return None if current_attempt() is not None else current_body()


def now() -> float:
    """In a flow: seconds since the epoch; a replay sees the same.

    Raises:
        RuntimeError: not in a flow.
    """
    return notes.now(_body("now()", "time.time()"))


def uuid4() -> uuid.UUID:
    """In a flow: a random UUID; a replay sees the same. It costs no record.

    Raises:
        RuntimeError: not in a flow.
    """
    return notes.uuid4(_body("uuid4()", "uuid.uuid4()"))


def rng() -> random.Random:
    """In a flow: a new generator of random numbers; a replay sees the same. It costs no record.

    Raises:
        RuntimeError: not in a flow.
    """
    return notes.rng(_body("rng()", "random.Random()"))


def timer(seconds: float) -> Ref[None]:
    """In a flow: a Ref that is done after so many seconds; if the process dies meanwhile, the time still counts.

    Raises:
        RuntimeError: not in a flow.
        ValueError: ``seconds`` is no number.
    """
    body = _body("timer(s)", "time.sleep(s) or asyncio.sleep(s)")
    given: object = seconds
    if not isinstance(given, int | float) or isinstance(given, bool) or given != given:  # NaN is not itself
        raise ValueError(f"timer({seconds!r}): seconds must be a number")
    handle = notes.timer(body, max(0.0, float(seconds)))
    return Ref(handle.call_id, handle)


def sleep(seconds: float) -> None:
    """In a sync flow: wait so many seconds, durably.

    Raises:
        RuntimeError: not in a flow, or in an async one.
    """
    body = _body("sleep(s)", "time.sleep(s)")
    if body.is_async:
        raise RuntimeError(
            f"exoflow.sleep({seconds}) would block the event loop of the async flow {body.flow.name}: "
            f"write `await exoflow.timer({seconds})`"
        )
    timer(seconds).result()


def event(name: str, type: type[T] = object) -> Ref[T]:  # type: ignore[assignment]  # as in typed dicts' get
    """In a flow: a Ref to what somebody outside sends under this name, by ``exoflow.send``.

    Events of one name are a queue. The Ref takes one when it is waited for, or a call that it was passed to is; until
    then, and when the wait is given up, the event is there for others.

    Args:
        name: Of the event.
        type: What the data is to be; JSON becomes it. Data that cannot is passed over, with a warning in the log.

    Raises:
        RuntimeError: not in a flow.
    """
    body = _body(f"event({name!r})", "a queue")
    check_event_name(name)
    handle = notes.event(body, name, type)
    return Ref(handle.call_id, handle)


def wait_for(name: str, timeout: float | None = None, *, type: type[T] = object) -> T:  # type: ignore[assignment]
    """In a sync flow: wait for an event, and give its data.

    Args:
        name: Of the event.
        timeout: Seconds to wait at most, durably: they count on while no process is there.
        type: As of ``event``.

    Raises:
        TimeoutError: nobody has sent it in time.
        RuntimeError: not in a flow, or in an async one.
    """
    body = _body(f"wait_for({name!r})", "a queue")
    if body.is_async:
        raise RuntimeError(
            f"exoflow.wait_for({name!r}) would block the event loop of the async flow {body.flow.name}: write `await "
            f"exoflow.event({name!r})`; with a deadline, `async for` over exoflow.as_completed([event, timer])"
        )
    waited = event(name, type)
    if timeout is not None:
        deadline: Ref[Any] = timer(timeout)
        if next(as_completed([waited, deadline])) is deadline:
            raise TimeoutError(f"nobody has sent the event {name!r} in {timeout} s")
    return waited.result()


def _body(name: str, instead: str) -> Body:
    body = current_body()
    if body is None:
        raise RuntimeError(f"exoflow.{name} is for the body of a flow, in its own thread; elsewhere use {instead}")
    return body


__all__ = ["attempt", "event", "idempotency_key", "now", "put", "rng", "run_id", "sleep", "timer", "uuid4", "wait_for"]
