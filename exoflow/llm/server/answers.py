"""Answers in OpenAI's forms: whole, and in pieces."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence

from exoflow.llm.engine.request import Event, Output, TokenLogprobs, used_by

Json = dict[str, object]
Word = Callable[[int], str]
"""A token's own text."""
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""In the text of a token that is a part of a character."""


class Form:
    """What the answers to one request have in common.

    Args:
        is_chat: chat's forms, else those of completions.
        with_usage: the last piece has it.
    """

    def __init__(self, model: str, word: Word, *, is_chat: bool, with_usage: bool = False) -> None:
        self.is_chat = is_chat
        self.with_usage = with_usage
        self._word = word
        self._lengths: Counter[int] = Counter()
        self._head: Json = {
            "id": f"{'chatcmpl' if is_chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, outputs: Sequence[Output]) -> Json:
        """All answers, numbered through over all prompts."""
        choices = [self._choice(number, output) for number, output in enumerate(outputs)]
        return self._head | {"object": self._kind(""), "choices": choices, "usage": usage_of(outputs)}

    def first_piece(self, number: int) -> Json | None:
        """Chat begins with the role."""
        return self._piece(number, {"role": "assistant", "content": ""}, None, None) if self.is_chat else None

    def piece(self, number: int, event: Event) -> Json | None:
        """None: there is nothing to say of it yet."""
        if not event.text and event.logprobs is None and event.finish_reason is None:
            return None
        said: Json = {"content": event.text} if self.is_chat else {"text": event.text}
        logprobs = self._logprobs(number, [event.logprobs]) if event.logprobs is not None else None
        return self._piece(number, said, logprobs, event.finish_reason)

    def last_piece(self, outputs: Sequence[Output]) -> Json:
        return self._head | {"object": self._kind(".chunk"), "choices": [], "usage": usage_of(outputs)}

    def _choice(self, number: int, output: Output) -> Json:
        message = {"role": "assistant", "content": output.text, "refusal": None}
        said: Json = {"message": message} if self.is_chat else {"text": output.text}
        logprobs = self._logprobs(number, output.logprobs) if output.logprobs is not None else None
        return {"index": number, **said, "logprobs": logprobs, "finish_reason": output.finish_reason}

    def _piece(self, number: int, said: Json, logprobs: Json | None, reason: str | None) -> Json:
        content: Json = {"delta": said} if self.is_chat else said
        choice = {"index": number, **content, "logprobs": logprobs, "finish_reason": reason}
        usage: Json = {"usage": None} if self.with_usage else {}
        return self._head | {"object": self._kind(".chunk"), "choices": [choice], **usage}

    def _kind(self, chunk: str) -> str:
        return f"chat.completion{chunk}" if self.is_chat else "text_completion"

    def _logprobs(self, number: int, found: Sequence[TokenLogprobs]) -> Json:
        if self.is_chat:
            return {
                "content": [
                    self._entry(each.token_id, each.logprob)
                    | {"top_logprobs": [self._entry(token, logprob) for token, logprob in each.top]}
                    for each in found
                ]
            }
        words, offsets = [self._word(each.token_id) for each in found], []
        for word in words:
            offsets.append(self._lengths[number])
            self._lengths[number] += len(word)
        return {
            "tokens": words,
            "token_logprobs": [each.logprob for each in found],
            "top_logprobs": [self._top(each) for each in found],
            "text_offset": offsets,
        }

    def _top(self, found: TokenLogprobs) -> Json:
        """By text; some have none of their own."""
        named: Json = {}
        for token, logprob in found.top:
            word = self._word(token)
            named[f"token_id:{token}" if not word or REPLACEMENT in word or word in named else word] = logprob
        return named

    def _entry(self, token: int, logprob: float) -> Json:
        word = self._word(token)
        return {"token": word, "logprob": logprob, "bytes": None if REPLACEMENT in word else list(word.encode())}


def usage_of(outputs: Sequence[Output]) -> Json:
    """As OpenAI's protocol has it."""
    used = used_by(outputs)
    return {
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "total_tokens": used.prompt_tokens + used.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": used.cached_tokens},
    }
