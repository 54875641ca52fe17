"""The strands of an async body that sleep, each until there is news of what it waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from exoflow.driver.loops import Mailbox
from exoflow.kernel.call import Call


class Sleepers:
    """True: some sleep, and none has been woken up that has not gone on. Under the run's lock, all but ``sleep``."""

    __slots__ = ("_futures", "_watchers", "_woken_up", "mail", "pauses")

    def __init__(self) -> None:
        self.mail: Mailbox | None = None
        """The way into their loop, once the body runs in it."""
        self.pauses = 0
        """How often strands have slept."""
        self._futures: dict[Call, list[asyncio.Future[None]]] = {}
        self._woken_up: set[asyncio.Future[None]] = set()
        """Those whose strands have not gone on yet."""
        self._watchers: list[asyncio.Future[None]] = []

    def __bool__(self) -> bool:
        return bool(self._futures) and not self._woken_up

    def until_news(self, loop: asyncio.AbstractEventLoop, calls: Sequence[Call]) -> asyncio.Future[None]:
        """Done when there is news of one of these calls."""
        future: asyncio.Future[None] = loop.create_future()
        for call in calls:
            self._futures.setdefault(call, []).append(future)
        return future

    def until_change(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """Done when something about the run has changed."""
        future: asyncio.Future[None] = loop.create_future()
        self._watchers.append(future)
        return future

    async def sleep(self, future: asyncio.Future[None]) -> None:
        """Of one strand, in its loop."""
        self.pauses += 1
        try:
            await future
        finally:
            self._woken_up.discard(future)

    def wake_for(self, call: Call) -> None:
        """Whoever waits for it looks again."""
        futures = self._futures.pop(call, None)
        if futures and self.mail is not None:
            self._woken_up.update(future for future in futures if not future.done())
            self.mail.post(futures)

    def wake_all(self) -> None:
        """Whoever waits for a call looks again."""
        for call in list(self._futures):
            self.wake_for(call)

    def wake_watchers(self) -> None:
        """Something about the run has changed."""
        if self._watchers and self.mail is not None:
            watchers, self._watchers = self._watchers, []
            self.mail.post(watchers)
