"""The nouns of the engine: what is asked, how it stands, what is answered."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from exoflow.errors import LLMError
from exoflow.llm.engine.kinds import FLAG, NUMBER, TEXT, WHOLE, check_kinds


class Overloaded(LLMError):
    """Too many requests wait already. It may be asked again a little later."""


class WrongRequest(LLMError):
    """It cannot be answered as it is; asking again changes nothing."""


FinishReason = Literal["stop", "length", "abort"]
KINDS = {
    **dict.fromkeys(("max_tokens", "top_k", "seed", "n", "logprobs"), WHOLE),
    **dict.fromkeys(("temperature", "top_p"), NUMBER),
    "ignore_eos": FLAG,
    "regex": TEXT,
}


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are chosen; names and defaults as users of vLLM know them."""

    max_tokens: int = 16
    temperature: float = 1.0
    """0, and whatever is below 1e-5: greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0: all tokens."""
    seed: int | None = None
    """The same seed, prompt and adapter give the same tokens, whatever else is in the batch."""
    n: int = 1
    stop: tuple[str, ...] | str = ()
    logprobs: int | None = None
    """How many of the most likely tokens are told at each place, besides the chosen one."""
    ignore_eos: bool = False
    json_schema: str | Mapping[str, object] | None = None
    regex: str | None = None

    def __post_init__(self) -> None:
        check_kinds(self, KINDS)
        stop: object = (self.stop,) if isinstance(self.stop, str) else self.stop
        if not isinstance(stop, Sequence) or not all(isinstance(text, str) for text in stop):
            raise TypeError(f"stop={stop!r}: it is a text, or a tuple of texts")
        object.__setattr__(self, "stop", tuple(stop))
        if self.json_schema is not None and not isinstance(self.json_schema, str | Mapping):
            raise TypeError(f"json_schema={self.json_schema!r}: it is a schema, as a dict or a text")
        checks = {
            "max_tokens": self.max_tokens >= 1,
            "temperature": 0 <= self.temperature <= 100,
            "top_p": 0 < self.top_p <= 1,
            "top_k": self.top_k >= 0,
            "n": 1 <= self.n <= 1024,
            "stop": "" not in self.stop,
            "logprobs": self.logprobs is None or 0 <= self.logprobs <= 20,
        }
        for name, good in checks.items():
            if not good:
                raise ValueError(f"{name}={getattr(self, name)!r} is out of range")
        if self.json_schema is not None and self.regex is not None:
            raise ValueError("json_schema and regex: give one of them")


@dataclass(frozen=True, slots=True)
class AdapterRef:
    """One content of one adapter. The version is a digest of weights and configuration: two contents never share it."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Tokens of the prompt whose KV was found in the prefix cache."""

    def __reduce__(self) -> tuple[type[Usage], tuple[int, int, int]]:
        return Usage, (self.prompt_tokens, self.completion_tokens, self.cached_tokens)  # a dataclass's own way is slow


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """The chosen token's log-probability, before temperature and filters, and those of the most likely tokens."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """One more token of one answer, or its end."""

    index: int
    """Which of the n answers."""
    text: str
    """What the token adds to the text; empty while bytes of a character, or of a possible stop string, are held
    back.
    """
    token_id: int | None
    logprobs: TokenLogprobs | None = None
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """One answer."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] | None
    finish_reason: FinishReason
    adapter: AdapterRef | None
    usage: Usage
    index: int = 0


def used_by(outputs: Sequence[Output]) -> Usage:
    """All answers together; a prompt counts once, however many answers it has."""
    firsts = [output.usage for output in outputs if output.index == 0]
    return Usage(
        sum(usage.prompt_tokens for usage in firsts),
        sum(output.usage.completion_tokens for output in outputs),
        sum(usage.cached_tokens for usage in firsts),
    )


class State(Enum):
    WAITING = "waiting"
    LOADING = "loading"
    """Taken from the queue; its adapter is on its way into the pool."""
    RUNNING = "running"
    DONE = "done"


_numbers = itertools.count()


@dataclass(slots=True, eq=False)
class Request:
    """One sequence: one of the n answers to a prompt. The scheduler changes it, nobody else."""

    prompt: tuple[int, ...]
    params: SamplingParams
    adapter: AdapterRef | None = None
    arrival_s: float = 0.0
    index: int = 0
    """Which of the n answers to the prompt."""
    leader: Request | None = None
    """The first of the n: the others wait until its prompt lies in the prefix cache."""
    scores: bool = False
    """All logits of the prompt are wanted, and no token."""
    client: tuple[str, ...] = ()
    """Who is charged, from the root: read by queues that are fair."""
    job: str = ""
    """What it is a part of: those of one job keep together among their client's. All n answers are of one."""
    priority: int = 0
    """0 is the most urgent."""
    number: int = field(default_factory=lambda: next(_numbers))

    state: State = State.WAITING
    output: list[int] = field(default_factory=list)
    computed: int = 0
    """Tokens whose KV lies in ``pages``."""
    cached: int = 0
    """Of them, found in the prefix cache when the request was first admitted."""
    pages: list[int] = field(default_factory=list)
    admitted_s: float | None = None
    first_token_s: float | None = None
    preemptions: int = 0
    finish_reason: FinishReason | None = None

    @property
    def input_tokens(self) -> int:
        return len(self.prompt)

    @property
    def max_output_tokens(self) -> int:
        return 0 if self.scores else self.params.max_tokens

    @property
    def length(self) -> int:
        """Tokens that are known: prompt and answer so far."""
        return len(self.prompt) + len(self.output)

    @property
    def tokens(self) -> list[int]:
        return [*self.prompt, *self.output]

    def tokens_between(self, start: int, end: int) -> list[int]:
        """``tokens[start:end]``, without a copy of the rest."""
        asked = len(self.prompt)
        if start >= asked:
            return self.output[start - asked : end - asked]
        return [*self.prompt[start:end], *self.output[: max(0, end - asked)]]

    @property
    def in_prefill(self) -> bool:
        return self.computed < self.length - 1 or not self.output


def client_of(labels: Mapping[str, str], group_by: Sequence[str]) -> tuple[str, ...]:
    """Who is charged: these labels in this order, as far as there are any."""
    client = [labels.get(name, "") for name in group_by]
    while client and not client[-1]:
        client.pop()
    return tuple(client)
