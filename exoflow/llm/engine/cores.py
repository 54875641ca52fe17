"""Which threads compute on several cores: the engine's own, and no other.

Each thread that computes on several cores has helpers that OpenMP keeps for it. Between two operations they wait awake,
but once there are more of them in the process than cores, they sleep, and an operation of 10 µs takes 60: a step on two
cores took 1.4 to 2 times as long after a single copy of an adapter in another thread (ADR 0028).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_core() -> Iterator[None]:
    """What this thread computes in here needs no helpers."""
    count = torch.get_num_threads()
    if count == 1:
        yield
        return
    torch.set_num_threads(1)
    _for_new_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(count)


def _for_new_threads(count: int) -> None:
    """What torch is told in one thread is what later threads begin with: let them begin as they did before."""
    telling = threading.Thread(target=torch.set_num_threads, args=[count])
    telling.start()
    telling.join()
