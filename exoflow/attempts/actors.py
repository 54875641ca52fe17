"""An attempt at an actor's call: it takes the state that the call before has left, and leaves one (V7).

The state is the live object. It belongs to whoever has taken it: if an attempt has changed it and does not leave it, no
other one gets it. From a snapshot, the object is created again, as it was at first, and given its state then.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol, cast

from exoflow.attempts.inputs import Fetch, InputLost, arguments
from exoflow.attempts.running import Keep, raised, run_attempt, run_attempt_async
from exoflow.codec import Encoded, decode, encode, from_bytes, to_bytes
from exoflow.errors import CodecError, Corrupt, StorageError
from exoflow.model import INLINE_MAX_BYTES, CallId, Held, Inline, Stored, Value
from exoflow.protocols import Attempt, Outcome, Raised, Vanished

STATE = "!state"
"""Behind a call's id: the state that it has left."""


class States(Protocol):
    """The actors that live in one process."""

    def take(self, state: Held) -> object:
        """The object; the taker's alone from now on.

        Raises:
            KeyError: it is not here.
        """

    def keep(self, actor: object, attempt: Attempt) -> Held:
        """Hold the object that an attempt has left."""

    def put_back(self, actor: object, state: Held) -> None:
        """Hold the object as before: the attempt that took it did not begin."""

    def store(self, encoded: Encoded, name: str) -> Stored | None:
        """Store a snapshot; None: the store failed."""


class Creation:
    """Creates an actor. Pickled as its class."""

    def __init__(self, owner: type) -> None:
        self.owner = owner

    @cached_property
    def function(self) -> Callable[..., Any]:
        return cast(Callable[..., Any], self.owner.__init__)  # type: ignore[misc]  # of this very class

    def __call__(self, *args: Any, **kwargs: Any) -> object:
        return type.__call__(self.owner, *args, **kwargs)  # what stands on the class makes handles, in a flow

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.owner,)

    def __getattr__(self, name: str) -> Any:
        if name in ("__code__", "__qualname__", "__name__", "__module__", "__annotations__", "__wrapped__"):
            return self.function if name == "__wrapped__" else getattr(self.function, name)
        raise AttributeError(name)

    @cached_property
    def __signature__(self) -> inspect.Signature:
        """As its callers see it: without the object."""
        signature = inspect.signature(self.function)
        return signature.replace(parameters=list(signature.parameters.values())[1:], return_annotation=signature.empty)


class Method(Creation):
    """A method of an actor. Pickled as its class and its name, by which a worker finds it."""

    def __init__(self, owner: type, name: str) -> None:
        super().__init__(owner)
        self.name = name

    @cached_property
    def function(self) -> Callable[..., Any]:
        task: Any = inspect.getattr_static(self.owner, self.name)
        return cast(Callable[..., Any], task.function)

    def __call__(self, actor: object, /, *args: Any, **kwargs: Any) -> Any:
        return self.function(actor, *args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.owner, self.name)

    @cached_property
    def __signature__(self) -> inspect.Signature:
        signature = inspect.signature(self.function)
        return signature.replace(parameters=list(signature.parameters.values())[1:])


def run_actor(attempt: Attempt, fetch: Fetch, keep: Keep, states: States) -> Outcome:
    """``run_attempt`` for an actor's call.

    Raises:
        Interruption, KeyboardInterrupt, SystemExit: as that. The state is lost then.
    """
    turn = _Turn(attempt, fetch, states)
    return turn.lost() or turn.end(run_attempt(turn.body(), fetch, keep))


async def run_actor_async(attempt: Attempt, fetch: Fetch, keep: Keep, states: States) -> Outcome:
    """The same for an ``async def`` method.

    Raises:
        asyncio.CancelledError, Interruption, KeyboardInterrupt, SystemExit: likewise.
    """
    turn = _Turn(attempt, fetch, states)
    return turn.lost() or turn.end(await run_attempt_async(turn.body(), fetch, keep))


