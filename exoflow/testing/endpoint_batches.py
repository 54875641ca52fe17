"""A fake endpoint's files and batches. A batch is done after as long a time as the endpoint takes for an answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable

from aiohttp import BodyPartReader, web

from exoflow.testing.endpoint_replies import Asked, Json, Reply, answer_of, error_of

Ask = Callable[[Json, str], tuple[Asked, Reply]]
"""What is replied to a body with this key, and it is counted."""


class Batches:
    """As OpenAI has them."""

    def __init__(self, ask: Ask, delay_s: float) -> None:
        self._ask = ask
        self._delay_s = delay_s
        self._files: dict[str, bytes] = {}
        self._batches: dict[str, Json] = {}
        self._done_s: dict[str, float] = {}

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/v1/files", self._upload)
        app.router.add_get("/v1/files/{id}/content", self._content)
        app.router.add_post("/v1/batches", self._create)
        app.router.add_get("/v1/batches", self._list)
        app.router.add_get("/v1/batches/{id}", self._look)

    async def _upload(self, request: web.Request) -> web.Response:
        data = b""
        async for part in await request.multipart():
            assert isinstance(part, BodyPartReader)
            content = await part.read()
            if part.name == "file":
                data = bytes(content)
        id = self._keep(data)
        return web.json_response({"id": id, "object": "file", "bytes": len(data), "created_at": 0,
                                  "filename": "calls.jsonl", "purpose": "batch", "status": "processed"})  # fmt: skip

    async def _content(self, request: web.Request) -> web.Response:
        data = self._files.get(request.match_info["id"])
        return _missing() if data is None else web.Response(body=data)

    async def _create(self, request: web.Request) -> web.Response:
        wanted = await request.json()
        data = self._files.get(str(wanted.get("input_file_id")))
        if data is None:
            return _missing()
        id = f"batch_{len(self._batches)}"
        self._batches[id] = {
            "id": id, "object": "batch", "created_at": 0, "status": "in_progress", "endpoint": wanted["endpoint"],
            "input_file_id": wanted["input_file_id"], "completion_window": wanted["completion_window"],
            "metadata": wanted.get("metadata"), "output_file_id": None, "error_file_id": None, "errors": None,
        }  # fmt: skip
        self._done_s[id] = time.monotonic() + self._delay_s
        found = [line for line in data.splitlines() if line.strip()]
        await asyncio.to_thread(self._answer, id, [json.loads(line) for line in found])
        return web.json_response(self._batches[id])

    def _answer(self, id: str, lines: Iterable[Json]) -> None:
        batch, late = self._batches[id], False
        good: list[Json] = []
        bad: list[Json] = []
        for line in lines:
            body = line["body"]
            assert isinstance(body, dict)
            asked, reply = self._ask(body, str(line["custom_id"]))
            if reply.hangs:
                late = True
                continue
            chat = str(line["url"]).endswith("/chat/completions")
            is_good = reply.status == 200
            content = answer_of(body, reply, chat=chat, number=asked.number) if is_good else error_of(reply)
            response = {"status_code": reply.status, "request_id": "", "body": content}
            result = {"id": f"line_{asked.number}", "custom_id": line["custom_id"], "response": response, "error": None}
            (good if is_good else bad).append(result)
        batch["final"] = {
            "status": "expired" if late else "completed",
            "output_file_id": self._keep_lines(reversed(good)) if good else None,  # in no order
            "error_file_id": self._keep_lines(bad) if bad else None,
        }

    async def _look(self, request: web.Request) -> web.Response:
        id = request.match_info["id"]
        batch = self._batches.get(id)
        if batch is None:
            return _missing()
        return web.json_response(self._told(id))

    async def _list(self, request: web.Request) -> web.Response:
        ids = list(reversed(self._batches))
        after, limit = request.query.get("after"), int(request.query.get("limit", "20"))
        if after in self._batches:
            ids = ids[ids.index(after) + 1 :]
        data = [self._told(id) for id in ids[:limit]]
        return web.json_response({"object": "list", "data": data, "has_more": len(ids) > limit})

    def _told(self, id: str) -> Json:
        batch = dict(self._batches[id])
        final = batch.pop("final", None)
        if isinstance(final, dict) and time.monotonic() >= self._done_s[id]:
            batch |= final
        return batch

    def _keep(self, data: bytes) -> str:
        id = f"file_{len(self._files)}"
        self._files[id] = data
        return id

    def _keep_lines(self, lines: Iterable[Json]) -> str:
        return self._keep("\n".join(map(json.dumps, lines)).encode())


def _missing() -> web.Response:
    return web.json_response(error_of(Reply("there is no such thing")), status=404)
