"""The actors that live in one process, and how attempts get at them."""

from __future__ import annotations

import threading
from typing import cast

from exoflow.codec import Encoded
from exoflow.executors.reading import StoredValues
from exoflow.model import Held, Stored
from exoflow.protocols import Attempt


class LiveActor:
    """An actor of this process, until somebody takes it."""

    __slots__ = ("actor",)

    def __init__(self, actor: object) -> None:
        self.actor: object | None = actor


class LocalActors:
    """Actors in the process of the executor itself: their handles hold them."""

    def __init__(self, executor: str, stored: StoredValues) -> None:
        self._executor = executor
        self._stored = stored
        self._lock = threading.Lock()

    def take(self, state: Held) -> object:
        handle = cast(LiveActor, state.handle)
        with self._lock:
            actor, handle.actor = handle.actor, None
        if actor is None:
            raise KeyError("it was released or lost, or another attempt has it")
        return actor

    def look_at(self, state: Held) -> object:
        """The object, which nobody changes meanwhile.

        Raises:
            KeyError: it is not here.
        """
        actor = cast(LiveActor, state.handle).actor
        if actor is None:
            raise KeyError("it was released or lost, or an attempt has it")
        return actor

    def keep(self, actor: object, attempt: Attempt) -> Held:
        return Held(self._executor, LiveActor(actor), 0)

    def put_back(self, actor: object, state: Held) -> None:
        cast(LiveActor, state.handle).actor = actor

    def store(self, encoded: Encoded, name: str) -> Stored | None:
        return self._stored.try_write(encoded, name)


class WorkerActors:
    """Actors in a worker of an executor: their handles are ``(place, key)``, the place being the worker's."""

    def __init__(self, executor: str, place: str, stored: StoredValues) -> None:
        self._executor = executor
        self._place = place
        self._stored = stored
        self._actors: dict[str, object] = {}

    def take(self, state: Held) -> object:
        return self._actors.pop(key_of(state))

    def look_at(self, state: Held) -> object:
        """As of ``LocalActors``."""
        return self._actors[key_of(state)]

    def keep(self, actor: object, attempt: Attempt) -> Held:
        key = f"{attempt.run_id}/{attempt.call}@{attempt.version:x}"
        self._actors[key] = actor
        return Held(self._executor, (self._place, key), 0)

    def put_back(self, actor: object, state: Held) -> None:
        self._actors[key_of(state)] = actor

    def store(self, encoded: Encoded, name: str) -> Stored | None:
        return self._stored.try_write(encoded, name)

    def release(self, state: Held) -> None:
        """Nobody will ask for it again."""
        self._actors.pop(key_of(state), None)


def is_state(value: Held) -> bool:
    """Whether a worker's value is the state of an actor, rather than bytes."""
    return isinstance(value.handle, tuple | list)


def key_of(state: Held) -> str:
    """What a worker calls a state."""
    return cast(tuple[str, str], state.handle)[1]


def place_of(state: Held) -> str:
    """The worker that has it."""
    return cast(tuple[str, str], state.handle)[0]
