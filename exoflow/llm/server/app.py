"""The routes of ``exoflow llm serve``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from exoflow.errors import AdapterError, ContextTooLong, LLMError
from exoflow.http.pages import why_not
from exoflow.http.tokens import Tokens
from exoflow.llm.engine.request import SamplingParams
from exoflow.llm.server.answering import EventStream, pieces, unless_gone, whole
from exoflow.llm.server.answers import Form, Json
from exoflow.llm.server.asked import ChatRequest, CompletionRequest, LoadRequest, UnloadRequest, decoded
from exoflow.llm.server.library import Library
from exoflow.llm.server.metrics import CONTENT_TYPE, Meters
from exoflow.llm.server.refusals import Refusal, no_model, refusal_of
from exoflow.llm.server.under_way import UnderWay

if TYPE_CHECKING:
    from exoflow.llm.engine.engine import Engine
    from exoflow.llm.engine.prompts import Prompt

MAX_BODY_BYTES = 8 << 20
Route_ = Callable[[Request], Awaitable[Response]]


class Service:
    """What answers requests.

    Args:
        name: the base model's, for clients.
        library: the adapters.
        tokens: API keys, by whose they are; none: everybody may ask.
        any_host: without tokens, take requests to whatever name: something in front says who may ask.
        max_body: bytes of a request's body.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        library: Library,
        *,
        tokens: Tokens | None = None,
        any_host: bool = False,
        max_body: int = MAX_BODY_BYTES,
    ) -> None:
        self.engine = engine
        self.name = name
        self.library = library
        self._tokens = tokens or Tokens()
        self._any_host = any_host
        self._max_body = max_body
        self._meters = Meters(engine)
        self.under_way = UnderWay(engine, self._meters)
        self._stopping = False
        self._started = int(time.time())

    # -- answers -----------------------------------------------------------------------------------------------------

    async def chat(self, request: Request) -> Response:
        """``POST /v1/chat/completions``."""
        asked = decoded(await self._body(request), ChatRequest)
        adapter = await self._adapter(asked)
        messages = [message.plain() for message in asked.messages]
        self._check_length(str(message["content"]) for message in messages)
        prompt = await self.under_way.tokenised(lambda: self.engine.model.tokenizer.chat(messages))
        max_tokens = asked.max_completion_tokens or asked.max_tokens or max(1, self._room(prompt, adapter))
        params = asked.params(max_tokens, asked.counted_logprobs)
        return await self._answer(request, asked, [prompt], params, adapter)

    async def complete(self, request: Request) -> Response:
        """``POST /v1/completions``."""
        asked = decoded(await self._body(request), CompletionRequest)
        adapter = await self._adapter(asked)
        params = asked.params(asked.max_tokens or 16, asked.logprobs)
        for prompt in asked.prompts:
            self._check_length([prompt] if isinstance(prompt, str) else [])
        return await self._answer(request, asked, asked.prompts, params, adapter)

    def _check_length(self, texts: Iterable[str]) -> None:
        """Raises ContextTooLong: whatever its tokens are. To find them takes seconds where a text has megabytes."""
        length, most = sum(map(len, texts)), self.engine.max_context * self.engine.model.tokenizer.longest
        if length > most:
            raise ContextTooLong(
                f"the prompt has {length:,} characters: {self.engine.max_context:,} tokens, the model's context, are"
                f" {most:,} at most"
            )

    async def _adapter(self, asked: ChatRequest | CompletionRequest) -> str | None:
        """The adapter that is asked for, loaded; None: the base."""
        asked.check()
        if asked.model == self.name:
            return None
        await self.library.ready(asked.model)
        return asked.model

    def _room(self, prompt: Sequence[int], adapter: str | None) -> int:
        try:
            return self.engine.room(prompt, adapter)
        except AdapterError as error:  # it was unloaded just now
            raise no_model(adapter or "") from error

    async def _answer(
        self,
        request: Request,
        asked: ChatRequest | CompletionRequest,
        prompts: Sequence[Prompt],
        params: SamplingParams,
        adapter: str | None,
    ) -> Response:
        labels = {"tenant": request.state.tenant} | ({"user": asked.user} if asked.user else {})
        word, is_chat = self.engine.model.tokenizer.word, isinstance(asked, ChatRequest)
        form = Form(asked.model, word, is_chat=is_chat, with_usage=asked.with_usage)
        ended = await self.under_way.begin(prompts, params, adapter, labels)
        generations = ended.args[0]
        try:
            if not asked.stream:
                content = await unless_gone(request, whole(form, generations, params.n))
                ended()
                return _json(content)
            rest = pieces(form, generations, params.n)
            first = await unless_gone(request, _first(rest))  # a refusal has its status: the stream has not begun
            return EventStream(first, rest, ended)
        except BaseException:
            ended()
            raise

    async def drain(self, grace_s: float) -> None:
        """Begin nothing any more; what is under way has so many seconds to end."""
        self._stopping = True
        await self.under_way.drain(grace_s)

    # -- models ------------------------------------------------------------------------------------------------------

    async def models(self, request: Request) -> Response:
        """``GET /v1/models``."""
        names = await self.library.names()
        return _json({"object": "list", "data": [self._card(None), *map(self._card, names)]})

    async def model(self, request: Request) -> Response:
        """``GET /v1/models/NAME``."""
        name = request.path_params["name"]
        if name == self.name:
            return _json(self._card(None))
        if not await self.library.has(name):
            raise no_model(name)
        return _json(self._card(name))

    def _card(self, adapter: str | None) -> Json:
        return {
            "id": adapter or self.name,
            "object": "model",
            "created": self._started,
            "owned_by": "exoflow",
            "root": adapter or self.name,
            "parent": self.name if adapter else None,
            "max_model_len": self.engine.max_context,
        }

    async def load(self, request: Request) -> Response:
        """``POST /v1/load_lora_adapter``."""
        asked = decoded(await self._body(request), LoadRequest)
        name, path = asked.lora_name, asked.lora_path
        ref = await self.library.load(name, path, in_place=asked.load_inplace, pin=asked.pinned)
        return _json({"lora_name": ref.name, "version": ref.version})

    async def unload(self, request: Request) -> Response:
        """``POST /v1/unload_lora_adapter``."""
        asked = decoded(await self._body(request), UnloadRequest)
        await self.library.unload(asked.lora_name)
        return _json({"lora_name": asked.lora_name})

    # -- the server itself -------------------------------------------------------------------------------------------

    async def health(self, request: Request) -> Response:
        """``GET /health``."""
        if self.engine.error is not None:
            raise Refusal(503, str(self.engine.error))
        self._refuse_when_stopping()
        return _json({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        """``GET /metrics``."""
        return Response(await asyncio.to_thread(self._meters.shown), media_type=CONTENT_TYPE)

    async def refusal(self, request: Request, error: Exception) -> Response:
        """An error, as an answer."""
        refusal = refusal_of(error)
        self._meters.refused(refusal.status)
        return refusal.response()

    async def authorised(self, route: Route_, request: Request) -> Response:
        """Only for those who may ask."""
        self._refuse_when_stopping()
        if not self._tokens and (why := why_not(request.headers, any_host=self._any_host)):
            raise Refusal(403, f"{why}: serve with API keys, if it may be")
        tenant = self._tokens.name_of(request.headers.get("authorization")) if self._tokens else ""
        if tenant is None:
            raise Refusal(401, "the API key is missing or wrong: Authorization: Bearer KEY", code="invalid_api_key")
        request.state.tenant = tenant
        return await route(request)

    def _refuse_when_stopping(self) -> None:
        if self._stopping:
            raise Refusal(503, "the server is stopping", code="stopping", wait_s=5)

    async def _body(self, request: Request) -> bytes:
        declared, body = request.headers.get("content-length", ""), bytearray()
        async for part in request.stream():
            body += part
            if max(len(body), int(declared) if declared.isdecimal() else 0) > self._max_body:
                raise Refusal(413, f"the body is longer than {self._max_body:,} bytes")
        return bytes(body)


def make_app(service: Service) -> Starlette:
    """The application, for any ASGI server."""

    def kept(path: str, route: Route_, method: str = "GET") -> Route:
        async def answer(request: Request) -> Response:
            return await service.authorised(route, request)

        return Route(path, answer, methods=[method])

    return Starlette(
        routes=[
            kept("/v1/chat/completions", service.chat, "POST"),
            kept("/v1/completions", service.complete, "POST"),
            kept("/v1/models", service.models),
            kept("/v1/models/{name:path}", service.model),
            kept("/v1/load_lora_adapter", service.load, "POST"),
            kept("/v1/unload_lora_adapter", service.unload, "POST"),
            Route("/health", service.health),
            Route("/metrics", service.metrics),
        ],
        exception_handlers=dict.fromkeys(
            (Refusal, LLMError, HTTPException, ClientDisconnect, Exception), service.refusal
        ),
    )


async def _first(rest: AsyncIterator[Json]) -> Json:
    return await anext(rest)


def _json(content: Json) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
