"""What a thread has time for while it reports an attempt."""

from __future__ import annotations

import threading
from typing import Protocol


class Pool(Protocol):
    """Threads that run attempts."""

    def has_work(self) -> bool:
        """Whether attempts wait for a thread."""


class Spare(threading.local):
    """What a thread that runs attempts may do while it reports one, having nothing else to do then."""

    pool: Pool | None = None
    """Whose thread it is, while it reports; else None. It may wait for the disk then: nobody else has to be woken."""
    item: object = None
    """What its pool is to run next, and this thread will, as soon as it has reported: nobody else has to be woken."""


spare = Spare()
