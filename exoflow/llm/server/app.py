"""The routes of ``exoflow llm serve``."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from exoflow.errors import AdapterError, LLMError
from exoflow.llm.engine.generation import Generation
from exoflow.llm.engine.request import Event, SamplingParams
from exoflow.llm.server.answers import Form, usage_of
from exoflow.llm.server.asked import ChatRequest, CompletionRequest, LoadRequest, UnloadRequest, decoded
from exoflow.llm.server.refusals import Refusal, refusal_of

if TYPE_CHECKING:
    from exoflow.llm.engine.engine import Engine, Prompt

MAX_BODY_BYTES = 16 << 20
Handler = Callable[[Request], Awaitable[Response]]


class Service:
    """What answers requests.

    Args:
        name: the base model's, for clients.
        keys: API keys that are accepted; none: everybody is.
        adapters_folder: new adapters may be loaded from below it only; None: from nowhere.
    """

    def __init__(
        self, engine: Engine, name: str, *, keys: Sequence[str] = (), adapters_folder: Path | None = None
    ) -> None:
        self.engine = engine
        self.name = name
        self._keys = [key.encode() for key in keys]
        self._adapters_folder = adapters_folder.resolve() if adapters_folder else None
        self._started = int(time.time())

    # -- answers -----------------------------------------------------------------------------------------------------

    async def chat(self, request: Request) -> Response:
        """``POST /v1/chat/completions``."""
        asked = decoded(await _body(request), ChatRequest)
        asked.check()
        tokenizer = self.engine.model.tokenizer
        prompt = await asyncio.to_thread(tokenizer.chat, asked.messages)
        room = max(1, self.engine.max_context - len(prompt))
        params = asked.params(asked.max_completion_tokens or asked.max_tokens or room, asked.counted_logprobs)
        return await self._answer(request, asked, [prompt], params, is_chat=True)

    async def complete(self, request: Request) -> Response:
        """``POST /v1/completions``."""
        asked = decoded(await _body(request), CompletionRequest)
        asked.check()
        params = asked.params(asked.max_tokens or 16, asked.logprobs)
        return await self._answer(request, asked, asked.prompts, params, is_chat=False)

    async def _answer(
        self,
        request: Request,
        asked: ChatRequest | CompletionRequest,
        prompts: Sequence[Prompt],
        params: SamplingParams,
        *,
        is_chat: bool,
    ) -> Response:
        adapter = None if asked.model == self.name else asked.model
        labels = {"user": asked.user} if asked.user else {}
        form = Form(asked.model, lambda token: self.engine.model.tokenizer.decode([token]), is_chat=is_chat)
        generations = [self.engine.submit(prompt, params, adapter, labels=labels) for prompt in prompts]
        if not asked.stream:
            return await self._whole(request, form, generations)
        with_usage = asked.stream_options is not None and asked.stream_options.include_usage
        pieces = self._pieces(form, generations, params.n, with_usage=with_usage)
        first = await anext(pieces)  # what is refused is refused with a status, before the stream begins
        return StreamingResponse(_lines(first, pieces), media_type="text/event-stream")

    async def _whole(self, request: Request, form: Form, generations: Sequence[Generation]) -> Response:
        """All answers at once; a client that goes away aborts them."""
        watching = asyncio.create_task(_gone(request))
        answering = asyncio.gather(*(_ended(generation) for generation in generations))
        try:
            await asyncio.wait((watching, answering), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                return Response(status_code=499)
            await answering
        finally:
            watching.cancel()
            answering.cancel()
            self._abort(generations)
        outputs = [output for generation in generations for output in generation.outputs()]
        if any(output.finish_reason == "abort" for output in outputs):
            raise Refusal(503, "it could not be answered in time", code="deadline", wait_s=1)
        return _json(form.whole(outputs))

    async def _pieces(
        self, form: Form, generations: Sequence[Generation], n: int, *, with_usage: bool
    ) -> AsyncIterator[dict[str, object]]:
        """The answers' events as they come, whichever prompt they belong to."""
        events: asyncio.Queue[tuple[int, Event] | LLMError | None] = asyncio.Queue()

        async def follow(place: int, generation: Generation) -> None:
            try:
                async for event in generation:
                    events.put_nowait((place * n + event.index, event))
            except LLMError as error:
                events.put_nowait(error)
            finally:
                events.put_nowait(None)

        following = [asyncio.create_task(follow(*each)) for each in enumerate(generations)]
        try:
            begun: set[int] = set()
            left = len(following)
            while left:
                item = await events.get()
                if item is None:
                    left -= 1
                    continue
                if isinstance(item, LLMError):
                    raise refusal_of(item)
                number, event = item
                if event.finish_reason == "abort" and number not in begun:
                    raise Refusal(503, "it could not be answered in time", code="deadline", wait_s=1)
                if number not in begun and (piece := form.first_piece(number)):
                    yield piece
                begun.add(number)
                yield form.piece(number, event)
            if with_usage:
                usages = [output.usage for generation in generations for output in generation.outputs()]
                yield form.last_piece(usage_of(usages, len(generations)))
        finally:
            for task in following:
                task.cancel()
            self._abort(generations)

    def _abort(self, generations: Sequence[Generation]) -> None:
        for generation in generations:
            self.engine.abort(generation)

    # -- models ------------------------------------------------------------------------------------------------------

    async def models(self, request: Request) -> Response:
        """``GET /v1/models``."""
        return _json({"object": "list", "data": [self._card(None), *map(self._card, self._names())]})

    async def model(self, request: Request) -> Response:
        """``GET /v1/models/NAME``."""
        name = request.path_params["name"]
        if name != self.name and name not in self._names():
            raise Refusal(404, f"there is no model {name!r}", param="model", code="model_not_found")
        return _json(self._card(None if name == self.name else name))

    def _names(self) -> list[str]:
        return sorted(adapter.name for adapter in self.engine.adapters())

    def _card(self, adapter: str | None) -> dict[str, object]:
        return {
            "id": adapter or self.name,
            "object": "model",
            "created": self._started,
            "owned_by": "exoflow",
            "parent": self.name if adapter else None,
            "max_model_len": self.engine.max_context,
        }

    async def load(self, request: Request) -> Response:
        """``POST /v1/load_lora_adapter``."""
        asked = decoded(await _body(request), LoadRequest)
        if asked.lora_name == self.name or (asked.lora_name in self._names() and not asked.load_inplace):
            raise Refusal(400, f"{asked.lora_name!r} is taken; load_inplace replaces an adapter", param="lora_name")
        path = self._allowed(asked.lora_path)
        try:
            ref = await asyncio.to_thread(self.engine.load_adapter, asked.lora_name, path, pin=asked.pinned)
        except AdapterError as error:
            raise Refusal(400, str(error), param="lora_path") from error
        return _json({"lora_name": ref.name, "version": ref.version})

    async def unload(self, request: Request) -> Response:
        """``POST /v1/unload_lora_adapter``."""
        asked = decoded(await _body(request), UnloadRequest)
        await asyncio.to_thread(self.engine.unload_adapter, asked.lora_name)
        return _json({"lora_name": asked.lora_name})

    def _allowed(self, path: str) -> Path:
        """A client names files of this machine: below the folder that was opened for it, and nowhere else."""
        folder = self._adapters_folder
        if folder is None:
            raise Refusal(400, "this server loads no adapters: it was started without a folder for them")
        found = (folder / path).resolve()
        if not found.is_relative_to(folder):
            raise Refusal(400, f"{path!r} lies outside of the adapters' folder", param="lora_path")
        return found

    # -- the server itself -------------------------------------------------------------------------------------------

    async def health(self, request: Request) -> Response:
        """``GET /health``."""
        if self.engine.error is not None:
            raise Refusal(503, str(self.engine.error))
        return Response()

    async def metrics(self, request: Request) -> Response:
        """``GET /metrics``."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

        from exoflow.llm.server.metrics import EngineCollector

        registry = CollectorRegistry()
        registry.register(EngineCollector(self.engine))
        return Response(await asyncio.to_thread(generate_latest, registry), media_type=CONTENT_TYPE_LATEST)

    def authorise(self, request: Request) -> None:
        if not self._keys:
            return
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        known = [hmac.compare_digest(key.strip().encode(), each) for each in self._keys]
        if scheme.lower() != "bearer" or not any(known):
            raise Refusal(401, "the API key is missing or wrong: Authorization: Bearer KEY", code="invalid_api_key")


def make_app(service: Service) -> Starlette:
    """The application, for any ASGI server."""

    def handled(handler: Handler, *, is_open: bool = False) -> Handler:
        @wraps(handler)
        async def answer(request: Request) -> Response:
            try:
                if not is_open:
                    service.authorise(request)
                return await handler(request)
            except Refusal as refusal:
                return refusal.response()
            except LLMError as error:
                return refusal_of(error).response()

        return answer

    post, get = partial(Route, methods=["POST"]), partial(Route, methods=["GET"])
    return Starlette(
        routes=[
            post("/v1/chat/completions", handled(service.chat)),
            post("/v1/completions", handled(service.complete)),
            get("/v1/models", handled(service.models)),
            get("/v1/models/{name:path}", handled(service.model)),
            post("/v1/load_lora_adapter", handled(service.load)),
            post("/v1/unload_lora_adapter", handled(service.unload)),
            get("/health", handled(service.health, is_open=True)),
            get("/metrics", handled(service.metrics, is_open=True)),
        ]
    )


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise Refusal(413, f"the body is longer than {MAX_BODY_BYTES} bytes")
    return body


async def _ended(generation: Generation) -> None:
    async for _ in generation:
        pass


async def _gone(request: Request) -> None:
    """Returns when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _lines(first: dict[str, object], pieces: AsyncIterator[dict[str, object]]) -> AsyncIterator[bytes]:
    """Server-sent events. An error in the middle is an event, too, since the status is gone."""
    yield _line(first)
    try:
        async for piece in pieces:
            yield _line(piece)
    except Refusal as refusal:
        yield _line(refusal.content())
    yield b"data: [DONE]\n\n"


def _line(content: dict[str, object]) -> bytes:
    return b"data: " + msgspec.json.encode(content) + b"\n\n"


def _json(content: dict[str, object]) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
