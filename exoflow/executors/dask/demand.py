"""What waits for a worker, shown to a cluster that scales with its load: else it sees only what was placed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from distributed import Client, Future

from exoflow.executors.dask.placing import Waiting
from exoflow.executors.dask.worker import token_of

_LOOK_S = 1.0
"""How often it is shown anew; what waits for less long is not shown."""

_MAX = 100
"""Of how many attempts; no more of them than that ask for a worker each."""


class Demand:
    """Tasks at the scheduler that no worker can run, one for an attempt, under names whose durations Dask has measured.

    Args:
        client: Of the cluster.
        patron: The executor's id.
        waiting: The attempts.
        spawn: Starts a coroutine on the loop.
    """

    def __init__(
        self,
        client: Client,
        patron: str,
        waiting: Waiting,
        spawn: Callable[[Coroutine[Any, Any, object]], None],
    ) -> None:
        self._client = client
        self._token = token_of(patron)
        self._waiting = waiting
        self._spawn = spawn
        self._shown: dict[str, Future[int]] = {}
        self._is_showing = False

    def tell(self) -> None:
        """Something waits, or nothing any more."""
        if self._waiting and not self._is_showing:
            self._is_showing = True
            self._spawn(self._show())

    async def _show(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(_LOOK_S)
                wanted = [f"{name}-{self._token}-{n}" for n, name in enumerate(self._waiting.tasks(_MAX))]
                kept = {key: self._shown[key] for key in wanted if key in self._shown}
                for key in wanted:
                    kept[key] = kept.get(key) or self._client.submit(int, key=key, resources={self._token: 1})
                self._shown = kept  # the scheduler forgets the others with their futures
        finally:
            self._shown = {}
            self._is_showing = False
