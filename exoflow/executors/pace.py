"""How long the bodies of tasks take."""

from __future__ import annotations


class Pace:
    """A moving average for each task."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def took(self, task: str, seconds: float) -> None:
        known = self._seconds.get(task)
        self._seconds[task] = seconds if known is None else 0.8 * known + 0.2 * seconds

    def of(self, task: str) -> float:
        """The expected seconds; a whole one where nothing is known."""
        return self._seconds.get(task, 1.0)
