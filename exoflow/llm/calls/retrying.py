"""Tries, until one is answered: with growing waits, and never before Retry-After says."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from exoflow.driver.spec import pause_s
from exoflow.llm.calls.failures import Failed
from exoflow.llm.calls.how import How

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Retries:
    """Of one request.

    Args:
        where: For people.
        may_go_on: Whether another try is wanted, as things stand.
        before_again: Waits for what else another try needs.
    """

    def __init__(
        self,
        how: How,
        where: str,
        *,
        may_go_on: Callable[[], bool] = lambda: True,
        before_again: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._how = how
        self._where = where
        self._may_go_on = may_go_on
        self._before_again = before_again
        self.lost = False
        """A try was sent, and what became of it is unknown."""

    async def answered(self, once: Callable[[], Awaitable[T]]) -> T:
        """What the first try gives that is answered.

        Raises:
            CallFailed: none is, or none would be.
        """
        number = 1
        while True:
            try:
                return await once()
            except Failed as failed:
                self.lost |= failed.sent
                wait_s = self._wait_s(failed, number)
                if wait_s is None:
                    raise failed.error(self._where, number, maybe_billed=self.lost) from failed.__cause__
                logger.debug("%s %s; again in %.2f s", self._where, failed.why, wait_s)
                if failed.wait_s is not None:
                    self._how.pace.hold(failed.wait_s)  # for all who call it
            await asyncio.sleep(wait_s)
            if self._before_again is not None:
                await self._before_again()
            number += 1

    def _wait_s(self, failed: Failed, number: int) -> float | None:
        if not failed.again or failed.wants_too_long or number > self._how.retries or not self._may_go_on():
            return None
        return max(pause_s(self._how.backoff, number, str(random.random())), failed.wait_s or 0.0)
