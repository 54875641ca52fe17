"""The attempt boundary: inputs become values, the body runs, and what comes of it becomes an outcome.

Every executor runs attempts by this, and so does the driver, where it runs one in the calling thread.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextvars import ContextVar
from time import perf_counter
from types import CoroutineType
from typing import Any, Protocol, cast

from exoflow.codec import (
    Encoded,
    Live,
    Reference,
    decode,
    encode,
    encode_error,
    encode_result,
    encode_small,
    engine_object,
    find_references,
    from_bytes,
    make_reference,
    substitute,
    taken_over,
    to_bytes,
)
from exoflow.errors import CodecError, Corrupt, DidNotHappen, Interruption, StorageError
from exoflow.model import INLINE_MAX_BYTES, CallId, Inline, RunId, Value, Version
from exoflow.protocols import Attempt, Computed, Outcome, Raised, Vanished

Bring = Callable[[CallId, str], object]
"""Gets an engine's object of this kind that stands in a value."""

Fetch = Callable[[Value], Encoded | Live]
"""Reads a Stored or Held value; KeyError or FileNotFoundError where it is lost."""

Keep = Callable[[Encoded | Live, str | None], Value]
"""Puts a value over 64 KiB somewhere: into the store under the name, or, for None, where the executor keeps values."""

_MENTIONS_REF = re.compile(r"\bRefs?\b")
_CO_COROUTINE = inspect.CO_COROUTINE


class AttemptContext:
    """What a running body can ask about itself."""

    __slots__ = ("_attempt", "given", "puts", "rolled_back")

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self.puts: list[tuple[CallId, Encoded | Live]] = []
        self.given: dict[CallId, Live] = {}
        """Engines' objects among the inputs."""
        self.rolled_back = False
        """If the body raises now, its effect certainly did not happen, as if it had raised ``DidNotHappen``."""

    @property
    def run_id(self) -> RunId:
        return self._attempt.run_id

    @property
    def call(self) -> CallId:
        return self._attempt.call

    @property
    def key(self) -> str:
        """The idempotency key."""
        return self._attempt.key

    @property
    def number(self) -> int:
        """The n-th try, from 1."""
        return self._attempt.number

    @property
    def version(self) -> Version:
        return self._attempt.version

    @property
    def task(self) -> str:
        return self._attempt.task

    def put(self, value: object) -> CallId:
        """Encode the value now and report it beside the result; the id by which a Ref can stand for it."""
        encoded = encode(value, what=f"what {self._attempt.task} put", own=True, adopt=self.adopt)
        return self._added(encoded)

    def adopt(self, live: Live) -> CallId:
        """Report an engine's object that stands in the result, once, as if the body had put what it stands for."""
        for call, put in self.puts:
            if isinstance(put, Live) and put.thing is live.thing:
                return call
        return self._added(live)

    def bring(self, call: CallId, _kind: str) -> object:
        """The object that was adopted under this id."""
        return next(put.thing for id, put in self.puts if id == call and isinstance(put, Live))

    def _added(self, put: Encoded | Live) -> CallId:
        call = CallId(f"{self._attempt.call}!{len(self.puts)}")
        self.puts.append((call, put))
        return call


class Pool(Protocol):
    """Threads that run attempts."""

    def has_work(self) -> bool:
        """Whether attempts wait for a thread."""


class Spare(threading.local):
    """What a thread that runs attempts may do while it reports one, having nothing else to do then."""

    pool: Pool | None = None
    """Whose thread it is, while it reports; else None. It may wait for the disk then: nobody else has to be woken."""
    item: object = None
    """What its pool is to run next, and this thread will, as soon as it has reported: nobody else has to be woken."""


spare = Spare()

_current: ContextVar[AttemptContext | None] = ContextVar("exoflow_attempt", default=None)


def current_attempt() -> AttemptContext | None:
    """The attempt whose body runs in this thread or asyncio task."""
    return _current.get()


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
        self._token = _current.set(context)

    def __enter__(self) -> _Boundary:
        self.started = perf_counter()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        _current.reset(self._token)
        if error is None or isinstance(error, self._passes):
            return False
        self.outcome = _failed(error, perf_counter() - self.started, self.context)
        return True


def raised(error: BaseException, seconds: float, *, rolled_back: bool = False) -> Raised:
    """The outcome of a body that raised."""
    return Raised(encode_error(error), seconds, rolled_back or isinstance(error, DidNotHappen))


def is_async(function: Callable[..., object]) -> bool:
    """Whether calling it gives a coroutine."""
    code = getattr(function, "__code__", None)
    if code is not None:
        return bool(code.co_flags & _CO_COROUTINE)
    return inspect.iscoroutinefunction(function)


class InputLost(Exception):
    """An attempt cannot begin; ``outcome`` says so."""

    def __init__(self, outcome: Vanished) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


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
    return raised(error, seconds, rolled_back=context.rolled_back)


def _computed(boundary: _Boundary, returned: list[object], keep: Keep) -> Computed:
    """The outcome of a body that has returned; the list gives its result away, so that no other frame holds it."""
    seconds = perf_counter() - boundary.started
    result = returned.pop()
    context = boundary.context
    attempt = context._attempt
    small = encode_small(result)
    if small is not None and not context.puts:
        return Computed(Inline(small), seconds)
    if isinstance(result, CoroutineType):
        result.close()
        raise CodecError(f"{attempt.task} returned a coroutine: declare the task itself as async def")
    encoded = encode_result(result, task=attempt.task, adopt=context.adopt, bring=context.bring)
    del result
    if encoded.buffers:
        encoded = encoded._replace(buffers=taken_over(encoded.buffers))
    value = Inline(to_bytes(encoded)) if encoded.size <= INLINE_MAX_BYTES else keep(encoded, attempt.save_to)
    if not context.puts:
        return Computed(value, seconds, encoded.refs)
    inside = dict.fromkeys(ref for _, put in context.puts if isinstance(put, Encoded) for ref in put.refs)
    refs = tuple(dict.fromkeys((*encoded.refs, *inside)))
    return Computed(value, seconds, refs, tuple(_kept_puts(context, keep)), linked=bool(inside))


