"""Where each call's value is, and how to get at it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from exoflow import codec
from exoflow.errors import CodecError, Corrupt
from exoflow.model import INLINE_MAX_BYTES, CallId, Held, Inline, Stored, Value, Version
from exoflow.protocols import Executor, Store

DRIVER = "driver"

KEPT_MAX_BYTES = 256 << 20
"""Of all runs of a process together: values that are saved, and stay where they are for the next who reads them."""


class Room:
    """Bytes that many runs share."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Whether there was room for so much; then it is taken."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True

    def give_back(self, size: int) -> None:
        with self._lock:
            self._left += size


_room = Room(KEPT_MAX_BYTES)


class ValueLost(Exception):
    """An executor has lost a value that is needed here; ``args`` is its call."""


class Values:
    """The values of one run by call id, those of ``put`` among them, and the errors."""

    def __init__(self, store: Store, executors: Mapping[str, Executor]) -> None:
        self.store = store
        self.executors = executors
        self.at: dict[CallId, Value] = {}
        self.errors: dict[CallId, bytes] = {}
        self.states: dict[CallId, Held] = {}
        """Live states of actors, by the calls that have left them."""
        self.snapshots: dict[CallId, Value] = {}
        """States that are saved, likewise."""
        self._taken: dict[Version, tuple[CallId, Held]] = {}
        self._given: dict[Version, list[Held]] = {}
        self._users: dict[int, int] = {}
        self._unwanted: dict[int, Held] = {}
        self.kept: OrderedDict[Stored, Held] = OrderedDict()
        """Saved values, where they can be had without the store; the least used first."""
        self._shown: dict[CallId, codec.Live] = {}
        """Engines' objects that a body has seen, and may pass on."""

    def give(self, version: Version, values: Iterable[Value]) -> None:
        """An attempt is given these: what of them is released now stays until ``take_back`` (V9)."""
        held = [value for value in values if isinstance(value, Held) and value.executor != DRIVER]
        if held:
            self._given[version] = held
            for value in held:
                self._users[id(value)] = self._users.get(id(value), 0) + 1

    def take_back(self, version: Version) -> None:
        """The attempt has ended."""
        for value in self._given.pop(version, ()):
            self._users[id(value)] -= 1
            if not self._users[id(value)]:
                del self._users[id(value)]
                self.release(self._unwanted.pop(id(value), None))

    def take_state(self, holder: CallId, version: Version) -> Held:
        """The live state that a call has left, for an attempt that will change it."""
        state = self.states.pop(holder)
        self._taken[version] = holder, state
        return state

    def end_turn(self, version: Version, *, given_back: bool) -> None:
        """The attempt has ended, and has the state no more. ``given_back``: it is as it was."""
        taken = self._taken.pop(version, None)
        if taken is not None and given_back and taken[0] not in self.states:
            self.states[taken[0]] = taken[1]
        elif taken is not None:
            self.release(taken[1])

    def place_state(self, id: CallId, state: Held | None, snapshot: Value | None) -> None:
        """What state a call has left."""
        if state is not None:
            older = self.states.get(id)
            self.states[id] = state
            self.release(older)
        if snapshot is not None:
            self.snapshots[id] = snapshot

    def keep(self, encoded: codec.Encoded) -> Value:
        """A value that the driver itself has: small ones inline, large ones held here."""
        if encoded.size <= INLINE_MAX_BYTES:
            return Inline(codec.to_bytes(encoded))
        return Held(DRIVER, encoded, encoded.size)

    def fetch(self, value: Value) -> codec.Encoded:
        """The encoded value, from wherever it lies.

        Raises:
            KeyError: its executor has lost it.
            Corrupt: the object is gone from the store or damaged.
        """
        return codec.as_encoded(self._found(value))

    def _found(self, value: Value) -> codec.Encoded | codec.Live:
        if isinstance(value, Inline):
            return codec.from_bytes(value)
        if isinstance(value, Stored):
            kept = self._nearest(value)
            if kept is not value:
                try:
                    return self._found(kept)
                except KeyError:  # its executor has lost it; the store has not
                    self._let_go(value)
            try:
                return codec.read_stored(self.store, value)
            except FileNotFoundError as error:
                raise Corrupt(f"the value {value.name} is gone from the store {self.store.url}") from error
        if value.executor == DRIVER:
            assert isinstance(value.handle, codec.Encoded)
            return value.handle
        found = self.executors[value.executor].fetch(value)
        assert isinstance(found, codec.Encoded | codec.Live)
        return found

    def given(self, id: CallId) -> Value:
        """The value as an attempt or a body gets it: where it was made, rather than read back from the store."""
        return self._nearest(self.at[id])

    def _nearest(self, value: Value) -> Value:
        kept = self.kept.get(value) if isinstance(value, Stored) else None
        if kept is None:
            return value
        assert isinstance(value, Stored)
        self.kept.move_to_end(value)
        return kept

    def saved(self, id: CallId, stored: Stored) -> None:
        """The value is in the store. Where there is room it stays where it was made, too."""
        held = self.at[id]
        assert isinstance(held, Held)
        self.at[id] = stored
        while not _room.take(held.size):
            if not self.kept:
                self.release(held)
                return
            self._let_go(next(iter(self.kept)))
        self.kept[stored] = held

    def only_stored(self, id: CallId) -> None:
        """Whoever was given a saved value could not read it: from now on it is read from the store."""
        value = self.at.get(id)
        if isinstance(value, Stored):
            self._let_go(value)

    def _let_go(self, stored: Stored) -> None:
        held = self.kept.pop(stored, None)
        if held is not None:
            _room.give_back(held.size)
            self.release(held)

    def _whole(self, id: CallId) -> codec.Encoded | codec.Live:
        """The encoded value, checked.

        Raises:
            KeyError: its executor has lost it.
            Corrupt: its object is gone or damaged.
        """
        found = self._found(self.at[id])
        if isinstance(found, codec.Encoded) and found.checksums is not None:
            found.checksums.verify()
        return found

    def value_of_ref(self, id: CallId) -> object:
        """What stands for a Ref in arguments by value; one that is passed on stays a Ref.

        Raises:
            ValueLost: its executor has lost it, or the store.
        """
        if id not in self.at:
            return codec.make_reference(id)
        try:
            found = self._whole(id)
        except (KeyError, Corrupt) as error:
            raise ValueLost(id) from error
        if isinstance(found, codec.Live):
            return found
        return codec.decode(found, lookup=self.value_of_ref, bring=self.engine_object)

    def engine_object(self, id: CallId, kind: str) -> object:
        """The engine's object that stands in a value.

        Raises:
            ValueLost: as ``value_of_ref``.
        """
        return codec.engine_object(kind, self.value_of_ref(id))

    def show(self, id: CallId, kind: str) -> object:
        """The same for a body, which may pass it on."""
        thing = self.engine_object(id, kind)
        self._shown[id] = codec.Live(kind, thing)
        return thing

    def recognise(self, live: codec.Live) -> CallId:
        """Which call's engine object it is that a body passes on.

        Raises:
            CodecError: no task of this run has returned it.
        """
        for id, shown in self._shown.items():
            if shown.thing is live.thing or (type(shown.thing) is type(live.thing) and shown.thing == live.thing):
                return id
        raise CodecError(
            f"a {live.kind} that no task of this run has returned cannot be restored if its cluster dies: make it in a "
            "task, and return it from there"
        )

    def error(self, id: CallId) -> BaseException:
        return codec.decode_error(self.errors[id])

    def save(
        self, values: Sequence[Value], name: str, report: Callable[[Sequence[Stored] | BaseException], None]
    ) -> None:
        """Write held values of one outcome to one object, from where they lie; reports from another thread."""
        held = [value for value in values if isinstance(value, Held)]
        if len(held) > 1:
            self.executors[held[0].executor].save_together(held, name, report)
            return
        value = values[0]

        def report_one(saved: Stored | BaseException) -> None:
            report([saved] if isinstance(saved, Stored) else saved)

        if isinstance(value, Held) and value.executor != DRIVER:
            self.executors[value.executor].save(value, name, report_one)
            return
        threading.Thread(target=self._write, args=(value, name, report_one), name="exoflow-save", daemon=True).start()

    def _write(self, value: Value, name: str, report: Callable[[Stored | BaseException], None]) -> None:
        try:
            encoded = self.fetch(value)
            self.store.create(name, *codec.to_parts(encoded))
            report(Stored(name, encoded.size))
        except BaseException as error:  # noqa: BLE001 -- whatever it was, somebody waits for the report
            report(error)

    def place(self, id: CallId, value: Value) -> None:
        """The call's value from now on; what an executor holds of an older one goes."""
        older = self.at.get(id)
        self.at[id] = value
        self._shown.pop(id, None)
        if older is not None:
            self.release(older)

    def release(self, value: Value | None) -> None:
        if not isinstance(value, Held) or value.executor == DRIVER:
            return
        if id(value) in self._users:
            self._unwanted[id(value)] = value
        else:
            self.executors[value.executor].release(value)

    def release_all(self) -> None:
        """The run has ended, here at least: nobody will ask for what executors hold of it."""
        self._shown.clear()
        for value in self.at.values():
            if type(value) is Held:
                self.release(value)
        for _, taken in self._taken.values():
            self.release(taken)
        for state in self.states.values():
            self.release(state)
        self.states.clear()
        while self.kept:
            self._let_go(next(iter(self.kept)))


def payload_of(value: Value | None) -> Any:
    """A value as it stands in a record."""
    if isinstance(value, Inline):
        return value
    if isinstance(value, Stored):
        return ["@", value.name, value.size, *(value.at or ())]
    return None


def value_of(payload: Any) -> Value | None:
    """The other way round."""
    if payload is None:
        return None
    if isinstance(payload, bytes):
        return Inline(payload)
    _, name, size, *at = payload
    return Stored(name, size, tuple(at) or None)
