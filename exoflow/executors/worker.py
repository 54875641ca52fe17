"""A worker process: gets one attempt at a time through its socket, runs it in the main thread, answers."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from queue import SimpleQueue
from time import perf_counter
from types import FrameType
from typing import Any, cast

import msgpack

from exoflow.attempts import is_async, raised, run_attempt, run_attempt_async
from exoflow.codec import Encoded, decode, from_bytes
from exoflow.codec.mainfile import finding_code
from exoflow.errors import Interruption
from exoflow.executors.reading import StoredValues
from exoflow.executors.spool import read_spool, write_spool
from exoflow.executors.wire import EXECUTOR, Order, pack_outcome, unpack_order
from exoflow.hooks import reach
from exoflow.model import Held, Inline, Stored, Value
from exoflow.protocols import Attempt, Outcome, Vanished

_PR_SET_PDEATHSIG = 1


def main(socket: int, parent: int) -> None:
    """Serve the executor at the other end until it closes the socket or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the flow; it ends its workers
    # So is a SIGTERM to every process of a service. Not SIG_IGN: the children of a task would inherit that.
    signal.signal(signal.SIGTERM, _leave_it_to_the_flow)
    _die_with(parent)
    connection = Connection(socket)
    folders, store = msgpack.unpackb(connection.recv_bytes())
    worker = Worker(folders, StoredValues(None if store is None else decode(from_bytes(store))))
    orders: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(connection, orders), daemon=True).start()
    connection.send_bytes(b"ready")
    while True:
        connection.send_bytes(pack_outcome(worker.run(unpack_order(orders.get()))))


def _leave_it_to_the_flow(_number: int, _frame: FrameType | None) -> None: ...


class Worker:
    """Runs orders. Keeps the functions that it has seen."""

    def __init__(self, folders: list[str], stored: StoredValues) -> None:
        self._folders = folders
        self._stored = stored
        self._codes: dict[int, bytes] = {}
        self._functions: dict[int, Any] = {}
        self._returned = False

    def run(self, order: Order) -> Outcome:
        started = perf_counter()
        try:
            function = self._function(order.function, order.code)
            attempt = Attempt(
                run_id=order.run_id,
                call=order.call,
                version=order.version,
                number=order.number,
                key=order.key,
                task=order.task,
                function=function,
                args=(),
                kwargs={},
                inputs=order.inputs,
                save_to=order.save_to,
                encoded=self._fetch(order.arguments),
            )
            return self._run(attempt)
        except Interruption as error:
            return Vanished(f"its body ended with {type(error).__name__}", perf_counter() - started)
        except BaseException as error:  # noqa: BLE001 -- the attempt boundary: loading the user's module raised
            return raised(error, perf_counter() - started)

    def _run(self, attempt: Attempt) -> Outcome:
        self._returned = False
        reach("worker.pre")
        if is_async(attempt.function):
            outcome = asyncio.run(run_attempt_async(attempt, self._fetch, self._keep))
        else:
            outcome = run_attempt(attempt, self._fetch, self._keep)
        if not self._returned:
            reach("worker.returned")
        return outcome

    def _function(self, number: int, code: bytes | None) -> Any:
        if code is not None:
            self._codes[number] = code
        if number not in self._functions:
            with finding_code():
                self._functions[number] = decode(from_bytes(self._codes[number]))
        return self._functions[number]

    def _fetch(self, value: Value) -> Encoded:
        match value:
            case Inline(data):
                return from_bytes(data)
            case Stored():
                return self._stored.read(value)
            case Held(_, path, _):
                return read_spool(cast(str, path))

    def _keep(self, encoded: Encoded, name: str | None) -> Value:
        self._returned = True
        reach("worker.returned")
        value: Value | None = None if name is None else self._stored.try_write(encoded, name)
        if value is None:
            value = Held(EXECUTOR, write_spool(self._folders, encoded), encoded.size)
        reach("worker.value_written")
        return value


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
