"""Whether an executor is still there. What it leaves behind when it is killed, nobody else would ever clear away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from distributed import Worker

_LOOK_S = 5.0


def token_of(patron: str) -> str:
    """A task that no worker can run: no data that could be lost, and the scheduler forgets it with its client."""
    return f"exoflow-{patron}"


async def watch(worker: Worker, patron: str, gone: Callable[[], None]) -> None:
    """Tell when the scheduler has forgotten the executor's client. On the worker's loop."""
    while True:
        await asyncio.sleep(_LOOK_S)
        try:
            known = await worker.scheduler.get_task_status(keys=[token_of(patron)])
        except OSError:  # the scheduler cannot be reached, and may be again; without one this process ends
            continue
        if known[token_of(patron)] is None:
            gone()
            return
