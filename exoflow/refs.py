"""Refs: what a flow's body has of a call before it reads the value."""

from __future__ import annotations

import time
import zlib
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, Never, NoReturn, TypeVar, cast, overload

from exoflow import codec
from exoflow.driver import body as _body
from exoflow.driver.body import current_body
from exoflow.model import CallId

if TYPE_CHECKING:
    from exoflow.driver.body import Body
    from exoflow.driver.handle import Handle

T_co = TypeVar("T_co", covariant=True)
R = TypeVar("R")


class Ref(Generic[T_co]):
    """Stands for the result of a call, while that is not there yet or lies elsewhere.

    It is hashable and can be a dict's key, and be passed on: to a task, a child flow, in lists, tuples, dicts and
    dataclasses, and out of a flow. To see the value, ``ref.result()`` or ``await ref``.
    """

    __slots__ = ("__weakref__", "_handle", "call_id")

    call_id: CallId

    def __init__(self, call_id: CallId, handle: Handle | None = None) -> None:
        self.call_id = call_id
        self._handle = handle

    @property
    def arg(self) -> T_co:
        """The Ref itself, typed as its value: for keywords and containers, where no type checker can follow."""
        return cast(T_co, self)

    def result(self, timeout: float | None = None) -> T_co:
        """The value; waits for it.

        Args:
            timeout: Seconds to wait at most.

        Raises:
            TimeoutError: it was not there in time. Recorded: a replay sees the same.
            RuntimeError: in an async flow, in a task, or outside the flow.
            Exception: the task's own error.
        """
        body = _waiting_body(self, "result()", "await ref")
        return cast(T_co, self._read(body, body.value(_handle(self, body), timeout)))

    def exception(self, timeout: float | None = None) -> Exception | None:
        """The task's error, or None where it returned; waits for it.

        Raises:
            TimeoutError: it had not ended in time.
            RuntimeError: in an async flow, in a task, or outside the flow.
        """
        body = _waiting_body(self, "exception()", "try: await ref")
        handle = _handle(self, body)
        try:
            body.value(handle, timeout)
        except Exception as error:
            if not handle.call.failed:
                raise
            return error
        return None

    def done(self) -> bool:
        """Whether it has ended. The answer is recorded: a replay sees the same."""
        body = _reading_body(self)
        return body.done(_handle(self, body))

    def __await__(self) -> Generator[Any, None, T_co]:
        body = _reading_body(self)
        value = yield from body.value_async(_handle(self, body)).__await__()
        return cast(T_co, self._read(body, value))

    def _read(self, body: Body, value: object) -> object:
        """What a task ``put`` comes beside its value, and is there when that is."""
        return body.execution.value_of_ref(self.call_id) if "!" in self.call_id else value

    def __bool__(self) -> NoReturn:
        raise TypeError(f"{self!r} is neither true nor false: write {_spelled()}, or `ref is not None`")

    def __eq__(self, other: Never) -> bool:  # type: ignore[override]  # comparing a Ref is a mistake, and typed as one
        raise TypeError(f"{self!r} cannot be compared: write {_spelled()} == ..., or `a is b` for the same Ref")

    def __ne__(self, other: Never) -> bool:  # type: ignore[override]  # as above
        return self == other

    def __hash__(self) -> int:
        return zlib.crc32(self.call_id.encode())  # the same in every process, so that a set of Refs has one order

    if not TYPE_CHECKING:  # a type checker must not take a Ref for an iterable

        def __iter__(self) -> NoReturn:
            raise TypeError(f"{self!r} cannot be iterated over: write `for x in {_spelled()}`")

    def __repr__(self) -> str:
        return f"<Ref to {self.call_id}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return codec.reduce_reference(self.call_id)

    def __copy__(self) -> Ref[T_co]:
        return self

    def __deepcopy__(self, memo: object) -> Ref[T_co]:
        return self


