"""How an attempt ends on the cluster: what became of it, what it leaves there, and who is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from distributed import Future

from exoflow.attempts import raised
from exoflow.attempts.actors import STATE
from exoflow.executors.dask.entry import Entry
from exoflow.executors.dask.values import Holdings
from exoflow.model import CallId, Held
from exoflow.protocols import Computed, Outcome, Vanished

Tell = Callable[[Sequence[tuple[Entry, Outcome]]], None]


class Endings:
    """Each entry is told of once. On the client's loop.

    Args:
        name: The executor's.
        holdings: The values that it holds.
        tell: Is told of outcomes; it must not block.
    """

    def __init__(self, name: str, holdings: Holdings, tell: Tell) -> None:
        self._name = name
        self._holdings = holdings
        self.tell = tell

    def outcome_of(
        self, entry: Entry, future: Future[bytes] | None, outcome: Outcome | None, why_lost: str
    ) -> Outcome | None:
        """What became of an entry whose future has ended; None: it has been told of, or was placed again."""
        wanted = entry.future is future and not entry.settled
        for key in _held_keys(outcome) if isinstance(outcome, Computed) else []:
            self._holdings.hold(key, "" if entry.seat is None else entry.seat.address)
            if not wanted:
                self._holdings.release(key)
        if not wanted:
            return None
        self.close(entry)
        return self._vanished(entry, entry.reason or why_lost) if outcome is None else outcome

    def close(self, entry: Entry) -> bool:
        """It is not on the cluster any more; whether nobody has been told of it yet."""
        self.take_off(entry)
        self.release_sent(entry)
        settled, entry.settled = entry.settled, True
        return not settled

    def take_off(self, entry: Entry) -> None:
        """It has no place any more, and no task."""
        if entry.future is not None:
            entry.future.release()
            entry.future = None
        if entry.seat is not None:
            entry.seat.give_back(entry)

    def release_sent(self, entry: Entry) -> None:
        for key in entry.sent:
            self._holdings.release(key)

    def vanished(self, entries: Iterable[Entry], reason: str, *, begun: bool = True) -> None:
        """Tell of entries that ended without a word, for the reason, unless they were to be stopped for another."""
        told = [
            (entry, replace(self._vanished(entry, entry.reason or reason), state=None if begun else entry.state))
            for entry in entries
            if not entry.settled
        ]
        for entry, _ in told:
            self.close(entry)
        self.tell(told)

    def refused(self, entries: Iterable[Entry], error: BaseException) -> None:
        """Tell of entries that certainly have not begun."""
        outcome = raised(error, 0.0, rolled_back=True)
        self.tell([(entry, replace(outcome, state=entry.state)) for entry in entries if self.close(entry)])

    def state_lost(self, entry: Entry) -> None:
        """Tell that the state that it was to take is gone, so that nothing was run."""
        part = entry.attempt.actor
        assert part is not None
        if self.close(entry):
            lost = (CallId(f"{part.holder}{STATE}"),)
            self.tell([(entry, Vanished(f"the state of the actor {part.origin} is lost", lost=lost))])

    def _vanished(self, entry: Entry, reason: str) -> Vanished:
        """With the inputs that are gone, if that is why."""
        lost = tuple(
            call
            for call, value in entry.attempt.inputs.items()
            if isinstance(value, Held) and value.executor == self._name and not self._holdings.has(str(value.handle))
        )
        return Vanished(f"{reason}; its input {lost[0]} is lost", lost=lost) if lost else Vanished(reason)


def _held_keys(outcome: Computed) -> list[str]:
    values = [outcome.value, *(value for _, value in outcome.puts)]
    return [str(value.handle) for value in values if isinstance(value, Held)]
