"""Several Refs at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, Literal, TypeVar, overload

from exoflow.refs import Ref, Refs, awaiting_body, handle_of, waiting_body

R = TypeVar("R")


class Completed(Iterator[Ref[R]], AsyncIterator[Ref[R]]):
    """Refs in the order in which their calls end; what ``as_completed`` returns."""

    __slots__ = ("_left",)

    def __init__(self, refs: Iterable[Ref[R]]) -> None:
        self._left = list(refs)

    def __next__(self) -> Ref[R]:
        if not self._left:
            raise StopIteration
        body = waiting_body(self._left[0], "for ... in as_completed(...)", "async for ... in as_completed(...)")
        return self._left.pop(body.next_of([handle_of(ref, body) for ref in self._left]))

    async def __anext__(self) -> Ref[R]:
        if not self._left:
            raise StopAsyncIteration
        body = awaiting_body(self._left[0], "async for ... in as_completed(...)", "for ... in as_completed(...)")
        return self._left.pop(await body.next_of([handle_of(ref, body) for ref in self._left]))


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


def _refs_of(refs: object, taker: str) -> list[Ref[Any]]:
    found: list[Any] = [refs] if isinstance(refs, Ref) and not isinstance(refs, Refs) else _listed(refs)
    for each in found:
        if not isinstance(each, Ref):
            close = getattr(each, "close", None)
            if close is not None and hasattr(each, "__await__"):
                close()  # a coroutine that nobody will await
            raise TypeError(f"{taker} takes Refs, not {each!r}: start it with .submit(...) or .map(...)")
    if found and found[0] is refs:
        raise TypeError(f"{taker} takes several Refs: put {refs!r} into a list")
    return found


def _listed(refs: object) -> list[Any]:
    return list(refs) if isinstance(refs, Iterable) else [refs]
