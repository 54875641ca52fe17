"""What a client may ask, and what it becomes for the engine.

What would change the answer and is not supported is refused by its name: nobody gets an answer to another question.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from exoflow.llm.engine.request import SamplingParams
from exoflow.llm.server.refusals import Refusal

T = TypeVar("T")


class StreamOptions(msgspec.Struct):
    include_usage: bool = False


class _Asked(msgspec.Struct, kw_only=True):
    """What chat and completions have in common."""

    model: str
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    ignore_eos: bool = False
    response_format: dict[str, Any] | None = None
    structured_outputs: dict[str, Any] | None = None
    user: str | None = None

    # Not supported: refused unless they ask for nothing.
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    min_p: float | None = None
    min_tokens: int | None = None
    best_of: int | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None

    def check(self) -> None:
        neutral: dict[str, object] = {
            "frequency_penalty": 0,
            "presence_penalty": 0,
            "repetition_penalty": 1,
            "logit_bias": {},
            "min_p": 0,
            "min_tokens": 0,
            "best_of": self.n or 1,
            "tools": [],
            "functions": [],
        }
        for name, nothing in neutral.items():
            value = getattr(self, name)
            if value is not None and value != nothing:
                raise Refusal(400, f"{name} is not supported", param=name)

    def params(self, max_tokens: int, logprobs: int | None) -> SamplingParams:
        """As the engine has it."""
        schema, regex = self._structure()
        try:
            return SamplingParams(
                max_tokens=max_tokens,
                temperature=1.0 if self.temperature is None else self.temperature,
                top_p=1.0 if self.top_p is None else self.top_p,
                top_k=max(0, self.top_k or 0),
                seed=self.seed,
                n=self.n or 1,
                stop=tuple([self.stop] if isinstance(self.stop, str) else self.stop or ()),
                logprobs=logprobs,
                ignore_eos=self.ignore_eos,
                json_schema=schema,
                regex=regex,
            )
        except ValueError as error:
            raise Refusal(400, str(error), param=str(error).split("=", 1)[0]) from error

    def _structure(self) -> tuple[dict[str, Any] | None, str | None]:
        wanted = dict(self.structured_outputs or {})
        schema, regex = wanted.pop("json", None), wanted.pop("regex", None)
        if wanted:
            raise Refusal(400, f"structured_outputs: {sorted(wanted)} is not supported", param="structured_outputs")
        kind = (self.response_format or {"type": "text"}).get("type")
        if kind == "json_schema":
            schema = (self.response_format or {}).get("json_schema", {}).get("schema", {})
        elif kind == "json_object":
            schema = {"type": "object"}
        elif kind != "text":
            raise Refusal(400, f"response_format: type {kind!r} is not supported", param="response_format")
        return schema, regex


class ChatRequest(_Asked, kw_only=True):
    """``POST /v1/chat/completions``."""

    messages: list[dict[str, Any]]
    max_completion_tokens: int | None = None
    logprobs: bool = False
    top_logprobs: int | None = None

    @property
    def counted_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionRequest(_Asked, kw_only=True):
    """``POST /v1/completions``."""

    prompt: str | list[str] | list[int] | list[list[int]]
    logprobs: int | None = None
    echo: bool = False
    suffix: str | None = None

    def check(self) -> None:
        super().check()
        if self.echo or self.suffix:
            raise Refusal(400, "echo and suffix are not supported", param="echo" if self.echo else "suffix")

    @property
    def prompts(self) -> list[str | list[int]]:
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [self.prompt]  # token ids of one prompt
        return list(self.prompt)  # type: ignore[arg-type]  # and here of several


class LoadRequest(msgspec.Struct, kw_only=True):
    """``POST /v1/load_lora_adapter``."""

    lora_name: str
    lora_path: str
    load_inplace: bool = False
    """A name that is taken gets the new content; without it that is refused."""
    pinned: bool = False


class UnloadRequest(msgspec.Struct, kw_only=True):
    """``POST /v1/unload_lora_adapter``."""

    lora_name: str


def decoded(body: bytes, kind: type[T]) -> T:
    """The body as ``kind``.

    Raises:
        Refusal: it is none; the message says where.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise Refusal(400, str(error)) from error
    except msgspec.DecodeError as error:
        raise Refusal(400, f"the body is no JSON: {error}") from error
