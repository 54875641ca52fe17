"""From tokens to text, piece by piece, and where to stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Tokenizer(Protocol):
    """What the engine needs of a tokenizer."""

    eos_ids: frozenset[int]
    """Tokens that end an answer."""

    @property
    def longest(self) -> int:
        """Characters that one token stands for, at most."""
        ...

    def encode(self, text: str) -> list[int]: ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Without special tokens."""
        ...

    def word(self, token: int) -> str:
        """Of one token, special ones as they are written; a part of a character is U+FFFD."""
        ...

    def chat(self, messages: Sequence[dict[str, object]]) -> list[int]:
        """Tokens of a conversation and of the beginning of the answer, by the model's own template."""
        ...


class TextStream:
    """The text of one answer. What may still change is held back: half a character, the beginning of a stop string."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stop = stop
        self._tokens: list[int] = []
        self._settled = 0
        """Tokens whose text is known for good."""
        self._context = 0
        """From here on tokens are decoded together: how a token reads depends on the one before it."""
        self._unsent = ""
        self.text = ""
        """What was given out."""
        self.has_stopped = False

    def add(self, token: int) -> str:
        """The text that the token adds; ``has_stopped``: with it a stop string is complete, and is left out."""
        self._tokens.append(token)
        before = self._tokenizer.decode(self._tokens[self._context : self._settled])
        now = self._tokenizer.decode(self._tokens[self._context :])
        if now.endswith("\N{REPLACEMENT CHARACTER}") and len(self._tokens) - self._settled < 8:
            return ""
        self._context, self._settled = self._settled, len(self._tokens)
        return self._give(now[len(before) :])

    def end(self) -> str:
        """No token will come: what was held back."""
        if self.has_stopped:
            return ""
        before = self._tokenizer.decode(self._tokens[self._context : self._settled])
        rest = self._give(self._tokenizer.decode(self._tokens[self._context :])[len(before) :])
        if not self.has_stopped:
            rest, self._unsent, self.text = rest + self._unsent, "", self.text + self._unsent
        return rest

    def _give(self, piece: str) -> str:
        text = self._unsent + piece
        found = [place for place in (text.find(stop) for stop in self._stop) if place >= 0]
        if found:
            self.has_stopped = True
            text, self._unsent = text[: min(found)], ""
        else:
            held = max((_overlap(text, stop) for stop in self._stop), default=0)
            text, self._unsent = text[: len(text) - held], text[len(text) - held :]
        self.text += text
        return text


def _overlap(text: str, stop: str) -> int:
    """How long the longest end of ``text`` is that begins ``stop``."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
