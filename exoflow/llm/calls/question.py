"""What is asked of a model, checked before anything is sent or recorded."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from exoflow.llm.calls.forms import check_findable, response_format_of
from exoflow.refs import Ref

Messages = str | Sequence[Mapping[str, Any]]
"""A chat; text alone is one message of the user's."""

_PER_MESSAGE = 8
"""Tokens of a chat's template, at most, more or less."""
_PER_PART = 1024
"""Tokens of an image and the like, which nobody knows before."""
BYTES_PER_TOKEN = 4
"""Of text, more or less."""
_KNOWN = frozenset(
    ["max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop", "logprobs",
     "top_logprobs", "logit_bias", "frequency_penalty", "presence_penalty", "repetition_penalty", "tools",
     "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort", "user", "metadata", "service_tier",
     "echo", "suffix"]
)  # fmt: skip
_REFUSED = {
    "n": "a call gives one answer: llm.map([messages] * n), or a vote",
    "stream": "llm.stream(...), or in a flow llm.options(on_text=...)",
    "stream_options": "llm.stream(...) asks for what it needs",
    "messages": "llm(messages), without a name",
    "model": "the model stands in LLM(..., model=...)",
}


def check_params(params: Mapping[str, object]) -> None:
    """Refuse what is most likely a mistake. Names that are not OpenAI's are passed on: endpoints have more.

    Raises:
        TypeError, ValueError: with what to write.
    """
    for name, value in params.items():
        if name in _REFUSED:
            raise TypeError(f"{name}=: {_REFUSED[name]}")
        near = [] if name in _KNOWN else difflib.get_close_matches(name, _KNOWN, 1, 0.85)
        if near:
            raise TypeError(f"there is no {name!r}: did you mean {near[0]!r}?")
        if name in ("max_tokens", "max_completion_tokens"):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name}={value!r} must be a whole number")
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name}={value} must be a finite number")
    if params.get("response_format") is not None:
        response_format_of(params["response_format"])


def chat(messages: object) -> list[Mapping[str, Any]]:
    """The messages of a chat.

    Raises:
        TypeError, ValueError: they are none.
    """
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    if isinstance(messages, Mapping) or not isinstance(messages, Sequence):
        raise TypeError(f"messages={messages!r}: give a list, as [{{'role': 'user', 'content': '...'}}], or a text")
    if not messages:
        raise ValueError("messages=[] asks nothing")
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise TypeError(f"messages[{index}]={message!r} must be a dict with a role and a content")
    return list(messages)


@dataclass(frozen=True)
class Question:
    """One call's, with nothing left open."""

    messages: Sequence[Mapping[str, Any]] | None
    prompt: str | None
    """Plain text that is to be completed, instead of a chat."""
    params: Mapping[str, Any]

    @staticmethod
    def of(messages: Messages | None, prompt: str | None, params: Mapping[str, Any]) -> Question:
        """Checked.

        Raises:
            TypeError, ValueError: with what to write.
        """
        if (messages is None) == (prompt is None):
            raise TypeError("give messages for a chat, or prompt='...' for a plain completion, and not both")
        if prompt is not None and not isinstance(prompt, str):
            raise TypeError(f"prompt={prompt!r} must be text")
        check_params(params)
        return Question(None if messages is None else chat(messages), prompt, params)

    @property
    def max_output_tokens(self) -> int | None:
        found = self.params.get("max_completion_tokens", self.params.get("max_tokens"))
        return None if found is None else int(found)

    def body(self, model: str) -> dict[str, Any]:
        """For the endpoint."""
        asked = {"prompt": self.prompt} if self.messages is None else {"messages": self.messages}
        params = {name: value for name, value in self.params.items() if value is not None}
        if "response_format" in params:
            params["response_format"] = response_format_of(params["response_format"])
        if "max_completion_tokens" in params:
            params.pop("max_tokens", None)
        return {"model": model, **asked, **params}

    @property
    def most_input_tokens(self) -> int:
        """No tokenizer makes more than one token of a byte; what is no text is guessed."""
        text, others, count = self._size
        return text + others * _PER_PART + count * _PER_MESSAGE

    @property
    def likely_input_tokens(self) -> int:
        text, others, count = self._size
        return text // BYTES_PER_TOKEN + others * _PER_PART + count * _PER_MESSAGE // 2 + 1

    @property
    def has_other_than_text(self) -> bool:
        return self._size[1] > 0

    @cached_property
    def _size(self) -> tuple[int, int, int]:
        """Bytes of text, parts that are no text, messages."""
        if self.messages is None:
            return len((self.prompt or "").encode("utf-8", "surrogatepass")), 0, 0
        text = others = 0
        for message in self.messages:
            for name, value in message.items():
                if isinstance(value, list) and name == "content":
                    texts = [part["text"] for part in value if isinstance(part, Mapping) and "text" in part]
                    others += len(value) - len(texts)
                    text += sum(_bytes(each) for each in texts)
                elif value is not None:
                    text += _bytes(value)
        return text + _bytes(self.params.get("tools") or ""), others, len(self.messages)


def _bytes(value: object) -> int:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return len(text.encode("utf-8", "surrogatepass"))


def check_asked(messages: object, prompt: object, params: Mapping[str, Any]) -> None:
    """In the flow's body, where the mistake is; what holds Refs is looked at when their values are there.

    Raises:
        TypeError, ValueError: as ``Question.of``.
    """
    check_params(params)
    check_findable(params.get("response_format"))
    if (messages is None) == (prompt is None):
        raise TypeError("give messages for a chat, or prompt='...' for a plain completion, and not both")
    if prompt is not None and not isinstance(prompt, str | Ref):
        raise TypeError(f"prompt={prompt!r} must be text")
    if messages is not None and not isinstance(messages, Ref) and not _holds_refs(messages):
        chat(messages)


def _holds_refs(messages: object) -> bool:
    return isinstance(messages, list | tuple) and any(isinstance(message, Ref) for message in messages)
