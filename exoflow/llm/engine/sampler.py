"""From logits to tokens. Each row by itself: what else is in the batch changes nothing."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from exoflow.errors import AdapterError, LLMError
from exoflow.llm.engine.request import AdapterRef, SamplingParams, TokenLogprobs

WIDTHS = (256, 4096)
"""Among so many of the most likely tokens one is looked for, before the whole vocabulary is sorted: that takes thirty
times as long on a CPU, and is hardly ever needed.
"""

CPU_ROWS = 8
"""Drawn together on a CPU: with more of them, each step's numbers leave the cache (128 rows took 2.5 times as long)."""

COLDEST = 1e-5
"""Below it the most likely token is taken: divided by less, logits are no numbers any more."""

CERTAIN = 2.0**62
"""A share of 1. Shares are counted in whole numbers: their sums are the same in whichever order and company."""


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
    """A token for each row of ``logits`` ``[rows, vocab]``.

    Raises:
        OverflowError: a row has what is no number.
    """
    logits = logits.float()
    allowed = logits
    if any(draw.allowed is not None for draw in draws):
        allowed = logits.clone()
        for row, draw in zip(allowed, draws, strict=True):
            if draw.allowed is not None:
                row[~draw.allowed.to(row.device)] = -torch.inf
    tokens = allowed.argmax(-1)
    are_numbers = allowed.gather(-1, tokens[:, None]) < torch.inf  # to argmax, what is no number is the largest
    by_chance = [index for index, draw in enumerate(draws) if draw.params.temperature >= COLDEST]
    together = CPU_ROWS if logits.device.type == "cpu" else len(draws)
    for first in range(0, len(by_chance), together):
        rows = by_chance[first : first + together]
        tokens[rows] = _drawn(allowed[rows], [draws[row] for row in rows])
    chosen: list[int] = tokens.tolist()
    if not are_numbers.all():
        raise OverflowError("the model's numbers are larger than its dtype holds")
    return [
        Choice(token, _logprobs(logits, row, token, draw.params.logprobs))
        for row, (token, draw) in enumerate(zip(chosen, draws, strict=True))
    ]


def _drawn(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Inverse transform sampling over the tokens from the most likely down, cut by top-k and top-p."""
    vocab, device = logits.shape[-1], logits.device
    scaled = logits / torch.tensor([draw.params.temperature for draw in draws], device=device)[:, None]
    shares = scaled.softmax(-1).mul_(CERTAIN)
    aims = [
        (min(draw.params.top_k or vocab, vocab), draw.params.top_p if draw.params.top_p < 1 else math.inf, draw.chance)
        for draw in draws
    ]
    return _found(scaled, shares, torch.tensor(aims, device=device, dtype=torch.float64), WIDTHS)


def _found(scaled: Tensor, shares: Tensor, aims: Tensor, widths: Sequence[int]) -> Tensor:
    """The tokens of all rows, looked for among the most likely ``widths[0]`` of each first; ``aims``: of each row
    top-k, top-p and chance.
    """
    top_k, top_p, chance = aims.unbind(1)
    order, sure = _most_likely(scaled, widths[0] if widths else scaled.shape[-1])
    parts = shares.gather(-1, order).long()
    sums = parts.cumsum(-1)
    ranks = torch.arange(order.shape[-1], device=order.device)
    kept = ((ranks < top_k[:, None]) & (sums - parts < (top_p * CERTAIN)[:, None])).sum(-1).clamp(min=1)
    total = sums.gather(-1, kept[:, None] - 1)[:, 0]
    uncut = (top_k >= scaled.shape[-1]) & top_p.isinf()
    if uncut.any():
        total = torch.where(uncut, shares.long().sum(-1), total)
    aim = torch.minimum((chance * total).long(), total - 1)  # the product may be rounded up
    place = torch.searchsorted(sums, aim[:, None], right=True)[:, 0]
    tokens: Tensor = order.gather(-1, place.clamp(max=order.shape[-1] - 1)[:, None])[:, 0]
    left = (place >= sure) | ~uncut & (kept > sure)
    if widths and left.any():
        tokens[left] = _found(scaled[left], shares[left], aims[left], widths[1:])
    return tokens


def _most_likely(scaled: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """``[rows, width]`` tokens from the most likely down, equals by their number; and how many of each row are sure:
    of those that equal the last one, others may be missing.
    """
    if width >= scaled.shape[-1]:
        order = scaled.argsort(dim=-1, descending=True, stable=True)
        return order, torch.full_like(order[:, 0], order.shape[-1])
    tokens = scaled.topk(width).indices.sort(-1).values
    values, places = scaled.gather(-1, tokens).sort(dim=-1, descending=True, stable=True)
    return tokens.gather(-1, places), (values > values[:, -1:]).sum(-1)


def _logprobs(logits: Tensor, row: int, token: int, count: int | None) -> TokenLogprobs | None:
    if count is None:
        return None
    logprobs = logits[row].log_softmax(-1)
    top = logprobs.topk(min(count, len(logprobs))) if count else None
    best = tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True)) if top else ()
    return TokenLogprobs(token, float(logprobs[token]), best)


def failure_of(error: Exception, adapter: AdapterRef | None) -> LLMError:
    """What a request's owner is told that no token could be chosen for."""
    text = f"a token could not be chosen: {type(error).__name__}: {error}"
    if isinstance(error, OverflowError) and adapter is not None:
        return AdapterError(f"{text}; the adapter {adapter.name!r} is broken, or was trained for a larger one")
    return LLMError(text)
