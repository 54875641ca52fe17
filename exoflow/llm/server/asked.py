"""What a client may ask, and what it becomes for the engine.

A field that is not known is refused by its name, and so is one that would change the answer and is not supported:
nobody gets an answer to another question.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from exoflow.llm.engine.request import SamplingParams
from exoflow.llm.server.refusals import Refusal

T = TypeVar("T")
STOPS_MAX = 16
Count = Annotated[int, Meta(ge=1, le=2**31)]


class _Strict(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    pass


def _refuse_others(asked: _Strict, neutral: Mapping[str, object], where: str = "") -> None:
    """Fields that are not supported may ask for nothing, by null or by these values.

    Raises:
        Refusal: one of them asks for something.
    """
    for name, nothing in neutral.items():
        value = getattr(asked, name)
        if value is not None and value != nothing:
            raise Refusal(400, f"{where}{name} is not supported", param=f"{where}{name}")


class StreamOptions(_Strict):
    include_usage: bool = False
    include_obfuscation: bool | None = None


class Part(_Strict):
    """Of a message: text is all that this model reads."""

    type: Literal["text"]
    text: str


class Message(_Strict):
    role: str
    content: str | list[Part] | None = None
    name: str | None = None

    # Clients send an earlier answer back whole, with all that it had not.
    refusal: str | None = None
    annotations: list[Any] | None = None
    audio: Any = None
    function_call: Any = None
    tool_calls: list[Any] | None = None

    def check(self, where: str) -> None:
        """Raises Refusal: it has more than text; ``where`` it lies."""
        neutral: dict[str, object] = {
            "refusal": "",
            "annotations": [],
            "audio": None,
            "function_call": None,
            "tool_calls": [],
        }
        _refuse_others(self, neutral, where)

    def plain(self) -> dict[str, object]:
        """As chat templates know it."""
        text = "".join(part.text for part in self.content) if isinstance(self.content, list) else self.content or ""
        named: dict[str, object] = {"name": self.name} if self.name is not None else {}
        return {"role": self.role, "content": text, **named}


class JsonSchema(_Strict):
    name: str | None = None
    description: str | None = None
    schema: dict[str, Any] = {}
    strict: bool | None = None


class ResponseFormat(_Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class Structure(_Strict):
    """vLLM's own way to ask for a form."""

    json: str | dict[str, Any] | None = None
    regex: str | None = None


class _Asked(_Strict):
    """What chat and completions have in common."""

    model: str
    max_tokens: Count | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    n: Count | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool = False
    response_format: ResponseFormat | None = None
    structured_outputs: Structure | None = None
    user: str | None = None

    # Said by clients, and of no meaning for the answer.
    store: bool | None = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    # Not supported: refused unless they ask for nothing.
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    min_p: float | None = None
    min_tokens: int | None = None

    def check(self) -> None:
        """Raises Refusal: it asks for what cannot be done."""
        neutral: dict[str, object] = {
            "frequency_penalty": 0, "presence_penalty": 0, "repetition_penalty": 1, "logit_bias": {}, "min_p": 0,
            "min_tokens": 0, **self._neutral(),
        }  # fmt: skip
        _refuse_others(self, neutral)
        if self.stream_options is not None:
            _refuse_others(self.stream_options, {"include_obfuscation": False}, "stream_options.")

    def _neutral(self) -> dict[str, object]:
        raise NotImplementedError

    @property
    def stops(self) -> tuple[str, ...]:
        stops = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        if len(stops) > STOPS_MAX:
            raise Refusal(400, f"stop: {len(stops)} strings are more than {STOPS_MAX}", param="stop")
        return stops

    @property
    def with_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def params(self, max_tokens: int, logprobs: int | None) -> SamplingParams:
        """As the engine has it."""
        schema, regex = self._structure()
        try:
            return SamplingParams(
                max_tokens=max_tokens,
                temperature=1.0 if self.temperature is None else self.temperature,
                top_p=1.0 if self.top_p is None else self.top_p,
                top_k=0 if self.top_k == -1 else self.top_k or 0,  # -1: vLLM's word for all
                seed=self.seed,
                n=self.n or 1,
                stop=self.stops,
                logprobs=logprobs,
                ignore_eos=self.ignore_eos,
                json_schema=schema,
                regex=regex,
            )
        except ValueError as error:
            name = str(error).partition("=")[0]
            raise Refusal(400, str(error), param=name if name.isidentifier() else None) from error

    def _structure(self) -> tuple[str | dict[str, Any] | None, str | None]:
        structure = self.structured_outputs or Structure()
        schema, wanted = structure.json, self.response_format
        if schema is not None and structure.regex is not None:
            raise Refusal(400, "structured_outputs: give json or regex", param="structured_outputs")
        if wanted is not None and wanted.type != "text":
            if schema is not None or structure.regex is not None:
                raise Refusal(400, "response_format and structured_outputs: give one", param="response_format")
            if wanted.type == "json_schema" and wanted.json_schema is None:
                raise Refusal(400, "response_format: json_schema is missing", param="response_format")
            schema = wanted.json_schema.schema if wanted.json_schema else {"type": "object"}
        return schema, structure.regex


class ChatRequest(_Asked, kw_only=True):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    modalities: list[str] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    functions: list[Any] | None = None
    function_call: Any = None
    prediction: Any = None
    audio: Any = None

    def check(self) -> None:
        super().check()
        for place, message in enumerate(self.messages):
            message.check(f"messages[{place}].")
        if self.top_logprobs and not self.logprobs:
            raise Refusal(400, "top_logprobs: they are given with logprobs=true only", param="top_logprobs")

    def _neutral(self) -> dict[str, object]:
        return {
            "tools": [], "functions": [], "tool_choice": "none", "function_call": "none", "modalities": ["text"],
            "prediction": None, "audio": None,
        }  # fmt: skip

    @property
    def counted_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionRequest(_Asked, kw_only=True):
    """``POST /v1/completions``."""

    prompt: str | list[str | int | list[int]]
    logprobs: int | None = None
    best_of: int | None = None
    echo: bool = False
    suffix: str | None = None

    def _neutral(self) -> dict[str, object]:
        return {"best_of": self.n or 1, "echo": False, "suffix": ""}

    @property
    def prompts(self) -> list[str | list[int]]:
        if isinstance(self.prompt, str):
            return [self.prompt]
        tokens = [each for each in self.prompt if isinstance(each, int)]
        if len(tokens) == len(self.prompt):
            return [tokens]
        if tokens:
            raise Refusal(400, "prompt: give texts, or lists of token ids, or the ids of one prompt", param="prompt")
        return [each for each in self.prompt if not isinstance(each, int)]


class LoadRequest(_Strict):
    """``POST /v1/load_lora_adapter``."""

    lora_name: Annotated[str, Meta(min_length=1, max_length=255)]
    lora_path: Annotated[str, Meta(min_length=1)]
    load_inplace: bool = False
    """A name that is taken gets the new content; without it that is refused."""
    pinned: bool = False
    base_model_name: str | None = None


class UnloadRequest(_Strict):
    """``POST /v1/unload_lora_adapter``."""

    lora_name: str
    lora_int_id: int | None = None


def decoded(body: bytes, kind: type[T]) -> T:
    """The body as ``kind``.

    Raises:
        Refusal: it is none; the message says where.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise Refusal(400, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, f"the body is no JSON: {error}") from error
