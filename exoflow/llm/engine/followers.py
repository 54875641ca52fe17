"""Who asks the same at once: one computes the prompt, the others wait until its KV can be shared."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from exoflow.llm.engine.request import AdapterRef, Request, State

Alike = tuple[tuple[int, ...], AdapterRef | None, tuple[str, ...], str, int]


class Followers:
    """Requests that stand in no queue, by those whose prompts they wait for."""

    def __init__(self) -> None:
        self._of: dict[Request, list[Request]] = {}
        self._first_of: dict[Alike, Request] = {}
        """Of those that ask the same, the one whose prompt is computed for all."""
        self._alike: dict[Request, Alike] = {}
        """The same, the other way round."""

    def leader_of(self, request: Request, *, shares: bool) -> Request | None:
        """Whose prompt it should wait for, so as not to compute it beside it.

        Args:
            shares: that of another's answers too, not only of its own prompt's.
        """
        leader = request.leader
        if leader is None or not leader.in_prefill or leader.state is State.DONE:
            leader = self._first_of.get(_alike(request)) if shares else None
        return leader

    def count(self, leader: Request | None) -> int:
        """How many wait for it."""
        return len(self._of.get(leader, ())) if leader is not None else 0

    def follow(self, request: Request, leader: Request) -> None:
        """It waits until ``end`` of the leader."""
        request.leader = leader
        self._of.setdefault(leader, []).append(request)

    def lead(self, request: Request) -> None:
        """Whoever asks the same from now on may wait for it."""
        alike = _alike(request)
        self._first_of[alike], self._alike[request] = request, alike

    def end(self, leader: Request) -> Sequence[Request]:
        """Its prompt lies in the prefix cache, or never will: who has waited for that."""
        if leader in self._alike:
            del self._first_of[self._alike.pop(leader)]
        return self._of.pop(leader, ())

    def withdraw(self, request: Request) -> None:
        """It waits no more, if it did."""
        if request.leader in self._of:
            self._of[request.leader].remove(request)

    def __iter__(self) -> Iterator[Request]:
        return itertools.chain.from_iterable(self._of.values())

    @property
    def is_empty(self) -> bool:
        """Nobody leads, and nobody follows."""
        return not (self._of or self._first_of or self._alike)


def _alike(request: Request) -> Alike:
    """What the samples of one question share, and where they stand in a queue: nobody waits for another's turn."""
    return request.prompt, request.adapter, request.client, request.job, request.priority
