"""How a task or flow is called, for type checkers: a Ref may stand wherever a value may, and the result stays exact.

``Task[P, R]`` alone cannot say it: no checker can turn every parameter of ``P`` into "the value or a Ref to it". So the
first arm of each overload takes plain values, and arm n takes Refs in the first n places; whatever follows them,
keywords included, is as the function has it. A Ref further behind goes in as ``ref.arg``.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Mapping, Sized
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from exoflow.refs import Ref, Refs

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
X = TypeVar("X")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
A_contra = TypeVar("A_contra", contravariant=True)
B_contra = TypeVar("B_contra", contravariant=True)
C_contra = TypeVar("C_contra", contravariant=True)
D_contra = TypeVar("D_contra", contravariant=True)
E_contra = TypeVar("E_contra", contravariant=True)
F_contra = TypeVar("F_contra", contravariant=True)


class Takes1(Protocol[A_contra, Q]):
    @property
    def function(self) -> Callable[Concatenate[A_contra, Q], Any]: ...


class Takes2(Protocol[A_contra, B_contra, Q]):
    @property
    def function(self) -> Callable[Concatenate[A_contra, B_contra, Q], Any]: ...


class Takes3(Protocol[A_contra, B_contra, C_contra, Q]):
    @property
    def function(self) -> Callable[Concatenate[A_contra, B_contra, C_contra, Q], Any]: ...


class Takes4(Protocol[A_contra, B_contra, C_contra, D_contra, Q]):
    @property
    def function(self) -> Callable[Concatenate[A_contra, B_contra, C_contra, D_contra, Q], Any]: ...


class Takes5(Protocol[A_contra, B_contra, C_contra, D_contra, E_contra, Q]):
    @property
    def function(self) -> Callable[Concatenate[A_contra, B_contra, C_contra, D_contra, E_contra, Q], Any]: ...


class Takes6(Protocol[A_contra, B_contra, C_contra, D_contra, E_contra, F_contra, Q]):
    @property
    def function(self) -> Callable[Concatenate[A_contra, B_contra, C_contra, D_contra, E_contra, F_contra, Q], Any]: ...


class TakesOnly1(Protocol[A_contra]):
    @property
    def function(self) -> Callable[[A_contra], Any]: ...


class TakesOnly2(Protocol[A_contra, B_contra]):
    @property
    def function(self) -> Callable[[A_contra, B_contra], Any]: ...


class TakesOnly3(Protocol[A_contra, B_contra, C_contra]):
    @property
    def function(self) -> Callable[[A_contra, B_contra, C_contra], Any]: ...


class TakesOnly4(Protocol[A_contra, B_contra, C_contra, D_contra]):
    @property
    def function(self) -> Callable[[A_contra, B_contra, C_contra, D_contra], Any]: ...


class TakesOnly5(Protocol[A_contra, B_contra, C_contra, D_contra, E_contra]):
    @property
    def function(self) -> Callable[[A_contra, B_contra, C_contra, D_contra, E_contra], Any]: ...


class TakesOnly6(Protocol[A_contra, B_contra, C_contra, D_contra, E_contra, F_contra]):
    @property
    def function(self) -> Callable[[A_contra, B_contra, C_contra, D_contra, E_contra, F_contra], Any]: ...


class Calls(Generic[P, R, X]):
    """What can be called in a flow. ``R`` is its result, ``X`` what a plain call gives: ``R``, or a coroutine of it."""

    __slots__ = ()

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> X: ...

    @overload
    def __call__(self: Takes1[A, Q], a: A | Ref[A], /, *args: Q.args, **kwargs: Q.kwargs) -> X: ...

    @overload
    def __call__(self: Takes2[A, B, Q], a: A | Ref[A], b: B | Ref[B], /, *args: Q.args, **kwargs: Q.kwargs) -> X: ...

    @overload
    def __call__(
        self: Takes3[A, B, C, Q], a: A | Ref[A], b: B | Ref[B], c: C | Ref[C], /, *args: Q.args, **kwargs: Q.kwargs,
    ) -> X: ...  # fmt: skip

    @overload
    def __call__(
        self: Takes4[A, B, C, D, Q], a: A | Ref[A], b: B | Ref[B], c: C | Ref[C], d: D | Ref[D], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> X: ...  # fmt: skip

    @overload
    def __call__(
        self: Takes5[A, B, C, D, E, Q], a: A | Ref[A], b: B | Ref[B], c: C | Ref[C], d: D | Ref[D], e: E | Ref[E], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> X: ...  # fmt: skip

    @overload
    def __call__(
        self: Takes6[A, B, C, D, E, F, Q], a: A | Ref[A], b: B | Ref[B], c: C | Ref[C], d: D | Ref[D],
        e: E | Ref[E], f: F | Ref[F], /, *args: Q.args, **kwargs: Q.kwargs,
    ) -> X: ...  # fmt: skip

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]  # it does take Q
        return self._call(args, kwargs)

    @overload
    def submit(self, *args: P.args, **kwargs: P.kwargs) -> Ref[R]: ...

    @overload
    def submit(self: Takes1[A, Q], a: A | Ref[A], /, *args: Q.args, **kwargs: Q.kwargs) -> Ref[R]: ...

    @overload
    def submit(self: Takes2[A, B, Q], a: A | Ref[A], b: B | Ref[B], /, *args: Q.args, **kwargs: Q.kwargs) -> Ref[R]: ...

    @overload
    def submit(
        self: Takes3[A, B, C, Q], a: A | Ref[A], b: B | Ref[B], c: C | Ref[C], /, *args: Q.args, **kwargs: Q.kwargs,
    ) -> Ref[R]: ...  # fmt: skip

    @overload
    def submit(
        self: Takes4[A, B, C, D, Q], a: A | Ref[A], b: B | Ref[B], c: C | Ref[C], d: D | Ref[D], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> Ref[R]: ...  # fmt: skip

    @overload
    def submit(
        self: Takes5[A, B, C, D, E, Q], a: A | Ref[A], b: B | Ref[B], c: C | Ref[C], d: D | Ref[D], e: E | Ref[E], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> Ref[R]: ...  # fmt: skip

    @overload
    def submit(
        self: Takes6[A, B, C, D, E, F, Q], a: A | Ref[A], b: B | Ref[B], c: C | Ref[C], d: D | Ref[D],
        e: E | Ref[E], f: F | Ref[F], /, *args: Q.args, **kwargs: Q.kwargs,
    ) -> Ref[R]: ...  # fmt: skip

    def submit(self: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]  # it does take Q
        """Start the call and return at once; the value stays where it is made.

        Raises:
            RuntimeError: not in a flow's body.
            TypeError: the arguments do not fit the function.
        """
        return self._submit(args, kwargs)

    @overload
    def map(self: TakesOnly1[A], a: Iterable[A | Ref[A]], /) -> Refs[R]: ...

    @overload
    def map(self: TakesOnly2[A, B], a: Iterable[A | Ref[A]], b: Iterable[B | Ref[B]], /) -> Refs[R]: ...

    @overload
    def map(
        self: TakesOnly3[A, B, C], a: Iterable[A | Ref[A]], b: Iterable[B | Ref[B]], c: Iterable[C | Ref[C]], /
    ) -> Refs[R]: ...  # fmt: skip

    @overload
    def map(
        self: TakesOnly4[A, B, C, D], a: Iterable[A | Ref[A]],
        b: Iterable[B | Ref[B]], c: Iterable[C | Ref[C]], d: Iterable[D | Ref[D]], /,
    ) -> Refs[R]: ...  # fmt: skip

    @overload
    def map(
        self: TakesOnly5[A, B, C, D, E], a: Iterable[A | Ref[A]], b: Iterable[B | Ref[B]],
        c: Iterable[C | Ref[C]], d: Iterable[D | Ref[D]], e: Iterable[E | Ref[E]], /,
    ) -> Refs[R]: ...  # fmt: skip

    @overload
    def map(
        self: TakesOnly6[A, B, C, D, E, F], a: Iterable[A | Ref[A]], b: Iterable[B | Ref[B]],
        c: Iterable[C | Ref[C]], d: Iterable[D | Ref[D]], e: Iterable[E | Ref[E]], f: Iterable[F | Ref[F]], /,
    ) -> Refs[R]: ...  # fmt: skip

    @overload
    def map(self: Takes1[A, Q], a: Iterable[A | Ref[A]], /, *args: Q.args, **kwargs: Q.kwargs) -> Refs[R]: ...

    @overload
    def map(
        self: Takes2[A, B, Q], a: Iterable[A | Ref[A]], b: Iterable[B | Ref[B]], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> Refs[R]: ...  # fmt: skip

    @overload
    def map(
        self: Takes3[A, B, C, Q], a: Iterable[A | Ref[A]], b: Iterable[B | Ref[B]], c: Iterable[C | Ref[C]], /,
        *args: Q.args, **kwargs: Q.kwargs,
    ) -> Refs[R]: ...  # fmt: skip

    def map(self: Any, *iterables: Any, **kwargs: Any) -> Any:  # type: ignore[misc]  # as above
        """Start one call for each element, with the same keywords; ``itertools.repeat`` ends with the others.

        Raises:
            RuntimeError: not in a flow's body.
            TypeError: the arguments do not fit the function.
            ValueError: the iterables have different lengths, or all of them are endless.
        """
        return self._map(iterables, kwargs)

    def _map(self, iterables: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Refs[R]:
        return Refs([self._submit(row, kwargs) for row in rows(iterables)])

    def _call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        raise NotImplementedError

    def _submit(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Ref[R]:
        raise NotImplementedError


def rows(iterables: tuple[Iterable[Any], ...]) -> list[tuple[Any, ...]]:
    """The elements side by side; an endless ``itertools.repeat`` ends with the others.

    Raises:
        TypeError: one is no iterable.
        ValueError: the iterables have different lengths, or none of them ends.
    """
    for each in iterables:
        if not hasattr(each, "__iter__") and not hasattr(each, "__getitem__"):
            raise TypeError(
                f"map makes one call for each element, and {each!r:.80} has none: pass what every call gets by "
                "keyword, or as itertools.repeat(value)"
            )
    ending = [each for each in iterables if not _is_endless(each)]
    if not ending:
        raise ValueError("map needs an iterable that ends: itertools.repeat ends with the others, and there is none")
    lengths = [len(each) for each in ending if isinstance(each, Sized)]
    if len(set(lengths)) > 1:
        raise _unequal(f"these have {' and '.join(map(str, lengths))} elements")
    try:
        table = list(zip(*ending, strict=True))
    except ValueError as error:
        if not str(error).startswith("zip()"):
            raise
        raise _unequal(str(error).removeprefix("zip() ")) from None
    if len(ending) == len(iterables):
        return table
    columns = iter(zip(*table, strict=True)) if table else itertools.repeat(())
    return list(zip(*(each if _is_endless(each) else next(columns) for each in iterables)))  # noqa: B905  # endless ones


def _is_endless(iterable: object) -> bool:
    return isinstance(iterable, itertools.repeat) and operator.length_hint(iterable, -1) < 0


def _unequal(how: str) -> ValueError:
    return ValueError(
        f"map makes one call for each element, so its iterables must have equal lengths: {how}. "
        "For a value that every call gets, write itertools.repeat(value), or pass it by keyword"
    )
