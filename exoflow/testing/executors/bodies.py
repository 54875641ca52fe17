"""Bodies of attempts. Files tell them what to do, and they count there: they run in whichever process it is."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from exoflow.attempts import current_attempt
from exoflow.codec import make_reference
from exoflow.errors import DidNotHappen

LARGE = 300_000
"""Bytes; more than fit into a record."""

WAIT_S = 60.0
_POLL_S = 0.01


def returned(value: object) -> object:
    return value


def both(first: object, second: object) -> list[object]:
    return [first, second]


async def returned_async(value: object) -> object:
    return value


def large(byte: int) -> bytearray:
    return bytearray([byte]) * LARGE


def puts_large(count: int) -> None:
    attempt = current_attempt()
    assert attempt is not None
    for number in range(count):
        attempt.put(bytes([number]) * LARGE)


def array(length: int) -> object:
    import numpy as np

    return np.arange(length)


def written_to(values: Any) -> str:
    """What comes of writing to an input."""
    try:
        values[0] = 7
    except ValueError as error:
        return f"refused: {error}"
    return "written"


def appended(values: list[int]) -> list[int]:
    values.append(len(values))
    return values


def failing(message: str) -> None:
    raise LookupError(message)


def did_not(message: str) -> None:
    raise DidNotHappen(message)


def exits() -> None:
    raise SystemExit(3)


def about_itself() -> list[object]:
    context = current_attempt()
    assert context is not None
    return [context.run_id, context.call, context.key, context.number, context.version]


def puts(size: int) -> object:
    context = current_attempt()
    assert context is not None
    return [make_reference(context.put("a")), make_reference(context.put(b"b" * size))]


def follows(plan: list[str], log: str) -> int:
    """Do what the plan says for this attempt: ``ok``, ``fail`` or ``lost``; leave a line for each time."""
    context = current_attempt()
    assert context is not None
    _note(log, f"{context.call} {context.number}")
    what = plan[context.number - 1]
    if what == "fail":
        raise LookupError(f"attempt {context.number}")
    if what == "lost":
        os.kill(os.getpid(), signal.SIGKILL)
    return context.number


def waits(started: str, gate: str) -> str:
    """Leave a line, then wait until there is a file ``gate``."""
    with _running(started):
        while not os.path.exists(gate):
            time.sleep(_POLL_S)
    return "through"


async def waits_async(started: str, gate: str) -> str:
    import asyncio

    with _running(started):
        while not os.path.exists(gate):  # noqa: ASYNC110, ASYNC240 -- a file: it may be another process's loop
            await asyncio.sleep(_POLL_S)
    return "through"


@contextmanager
def _running(path: str) -> Iterator[None]:
    """Note the process's id, and keep the file locked for as long as the body runs, however it ends."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_SH)
        os.write(file, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(file)


def _note(path: str, line: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, f"{line}\n".encode())
    os.close(file)


def lines(path: Path) -> list[str]:
    """What bodies have noted in the file."""
    return path.read_text().splitlines() if path.exists() else []


def wait_for_line(path: Path) -> str:
    """The first line of a file that a body writes."""
    wait_until(lambda: lines(path), f"nothing was written to {path}")
    return lines(path)[0]


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Look until it holds; ``what`` is wrong if it never does."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(_POLL_S)


def is_gone(pid: int) -> bool:
    """Whether the process has ended, be its parent told of it or not."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
