"""Make a workload's calls at their times, to an engine here or to any server that speaks OpenAI's protocol."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from exoflow.errors import LLMError
from exoflow.llm.bench.workload import Call
from exoflow.llm.engine.request import SamplingParams

if TYPE_CHECKING:
    from exoflow.llm.engine.engine import Engine


@dataclass(frozen=True, slots=True)
class Served:
    """What became of one call; times in seconds after its arrival."""

    call: Call
    first_s: float | None
    """None: no token has come."""
    end_s: float
    tokens: int
    error: str | None = None


class Target(Protocol):
    """Whom the calls are made to."""

    def answer(self, call: Call) -> AsyncIterator[int]:
        """Tokens that have come, piece by piece.

        Raises:
            LLMError, OSError: the call was refused, or failed.
        """
        ...


class InProcess:
    """An engine of this process.

    Args:
        adapters: names of the workload's adapters; empty: the base model answers all.
    """

    def __init__(self, engine: Engine, adapters: Sequence[str]) -> None:
        self._engine = engine
        self._adapters = adapters
        self._word = engine.model.tokenizer.encode("Hello ")[0]

    async def answer(self, call: Call) -> AsyncIterator[int]:
        params = SamplingParams(max_tokens=call.output_tokens, temperature=0, ignore_eos=True)
        adapter = self._adapters[call.adapter % len(self._adapters)] if self._adapters else None
        prompt = [self._word] * call.prompt_tokens
        async for event in self._engine.stream(prompt, params, adapter):
            if event.finish_reason == "abort":
                raise LLMError("it was dropped")
            if event.token_id is not None:
                yield 1


class OverHttp:
    """A server's ``/v1/completions``, streamed.

    Args:
        url: up to and with ``/v1``.
        models: the adapters' names there.
        key: of its API, if it wants one.
    """

    def __init__(self, url: str, models: Sequence[str], key: str | None = None) -> None:
        self._url = url.rstrip("/")
        self._models = models
        import aiohttp

        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._session = aiohttp.ClientSession(
            headers=headers, timeout=aiohttp.ClientTimeout(total=None), connector=aiohttp.TCPConnector(limit=0)
        )

    async def answer(self, call: Call) -> AsyncIterator[int]:
        import aiohttp

        asked = {
            "model": self._models[call.adapter % len(self._models)],
            "prompt": "Hello " * call.prompt_tokens,
            "max_tokens": call.output_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        try:
            async with self._session.post(f"{self._url}/completions", json=asked) as answer:
                if answer.status != 200:
                    raise LLMError(f"{answer.status}: {(await answer.text())[:200]}")
                async for count in _counts(answer.content):
                    yield count
        except aiohttp.ClientError as error:
            raise LLMError(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        await self._session.close()


async def _counts(lines: AsyncIterable[bytes]) -> AsyncIterator[int]:
    """Tokens by event. One may bring several, or none that can be seen yet: the usage tells of them in the end."""
    told = 0
    async for line in lines:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line.removeprefix(b"data: "))
        if "error" in event:
            raise LLMError(str(event["error"]))
        if event.get("usage"):
            yield max(0, event["usage"]["completion_tokens"] - told)
            told = event["usage"]["completion_tokens"]
        elif event["choices"] and event["choices"][0].get("text"):
            told += 1
            yield 1


async def drive(
    target: Target, calls: Sequence[Call], told: Callable[[Served], None] = lambda served: None
) -> list[Served]:
    """Make each call at its time, however many are under way; all have ended when this returns."""
    begun = time.perf_counter()

    async def make(call: Call) -> Served:
        await asyncio.sleep(max(0.0, begun + call.at_s - time.perf_counter()))
        served = await _served(target, call, begun + call.at_s)
        told(served)
        return served

    return await asyncio.gather(*map(make, calls))


async def _served(target: Target, call: Call, arrived: float) -> Served:
    first_s: float | None = None
    tokens = 0
    error: str | None = None
    try:
        async for count in target.answer(call):
            if first_s is None:
                first_s = time.perf_counter() - arrived
            tokens += count
    except (LLMError, OSError) as failed:
        error = f"{type(failed).__name__}: {failed}"
    return Served(call, first_s, time.perf_counter() - arrived, tokens, error)
