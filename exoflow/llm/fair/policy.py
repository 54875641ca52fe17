"""What waits, and who decides which of it is next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

Path = tuple[str, ...]
"""Who is charged, from the root: ``("acme", "ann")``; in a scheduler a tenant, its user, a run of theirs."""


def path_of(name: str | Path) -> Path:
    """``"acme"`` is the tenant, ``("acme", "ann")`` its user.

    Raises:
        TypeError: it is neither.
    """
    given: object = (name,) if isinstance(name, str) else name
    if not isinstance(given, Sequence) or not all(isinstance(each, str) for each in given):
        raise TypeError(f"{name!r} is nobody: give a tenant's name, or a path of names, as ('acme', 'ann')")
    return tuple(given)


class Waiting(Protocol):
    """A request, as far as a policy looks at it. Nothing of it may change while a policy has it."""

    @property
    def number(self) -> int:
        """Unique, and in the order of arrival."""
        ...

    @property
    def arrival_s(self) -> float: ...

    @property
    def client(self) -> Path: ...

    @property
    def input_tokens(self) -> int: ...

    @property
    def max_output_tokens(self) -> int:
        """It gets no more. Reserved at dispatch by ``charge="reserve"``."""
        ...

    @property
    def priority(self) -> int:
        """0 is the most urgent: it never waits for 1."""
        ...

    @property
    def job(self) -> str:
        """Requests of one job keep together within their client. Empty: it is a job of its own."""
        ...


W = TypeVar("W", bound=Waiting)


class Policy(Protocol[W]):
    """Requests that wait, in an order of its own. Every ``Policy[Request]`` is a queue of the engine.

    It sees no clock: ``now_s`` is told, and must not go back. The same calls give the same order, always.

    * ``peek`` MUST give the same request until something else is called, and MUST NOT take it.
    * ``peek`` and the ``pop`` that follows it MUST be given the same ``now_s``.
    * What was ``requeued`` MUST come before whatever its client asked later, and MUST NOT be charged again for its
      admission.
    * Every request that was added leaves by ``finish`` or ``cancel``, exactly once.
    """

    def add(self, w: W, now_s: float) -> None:
        """It has arrived."""
        ...

    def peek(self, now_s: float) -> W | None:
        """Who is next; None: nobody may be, now. Who is next is never passed over because it is large: that would
        break the bounds.
        """
        ...

    def pop(self, now_s: float) -> W:
        """The one that ``peek`` gives: it is admitted, and its input is charged."""
        ...

    def requeue(self, w: W, now_s: float) -> None:
        """It was popped and has to give up its place."""
        ...

    def charge(self, w: W, tokens: int) -> None:
        """It has got so many tokens more of its answer."""
        ...

    def finish(self, w: W, billed: int | None = None) -> None:
        """It was popped and has ended.

        Args:
            billed: what it cost, in the units of the policy's cost, if its tokens do not tell: a provider counted
                the input otherwise, or had it in a cache.
        """
        ...

    def cancel(self, w: W) -> bool:
        """It is wanted no more; whether it was waiting here. What it has used stays charged."""
        ...

    def __len__(self) -> int:
        """How many wait."""
        ...

    def __iter__(self) -> Iterator[W]:
        """Those that wait, in no order."""
        ...


def cached_of(w: Waiting) -> int:
    """Tokens of its input that were found in a cache, of requests that know it: an engine's."""
    return int(getattr(w, "cached", 0))


Order = tuple[float, int]
"""By arrival, and by number among those that arrived at once."""


def order_of(w: Waiting) -> Order:
    return w.arrival_s, w.number
