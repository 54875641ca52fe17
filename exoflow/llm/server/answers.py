"""Answers in OpenAI's forms: whole, and in pieces."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence

from exoflow.llm.engine.request import Event, Output, TokenLogprobs, Usage

Json = dict[str, object]
Word = Callable[[int], str]
"""A token's own text."""


class Form:
    """What the answers to one request have in common; ``is_chat``: chat's forms, else those of completions."""

    def __init__(self, model: str, word: Word, *, is_chat: bool) -> None:
        self.is_chat = is_chat
        self._word = word
        self._head: Json = {
            "id": f"{'chatcmpl' if is_chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, outputs: Sequence[Output]) -> Json:
        """All answers, numbered through over all prompts."""
        usage = usage_of([output.usage for output in outputs], sum(output.index == 0 for output in outputs))
        choices = [self._choice(number, output) for number, output in enumerate(outputs)]
        return self._head | {"object": self._kind(""), "choices": choices, "usage": usage}

    def _choice(self, number: int, output: Output) -> Json:
        said = {"message": {"role": "assistant", "content": output.text}} if self.is_chat else {"text": output.text}
        return {
            "index": number,
            **said,
            "logprobs": self.logprobs(output.logprobs) if output.logprobs is not None else None,
            "finish_reason": output.finish_reason,
        }

    def first_piece(self, number: int) -> Json | None:
        """Chat begins with the role."""
        return self._piece(number, {"role": "assistant", "content": ""}, None, None) if self.is_chat else None

    def piece(self, number: int, event: Event) -> Json:
        said: Json = {"content": event.text} if self.is_chat else {"text": event.text}
        logprobs = self.logprobs([event.logprobs]) if event.logprobs is not None else None
        return self._piece(number, said, logprobs, event.finish_reason)

    def last_piece(self, usage: Json) -> Json:
        return self._head | {"object": self._kind(".chunk"), "choices": [], "usage": usage}

    def _piece(self, number: int, said: Json, logprobs: Json | None, reason: str | None) -> Json:
        content: Json = {"delta": said} if self.is_chat else said
        choice = {"index": number, **content, "logprobs": logprobs, "finish_reason": reason}
        return self._head | {"object": self._kind(".chunk"), "choices": [choice]}

    def _kind(self, chunk: str) -> str:
        return f"chat.completion{chunk}" if self.is_chat else "text_completion"

    def logprobs(self, found: Sequence[TokenLogprobs]) -> Json:
        if self.is_chat:
            return {
                "content": [
                    self._entry(each.token_id, each.logprob)
                    | {"top_logprobs": [self._entry(token, logprob) for token, logprob in each.top]}
                    for each in found
                ]
            }
        words = [self._word(each.token_id) for each in found]
        offsets = [sum(map(len, words[:index])) for index in range(len(words))]
        return {
            "tokens": words,
            "token_logprobs": [each.logprob for each in found],
            "top_logprobs": [{self._word(token): logprob for token, logprob in each.top} for each in found],
            "text_offset": offsets,
        }

    def _entry(self, token: int, logprob: float) -> Json:
        word = self._word(token)
        return {"token": word, "logprob": logprob, "bytes": list(word.encode())}


def usage_of(usages: Sequence[Usage], prompts: int) -> Json:
    """Of all answers; a prompt counts once, however many answers it has."""
    answers_each = len(usages) // max(1, prompts)
    firsts = usages[::answers_each] if answers_each else usages
    prompt, completion = sum(each.prompt_tokens for each in firsts), sum(each.completion_tokens for each in usages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(each.cached_tokens for each in firsts)},
    }
