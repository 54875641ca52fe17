"""The thread that an engine computes in: it steps, and everybody else orders and asks."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from exoflow.errors import LLMError

if TYPE_CHECKING:
    from exoflow.llm.engine.core import Core

logger = logging.getLogger(__name__)
T = TypeVar("T")
Order = tuple[Callable[[], None], Callable[[LLMError], None]]
"""What the engine's thread is to do, and who is told if it will not be done."""


class EngineThread:
    """Of one engine. All methods from any thread."""

    def __init__(self) -> None:
        self.error: LLMError | None = None
        """Why it has stopped, if it has."""
        self._changed = threading.Condition()
        self._orders: deque[Order] = deque()
        self._woken = False
        self._closing = False

    def start(self, core: Core) -> None:
        """From now on it steps."""
        self._core = core
        self._thread = threading.Thread(target=self._run, name="exoflow-llm-engine", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End what runs. Safe to call twice; the thread itself does not wait for its end."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def order(self, order: Callable[[], None], otherwise: Callable[[LLMError], None] = lambda error: None) -> None:
        """Have the engine's thread do this before its next step."""
        with self._changed:
            if not self._closing:
                self._orders.append((order, otherwise))
                self._changed.notify_all()
                return
        otherwise(self.error or LLMError("the engine is closed"))

    def ask(self, question: Callable[[], T]) -> T:
        """What it says to this before its next step.

        Raises:
            LLMError: it has stopped, or the question raised it.
        """
        answered, result = threading.Event(), []
        failed: list[LLMError] = []

        def order() -> None:
            try:
                result.append(question())
            except LLMError as error:
                failed.append(error)
            answered.set()

        def closed(error: LLMError) -> None:
            failed.append(error)
            answered.set()

        self.order(order, closed)
        answered.wait()
        if failed:
            raise failed[0]
        return result[0]

    def wake(self) -> None:
        """From a thread that has brought an adapter."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            while self._take_orders():
                if not self._core.step():
                    self._wait()
        except Exception as error:  # whatever it is, those who wait must hear of it
            logger.exception("the engine has stopped")
            self.error = _stopped_by(error)
        self._end(self.error or LLMError("the engine was closed"))

    def _end(self, error: LLMError) -> None:
        with self._changed:
            self._closing = True
        while self._orders:
            self._orders.popleft()[1](error)
        self._core.close(error)

    def _take_orders(self) -> bool:
        """Do what others asked for; False: the engine is to close."""
        with self._changed:
            self._woken = False
            count = len(self._orders)
        for _ in range(count):
            order, otherwise = self._orders.popleft()
            try:
                order()
            except Exception as error:
                otherwise(_stopped_by(error))
                raise
        return not self._closing

    def _wait(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._orders or self._woken or self._closing, self._core.wait_s())


def _stopped_by(error: Exception) -> LLMError:
    # Everybody hears of it: what somebody asked may stand in the error, and does not in this one.
    return LLMError(f"the engine has stopped by {type(error).__name__}: its log says more")