def _kept_puts(context: AttemptContext, keep: Keep) -> Iterator[tuple[CallId, Value]]:
    save_to = context._attempt.save_to
    for number, (call, put) in enumerate(context.puts):
        if isinstance(put, Encoded) and put.size <= INLINE_MAX_BYTES:
            yield call, Inline(to_bytes(put))
        else:
            yield call, keep(put, None if save_to is None else f"{save_to}.put{number}")


def arguments(attempt: Attempt, fetch: Fetch, given: dict[CallId, Live]) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """What the body gets: values in the places of Refs, except for parameters that want the Ref."""
    inputs = _Inputs(attempt, fetch, given)
    args, kwargs = attempt.args, attempt.kwargs
    if attempt.encoded is not None:
        args, kwargs = decode(cast(Encoded, attempt.encoded), lookup=make_reference, bring=inputs.bring)
    return _with_values(attempt, args, kwargs, inputs.value_of) if attempt.inputs else (args, kwargs)


def _with_values(
    attempt: Attempt, args: tuple[Any, ...], kwargs: Mapping[str, Any], value_of: Callable[[CallId], object]
) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    wanted = wants_refs(attempt.function)
    if not wanted:
        return substitute(args, kwargs, value_of)
    keeps = _positions(attempt.function, wanted, len(args))
    given = tuple(arg for arg, kept in zip(args, keeps, strict=True) if not kept)
    named = {name: value for name, value in kwargs.items() if name not in wanted}
    replaced, renamed = substitute(given, named, value_of)
    rest = iter(replaced)
    return tuple(arg if kept else next(rest) for arg, kept in zip(args, keeps, strict=True)), {**kwargs, **renamed}


def inputs_of(
    function: Callable[..., object], args: tuple[object, ...], kwargs: Mapping[str, object]
) -> list[Reference]:
    """The Refs whose values the call needs: all but those in parameters that want the Ref itself."""
    wanted = wants_refs(function)
    if not wanted:
        return find_references(args, kwargs)
    keeps = _positions(function, wanted, len(args))
    return find_references(
        tuple(arg for arg, kept in zip(args, keeps, strict=True) if not kept),
        {name: value for name, value in kwargs.items() if name not in wanted},
    )


class _Inputs:
    """The values of an attempt's inputs, each made once. No closures: they would keep large ones until the next gc."""

    def __init__(self, attempt: Attempt, fetch: Fetch, given: dict[CallId, Live]) -> None:
        self._attempt = attempt
        self._fetch = fetch
        self._given = given
        self._values: dict[CallId, object] = {}

    def value_of(self, call: CallId) -> object:
        """Contents in the places of the Refs in it; a Ref where the attempt was given none.

        Of what an engine's object stands for: a Live, where that is at hand.
        """
        if call not in self._values:
            self._values[call] = self._made(call)
        return self._values[call]

    def bring(self, call: CallId, kind: str) -> object:
        found = self.value_of(call)
        if isinstance(found, Live):
            self._given[call] = found
        return engine_object(kind, found)

    def _made(self, call: CallId) -> object:
        value = self._attempt.inputs.get(call)
        if value is None:
            return make_reference(call)
        try:
            found = from_bytes(value) if isinstance(value, Inline) else self._fetch(value)
            return found if isinstance(found, Live) else decode(found, lookup=self.value_of, bring=self.bring)
        except (KeyError, FileNotFoundError, Corrupt) as error:
            reason = f"its input {call} is lost: {type(error).__name__}: {error}"
            raise InputLost(Vanished(reason, lost=(call,))) from error
        except StorageError as error:
            raise InputLost(Vanished(f"its input {call} could not be read: {error}")) from error


_wants: weakref.WeakKeyDictionary[Any, frozenset[str]] = weakref.WeakKeyDictionary()


def wants_refs(function: Callable[..., object]) -> frozenset[str]:
    """The names of the parameters whose annotation mentions ``Ref`` or ``Refs``."""
    try:
        return _wants[function]
    except (KeyError, TypeError):
        pass
    annotations = getattr(_plain(function), "__annotations__", {})
    # Text will do: evaluating an annotation runs the user's code, and fails for names that only a type checker sees.
    names = frozenset(name for name, note in annotations.items() if name != "return" and _mentions_ref(note))
    try:
        _wants[function] = names
    except TypeError:  # it cannot be referred to weakly
        return names
    return names


def _plain(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.unwrap(function)


def _mentions_ref(note: object) -> bool:
    text = note if isinstance(note, str) else note.__qualname__ if isinstance(note, type) else repr(note)
    return _MENTIONS_REF.search(text) is not None


def _positions(function: Callable[..., object], wanted: frozenset[str], count: int) -> list[bool]:
    """For each positional argument, whether its parameter is one of the wanted."""
    keeps: list[bool] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            keeps += [name in wanted] * (count - len(keeps))
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            keeps.append(name in wanted)
    return [*keeps, *[False] * count][:count]
