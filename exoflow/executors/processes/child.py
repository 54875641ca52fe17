"""A worker process, seen from the executor's side."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable
from multiprocessing.connection import Connection, wait
from time import monotonic

_START_TIMEOUT_S = 60.0
_POLL_S = 0.05  # where a process has no descriptor to wait for


class WorkerDied(Exception):
    pass


class Worker:
    """A process and the socket to it. Made and used by one thread; only ``kill`` may come from another."""

    def __init__(self, setup: bytes, inherit: Iterable[int]) -> None:
        ours, theirs = socket.socketpair()
        program = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from exoflow.executors.processes.worker import main; main({theirs.fileno()}, {os.getpid()})"
        )
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *inherit),
                start_new_session=True,  # a group of its own, so that what a body has started can be ended with it
            )
        self._connection = Connection(ours.detach())
        self._pidfd = os.pidfd_open(self._process.pid) if hasattr(os, "pidfd_open") else None
        self.known: set[bytes] = set()
        """Digests of the functions whose code it was sent."""
        self.ready = False
        with contextlib.suppress(WorkerDied):
            self.send(setup)
            self.ready = self.receive(_START_TIMEOUT_S) == b"ready"

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: bytes) -> None:
        try:
            self._connection.send_bytes(message)
        except OSError as error:
            raise WorkerDied from error

    def receive(self, timeout_s: float | None) -> bytes | None:
        """The next message; None: none has come in time.

        Raises:
            WorkerDied: nor will it.
        """
        deadline = None if timeout_s is None else monotonic() + timeout_s
        while True:
            left = None if deadline is None else max(0.0, deadline - monotonic())
            # The end of the socket is not enough: a child of the body may hold its other end open.
            if self._pidfd is not None:
                ready = wait([self._connection, self._pidfd], left)
            else:
                ready = wait([self._connection], _POLL_S if left is None else min(left, _POLL_S))
            if self._connection in ready:
                try:
                    return self._connection.recv_bytes()
                except (EOFError, OSError) as error:
                    raise WorkerDied from error
            if ready or (self._pidfd is None and self._process.poll() is not None):
                raise WorkerDied
            if left == 0.0:
                return None

    def is_dead(self) -> bool:
        return bool(wait([self._pidfd], 0)) if self._pidfd is not None else self._process.poll() is not None

    def kill(self) -> None:
        """End it and what it has started; it may still be ending when this returns."""
        with contextlib.suppress(ProcessLookupError):  # it has ended, and nothing of its group is left
            os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> str:
        """Kill it and what it has started, wait until it is gone; how it ended."""
        self.kill()
        code = self._process.wait()
        self._connection.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
