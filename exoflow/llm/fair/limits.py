"""Requests and tokens in a sliding minute."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from exoflow.llm.fair.tenants import check_whole

SPAN_S = 60.0


@dataclass(slots=True, eq=False)
class _Taken:
    """Room that one request took."""

    at_s: float
    tokens: int
    used: int
    """As taken, until it is corrected."""


class SlidingMinute:
    """What was taken in the last 60 seconds, against what may be. Exact: no 60 seconds see more.

    Args:
        requests: None: as many as there are.
        tokens: None: as many as there are.

    Raises:
        ValueError: a limit is no whole number from 1.
    """

    def __init__(self, requests: int | None, tokens: int | None) -> None:
        for name, limit in {"rpm": requests, "tpm": tokens}.items():
            if limit is not None:
                check_whole(name, limit, 1)
        self._requests = requests
        self._tokens = tokens
        self._taken: deque[_Taken] = deque()
        self._open: dict[int, deque[_Taken]] = {}
        """Those that are not corrected, by what they took; oldest first."""
        self._used = 0
        self._held_s = float("-inf")

    def take(self, now_s: float, tokens: int) -> float:
        """Take room for a request: 0. Or take none: the seconds to wait before it is worth another try.

        What is larger than the whole limit goes when nothing else is in the window.
        """
        if now_s < self._held_s:
            return self._held_s - now_s
        if self._requests is None and self._tokens is None:
            return 0.0
        while self._taken and now_s - self._taken[0].at_s >= SPAN_S:
            self._forget(self._taken.popleft())
        if self._taken and self._lacks(tokens):
            return self._taken[0].at_s + SPAN_S - now_s
        taken = _Taken(now_s, tokens, tokens)
        self._taken.append(taken)
        self._open.setdefault(tokens, deque()).append(taken)
        self._used += tokens
        return 0.0

    def _lacks(self, tokens: int) -> bool:
        if self._requests is not None and len(self._taken) >= self._requests:
            return True
        return self._tokens is not None and self._used + tokens > self._tokens

    def _forget(self, taken: _Taken) -> None:
        self._used -= taken.used
        same = self._open.get(taken.tokens)
        if same and same[0] is taken:
            self._close(taken.tokens)

    def _close(self, tokens: int) -> _Taken:
        same = self._open[tokens]
        oldest = same.popleft()
        if not same:
            del self._open[tokens]
        return oldest

    def correct(self, tokens: int, used: int) -> None:
        """A request that took ``tokens`` has used so many. Of several that took the same it is the oldest."""
        if tokens in self._open:
            taken = self._close(tokens)
            taken.used = used
            self._used += used - tokens

    def hold(self, until_s: float) -> None:
        """Nothing may be taken before."""
        self._held_s = max(self._held_s, until_s)
