"""What the machine itself allows: the same work with no system around it."""

from __future__ import annotations

import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from measure import Figures, Options, p50_ms, program, random_array, repeat, seconds, written_bytes

RECORD = b"x" * 200


def open_log(options: Options) -> int:
    """A file to append to."""
    return os.open(options.directory / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)


def chain(options: Options) -> Figures:
    """A record for each step, and one fdatasync at the end."""
    log = open_log(options)

    def run() -> None:
        for _ in range(options.size):
            os.write(log, RECORD)
        os.fdatasync(log)

    run()
    return {"step_ms": [s / options.size * 1e3 for s in repeat(options.times, run)]}


def chain_sync(options: Options) -> Figures:
    """A record and an fdatasync for each step."""
    log = open_log(options)

    def run() -> None:
        for _ in range(options.size):
            os.write(log, RECORD)
            os.fdatasync(log)

    run()
    return {"step_ms": [s / options.size * 1e3 for s in repeat(options.times, run)]}


def fanout(options: Options) -> Figures:
    """A thread pool."""
    with ThreadPoolExecutor() as pool:

        def run() -> None:
            sum(pool.map(abs, range(options.size)))

        run()
        return {"tasks_per_s": [options.size / s for s in repeat(options.times, run)]}


def one(options: Options) -> Figures:
    """A record and an fdatasync."""
    log = open_log(options)

    def run() -> None:
        os.write(log, RECORD)
        os.fdatasync(log)

    run()
    return {"flow_ms": [p50_ms(options.size, run)]}


def array(options: Options) -> Figures:
    """Write, crc32 and fdatasync of the array's bytes."""
    data = memoryview(random_array(options.size)).cast("B")
    write_durably(options.directory / "first", data[:1_000_000])
    times, written = [], []
    for number in range(options.times):
        path = options.directory / f"value{number}"
        before = written_bytes()
        times.append(seconds(lambda path=path: write_durably(path, data)))
        written.append((written_bytes() - before) / 1e6)
    return {"s": times, "written_mb": written}


def write_durably(path: Path, data: memoryview) -> None:
    """A new file with the data in it, synced."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    rest = data
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    zlib.crc32(data)
    os.fdatasync(descriptor)
    os.close(descriptor)


if __name__ == "__main__":
    program({"chain": chain, "chain_sync": chain_sync, "fanout": fanout, "one": one, "array": array})
