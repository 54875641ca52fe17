"""What a fake endpoint was asked, what it is to reply, and the forms in which OpenAI's endpoints say it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Json = dict[str, object]


@dataclass(slots=True)
class Asked:
    """One request for an answer."""

    number: int
    """The how manieth it was, from 0."""
    prompt: str
    """The last message's text, or the plain prompt."""
    nth: int
    """How often this prompt had been asked before; what was refused or broken off counts too."""
    key: str
    """The idempotency key: with ``LLM`` in a flow, run and call."""
    tries: int
    """How often this key had been asked before."""
    body: Json
    """All of the request."""
    headers: Mapping[str, str]
    billed: bool = False
    """A whole answer was made for it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """How a request is answered: well, late, in part, with an error or not at all."""

    text: str = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    """More of them: ``{"Retry-After": "1"}``."""
    delay_s: float | None = None
    """None: as of the endpoint."""
    hangs: bool = False
    """It is never answered."""
    cut_after: int | None = None
    """The connection is lost after so many words of the answer; -1: before the answer begins."""
    usage: Mapping[str, object] | Literal["honest"] | None = "honest"
    """Lies as they are, or none at all."""
    finish_reason: str = "stop"
    tool_calls: Sequence[Mapping[str, object]] = ()
    logprobs: Sequence[float] = ()
    """One for each word."""
    raw: str | None = None
    """The body as it is, instead of an answer; bytes that are no text as Python's ``surrogateescape`` has them."""


def said(asked: Asked) -> str:
    """A few words that depend on the prompt, and on how often it was asked."""
    digest = hashlib.sha256(f"{asked.nth} {asked.prompt}".encode()).hexdigest()
    return f"{digest[:6]} {digest[6:12]}"


def words(text: str) -> list[str]:
    """What counts as tokens here: words with the space before them."""
    first, *rest = text.split(" ")
    return [first, *(f" {word}" for word in rest)] if text else []


def prompt_of(body: Json) -> str:
    """What was asked, as text."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        return str(body.get("prompt", ""))
    content = messages[-1].get("content") if messages else ""
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return str(content or "")


def usage_of(body: Json, reply: Reply) -> Json | None:
    if reply.usage != "honest":
        return None if reply.usage is None else dict(reply.usage)
    messages = body.get("messages")
    texts = [str(each.get("content") or "") for each in messages] if isinstance(messages, list) else [prompt_of(body)]
    asked, answered = sum(len(words(text)) for text in texts), max(1, len(words(reply.text)))
    return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}


def answer_of(body: Json, reply: Reply, *, chat: bool, number: int) -> Json:
    """The whole answer."""
    choice: Json = {"index": 0, "finish_reason": reply.finish_reason, "logprobs": _logprobs(reply, chat=chat)}
    if chat:
        message: Json = {"role": "assistant", "content": reply.text or None, "refusal": None}
        if reply.tool_calls:
            message["tool_calls"] = [_tool_call(index, call) for index, call in enumerate(reply.tool_calls)]
        else:
            message["content"] = reply.text
        choice["message"] = message
    else:
        choice["text"] = reply.text
    answer = _head(body, chat=chat, number=number, chunk=False) | {"choices": [choice]}
    usage = usage_of(body, reply)
    return answer if usage is None else answer | {"usage": usage}


def pieces_of(body: Json, reply: Reply, *, chat: bool, number: int) -> Iterator[Json]:
    """The same in pieces: a word each, then why it ends, then what was used."""
    head = _head(body, chat=chat, number=number, chunk=True)

    def piece(said: Json, reason: str | None, logprobs: object = None) -> Json:
        content: Json = {"delta": said} if chat else {"text": said.get("content", "")}
        return head | {"choices": [{"index": 0, **content, "logprobs": logprobs, "finish_reason": reason}]}

    if chat:
        yield piece({"role": "assistant", "content": ""}, None)
    for index, word in enumerate(words(reply.text)):
        told = Reply(word, logprobs=reply.logprobs[index : index + 1])
        yield piece({"content": word}, None, _logprobs(told, chat=chat))
    for index, call in enumerate(reply.tool_calls):
        whole = _tool_call(index, call)
        function = whole["function"]
        assert isinstance(function, dict)
        first = whole | {"index": index, "function": function | {"arguments": ""}}
        yield piece({"tool_calls": [first]}, None)
        text = function["arguments"]
        for half in (text[: len(text) // 2], text[len(text) // 2 :]):
            yield piece({"tool_calls": [{"index": index, "function": {"arguments": half}}]}, None)
    yield piece({}, reply.finish_reason)
    options, usage = body.get("stream_options"), usage_of(body, reply)
    if usage is not None and isinstance(options, dict) and options.get("include_usage"):
        yield head | {"choices": [], "usage": usage}


def error_of(reply: Reply) -> Json:
    return {"error": {"message": reply.text or "told to fail", "type": "fake", "param": None, "code": None}}


def _head(body: Json, *, chat: bool, number: int, chunk: bool) -> Json:
    kind = f"chat.completion{'.chunk' if chunk else ''}" if chat else "text_completion"
    return {"id": f"fake-{number}", "object": kind, "created": 0, "model": body.get("model", "")}


def _tool_call(index: int, call: Mapping[str, object]) -> Json:
    return {"id": f"call_{index}", "type": "function", "function": dict(call)}


def _logprobs(reply: Reply, *, chat: bool) -> Json | None:
    if not reply.logprobs:
        return None
    pairs = list(zip(words(reply.text), reply.logprobs, strict=False))
    if chat:
        entries = [
            {"token": word, "logprob": value, "bytes": list(word.encode()), "top_logprobs": []} for word, value in pairs
        ]
        return {"content": entries}
    return {
        "tokens": [word for word, _ in pairs],
        "token_logprobs": [value for _, value in pairs],
        "top_logprobs": None,
    }
