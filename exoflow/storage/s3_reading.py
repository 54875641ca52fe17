"""How an object of a bucket is read: large ones in parts, and again where an answer breaks off."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from exoflow.storage.s3_failures import code_of

PART_BYTES = 16 << 20
"""What is larger is written and read in parts of this size, some at a time."""

TOGETHER = 6
PAUSES_S = (0.1, 0.4, 1.6, 6.4)
_PIECE_BYTES = 1 << 20

T = TypeVar("T")
Call = Callable[..., Awaitable[Any]]
"""Makes a request, by the name of the method and its arguments."""


async def read(call: Call, key: str) -> memoryview:
    """One request for what fits a part; the rest of a larger object in parts, side by side, into one buffer."""
    first, total, etag = await _get(call, key, 0, PART_BYTES)
    if len(first) >= total:
        return memoryview(first)
    whole = memoryview(bytearray(total))
    whole[: len(first)] = first
    room = asyncio.Semaphore(TOGETHER)

    async def fill(start: int) -> None:
        async with room:
            await _fill(call, key, start, whole[start : start + PART_BYTES], etag)

    try:
        async with asyncio.TaskGroup() as group:
            for start in range(len(first), total, PART_BYTES):
                group.create_task(fill(start))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors.exceptions[0].__cause__
    return whole.toreadonly()


async def read_range(call: Call, key: str, start: int, size: int | None) -> bytes:
    """Up to ``size`` bytes; None: to the end."""
    if size == 0:
        await call("head_object", Key=key)
        return b""
    return (await _get(call, key, start, size))[0]


async def _get(call: Call, key: str, start: int, size: int | None) -> tuple[bytes, int, str]:
    """Up to ``size`` bytes, the size of the whole object, and its tag."""
    span = f"bytes={start}-" if size is None else f"bytes={start}-{start + size - 1}"

    async def get() -> tuple[bytes, int, str]:
        try:
            answer = await call("get_object", Key=key, Range=span)
        except Exception as error:
            if code_of(error) in ("InvalidRange", "416"):  # nothing lies there; an empty object has no first byte
                return b"", 0, ""
            raise
        async with answer["Body"] as body:
            data = await body.read()
        return data, _total(answer, start + len(data)), answer["ETag"]

    return await _repeated(get)


async def _fill(call: Call, key: str, start: int, buffer: memoryview, etag: str) -> None:
    span = f"bytes={start}-{start + buffer.nbytes - 1}"

    async def get() -> None:
        answer = await call("get_object", Key=key, Range=span, IfMatch=etag)
        at = 0
        async with answer["Body"] as body:
            while piece := await body.read(_PIECE_BYTES):
                buffer[at : at + len(piece)] = piece
                at += len(piece)

    await _repeated(get)


def _total(answer: Mapping[str, Any], otherwise: int) -> int:
    whole = str(answer.get("ContentRange", "")).rpartition("/")[2]
    return int(whole) if whole.isdecimal() else otherwise


async def _repeated(get: Callable[[], Awaitable[T]]) -> T:
    """Read again what broke off in the middle of an answer: botocore retries only until the answer begins."""
    from aiohttp import ClientPayloadError
    from botocore.exceptions import HTTPClientError, IncompleteReadError

    for pause_s in PAUSES_S:
        try:
            return await get()
        except (ClientPayloadError, HTTPClientError, IncompleteReadError):
            await asyncio.sleep(pause_s)
    return await get()
