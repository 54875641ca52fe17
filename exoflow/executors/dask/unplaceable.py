"""Attempts that no worker can ever have room for."""

from __future__ import annotations

import asyncio
import logging

from exoflow.errors import ExecutorError, UnsupportedStore
from exoflow.executors.dask.ending import Endings
from exoflow.executors.dask.placing import Waiting, show_needs
from exoflow.executors.dask.roster import Roster

_FIRST_S, _AGAIN_S = 5.0, 60.0
"""When it is said that attempts wait: a worker that died has been replaced by then."""

_log = logging.getLogger(__name__)


class Unplaceable:
    """Those among the waiting.

    Args:
        waiting: The attempts.
        roster: The workers.
        endings: Tells of those that are refused.
        is_own: Whether there will be no other workers.
    """

    def __init__(self, waiting: Waiting, roster: Roster, endings: Endings, *, is_own: bool) -> None:
        self._waiting = waiting
        self._roster = roster
        self._endings = endings
        self._is_own = is_own
        self._said: set[str] = set()

    def tell(self) -> None:
        """An error for each, where no other workers will come; else, if that lasts, a word to the log."""
        if self._roster.is_known:
            for needs in self._waiting.needs():
                if self._is_hopeless(needs):
                    self._tell_of(needs)

    def _is_hopeless(self, needs: dict[str, float]) -> bool:
        return not any(seat.can_ever(needs) for seat in self._roster.seats.values())

    def _tell_of(self, needs: dict[str, float]) -> None:
        error: BaseException | None = None
        if not self._roster.seats and self._roster.unusable:
            error = _unusable(next(iter(self._roster.unusable.values())))
        elif self._roster.seats and self._is_own:
            error = ExecutorError(
                f"no worker of the cluster on this machine has {show_needs(needs)}: correct the task's resources=, or "
                "connect to a cluster whose workers were started with them"
            )
        if error is not None:
            self._endings.refused(self._waiting.take_all(needs), error)
        elif (text := show_needs(needs)) not in self._said:
            self._said.add(text)
            asyncio.get_running_loop().call_later(_FIRST_S, self._say, needs, text)

    def _say(self, needs: dict[str, float], text: str) -> None:
        if self._roster.is_over or needs not in self._waiting.needs() or not self._is_hopeless(needs):
            self._said.discard(text)
            return
        if self._roster.seats:
            there = "no worker of the cluster has that"
        else:
            there = (
                f"the cluster has none now: {'Dask is starting it' if self._is_own else 'start one (cluster.scale(n))'}"
            )
        _log.warning("attempts wait for a Dask worker with %s; %s", text, there)
        asyncio.get_running_loop().call_later(_AGAIN_S, self._say, needs, text)


def _unusable(error: BaseException) -> BaseException:
    if isinstance(error, UnsupportedStore):
        return error
    return ExecutorError(f"no Dask worker can be used; the first says: {type(error).__name__}: {error}")
