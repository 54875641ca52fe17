"""From attempt to outcome: the body runs between its inputs and what came of it."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from types import CoroutineType
from typing import TypeGuard, cast

from exoflow.attempts.context import AttemptContext, current
from exoflow.attempts.inputs import Fetch, InputLost, arguments
from exoflow.codec import Encoded, Live, encode_error, encode_result, encode_small, taken_over, to_bytes
from exoflow.errors import CodecError, DidNotHappen, Interruption
from exoflow.model import INLINE_MAX_BYTES, Bill, Inline, Value
from exoflow.protocols import Attempt, Computed, Outcome, Raised, Vanished

Keep = Callable[[Sequence[Encoded | Live], str | None], Sequence[Value]]
"""Puts an attempt's values over 64 KiB somewhere: into the store under names that begin so, or, for None, where the
executor keeps values."""

_CO_COROUTINE = inspect.CO_COROUTINE


def run_attempt(attempt: Attempt, fetch: Fetch, keep: Keep) -> Outcome:
    """Run a task's body to its end.

    Raises:
        Interruption: the body raised it; it is control flow, not an outcome.
        KeyboardInterrupt, SystemExit: in the main thread, where they end the program and are no error of the body.
    """
    with _Boundary(attempt) as boundary:
        args, kwargs = arguments(attempt, fetch, boundary.context.given)
        boundary.started = perf_counter()
        return _computed(boundary, [attempt.function(*args, **kwargs)], keep)
    return boundary.outcome


async def run_attempt_async(attempt: Attempt, fetch: Fetch, keep: Keep) -> Outcome:
    """``run_attempt`` for an ``async def`` body.

    Raises:
        asyncio.CancelledError: the attempt was cancelled, or the body let one of its own out.
        Interruption, KeyboardInterrupt, SystemExit: as ``run_attempt``.
    """
    with _Boundary(attempt, passes=asyncio.CancelledError) as boundary:
        args, kwargs = arguments(attempt, fetch, boundary.context.given)
        boundary.started = perf_counter()
        return _computed(boundary, [await cast(Awaitable[object], attempt.function(*args, **kwargs))], keep)
    return boundary.outcome


class _Boundary:
    """A block that a body runs in. What it raises becomes ``outcome``, but for what ``passes``."""

    __slots__ = ("_passes", "_token", "context", "outcome", "started")

    outcome: Outcome

    def __init__(self, attempt: Attempt, passes: type[BaseException] = Interruption) -> None:
        self.context = context = AttemptContext(attempt)
        self._passes = passes
        self._token = current.set(context)

    def __enter__(self) -> _Boundary:
        self.started = perf_counter()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        current.reset(self._token)
        try:
            if error is None or isinstance(error, self._passes):
                return False
            self.outcome = _failed(error, perf_counter() - self.started, self.context)
            return True
        finally:
            self.context.end()


def raised(error: BaseException, seconds: float, *, rolled_back: bool = False, bill: Bill | None = None) -> Raised:
    """The outcome of a body that raised."""
    return Raised(encode_error(error), seconds, rolled_back or isinstance(error, DidNotHappen), bill=bill)


def is_async(function: Callable[..., object]) -> bool:
    """Whether calling it gives a coroutine."""
    code = getattr(function, "__code__", None)
    if code is not None:
        return bool(code.co_flags & _CO_COROUTINE)
    return inspect.iscoroutinefunction(function)


def _failed(error: BaseException, seconds: float, context: AttemptContext) -> Outcome:
    if isinstance(error, InputLost):
        return error.outcome
    if isinstance(error, Interruption):
        raise error
    if isinstance(error, KeyboardInterrupt | SystemExit) and threading.current_thread() is threading.main_thread():
        raise error
    lost = tuple(call for call, live in context.given.items() if live.is_lost())
    if lost and not context.rolled_back:  # the body found out itself
        reason = f"what an engine's object in its input {lost[0]} stands for is lost ({type(error).__name__}: {error})"
        return Vanished(reason, seconds, lost)
    return raised(error, seconds, rolled_back=context.rolled_back, bill=context.bill)


def _computed(boundary: _Boundary, returned: list[object], keep: Keep) -> Computed:
    """The outcome of a body that has returned; the list gives its result away, so that no other frame holds it."""
    seconds = perf_counter() - boundary.started
    result = returned.pop()
    context = boundary.context
    attempt = context.attempt
    small = encode_small(result)
    if small is not None and not context.puts:
        return Computed(Inline(small), seconds, bill=context.bill)
    if isinstance(result, CoroutineType):
        result.close()
        raise CodecError(f"{attempt.task} returned a coroutine: declare the task itself as async def")
    encoded = encode_result(result, task=attempt.task, adopt=context.adopt, bring=context.bring)
    del result
    if encoded.buffers:
        encoded = encoded._replace(buffers=taken_over(encoded.buffers))
    value, *puts = _kept([encoded, *(put for _, put in context.puts)], attempt.save_to, keep)
    if not context.puts:
        return Computed(value, seconds, encoded.refs, bill=context.bill)
    inside = dict.fromkeys(ref for _, put in context.puts if isinstance(put, Encoded) for ref in put.refs)
    refs = tuple(dict.fromkeys((*encoded.refs, *inside)))
    by_call = tuple((call, put) for (call, _), put in zip(context.puts, puts, strict=True))
    return Computed(value, seconds, refs, by_call, linked=bool(inside), bill=context.bill)


def _kept(made: Sequence[Encoded | Live], save_to: str | None, keep: Keep) -> list[Value]:
    """Small values as bytes, and the others where they are kept."""
    large = [one for one in made if not _is_small(one)]
    kept = iter(keep(large, save_to) if large else ())
    return [Inline(to_bytes(one)) if _is_small(one) else next(kept) for one in made]


def _is_small(made: Encoded | Live) -> TypeGuard[Encoded]:
    return isinstance(made, Encoded) and made.size <= INLINE_MAX_BYTES
