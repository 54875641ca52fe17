"""The worker's end of an order, in whichever process an executor has workers: the order in, its outcome out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any

from exoflow.attempts import is_async, raised, run_attempt, run_attempt_async
from exoflow.codec import Encoded, Live, decode, from_bytes
from exoflow.codec.mainfile import finding_code
from exoflow.errors import Interruption
from exoflow.executors.reading import StoredValues
from exoflow.executors.wire import Order
from exoflow.hooks import reach
from exoflow.model import Held, Inline, Stored, Value
from exoflow.protocols import Attempt, Outcome, Vanished

Read = Callable[[Held], Encoded | Live]
"""Reads a value that the executor holds; KeyError or FileNotFoundError where it is lost."""

Hold = Callable[[Encoded | Live], Held]
"""Keeps a value over 64 KiB, or an engine's object, where the executor's workers can read it."""

FUNCTIONS_MAX = 1000
"""Of one worker. Lambdas made in a loop are functions without end."""


class Performer:
    """Performs orders of one store. Keeps the functions that it has seen. Threads may share one."""

    def __init__(self, stored: StoredValues) -> None:
        self._stored = stored
        self._functions: dict[bytes, Any] = {}

    def perform(self, order: Order, read: Read, hold: Hold, begins: Callable[[], None] | None = None) -> Outcome:
        """Run the order's body to its end. ``begins`` is called before, when the user's module has been loaded.

        Raises:
            KeyboardInterrupt, SystemExit: as ``run_attempt``.
        """
        started = perf_counter()
        try:
            attempt = Attempt(
                run_id=order.run_id,
                call=order.call,
                version=order.version,
                number=order.number,
                key=order.key,
                task=order.task,
                function=self._function(order),
                args=(),
                kwargs={},
                inputs=order.inputs,
                save_to=order.save_to,
                encoded=self._fetch(order.arguments, read),
            )
            return self._run(attempt, read, hold, begins)
        except Interruption as error:
            return Vanished(f"its body ended with {type(error).__name__}", perf_counter() - started)
        except BaseException as error:  # noqa: BLE001 -- the attempt boundary: loading the user's module raised
            return raised(error, perf_counter() - started)

    def _run(self, attempt: Attempt, read: Read, hold: Hold, begins: Callable[[], None] | None) -> Outcome:
        returned = False

        def fetch(value: Value) -> Encoded | Live:
            return self._fetch(value, read)

        def keep(made: Encoded | Live, name: str | None) -> Value:
            nonlocal returned
            returned = True
            reach("worker.returned")
            stored = None if name is None else self._stored.try_write(made, name)
            value: Value = stored or hold(made)
            reach("worker.value_written")
            return value

        reach("worker.pre")
        if begins is not None:
            begins()
        if is_async(attempt.function):
            outcome = asyncio.run(run_attempt_async(attempt, fetch, keep))
        else:
            outcome = run_attempt(attempt, fetch, keep)
        if not returned:
            reach("worker.returned")
        return outcome

    def _function(self, order: Order) -> Any:
        function = self._functions.get(order.function)
        if function is None:
            assert order.code is not None, "the executor believes that this worker knows the function"
            if len(self._functions) >= FUNCTIONS_MAX:
                self._functions.clear()
            with finding_code():
                function = self._functions[order.function] = decode(from_bytes(order.code))
        return function

    def _fetch(self, value: Value, read: Read) -> Encoded | Live:
        match value:
            case Inline(data):
                return from_bytes(data)
            case Stored():
                return self._stored.read(value)
            case Held():
                return read(value)
