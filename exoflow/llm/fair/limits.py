"""Requests and tokens in a sliding minute."""

from __future__ import annotations

from collections import deque

SPAN_S = 60.0


class Window:
    """What was taken in the last 60 seconds, against what may be. Exact: no 60 seconds see more."""

    def __init__(self, requests: int | None, tokens: int | None) -> None:
        for name, limit in {"rpm": requests, "tpm": tokens}.items():
            if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
                raise ValueError(f"{name}={limit!r}: give a whole number from 1, or None for no limit")
        self._requests = requests
        self._tokens = tokens
        self._taken: deque[tuple[float, int]] = deque()
        self._used = 0
        """Tokens of all that is in ``_taken``, as corrected."""
        self._held_s = float("-inf")

    def take(self, now_s: float, tokens: int) -> float:
        """Take it and give 0; or take nothing, and give the seconds to wait before it is worth trying again.

        What is larger than the whole limit goes when nothing else is in the window.
        """
        if now_s < self._held_s:
            return self._held_s - now_s
        while self._taken and now_s - self._taken[0][0] >= SPAN_S:
            self._used -= self._taken.popleft()[1]
        if not self._taken:
            self._used = 0
        elif self._lacks(tokens):
            return max(self._taken[0][0] + SPAN_S - now_s, 1e-3)
        if self._requests is not None or self._tokens is not None:
            self._taken.append((now_s, tokens))
            self._used += tokens
        return 0.0

    def _lacks(self, tokens: int) -> bool:
        if self._requests is not None and len(self._taken) >= self._requests:
            return True
        return self._tokens is not None and self._used + tokens > self._tokens

    def correct(self, tokens: int) -> None:
        """What was taken has used so many more tokens; negative: fewer."""
        self._used += tokens

    def hold(self, until_s: float) -> None:
        """Nothing may be taken before."""
        self._held_s = max(self._held_s, until_s)
