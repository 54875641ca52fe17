"""The requests of an S3 store, as coroutines of ``s3_loop``.

s3fs brings the session and its credentials. Its own reading and writing is not used: ``_cat_file`` asks for
the size first, ``_exists`` lists when there is nothing, ``_pipe_file`` needs one buffer and tells nobody whether a
refused create was its own.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from exoflow.errors import UnsupportedStore
from exoflow.storage.s3_failures import CONFLICTS, EXISTS, NOT_THERE, UNKNOWN_CONDITION, code_of, may_have_written
from exoflow.storage.s3_reading import PART_BYTES, PAUSES_S, TOGETHER, read, read_range

_MAX_PARTS = 10_000

PROBE = ".exoflow/conditional-create"
"""An object of every store: to create it once more must fail, or the service ignores the condition."""

_NONCE = "exoflow-nonce"

_CONFIG = {
    "connect_timeout": 5,
    "read_timeout": 15,
    "max_pool_connections": 50,
    "retries": {"mode": "standard", "total_max_attempts": 5},
}


class Bucket:
    """One process's connection.

    Args:
        name: the bucket's.
        prefix: of every key: empty, or with a slash at its end.
        options: for ``s3fs.S3FileSystem``.
    """

    def __init__(self, name: str, prefix: str, options: Mapping[str, Any]) -> None:
        from s3fs import S3FileSystem

        self._name = name
        self._prefix = prefix
        settings = dict(options)
        settings["config_kwargs"] = {**_CONFIG, **settings.get("config_kwargs", {})}
        settings |= {"use_listings_cache": False, "skip_instance_cache": True, "asynchronous": True}
        self._filesystem = S3FileSystem(**settings)
        self._filesystem.retries = 1  # botocore retries, knowing which answers are worth it; both would multiply
        self._metadata = dict(settings.get("s3_additional_kwargs", {}).get("Metadata", {}))
        self._proven = False
        self._proven_for_parts = False

    async def _call(self, method: str, **arguments: Any) -> Any:
        return await self._filesystem._call_s3(method, Bucket=self._name, **arguments)

    async def close(self) -> None:
        if self._filesystem._s3 is not None:
            await self._filesystem._s3.close()

    # -- create ------------------------------------------------------------------------------------------------------

    async def create(self, name: str, parts: Sequence[memoryview]) -> bool:
        """Whether the object is ours, also where the answer to the request that made it was lost."""
        if not self._proven:
            await self._prove()
        size = sum(part.nbytes for part in parts)
        if size > PART_BYTES:
            return await self._create_in_parts(name, parts, size)
        return await self._put(name, _joined(parts, 0, size))

    async def _put(self, name: str, body: bytes) -> bool:
        nonce = secrets.token_hex(8)

        async def put() -> None:
            await self._call(
                "put_object", Key=self._prefix + name, Body=body, IfNoneMatch="*", Metadata=self._marked(nonce)
            )

        return await self._won(name, nonce, put)

    async def _create_in_parts(self, name: str, parts: Sequence[memoryview], size: int) -> bool:
        """A few parts are under way at a time, and only those are copied. The condition is on the last request."""
        if not self._proven_for_parts:
            await self._prove_for_parts()
        nonce = secrets.token_hex(8)
        step = max(PART_BYTES, math.ceil(size / _MAX_PARTS))

        async def upload() -> None:
            await self._upload(name, nonce, [(start, min(start + step, size)) for start in range(0, size, step)], parts)

        return await self._won(name, nonce, upload)

    async def _upload(
        self, name: str, nonce: str, ranges: Sequence[tuple[int, int]], parts: Sequence[memoryview]
    ) -> None:
        key, room = self._prefix + name, asyncio.Semaphore(TOGETHER)
        begun = await self._call("create_multipart_upload", Key=key, Metadata=self._marked(nonce))
        upload = {"Key": key, "UploadId": begun["UploadId"]}

        async def send(number: int, start: int, end: int) -> dict[str, Any]:
            async with room:
                body = _joined(parts, start, end)
                answer = await self._call("upload_part", PartNumber=number, Body=body, **upload)
            sums = {field: text for field, text in answer.items() if field.startswith("Checksum")}
            return {"PartNumber": number, "ETag": answer["ETag"], **_part_sum(sums)}

        try:
            async with asyncio.TaskGroup() as group:
                sent = [group.create_task(send(n, *span)) for n, span in enumerate(ranges, 1)]
            answers = [task.result() for task in sent]
            await self._call("complete_multipart_upload", MultipartUpload={"Parts": answers}, IfNoneMatch="*", **upload)
        except BaseException as error:
            await self._abort(upload)
            if isinstance(error, BaseExceptionGroup):  # one part failed; the others were cancelled
                raise error.exceptions[0] from error.exceptions[0].__cause__
            raise

    async def _abort(self, upload: Mapping[str, str]) -> None:
        try:
            await self._call("abort_multipart_upload", **upload)
        except Exception:  # noqa: BLE001  what made us give up counts; a bucket's lifecycle rule ends what is left
            return

    def _marked(self, nonce: str) -> dict[str, str]:
        return {**self._metadata, _NONCE: nonce}

    async def _won(self, name: str, nonce: str, write: Callable[[], Awaitable[None]]) -> bool:
        """Whether our write stands: by its answer, or else by the nonce of what is found there.

        "Exists" proves nothing: botocore retries, aiohttp too, and then our own first try may be what exists.
        """
        for pause_s in (*PAUSES_S, None):
            try:
                await write()
                return True
            except Exception as error:
                if not may_have_written(error):
                    raise
                standing = await self._nonce_of(name, error)
                if standing is not None:
                    return standing == nonce
                if pause_s is None or code_of(error) not in (*EXISTS, *CONFLICTS):
                    raise
            await asyncio.sleep(pause_s)
        raise AssertionError("the last try returns or raises")

    async def _nonce_of(self, name: str, error: Exception) -> str | None:
        """The nonce of what stands there, "" for a stranger's; None where nothing does."""
        try:
            head = await self._call("head_object", Key=self._prefix + name)
        except Exception as second:
            if code_of(second) in NOT_THERE:
                return None
            raise error from second
        return str(head.get("Metadata", {}).get(_NONCE, ""))

    # -- does the condition hold? ------------------------------------------------------------------------------------

    async def _prove(self) -> None:
        """See that what exists cannot be created again. Sequentially: a race that is lost one time in a thousand is
        for ``exoflow.testing.stores.StoreConformance`` to find.
        """
        key = self._prefix + PROBE
        for _ in range(2):
            try:
                await self._call("put_object", Key=key, Body=b"", IfNoneMatch="*")
            except Exception as error:
                self._proven = _refused(error)
                if not self._proven:
                    raise
                return
        raise self._ignores("a PUT")

    async def _prove_for_parts(self) -> None:
        try:
            await self._upload(PROBE, "", [(0, 0)], [])
        except Exception as error:
            self._proven_for_parts = _refused(error)
            if not self._proven_for_parts:
                raise
            return
        raise self._ignores("the end of a multipart upload")

    def _ignores(self, what: str) -> UnsupportedStore:
        endpoint = self._filesystem.s3.meta.endpoint_url
        return UnsupportedStore(
            f"s3://{self._name}: {endpoint} ignores the condition If-None-Match: * of {what}, so that two processes"
            " could own one run. Amazon S3 keeps it, and so do the newer versions of other services: update yours, or"
            " use another store"
        )

    # -- the rest ----------------------------------------------------------------------------------------------------

    async def read(self, name: str) -> memoryview:
        return await read(self._call, self._prefix + name)

    async def read_range(self, name: str, start: int, size: int | None) -> bytes:
        return await read_range(self._call, self._prefix + name, start, size)

    async def exists(self, name: str) -> bool:
        try:
            await self._call("head_object", Key=self._prefix + name)
        except Exception as error:
            if code_of(error) in NOT_THERE:
                return False
            raise
        return True

    async def list(self, folder: str) -> list[str]:
        """The names below a folder, which ends with a slash or is empty; a thousand a request."""
        found: list[str] = []
        more: dict[str, str] = {}
        while True:
            page = await self._call("list_objects_v2", Prefix=self._prefix + folder, **more)
            found += [each["Key"].removeprefix(self._prefix) for each in page.get("Contents", ())]
            if not page.get("IsTruncated"):
                return sorted(name for name in found if not name.startswith("."))
            more = {"ContinuationToken": page["NextContinuationToken"]}

    async def delete(self, name: str) -> None:
        await self._call("delete_object", Key=self._prefix + name)


def _refused(error: Exception) -> bool:
    """Whether this is the answer to a condition that was looked at."""
    code = code_of(error)
    if code in UNKNOWN_CONDITION:
        raise UnsupportedStore(
            f"this S3 service does not know the condition If-None-Match: * ({error}), so that two processes could own"
            " one run: update it, or use another store"
        ) from error
    return code in (*EXISTS, *CONFLICTS)


def _joined(parts: Sequence[memoryview], start: int, end: int) -> bytes:
    """The bytes from ``start`` to ``end`` of the parts that stand one behind the other."""
    pieces, at = [], 0
    for part in parts:
        if at < end and at + part.nbytes > start:
            pieces.append(part[max(0, start - at) : end - at])
        at += part.nbytes
    return b"".join(pieces)


def _part_sum(sums: Mapping[str, str]) -> dict[str, str]:
    """The checksum that S3 computed of a part, which it wants to be told again; not which kind of sum it is."""
    return {field: text for field, text in sums.items() if field != "ChecksumType"}