class Refs(Ref[list[R]], Sequence[Ref[R]]):
    """Refs in a row, and one Ref to the list of their values."""

    __slots__ = ("_refs", "_return_exceptions")

    def __init__(self, refs: Iterable[Ref[R]], *, return_exceptions: bool = False) -> None:
        self._refs = tuple(refs)
        self._return_exceptions = return_exceptions

    def result(self, timeout: float | None = None) -> list[R]:
        """The values, in order; waits for all of them.

        Raises:
            TimeoutError: they were not all there in time. Recorded: a replay sees the same.
            RuntimeError: in an async flow, in a task, or outside the flow.
            Exception: the first of the tasks' own errors, unless they are to be returned.
        """
        body = _waiting_body(self, "result()", "await refs")
        if timeout is not None:
            self._wait(body, timeout)
        values = body.values(self._handles(body), return_exceptions=self._return_exceptions)
        return self._read_all(body, values)

    def _wait(self, body: Body, timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        for handle in self._handles(body):
            try:
                body.value(handle, max(0.0, until - time.monotonic()))
            except Exception:
                if not handle.call.failed:
                    raise

    def exception(self, timeout: float | None = None) -> Exception | None:
        """The first of the tasks' errors, or None; waits for all of them up to it."""
        until = None if timeout is None else time.monotonic() + timeout
        for ref in self._refs:
            error = ref.exception(None if until is None else max(0.0, until - time.monotonic()))
            if error is not None:
                return error
        return None

    def done(self) -> bool:
        """Whether all have ended."""
        return all(ref.done() for ref in self._refs)

    def __await__(self) -> Generator[Any, None, list[R]]:
        body = _reading_body(self)
        reading = body.values_async(self._handles(body), return_exceptions=self._return_exceptions)
        values = yield from reading.__await__()
        return self._read_all(body, values)

    def _handles(self, body: Body) -> list[Handle]:
        return [_handle(ref, body) for ref in self._refs]

    def _read_all(self, body: Body, values: list[object]) -> list[R]:
        return cast(list[R], [ref._read(body, value) for ref, value in zip(self._refs, values, strict=True)])

    @overload
    def __getitem__(self, index: int) -> Ref[R]: ...

    @overload
    def __getitem__(self, index: slice) -> Refs[R]: ...

    def __getitem__(self, index: int | slice) -> Ref[R] | Refs[R]:
        if isinstance(index, slice):
            return Refs(self._refs[index], return_exceptions=self._return_exceptions)
        return self._refs[index]

    def __iter__(self) -> Iterator[Ref[R]]:
        return iter(self._refs)

    def __len__(self) -> int:
        return len(self._refs)

    def __bool__(self) -> bool:  # type: ignore[override]  # there are some, or none: the same as for the list of values
        return bool(self._refs)

    def __hash__(self) -> int:
        return hash(self._refs)

    def __repr__(self) -> str:
        shown = ", ".join(ref.call_id if type(ref) is Ref else repr(ref) for ref in self._refs[:3])
        return f"<{len(self._refs)} Refs to {shown}{', ...' if len(self._refs) > 3 else ''}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _refs_again, (self._refs, self._return_exceptions)


def _refs_again(refs: tuple[Ref[R], ...], return_exceptions: bool) -> Refs[R]:
    return Refs(refs, return_exceptions=return_exceptions)


class Completed(Iterator[Ref[R]], AsyncIterator[Ref[R]]):
    """Refs in the order in which their calls end; what ``as_completed`` returns."""

    __slots__ = ("_left",)

    def __init__(self, refs: Iterable[Ref[R]]) -> None:
        self._left = list(refs)

    def __next__(self) -> Ref[R]:
        if not self._left:
            raise StopIteration
        body = _waiting_body(self._left[0], "for ... in as_completed(...)", "async for ... in as_completed(...)")
        return self._left.pop(body.next_of([_handle(ref, body) for ref in self._left]))

    async def __anext__(self) -> Ref[R]:
        if not self._left:
            raise StopAsyncIteration
        body = _reading_body(self._left[0])
        return self._left.pop(await body.next_of_async([_handle(ref, body) for ref in self._left]))


@overload
def gather(refs: Iterable[Ref[R]], /, *, return_exceptions: Literal[False] = False) -> Refs[R]: ...


@overload
def gather(*refs: Ref[R], return_exceptions: Literal[False] = False) -> Refs[R]: ...


@overload
def gather(refs: Iterable[Ref[R]], /, *, return_exceptions: bool) -> Refs[R | Exception]: ...


@overload
def gather(*refs: Ref[R], return_exceptions: bool) -> Refs[R | Exception]: ...


def gather(*refs: Any, return_exceptions: bool = False) -> Refs[Any]:
    """Make one Ref to the list of all results, as ``map`` does.

    Args:
        refs: Refs, or one iterable of them.
        return_exceptions: Reading it gives errors among the results. A task that it is passed to still fails by them.

    Raises:
        TypeError: something is no Ref.
    """
    only = refs[0] if len(refs) == 1 else None
    given = refs if only is None or type(only) is Ref else only
    return Refs(_refs_of(given, "gather"), return_exceptions=return_exceptions)


def as_completed(refs: Iterable[Ref[R]]) -> Completed[R]:
    """The Refs, each as soon as its call has ended, with ``for`` or ``async for``. A replay sees the same order.

    Raises:
        TypeError: something is no Ref.
    """
    return Completed(_refs_of(refs, "as_completed"))


def _refs_of(refs: Iterable[Any], taker: str) -> list[Ref[Any]]:
    try:
        found = list(refs)
    except TypeError:
        found = [refs]
    for each in found:
        if not isinstance(each, Ref):
            close = getattr(each, "close", None)
            if close is not None and hasattr(each, "__await__"):
                close()  # a coroutine that nobody will await
            raise TypeError(f"{taker} takes Refs, not {each!r}: start the calls with .submit(...) or .map(...)")
    return found


def _reading_body(ref: Ref[Any]) -> Body:
    """The body that asks."""
    body = current_body()
    if body is None:
        raise RuntimeError(
            f"{ref!r} can be read only in the body of its flow, in the thread or asyncio task that runs it. In a task, "
            "take the value: a parameter gets it, unless its annotation mentions Ref"
        )
    return body


def _waiting_body(ref: Ref[Any], what: str, instead: str) -> Body:
    body = _reading_body(ref)
    if body.is_async:
        raise RuntimeError(f"{what} would block the event loop of the async flow {body.flow.name}: write `{instead}`")
    return body


def _handle(ref: Ref[Any], body: Body) -> Handle:
    handle = ref._handle if type(ref) is not Refs else None
    if handle is None or handle.body.execution is not body.execution:
        raise RuntimeError(
            f"{ref!r} belongs to another run, or to a task: only the flow that made the call can read it"
        )
    return handle


def _spelled() -> str:
    body = current_body()
    return "`(await ref)`" if body is not None and body.is_async else "`ref.result()`"


codec.register_reference(Ref, make=Ref)
codec.register_reference(Refs, group=True)
_body.reference_factory = Ref
