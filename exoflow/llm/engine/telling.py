"""Tokens on their way from the loop to whoever waits for them."""

from __future__ import annotations

from dataclasses import dataclass

from exoflow.llm.engine.generation import Answer, Generation
from exoflow.llm.engine.request import Event, FinishReason
from exoflow.llm.engine.sampler import Choice


@dataclass(slots=True)
class Told:
    """A token that somebody is to hear of."""

    generation: Generation
    answer: Answer
    choice: Choice
    is_eos: bool
    reason: FinishReason | None = None
    text: str | None = None

    def read(self) -> None:
        if self.text is None:
            self.text = "" if self.is_eos else self.answer.stream.add(self.choice.token_id)

    def tell(self) -> None:
        self.read()
        assert self.text is not None
        text = self.text + (self.answer.stream.end() if self.reason is not None else "")
        choice = self.choice
        self.generation.tell(Event(self.answer.request.index, text, choice.token_id, choice.logprobs, self.reason))
