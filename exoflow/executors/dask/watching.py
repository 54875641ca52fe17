"""Whether an executor is still there. What it leaves behind when it is killed, nobody else would ever clear away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from distributed import Worker

from exoflow.executors.dask.pinning import put_on_loop

_LOOK_S = 5.0


async def watch(worker: Worker, token: str, client: str, gone: Callable[[], None]) -> None:
    """Tell when the scheduler has forgotten the client. On the worker's loop.

    The token is data that is held for the client, and which the scheduler forgets with it.
    """
    await put_on_loop(worker, token, None, 0, client)
    while token in worker.data or await _is_elsewhere(worker, token):  # noqa: ASYNC110 -- nothing tells of it
        await asyncio.sleep(_LOOK_S)
    gone()


async def _is_elsewhere(worker: Worker, token: str) -> bool:
    """Data may be moved, to balance the load."""
    try:
        return bool((await worker.scheduler.who_has(keys=[token]))[token])
    except OSError:  # the scheduler cannot be reached, and may be again; without one this process ends
        return True
