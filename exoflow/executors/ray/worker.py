"""What a Ray worker does: the bodies of the Ray tasks that the executor starts."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from pickle import PickleBuffer
from typing import Any, cast

import msgspec
from ray.experimental import internal_kv

from exoflow.attempts.actors import States
from exoflow.codec import Encoded, Live, as_encoded, decode, encode_error, from_bytes
from exoflow.errors import CodecError, ExecutorError, StorageError
from exoflow.executors.performing import Performer
from exoflow.executors.reading import StoredValues
from exoflow.executors.wire import pack_outcome, unpack_order
from exoflow.model import INLINE_MAX_BYTES, Held, Stored
from exoflow.protocols import Buffer

NAMESPACE = b"exoflow"
"""Of the keys in Ray's own table by which a worker says that it ends itself, because an attempt has timed out."""

TOGETHER_S = 0.1
"""Of bodies, after which no other one begins in a Ray task."""

_GRACE_S = 5.0
_PR_SET_PDEATHSIG = 1
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class Box:
    """An encoded value as Ray carries it: the parts out of band, so that readers map them where they lie."""

    __slots__ = ("_encoded",)

    def __init__(self, encoded: Encoded) -> None:
        self._encoded = encoded

    def __reduce_ex__(self, _protocol: object) -> tuple[Callable[..., Encoded], tuple[Any, ...]]:
        head, buffers, refs, checksums = self._encoded
        if checksums is not None:
            checksums.verify()
        first = bytes(head) if len(head) <= INLINE_MAX_BYTES else PickleBuffer(head)
        return _unboxed, (refs, first, *map(PickleBuffer, buffers))


def _unboxed(refs: tuple[Any, ...], head: Buffer, *buffers: Buffer) -> Encoded:
    if not isinstance(head, bytes):
        head = memoryview(head).toreadonly()
    return Encoded(head, tuple(memoryview(buffer).toreadonly() for buffer in buffers), refs)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An engine's object whose content may change, and the content that it had when it was told."""

    live: Live
    content: Box | Encoded


Boxed = Box | Live | Snapshot
Unboxed = Encoded | Live | Snapshot


def boxed(made: Encoded | Live) -> Boxed:
    """As it is to be given to Ray, which turns a Box into what is in it."""
    if isinstance(made, Encoded):
        return Box(made)
    return Snapshot(made, Box(as_encoded(made))) if made.changes() else made


def unboxed(found: Unboxed) -> Encoded | Live:
    """What was boxed."""
    return found.live if isinstance(found, Snapshot) else found


def setup_of(store_code: bytes | None) -> bytes:
    """What a worker has to know once: where this process finds modules, how it was called, and the store."""
    return _encode((sys.path, sys.argv, store_code))


def message_of(setup: bytes, order: bytes, deadline: tuple[float, bytes] | None) -> bytes:
    """What ``perform`` gets in one piece: each argument costs Ray as much as a large part of a small task.

    Args:
        setup: Of ``setup_of``.
        order: Of ``pack_order``. A Held in it says which box, and which value in there.
        deadline: Seconds for the body, and the key under which to say that they are over before this process ends.
    """
    return _encode((setup, order, deadline))


def perform(message: bytes, *boxes: list[Unboxed]) -> tuple[bytes, list[Boxed] | None]:
    """Run an attempt: the outcome, and apart from it, for it stays on the cluster, what is too large to be told.

    Args:
        message: Of ``message_of``.
        boxes: What came of earlier attempts; Ray has brought it here.
    """
    return perform_as(message, boxes, None)


def perform_as(
    message: bytes, boxes: Sequence[list[Unboxed]], states: States | None
) -> tuple[bytes, list[Boxed] | None]:
    """``perform``, in a process that has these actors."""
    setup, order, deadline = _decode(message)
    kept: list[Boxed] = []

    def read(value: Held) -> Encoded | Live:
        box, place = cast(list[int], value.handle)
        return unboxed(boxes[box][place])

    def hold(made: Encoded | Live) -> Held:
        kept.append(boxed(made))
        return Held("", len(kept) - 1, made.size)

    performer, _ = tools(setup)
    with contextlib.nullcontext() if deadline is None else _ending_after(*deadline) as begin:
        outcome = performer.perform(unpack_order(order), read, hold, begins=begin, states=states)
    return pack_outcome(outcome), kept or None


def message_for_all(setup: bytes, orders: list[bytes]) -> bytes:
    """What ``perform_all`` gets: orders of ``pack_order``, without a Held in them."""
    return _encode((setup, orders))


def perform_all(message: bytes) -> tuple[bytes, list[Boxed] | None]:
    """Run short attempts one after another, as ``perform``; those that get no outcome have not begun."""
    setup, orders = _decode(message)
    kept: list[Boxed] = []

    def read(value: Held) -> Encoded | Live:
        raise KeyError(value.handle)

    def hold(made: Encoded | Live) -> Held:
        kept.append(boxed(made))
        return Held("", len(kept) - 1, made.size)

    performer, _ = tools(setup)
    outcomes: list[bytes] = []
    size, seconds = 0, 0.0
    for order in orders:
        outcome = performer.perform(unpack_order(order), read, hold)
        outcomes.append(pack_outcome(outcome))
        size += len(outcomes[-1])
        seconds += outcome.seconds
        if kept or size > INLINE_MAX_BYTES // 2 or seconds > TOGETHER_S:
            break  # they are not what they were believed to be
    return _encode(outcomes), kept or None


def write(setup: bytes, name: str, places: Sequence[int], box: list[Unboxed]) -> list[Stored] | bytes:
    """Save values of a box to one object of the store; or the encoded error, if that failed."""
    _, stored = tools(setup)
    found = [box[place] for place in places]
    made = [cast(Encoded, one.content) if isinstance(one, Snapshot) else one for one in found]
    try:
        return stored.write_together(made, name)
    except (CodecError, StorageError, ExecutorError, KeyError) as error:
        return encode_error(error)


@lru_cache(maxsize=16)
def tools(setup: bytes) -> tuple[Performer, StoredValues]:
    """What performs orders here, and the store."""
    path, sys.argv, store_code = _decode(setup)  # a program that is imported may look at its arguments
    # Ray itself passes on the folder of the script and the current one. Another machine may have none of them.
    sys.path += [place for place in path if place not in sys.path and os.path.exists(place)]
    stored = StoredValues(None if store_code is None else decode(from_bytes(store_code)))
    _end_with_the_node()
    return Performer(stored), stored


def _end_with_the_node() -> None:
    """Have the system end this process with the one that started it: without it Ray's workers may go on (V10)."""
    parent = Path(f"/proc/{os.getppid()}/comm")
    if sys.platform == "linux" and parent.exists() and parent.read_text().strip() == "raylet":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def _ending_after(seconds: float, key: bytes) -> Iterator[Callable[[], None]]:
    """A block that ends this process if it takes longer, from when it calls what it is given."""
    over = False
    lock = threading.Lock()

    def end() -> None:
        with lock:
            if over:
                return
            internal_kv._internal_kv_put(key, b"", namespace=NAMESPACE)
            os.kill(os.getpid(), signal.SIGKILL)

    timer = threading.Timer(seconds, end)
    timer.daemon = True

    def begin() -> None:
        timer.start()
        signal.setitimer(signal.ITIMER_REAL, seconds + _GRACE_S)  # for a body that lets no thread run

    try:
        yield begin
    finally:
        with lock:
            over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        timer.cancel()
