"""Refs: what a flow's body has of a call before it reads the value."""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, Never, NoReturn, TypeVar, cast, overload

from exoflow import codec
from exoflow.driver import body as _body, notes
from exoflow.driver.async_body import AsyncBody
from exoflow.driver.body import current_body
from exoflow.driver.depth import leave_room
from exoflow.driver.sync_body import SyncBody
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
        if handle is not None:
            handle.refs += 1

    def __del__(self) -> None:
        # In whichever thread, and in the middle of anything: so no more than a note of it.
        handle = getattr(self, "_handle", None)
        if handle is not None:
            handle.refs -= 1
            if not handle.refs and handle.may_go:
                handle.body.execution.unreferenced.append(handle)

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
        body = waiting_body(self, "result()", "await ref")
        return cast(T_co, self._read(body, body.value(handle_of(self, body), timeout)))

    def exception(self, timeout: float | None = None) -> Exception | None:
        """The task's error, or None where it returned; waits for it.

        Raises:
            TimeoutError: it had not ended in time.
            RuntimeError: in an async flow, in a task, or outside the flow.
        """
        body = waiting_body(self, "exception()", "try: await ref")
        handle = handle_of(self, body)
        try:
            body.value(handle, timeout)
        except Exception as error:
            if not handle.call.failed:
                raise
            return error
        return None

    def done(self) -> bool:
        """Whether it has ended. The answer is recorded: a replay sees the same."""
        body = reading_body(self)
        return notes.done(body, handle_of(self, body))

    def __await__(self) -> Generator[Any, None, T_co]:
        body = awaiting_body(self, "await ref", "ref.result()")
        value = yield from body.value(handle_of(self, body)).__await__()
        return cast(T_co, self._read(body, value))

    def _read(self, body: Body, value: object) -> object:
        """What a task ``put`` comes beside its value, and is there when that is."""
        return body.execution.values.value_of_ref(self.call_id) if "!" in self.call_id else value

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
            raise TypeError(f"{self!r} cannot be iterated over: write for x in {_spelled()}")

    def __format__(self, spec: str) -> NoReturn:
        raise TypeError(f"{self!r} in a text is not its value: write {_spelled()}, or {{ref!r}} to name the call")

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
        body = waiting_body(self, "result()", "await refs")
        handles = [handle_of(ref, body) for ref in self._leaves()]
        if timeout is not None:
            _wait(handles, body, timeout)
        return self._grouped(body, iter(body.values(handles, return_exceptions=self._return_exceptions)))

    def exception(self, timeout: float | None = None) -> Exception | None:
        """The first of the tasks' errors, or None; waits for all of them up to it."""
        clock = reading_body(self).execution.clock
        until = None if timeout is None else clock.monotonic() + timeout
        for ref in self._refs:
            error = ref.exception(None if until is None else max(0.0, until - clock.monotonic()))
            if error is not None:
                return error
        return None

    def done(self) -> bool:
        """Whether all have ended."""
        return all(ref.done() for ref in self._refs)

    def __await__(self) -> Generator[Any, None, list[R]]:
        body = awaiting_body(self, "await refs", "refs.result()")
        handles = [handle_of(ref, body) for ref in self._leaves()]
        values = yield from body.values(handles, return_exceptions=self._return_exceptions).__await__()
        return self._grouped(body, iter(values))

    def _leaves(self) -> Iterator[Ref[Any]]:
        for ref in self._refs:
            if isinstance(ref, Refs):
                yield from ref._leaves()
            else:
                yield ref

    def _grouped(self, body: Body, values: Iterator[object]) -> list[R]:
        """The values of the leaves, in lists as the Refs are."""
        return [
            cast(R, ref._grouped(body, values) if isinstance(ref, Refs) else ref._read(body, next(values)))
            for ref in self._refs
        ]

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


def _wait(handles: list[Handle], body: SyncBody, timeout_s: float) -> None:
    clock = body.execution.clock
    until = clock.monotonic() + timeout_s
    for handle in handles:
        try:
            body.value(handle, max(0.0, until - clock.monotonic()))
        except Exception:
            if not handle.call.failed:
                raise


def _refs_again(refs: tuple[Ref[R], ...], return_exceptions: bool) -> Refs[R]:
    return Refs(refs, return_exceptions=return_exceptions)


def reading_body(ref: Ref[Any]) -> Body:
    """The body that asks."""
    body = current_body()
    if body is None:
        raise RuntimeError(
            f"{ref!r} can be read only in the body of its flow, in the thread or asyncio task that runs it. In a task, "
            "take the value: a parameter gets it, unless its annotation mentions Ref"
        )
    leave_room()
    return body


def waiting_body(ref: Ref[Any], what: str, instead: str) -> SyncBody:
    """The body that asks, and blocks its thread."""
    body = reading_body(ref)
    if isinstance(body, SyncBody):
        return body
    raise RuntimeError(f"{what} would block the event loop of the async flow {body.flow.name}: write `{instead}`")


def awaiting_body(ref: Ref[Any], what: str, instead: str) -> AsyncBody:
    """The body that asks, and awaits the answer."""
    body = reading_body(ref)
    if isinstance(body, AsyncBody):
        return body
    raise RuntimeError(f"{what} is for async flows, and {body.flow.name} is a sync one: write `{instead}`")


def handle_of(ref: Ref[Any], body: Body) -> Handle:
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
