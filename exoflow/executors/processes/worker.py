"""A worker process: gets one attempt at a time through its socket, runs it in the main thread, answers."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from queue import SimpleQueue
from types import FrameType
from typing import cast

import msgpack

from exoflow.codec import Encoded, Live, as_encoded, decode, from_bytes
from exoflow.executors.actors.living import WorkerActors
from exoflow.executors.performing import Performer
from exoflow.executors.processes.spool import EXECUTOR, read_spool, write_spool
from exoflow.executors.reading import StoredValues
from exoflow.executors.wire import pack_outcome, pack_saved, unpack_order, unpack_saving
from exoflow.model import Held

_PR_SET_PDEATHSIG = 1


def main(socket: int, parent: int) -> None:
    """Serve the executor at the other end until it closes the socket or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the flow; it ends its workers
    # So is a SIGTERM to every process of a service. Not SIG_IGN: the children of a task would inherit that.
    signal.signal(signal.SIGTERM, _leave_it_to_the_flow)
    _die_with(parent)
    connection = Connection(socket)
    # a program that is imported to find a task in it may look at its arguments
    sys.argv, folders, store, place = msgpack.unpackb(connection.recv_bytes())
    stored = StoredValues(None if store is None else decode(from_bytes(store)))
    performer = Performer(stored)
    actors = WorkerActors(EXECUTOR, place, stored)
    orders: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(connection, orders), daemon=True).start()
    connection.send_bytes(b"ready")
    while True:
        message = orders.get()
        saving = unpack_saving(message)
        if saving is not None:
            connection.send_bytes(pack_saved(performer.save_state(*saving, actors)))
            continue
        outcome = performer.perform(unpack_order(message), _read, functools.partial(_hold, folders), states=actors)
        connection.send_bytes(pack_outcome(outcome))


def _read(value: Held) -> Encoded:
    return read_spool(cast(str, value.handle))


def _hold(folders: list[str], made: Encoded | Live) -> Held:
    encoded = as_encoded(made)
    return Held(EXECUTOR, write_spool(folders, encoded), encoded.size)


def _leave_it_to_the_flow(_number: int, _frame: FrameType | None) -> None: ...


def _listen(connection: Connection, orders: SimpleQueue[bytes]) -> None:
    """Read while a body runs, so that the end of the executor is noticed at once and ends the body with it."""
    try:
        while True:
            orders.put(connection.recv_bytes())
    except (EOFError, OSError):
        os.killpg(0, signal.SIGKILL)  # what the body has started ends too


def _die_with(parent: int) -> None:
    """Also when a body holds the interpreter in C code: the kernel ends this process with its parent, on Linux."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before that
        os._exit(1)
