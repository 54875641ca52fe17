"""What the engine was asked, written down by its queue: a count that no journal has a part in."""

from __future__ import annotations

import os
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from exoflow.llm.engine.queues import Fcfs
from exoflow.llm.engine.request import Request

DIES_AT = "VOTE_DIES_AT"
"""The environment variable that says at which question the process dies. It is no part of the engine's description,
which the run records, and the next process uses again.
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """A file with a line for each request that an engine was given: the process that gave it."""

    path: Path

    def __len__(self) -> int:
        return len(self._lines())

    def by_process(self) -> Counter[str]:
        """In the order of their first requests."""
        return Counter(self._lines())

    def _lines(self) -> list[str]:
        return self.path.read_text().split() if self.path.exists() else []


@dataclass(frozen=True, slots=True)
class Counted:
    """Makes the queue of an engine."""

    path: str

    def __call__(self) -> Fcfs:
        return _Counting(Asked(Path(self.path)))


class _Counting(Fcfs):
    """First come, first served; and a line for each that comes, before anything is computed for it."""

    def __init__(self, asked: Asked) -> None:
        super().__init__()
        self._file = os.open(asked.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._left = int(os.environ[DIES_AT]) - len(asked) if DIES_AT in os.environ else None

    def add(self, request: Request, now_s: float) -> None:
        os.write(self._file, b"%d\n" % os.getpid())
        super().add(request, now_s)
        if self._left is not None:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)
