"""From logits to tokens. Each row by itself: what else is in the batch changes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from exoflow.llm.engine.request import SamplingParams, TokenLogprobs


@dataclass(frozen=True, slots=True)
class Draw:
    """One row's choice: how, with which chance, among which tokens."""

    params: SamplingParams
    chance: float
    """In [0, 1): see ``chance_of``."""
    allowed: Tensor | None = None
    """``[vocab]`` bool; None: all."""


@dataclass(frozen=True, slots=True)
class Choice:
    token_id: int
    logprobs: TokenLogprobs | None


def chance_of(seed: int, index: int, position: int) -> float:
    """The number in [0, 1) that decides a token: of the request's seed, of which of its n answers, and of the place.

    A pure function, so that a sequence goes on after a preemption as it would have gone on without.
    """
    text = f"{seed}/{index}/{position}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) / 2**64


def choose(logits: Tensor, draws: Sequence[Draw]) -> list[Choice]:
    """A token for each row of ``logits`` ``[rows, vocab]``."""
    logits = logits.float()
    allowed = logits
    if any(draw.allowed is not None for draw in draws):
        allowed = logits.clone()
        for row, draw in zip(allowed, draws, strict=True):
            if draw.allowed is not None:
                row[~draw.allowed.to(row.device)] = -torch.inf
    tokens = allowed.argmax(-1)
    by_chance = [index for index, draw in enumerate(draws) if draw.params.temperature > 0]
    if by_chance:
        tokens[by_chance] = _drawn(allowed[by_chance], [draws[index] for index in by_chance])
    chosen: list[int] = tokens.tolist()
    return [
        Choice(token, _logprobs(logits, row, token, draw.params.logprobs))
        for row, (token, draw) in enumerate(zip(chosen, draws, strict=True))
    ]


def _drawn(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Inverse transform sampling over the tokens from the most likely down, cut by top-k and top-p."""
    device = logits.device
    temperatures = torch.tensor([draw.params.temperature for draw in draws], device=device)
    ordered, order = (logits / temperatures[:, None]).sort(dim=-1, descending=True, stable=True)
    shares = ordered.softmax(-1).double()
    sums = shares.cumsum(-1)
    ranks = torch.arange(logits.shape[-1], device=device)
    top_k = torch.tensor([draw.params.top_k or logits.shape[-1] for draw in draws], device=device)
    top_p = torch.tensor([draw.params.top_p for draw in draws], device=device, dtype=torch.float64)
    kept = (ranks < top_k[:, None]) & ((sums - shares < top_p[:, None]) | (top_p[:, None] >= 1))
    kept[:, 0] = True
    shares = shares * kept
    sums = shares.cumsum(-1)
    chances = torch.tensor([draw.chance for draw in draws], device=device, dtype=torch.float64)
    place: Tensor = torch.searchsorted(sums, (chances * sums[:, -1])[:, None], right=True)
    last = (shares > 0).double().cumsum(-1).argmax(-1, keepdim=True)  # rounding may lead behind the last that is kept
    return order.gather(-1, torch.minimum(place, last))[:, 0]


def _logprobs(logits: Tensor, row: int, token: int, count: int | None) -> TokenLogprobs | None:
    if count is None:
        return None
    logprobs = logits[row].log_softmax(-1)
    top = logprobs.topk(count) if count else None
    best = tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True)) if top else ()
    return TokenLogprobs(token, float(logprobs[token]), best)
