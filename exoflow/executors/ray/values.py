"""Values on a Ray cluster: how they get there, where they lie, and how to get at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import ray
from ray import ObjectRef
from ray.exceptions import ObjectLostError, RayError, RayTaskError

from exoflow.codec import Encoded, Live, as_encoded, decode_error
from exoflow.errors import StorageError
from exoflow.executors.actors.living import is_state
from exoflow.executors.ordering import Carrier, Functions, actor_order, order_of
from exoflow.executors.ray.cluster import Cluster
from exoflow.executors.ray.savers import Savers
from exoflow.executors.ray.worker import boxed, setup_of, unboxed
from exoflow.executors.wire import ActorOrder, pack_order, unpack_saved
from exoflow.model import INLINE_MAX_BYTES, CallId, Held, Stored, Value
from exoflow.protocols import Attempt, Computed, Outcome


class RayHandle:
    """One of the values in an object of Ray's; freed when the last handle to the object has been released."""

    __slots__ = ("place", "ref", "session")

    def __init__(self, ref: ObjectRef[Any], place: int, session: int) -> None:
        self.ref: ObjectRef[Any] | None = ref
        self.place = place
        self.session = session


class Values:
    """The values of one executor."""

    def __init__(self, name: str, cluster: Cluster, carrier: Carrier) -> None:
        self.name = name
        self.setup = setup_of(carrier.store_code)
        self._cluster = cluster
        self._carrier = carrier
        self._functions = Functions()
        self._savers = Savers()

    def must_be_carried(self, attempt: Attempt) -> bool:
        """Whether something large has to be brought to the cluster for it."""
        creating = None if attempt.actor is None else attempt.actor.create
        for encoded in (attempt.encoded, None if creating is None else creating.encoded):
            if encoded is not None and cast(Encoded, encoded).size > INLINE_MAX_BYTES:
                return True
        return any(isinstance(value, Held) and value.executor != self.name for value in attempt.inputs.values())

    def order(self, attempt: Attempt, lenders: dict[str, CallId]) -> tuple[bytes, list[ObjectRef[Any]]]:
        """The attempt as its worker gets it, and the objects that it needs.

        Args:
            attempt: What to send.
            lenders: Is told, by the id of each object, whose value lies there.

        Raises:
            KeyError: an input is lost; the call is its argument.
            CodecError, StorageError: it cannot be sent.
        """
        boxes: list[ObjectRef[Any]] = []

        def send(found: Encoded | Live) -> Held:
            if isinstance(found, Live) and found.engine != "ray":
                found = as_encoded(found)
            boxes.append(ray.put([boxed(found)]))
            return Held(self.name, (len(boxes) - 1, 0), found.size)

        def lent(call: CallId, value: Value) -> Value:
            if not isinstance(value, Held) or not isinstance(value.handle, RayHandle):
                return value
            handle = value.handle
            ref = self._ref_of(handle)
            if ref is None:
                raise KeyError(call)
            lenders[ref.hex()] = call
            boxes.append(ref)
            return Held(self.name, (len(boxes) - 1, handle.place), value.size)

        inputs = {
            call: lent(call, self._carrier.input(attempt, call, value, send)) for call, value in attempt.inputs.items()
        }
        actor: ActorOrder | None = None
        if attempt.actor is not None:
            actor = actor_order(attempt, self._functions, set(), send, partial(lent, attempt.call))
        return pack_order(order_of(attempt, self._functions.code_of(attempt), inputs, send, actor)), boxes

    def named(self, outcome: Outcome, values: ObjectRef[Any] | None) -> Outcome:
        """The outcome, its large values by handle."""
        session = self._cluster.session

        def named(value: Value) -> Value:
            if not isinstance(value, Held):
                return value
            assert values is not None
            return Held(self.name, RayHandle(values, cast(int, value.handle), session), value.size)

        if not isinstance(outcome, Computed):
            return outcome
        puts = tuple((call, named(value)) for call, value in outcome.puts) if outcome.puts else ()
        return replace(outcome, value=named(outcome.value), puts=puts)

    def fetch(self, value: Held) -> Encoded | Live:
        """As the executor's."""
        if is_state(value):
            raise KeyError("the state of an actor is in its process: it can be saved")
        handle = cast(RayHandle, value.handle)
        ref = self._ref_of(handle)
        if ref is None:
            raise KeyError("the value was released or lost")
        try:
            return unboxed(self._cluster.get(ref)[handle.place])
        except RayError as error:
            raise KeyError(f"the value is lost: {summary(error)}") from error

    def save(self, values: Sequence[Held], name: str) -> list[Stored] | BaseException:
        """Have a worker write values of one outcome to one object, from where they lie; what became of it."""
        handles = [cast(RayHandle, value.handle) for value in values]  # all in one box
        ref = self._ref_of(handles[0])
        if ref is None:
            return KeyError("the value was released or lost")
        try:
            places = [handle.place for handle in handles]
            saved = self._cluster.get(self._savers.write(handles[0].session, self.setup, name, places, ref))
        except RayTaskError as error:
            if isinstance(error.cause, ObjectLostError):
                return KeyError(f"the value is lost: {summary(error.cause)}")
            return StorageError(f"cannot save {name}: {summary(error.cause)}")
        except RayError as error:
            self._savers.close()  # one of them has died
            return StorageError(f"cannot save {name}: the worker that was to write it died: {summary(error)}")
        return decode_error(saved) if isinstance(saved, bytes) else cast(list[Stored], saved)

    def close(self) -> None:
        """Nothing is saved any more."""
        self._savers.close()

    def saved_state(self, answer: ObjectRef[Any] | None) -> Stored | BaseException:
        """What became of saving a state, which is under way; None: it was gone."""
        if answer is None:
            return KeyError("the state was released or lost")
        try:
            return unpack_saved(self._cluster.get(answer))
        except RayError as error:
            return KeyError(f"the state is lost: {summary(error)}")

    def _ref_of(self, handle: RayHandle) -> ObjectRef[Any] | None:
        """The object that the value lies in, if it is there still."""
        return handle.ref if self._cluster.has(handle.session) else None


def summary(error: BaseException) -> str:
    """The error in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
