"""The executor's end of an order: an attempt as it can be sent to a worker."""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections.abc import Callable
from typing import Any, cast

from exoflow.codec import Encoded, Live, encode, encode_arguments, to_bytes
from exoflow.executors.wire import ActorOrder, Order
from exoflow.model import INLINE_MAX_BYTES, CallId, Held, Inline, Stored, Value
from exoflow.protocols import Attempt, Store

Elsewhere = Callable[[Held, str | None], Encoded | Live | Stored]
"""Gets a value that another executor holds: its bytes, or where it was saved to under the name, if that costs less.
KeyError where it is lost."""

Send = Callable[[Encoded | Live], Value]
"""Makes a value over 64 KiB, or an engine's object, reach the worker: a Held that the worker can read."""


Readable = Callable[[Value], Value]


class Functions:
    """The functions of tasks as code, encoded once."""

    def __init__(self) -> None:
        self._codes: weakref.WeakKeyDictionary[Any, tuple[bytes, bytes]] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def code_of(self, attempt: Attempt) -> tuple[bytes, bytes]:
        """The digest of the code of the attempt's function, and the code.

        Raises:
            CodecError: it cannot be pickled.
        """
        return self.code(attempt.function, attempt.task)

    def code(self, function: Callable[..., Any], task: str) -> tuple[bytes, bytes]:
        """The digest of the function's code, and the code.

        Raises:
            CodecError: it cannot be pickled.
        """
        with self._lock:
            known = self._codes.get(function)
        if known is None:
            code = to_bytes(encode(function, what=f"the function of {task}"))
            known = (hashlib.blake2b(code, digest_size=16).digest(), code)
            with self._lock:
                self._codes[function] = known
        return known


class Carrier:
    """How one executor's values reach its workers.

    Args:
        executor: The name of the executor, whose own values its workers read.
        store: Where saved values are.
        elsewhere: Gets what other executors hold.
    """

    def __init__(self, executor: str, store: Store | None, elsewhere: Elsewhere | None) -> None:
        self._executor = executor
        self._elsewhere = elsewhere
        self.store = store
        self.workers_read_store = store is not None and store.shared
        self.store_code = to_bytes(encode(store, what="the store")) if self.workers_read_store else None

    def input(self, attempt: Attempt, call: CallId, value: Value, send: Send) -> Value:
        """A value that a worker can read.

        Raises:
            KeyError: it is lost; the call is its argument.
        """
        if isinstance(value, Inline | Stored) or value.executor == self._executor:
            return value
        try:
            if self._elsewhere is None:
                raise KeyError(value.executor)
            found = self._elsewhere(value, attempt.crossing.get(call) if self.workers_read_store else None)
        except KeyError as error:
            raise KeyError(call) from error
        return found if isinstance(found, Stored) else carried(found, send)


def carried(found: Encoded | Live, send: Send) -> Value:
    """The value in the order itself, if it is small; else as ``send`` sends it."""
    if isinstance(found, Encoded) and found.size <= INLINE_MAX_BYTES:
        return Inline(to_bytes(found))
    return send(found)


def order_of(
    attempt: Attempt,
    function: tuple[bytes, bytes | None],
    inputs: dict[CallId, Value],
    send: Send,
    actor: ActorOrder | None = None,
) -> Order:
    """The attempt as it can be sent.

    Raises:
        CodecError: its arguments cannot be pickled.
    """
    arguments = cast(Encoded | None, attempt.encoded)
    if arguments is None:
        arguments = encode_arguments(attempt.args, attempt.kwargs, task=attempt.task, function=attempt.function)
    digest, code = function
    return Order(
        function=digest,
        code=code,
        run_id=attempt.run_id,
        call=attempt.call,
        version=attempt.version,
        number=attempt.number,
        key=attempt.key,
        task=attempt.task,
        arguments=carried(arguments, send),
        inputs=inputs,
        save_to=attempt.save_to,
        actor=actor,
    )


def actor_order(
    attempt: Attempt, functions: Functions, known: set[bytes], send: Send, readable: Readable
) -> ActorOrder:
    """What an attempt at an actor's call has beside its arguments, as it can be sent.

    Args:
        attempt: At an actor's call.
        functions: The executor's.
        known: Digests of the code that the worker has; that of what is sent now is added.
        send: As of ``order_of``.
        readable: Makes a saved state one that the worker can read.

    Raises:
        CodecError: the class cannot be pickled.
    """
    part = attempt.actor
    assert part is not None
    create: tuple[bytes, bytes | None, Value] | None = None
    if part.create is not None:
        digest, code = functions.code(part.create.function, attempt.task)
        arguments = cast(Encoded | None, part.create.encoded)
        if arguments is None:
            arguments = encode_arguments(part.create.args, part.create.kwargs, task=attempt.task)
        create = digest, None if digest in known else code, carried(arguments, send)
        known.add(digest)
    snapshot = None if part.snapshot is None else readable(part.snapshot)
    return ActorOrder(part.origin, part.holder, part.state, snapshot, create, part.snapshot_to)
