"""What a run was told from outside: which event takes which message, and what is known of effects in doubt."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

from exoflow import codec, conversion
from exoflow.driver.handle import Handle
from exoflow.driver.outcomes import take_value
from exoflow.journal.inbox import Message, payload_of
from exoflow.kernel.call import Call, State
from exoflow.model import INLINE_MAX_BYTES, CallId, Value, Version
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


class _Kept(NamedTuple):
    """A message that nobody else gets as long as this call waits for it."""

    handle: Handle
    version: Version
    number: int
    value: Value


class Inbox:
    """Events of one name are a queue: who waits first gets the first. To be used under the run's lock.

    A message that comes is kept for the first who waits. It is taken when that one's body looks: a body that has
    stopped to wait meanwhile has lost nothing. The taking is a choice, and recorded like one; when the choice falls,
    its message is there for the next who waits.
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
        self._recorded = set(self._taken.values())
        """Messages that were taken in an earlier epoch, and have not been read here."""
        self._kept: dict[CallId, _Kept] = {}
        self._free: dict[str, list[int]] = {}
        self._waiting: dict[str, dict[CallId, tuple[Handle, Version]]] = {}
        self._answers: dict[tuple[str, int], Message] = {}
        self._fallen = 0

    def add(self, messages: Sequence[Message]) -> bool:
        """Messages have come; whether one of them cancels the run."""
        cancels = False
        for message in messages:
            if message.number <= self.seen:
                continue
            self.seen = message.number
            if message.what == "cancel":
                cancels = True
            elif message.what != "event":
                self._answers[message.name, message.version] = message
            elif message.id is None or message.id not in self._ids:
                self._add_event(message)
        return cancels

    def _add_event(self, message: Message) -> None:
        if message.id is not None:
            self._ids.add(message.id)
        self._events[message.number] = message
        if message.number in self._recorded:
            self._recorded.discard(message.number)
        else:
            heappush(self._free.setdefault(message.name, []), message.number)

    def answer(self, call: CallId, version: Version) -> Message | None:
        """What somebody said of the effect that may have happened under this intent."""
        return self._answers.get((call, version))

    # -- events ------------------------------------------------------------------------------------------------------

    def holds(self, name: str) -> bool:
        """Whether there is an event of this name that nobody has taken, and that is kept for nobody."""
        self._reclaim()
        if not self._free.get(name):
            self._reclaim_past()
        return bool(self._free.get(name))

    def keeps(self, call: Call) -> bool:
        """Whether there is one that this call can take."""
        kept = self._kept.get(call.id)
        return kept is not None and _waits(call, kept.version)

    def take(self, call: Call) -> None:
        """Give the call what is kept for it."""
        handle, version, number, value = self._kept.pop(call.id)
        self._taken[call.id] = handle.message = number
        message = self._events[number]
        assert message.payload is not None
        if len(message.payload) > INLINE_MAX_BYTES:
            self._events[number] = message._replace(payload=None)  # nobody may ever ask for it again
        take_value(self._execution, handle, version, Computed(value, 0.0))

    def taken(self) -> dict[CallId, int]:
        """Which message each event has."""
        self._reclaim()
        return dict(self._taken)

    def check(self, name: str, data: object) -> None:
        """Refuse what those who wait for the event could not use.

        Raises:
            ValueError: it is not what they want; the message names the field.
        """
        for handle, version in self._waiting.get(name, {}).values():
            if _waits(handle.call, version):
                conversion.converted(data, handle.event_type)

    def wait(self, handle: Handle, version: Version) -> None:
        """A call waits for an event from now on."""
        self._give_back(handle.call.id)
        self._waiting.setdefault(handle.event_name, {})[handle.call.id] = handle, version
        self._serve(handle.event_name)

    def left(self, handle: Handle) -> None:
        """Its body waits for a call no more: what is kept for it goes to another call that takes it, or to others."""
        call = handle.call
        if call.state is not State.IDLE:
            if self.keeps(call):
                self.take(call)
            return
        self._waiting.get(handle.event_name, {}).pop(call.id, None)
        if call.id in self._kept:
            self._give_back(call.id)
            self._serve(handle.event_name)

    def serve(self) -> None:
        """Give events to those who wait for them."""
        for name in list(self._waiting):
            self._serve(name)

    def _serve(self, name: str) -> None:
        self._reclaim()
        if self._waiting.get(name) and not self._free.get(name):
            self._reclaim_past()
        waiting, free = self._waiting.get(name), self._free.get(name)
        while waiting and free:
            id = next(iter(waiting))
            handle, version = waiting[id]
            if not _waits(handle.call, version):
                del waiting[id]
                continue
            message = self._events[heappop(free)]
            value = self._fitting(message, handle)
            if value is not None:
                del waiting[id]
                self._keep(_Kept(handle, version, message.number, value))

    def _keep(self, kept: _Kept) -> None:
        handle = kept.handle
        call, execution = handle.call, self._execution
        self._kept[call.id] = kept
        if call.waiters or call.handed_out:
            self.take(call)  # another call takes it, or what a flow returned: no body will look
        else:
            handle.body.deliver(handle)
            execution.wake_onlookers(handle)

    def _fitting(self, message: Message, handle: Handle) -> Value | None:
        """The event's data as the call wants it. None: it is nothing of the kind, and no other event should suffer."""
        execution = self._execution
        if message.payload is None:
            message = message._replace(payload=payload_of(execution.values.store, execution.run_id, message.number))
            self._events[message.number] = message
        assert message.payload is not None
        encoded = codec.from_bytes(message.payload)
        if handle.event_type is not object:
            try:
                encoded = codec.encode(conversion.converted(codec.decode(encoded), handle.event_type))
            except Exception as error:  # noqa: BLE001 -- the sender's classes are imported here: anything can come
                logger.warning(
                    "%s: the event %r that was sent as message %d is passed over: %s",
                    execution.run_id, message.name, message.number, error,
                    extra={"run": execution.run_id, "call": handle.call.id},
                )  # fmt: skip
                return None
        return execution.values.keep(encoded)

    def _give_back(self, id: CallId) -> None:
        kept = self._kept.pop(id, None)
        if kept is None:
            number = self._taken.pop(id, None)
        else:
            number = kept.number
            kept.handle.order = 0
            self._execution.values.release(kept.value)
        if number is None:
            return
        message = self._events.get(number)
        if message is None:
            self._recorded.discard(number)  # it has not been read here yet
        else:
            heappush(self._free.setdefault(message.name, []), number)

    def _reclaim(self) -> None:
        """Messages whose takers have fallen are there for others. Most runs see no result fall."""
        kernel = self._execution.kernel
        if kernel.fallen != self._fallen:
            self._fallen = kernel.fallen
            fell = [id for id in self._taken if (call := kernel.calls.get(id)) and call.state is not State.DONE]
            fell += [id for id, kept in self._kept.items() if not _waits(kept.handle.call, kept.version)]
            for id in fell:
                self._give_back(id)

    def _reclaim_past(self) -> None:
        """The same for takers that no body will call again, since they stand on what has been made again."""
        kernel = self._execution.kernel
        if kernel.unattached:
            past = [id for id in self._taken if (call := kernel.calls.get(id)) and kernel.is_past(call)]
            for id in past:
                self._give_back(id)


def _waits(call: Call, version: Version) -> bool:
    return call.state is State.RUNNING and call.attempt == version
