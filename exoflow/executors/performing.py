"""The worker's end of an order, in whichever process an executor has workers: the order in, its outcome out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from exoflow.attempts import Fetch, Keep, is_async, raised, run_attempt, run_attempt_async
from exoflow.attempts.actors import States, run_actor, run_actor_async, snapshot_of
from exoflow.codec import Encoded, Live, decode, encode_error, from_bytes
from exoflow.codec.mainfile import finding_code
from exoflow.errors import Interruption
from exoflow.executors.actors.living import WorkerActors
from exoflow.executors.reading import StoredValues
from exoflow.executors.wire import ActorOrder, Order
from exoflow.hooks import reach
from exoflow.model import Held, Inline, Stored, Value
from exoflow.protocols import ActorPart, Attempt, Creating, Outcome, Vanished

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

    def perform(
        self,
        order: Order,
        read: Read,
        hold: Hold,
        *,
        begins: Callable[[], None] | None = None,
        states: States | None = None,
    ) -> Outcome:
        """Run the order's body to its end.

        Args:
            order: The attempt.
            read: Reads what the executor holds.
            hold: Keeps what is large.
            begins: Called before the body, when the user's module has been loaded.
            states: The actors of this worker, if it may have any.

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
                function=self._function(order.function, order.code),
                args=(),
                kwargs={},
                inputs=order.inputs,
                save_to=order.save_to,
                encoded=self._fetch(order.arguments, read),
                actor=None if order.actor is None else self._actor_part(order.actor, read),
            )
            return self._run(attempt, read, hold, begins, states)
        except Interruption as error:
            return Vanished(f"its body ended with {type(error).__name__}", perf_counter() - started)
        except BaseException as error:  # noqa: BLE001 -- the attempt boundary: loading the user's module raised
            return raised(error, perf_counter() - started)

    def save_state(self, state: Held, name: str, actors: WorkerActors) -> Stored | bytes | None:
        """Store the state of an actor that lives here; the encoded error, or None where it is gone."""
        try:
            return self._stored.write(snapshot_of(actors.look_at(state)), name)
        except KeyError:
            return None
        except Exception as error:  # noqa: BLE001 -- __getstate__ and the like are the user's code
            return encode_error(error)

    def _actor_part(self, part: ActorOrder, read: Read) -> ActorPart:
        create: Creating | None = None
        if part.create is not None:
            digest, code, arguments = part.create
            create = Creating(self._function(digest, code), (), {}, self._fetch(arguments, read))
        return ActorPart(part.origin, part.holder, part.state, part.snapshot, create, part.snapshot_to)

    def _run(
        self, attempt: Attempt, read: Read, hold: Hold, begins: Callable[[], None] | None, states: States | None
    ) -> Outcome:
        returned = False

        def fetch(value: Value) -> Encoded | Live:
            return self._fetch(value, read)

        def keep(made: Sequence[Encoded | Live], name: str | None) -> list[Value]:
            nonlocal returned
            returned = True
            reach("worker.returned")
            values = self._stored.kept(made, name, hold)
            reach("worker.value_written")
            return values

        reach("worker.pre")
        if begins is not None:
            begins()
        if attempt.actor is not None:
            assert states is not None, "an attempt at an actor's call is sent to a worker that has actors"
            outcome = _run_actor(attempt, fetch, keep, states)
        elif is_async(attempt.function):
            outcome = asyncio.run(run_attempt_async(attempt, fetch, keep))
        else:
            outcome = run_attempt(attempt, fetch, keep)
        if not returned:
            reach("worker.returned")
        return outcome

    def _function(self, digest: bytes, code: bytes | None) -> Any:
        function = self._functions.get(digest)
        if function is None:
            assert code is not None, "the executor believes that this worker knows the function"
            if len(self._functions) >= FUNCTIONS_MAX:
                self._functions.clear()
            with finding_code():
                function = self._functions[digest] = decode(from_bytes(code))
        return function

    def _fetch(self, value: Value, read: Read) -> Encoded | Live:
        match value:
            case Inline(data):
                return from_bytes(data)
            case Stored():
                return self._stored.read(value)
            case Held():
                return read(value)


def _run_actor(attempt: Attempt, fetch: Fetch, keep: Keep, states: States) -> Outcome:
    if is_async(attempt.function):
        return asyncio.run(run_actor_async(attempt, fetch, keep, states))
    return run_actor(attempt, fetch, keep, states)