class _Turn:
    """One attempt, and the object that it has."""

    def __init__(self, attempt: Attempt, fetch: Fetch, states: States) -> None:
        assert attempt.actor is not None
        self._attempt = attempt
        self._part = attempt.actor
        self._fetch = fetch
        self._states = states
        self._actor: object = None
        self._has = False
        self._began = False
        self._snapshot: object = None
        self._created_from: tuple[tuple[Any, ...], Mapping[str, Any]] = ((), {})

    def lost(self) -> Outcome | None:
        """Get at the state; what became of the attempt, if that is gone."""
        part = self._part
        try:
            if part.state is not None:
                self._actor = self._states.take(part.state)
                self._has = True
            elif part.snapshot is not None:
                self._snapshot = self._read(part.snapshot)
                self._created_from = self._arguments_of_creation()
        except InputLost as lost:
            return lost.outcome
        except (KeyError, FileNotFoundError, Corrupt) as error:
            return Vanished(
                f"the state of the actor {part.origin} is lost: {type(error).__name__}: {error}",
                lost=(CallId(f"{part.holder}{STATE}"),),
            )
        except StorageError as error:
            return Vanished(f"the snapshot of the actor {part.origin} could not be read: {error}")
        except CodecError as error:
            return raised(error, 0.0)
        return None

    def _read(self, snapshot: Value) -> object:
        encoded = from_bytes(snapshot) if isinstance(snapshot, Inline) else self._fetch(snapshot)
        assert isinstance(encoded, Encoded)
        if encoded.checksums is not None:
            encoded.checksums.verify()
        own = tuple(memoryview(bytearray(buffer)) for buffer in encoded.buffers)  # methods may change its arrays
        return decode(encoded._replace(buffers=own, checksums=None))

    def _arguments_of_creation(self) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        create = self._part.create
        assert create is not None
        made = replace(
            self._attempt, function=create.function, args=create.args, kwargs=create.kwargs, encoded=create.encoded
        )
        return arguments(made, self._fetch, {})

    def body(self) -> Attempt:
        """The attempt as one at an ordinary call, whose function has the object."""
        function, part = self._attempt.function, self._part
        creates = part.state is None and part.snapshot is None

        def call(*args: Any, **kwargs: Any) -> Any:
            self._began = True
            if not self._has:
                self._create(function, args, kwargs) if creates else self._restore()
            return None if creates else function(self._actor, *args, **kwargs)

        call.__annotations__ = getattr(function, "__annotations__", {})
        call.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]  # it is what inspect looks for
        return replace(self._attempt, function=call, actor=None)

    def _create(self, function: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._actor = function(*args, **kwargs)
        self._has = True

    def _restore(self) -> None:
        create = self._part.create
        assert create is not None
        args, kwargs = self._created_from
        actor = create.function(*args, **kwargs)
        restore(actor, self._snapshot)
        self._actor, self._has, self._snapshot = actor, True, None

    def end(self, outcome: Outcome) -> Outcome:
        """The outcome, with the state that the attempt leaves."""
        part = self._part
        if isinstance(outcome, Vanished):
            if part.state is None or self._began:
                return outcome
            self._states.put_back(self._actor, part.state)
            return replace(outcome, state=part.state)
        snapshot: Value | None = None
        try:
            if not self._has and part.snapshot is not None:
                self._restore()  # its arguments could not be had, and the state is what it was
            if self._has and part.snapshot_to is not None:
                snapshot = self._taken(part.snapshot_to)
        except Exception as error:  # noqa: BLE001 -- __init__, __getstate__ and the like are the user's code
            if not isinstance(outcome, Raised):
                outcome = raised(error, outcome.seconds)
        if not self._has:
            return outcome
        return replace(outcome, state=self._states.keep(self._actor, self._attempt), snapshot=snapshot)

    def _taken(self, name: str) -> Value | None:
        encoded = snapshot_of(self._actor)
        return Inline(to_bytes(encoded)) if encoded.size <= INLINE_MAX_BYTES else self._states.store(encoded, name)


def snapshot_of(actor: object) -> Encoded:
    """The state of an actor as bytes; views of its memory, for as long as nobody changes it.

    Raises:
        CodecError: a part of it cannot be pickled; the message names the way to it.
    """
    name = type(actor).__name__
    try:
        encoded = encode(actor.__getstate__(), what=f"the state of {name}")
    except CodecError as error:
        raise CodecError(
            f"{error}. A snapshot is the actor's pickle, and __init__ runs again before it is restored: what that "
            f"makes may be left out"
        ) from error
    if encoded.refs:
        raise CodecError(f"the state of {name} holds the Ref to {encoded.refs[0]}: keep its value instead")
    return encoded


def restore(actor: Any, state: Any) -> None:
    """Give a new object the state of a snapshot, as pickle does."""
    set_state = getattr(actor, "__setstate__", None)
    if set_state is not None:
        set_state(state)
        return
    slots: Mapping[str, Any] = {}
    if isinstance(state, tuple) and len(state) == 2:
        state, slots = state[0], state[1] or {}
    plain = getattr(type(actor), "__getstate__", None) is object.__getstate__
    if plain and hasattr(actor, "__dict__"):
        actor.__dict__.clear()  # the state is all that there is, and what __init__ made is not
    if state:
        actor.__dict__.update(state)
    for name, value in slots.items():
        setattr(actor, name, value)
