"""What a run was told from outside: which event takes which message, and what is known of effects in doubt."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from exoflow import codec, conversion
from exoflow.driver.handle import Handle
from exoflow.driver.outcomes import take_value
from exoflow.journal.inbox import Message
from exoflow.kernel.state import State
from exoflow.model import CallId, Value, Version
from exoflow.protocols import Computed

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution

logger = logging.getLogger(__name__)


def check_event_name(name: object) -> None:
    """Refuse what cannot name an event.

    Raises:
        TypeError, ValueError: it is no text, or empty.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of an event must be text, not {name!r}")
    if not name:
        raise ValueError("the name of an event must not be empty")


class Inbox:
    """Events of one name are a queue: who waits first gets the first. To be used under the run's lock.

    The taking is a choice, and recorded like one. When the choice falls, its message is there for the next who waits.
    """

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self.reading = threading.Lock()
        """Held by whoever brings messages here from the store."""
        self.seen = 0
        """The number of the last message that is known here."""
        self._events: dict[int, Message] = {}
        self._ids: set[str] = set()
        self._taken = dict(execution.history.events)
        self._free: dict[str, list[int]] = {}
        self._waiting: dict[str, dict[CallId, tuple[Handle, Version]]] = {}
        self._answers: dict[tuple[str, int], Message] = {}
        self._fallen = 0

    def add(self, messages: Sequence[Message]) -> bool:
        """Messages have come; whether one of them cancels the run."""
        cancels = False
        taken = set(self._taken.values())
        for message in messages:
            if message.number <= self.seen:
                continue
            self.seen = message.number
            if message.what == "cancel":
                cancels = True
            elif message.what != "event":
                self._answers[message.name, message.version] = message
            elif message.id is None or message.id not in self._ids:
                self._events[message.number] = message
                if message.number not in taken:
                    heappush(self._free.setdefault(message.name, []), message.number)
                if message.id is not None:
                    self._ids.add(message.id)
        return cancels

    def answer(self, call: CallId, version: Version) -> Message | None:
        """What somebody said of the effect that may have happened under this intent."""
        return self._answers.get((call, version))

    # -- events ------------------------------------------------------------------------------------------------------

    def holds(self, name: str) -> bool:
        """Whether there is an event of this name that nobody has taken."""
        self._reclaim()
        return bool(self._free.get(name))

    def taken(self) -> dict[CallId, int]:
        """Which message each event has."""
        self._reclaim()
        return dict(self._taken)

    def check(self, name: str, data: object) -> None:
        """Refuse what those who wait for the event could not use.

        Raises:
            ValueError: it is not what they want; the message names the field.
        """
        for handle, _ in self._waiting.get(name, {}).values():
            conversion.converted(data, handle.event_type)

    def wait(self, handle: Handle, version: Version) -> None:
        """A call waits for an event from now on."""
        self._give_back(handle.call.id)
        self._waiting.setdefault(handle.event_name, {})[handle.call.id] = handle, version
        self._serve(handle.event_name)

    def serve(self) -> None:
        """Give events to those who wait for them."""
        for name in list(self._waiting):
            self._serve(name)

    def _serve(self, name: str) -> None:
        self._reclaim()
        waiting, free = self._waiting[name], self._free.get(name)
        while waiting and free:
            id = next(iter(waiting))
            handle, version = waiting[id]
            call = handle.call
            if call.state is not State.RUNNING or call.attempt != version:
                del waiting[id]  # it was left, or has fallen
                continue
            message = self._events[heappop(free)]
            value = self._fitting(message, handle)
            if value is not None:
                del waiting[id]
                self._taken[id] = handle.message = message.number
                take_value(self._execution, handle, version, Computed(value, 0.0))

    def _fitting(self, message: Message, handle: Handle) -> Value | None:
        """The event's data as the call wants it. None: it is nothing of the kind, and no other event should suffer."""
        assert message.payload is not None
        encoded = codec.from_bytes(message.payload)
        if handle.event_type is not object:
            try:
                encoded = codec.encode(conversion.converted(codec.decode(encoded), handle.event_type))
            except ValueError as error:
                logger.warning(
                    "%s: the event %r that was sent as message %d is passed over: %s",
                    self._execution.run_id, message.name, message.number, error,
                    extra={"run": self._execution.run_id, "call": handle.call.id},
                )  # fmt: skip
                return None
        return self._execution.values.keep(encoded)

    def _give_back(self, id: CallId) -> None:
        number = self._taken.pop(id, None)
        if number is not None and number in self._events:
            heappush(self._free.setdefault(self._events[number].name, []), number)

    def _reclaim(self) -> None:
        """Messages whose takers have fallen are there for others. Most runs see no result fall."""
        kernel = self._execution.kernel
        if kernel.fallen != self._fallen:
            self._fallen = kernel.fallen
            for id in [id for id in self._taken if (call := kernel.calls.get(id)) and call.state is not State.DONE]:
                self._give_back(id)
