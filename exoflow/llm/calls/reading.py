"""Answers as endpoints write them, whole and in pieces, read with care: anything may stand there, or be missing.

What can be read is kept, since it was paid for; only an answer of which nothing can is none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from exoflow.llm.calls.answer import TokenLogprob, ToolCall


class Unreadable(Exception):
    """It is no answer; what was read says why."""


class UnknownForm(Unreadable):
    """It is an answer, in a form of which nothing can be read: it is billed, and another one would be no better."""


@dataclass(slots=True)
class Reading:
    """An answer, as far as it was read."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    usage: object = None
    """As it was told."""
    refusal: str | None = None
    model: str = ""
    unread: frozenset[str] = frozenset()
    """Fields that stood there and could not be read."""


def whole(data: object) -> Reading:
    """A whole answer.

    Raises:
        Unreadable: it is none.
    """
    choice = _choice(data)
    if choice is None:
        raise Unreadable("it has no choices")
    message = mapping(choice.get("message"))
    if not message and "text" not in choice:
        raise Unreadable("its choice has neither message nor text")
    fields, unread = mapping(data), set[str]()
    reading = Reading(
        _content(message.get("content") if message else choice.get("text"), unread),
        tuple(_tool_call(call) for call in _calls(message, unread)),
        _text(choice.get("finish_reason")) or "stop",
        _logprobs(choice.get("logprobs"), unread),
        fields.get("usage"),
        _text(message.get("refusal")),
        _text(fields.get("model")) or "",
    )
    return _kept(reading, unread)


class Pieces:
    """An answer that comes in pieces."""

    def __init__(self) -> None:
        self.count = 0
        """Pieces with text, each a token, or a few."""
        self._texts: list[str] = []
        self._refusals: list[str] = []
        self._calls: dict[int, list[str]] = {}
        self._logprobs: list[TokenLogprob] = []
        self._unread: set[str] = set()
        self._reading = Reading()

    def add(self, data: object) -> str:
        """Take one in; the text in it.

        Raises:
            Unreadable: it is an error.
        """
        fields, reading = mapping(data), self._reading
        if fields.get("error"):
            raise Unreadable(f"it broke off with {fields['error']!r}")
        reading.usage = fields.get("usage") or reading.usage
        reading.model = _text(fields.get("model")) or reading.model
        choice = _choice(data)
        if choice is None:
            return ""
        delta = mapping(choice.get("delta"))
        text = _content(delta.get("content") if delta else choice.get("text"), self._unread)
        if text:
            self.count += 1
            self._texts.append(text)
        self._refusals.append(_text(delta.get("refusal")) or "")
        for call in _calls(delta, self._unread):
            self._add_call(call)
        self._logprobs.extend(_logprobs(choice.get("logprobs"), self._unread) or ())
        reading.finish_reason = _text(choice.get("finish_reason")) or reading.finish_reason
        return text

    def _add_call(self, call: Mapping[str, Any]) -> None:
        index, function = call.get("index"), mapping(call.get("function"))
        parts = self._calls.setdefault(index if isinstance(index, int) else 0, ["", "", ""])
        for place, part in enumerate((call.get("id"), function.get("name"), function.get("arguments"))):
            parts[place] += _text_or_json(part)

    @property
    def has_ended(self) -> bool:
        """All of the answer is there; at most what it has used is still to come."""
        return self._reading.finish_reason is not None

    @property
    def text(self) -> str:
        return "".join(self._texts)

    def reading(self) -> Reading:
        """All of it.

        Raises:
            Unreadable: it has not ended.
        """
        reading = self._reading
        if reading.finish_reason is None:
            raise Unreadable("it broke off in the middle")
        reading.text = self.text
        reading.refusal = "".join(self._refusals) or None
        reading.tool_calls = tuple(ToolCall(*parts) for _, parts in sorted(self._calls.items()))
        reading.logprobs = None if "logprobs" in self._unread else tuple(self._logprobs) or None
        return _kept(reading, self._unread)


def _kept(reading: Reading, unread: set[str]) -> Reading:
    """It, unless nothing of it is of use.

    Raises:
        UnknownForm: so it is.
    """
    reading.unread = frozenset(unread)
    if unread - {"logprobs"} and not (reading.text or reading.tool_calls or reading.refusal):
        raise UnknownForm(f"nothing of it has a form that is known ({', '.join(sorted(unread))})")
    return reading


def _choice(data: object) -> Mapping[str, Any] | None:
    choices = mapping(data).get("choices")
    return mapping(choices[0]) if isinstance(choices, list) and choices else None


def mapping(value: object) -> Mapping[str, Any]:
    """It, if it is a JSON object; else an empty one."""
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _text_or_json(value: object) -> str:
    """Arguments are JSON as text; some endpoints give them as they are."""
    if isinstance(value, Mapping | list):
        return json.dumps(value, ensure_ascii=False)
    return _text(value) or ""


def _content(found: object, unread: set[str]) -> str:
    """Text, or what of a list of parts is text; other parts, thoughts say, are passed over."""
    if found is None or isinstance(found, str):
        return found or ""
    if not isinstance(found, list):
        unread.add("content")
        return ""
    texts = []
    for part in found:
        text = part if isinstance(part, str) else _text(mapping(part).get("text"))
        if text is not None:
            texts.append(text)
        elif mapping(part).get("type", "text") == "text":
            unread.add("content")
    return "".join(texts)


def _calls(message: Mapping[str, Any], unread: set[str]) -> list[Mapping[str, Any]]:
    found = message.get("tool_calls") or []
    calls = [call for call in found if isinstance(call, Mapping)] if isinstance(found, list) else []
    if not isinstance(found, list) or len(calls) < len(found):
        unread.add("tool_calls")
    return calls


def _tool_call(call: Mapping[str, Any]) -> ToolCall:
    function = mapping(call.get("function"))
    return ToolCall(*map(_text_or_json, (call.get("id"), function.get("name"), function.get("arguments"))))


def _logprobs(found: object, unread: set[str]) -> tuple[TokenLogprob, ...] | None:
    """Of chat's form, and of completions'; None if they are of neither."""
    try:
        return _told_logprobs(found)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        unread.add("logprobs")
        return None


def _told_logprobs(found: object) -> tuple[TokenLogprob, ...] | None:
    fields = mapping(found)
    content = fields.get("content")
    if isinstance(content, list):
        return tuple(
            TokenLogprob(
                str(entry.get("token", "")),
                float(entry["logprob"]),
                tuple((str(top["token"]), float(top["logprob"])) for top in entry.get("top_logprobs") or ()),
            )
            for entry in content
        )
    tokens, values = fields.get("tokens"), fields.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(values, list):
        return None
    tops = fields.get("top_logprobs") or [None] * len(tokens)
    return tuple(
        TokenLogprob(str(token), float(value), tuple((str(name), float(each)) for name, each in (top or {}).items()))
        for token, value, top in zip(tokens, values, tops, strict=False)
        if value is not None  # a first token that was the prompt's has none
    )
