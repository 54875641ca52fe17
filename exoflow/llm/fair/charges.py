"""What each request under way has been charged, and what it is expected to use."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, Literal, TypeVar

from exoflow.llm.fair.costs import Amount, Cost, cost_of, exact
from exoflow.llm.fair.policy import Path, W, Waiting

K = TypeVar("K")
Charge = Literal["complete", "reserve"]
Predict = Literal["mean", "oracle"] | Callable[[W], int] | None
RECENT = 5
CLIENTS_MAX = 100_000


@dataclass(slots=True)
class Charges(Generic[K]):
    """Of one request, from its first admission to its end. Each method says what is to be charged now."""

    owner: K
    input_tokens: int
    expected: int
    """Tokens of its answer that are charged at its admission."""
    got: int = 0
    paid: int = 0

    def admit(self, cost: Cost) -> int:
        return self._up_to(cost(self.input_tokens, self.expected))

    def more(self, cost: Cost, tokens: int) -> int:
        got = self.got + tokens
        due = 0 if got <= self.expected else self._up_to(cost(self.input_tokens, got))
        self.got = got  # not before: a cost that fails here would fail again at the end
        return due

    def settle(self, cost: Cost, billed: int | None, cached_tokens: int = 0) -> int:
        """Below 0: a refund."""
        used = cost_of(cost, self.input_tokens, self.got, cached_tokens) if billed is None else billed
        due, self.paid = used - self.paid, used
        return due

    @property
    def reserved(self) -> bool:
        """Some of what it has paid is for tokens that it has not got."""
        return self.got < self.expected

    def _up_to(self, used: int) -> int:
        due, self.paid = used - self.paid, used
        if due < 0:
            raise ValueError(f"a cost of {used} after one of {used - due}: it must not fall when tokens are added")
        return due


class Expectation(Generic[W]):
    """How long an answer will be, in tokens: what is charged at its admission.

    Args:
        predict: None: nothing is. ``"mean"``: the mean of the client's last five, rounded down. ``"oracle"``: what
            the request has as ``output_tokens``. Or a function of the request.
        charge: ``"reserve"``: the most that it may get.
    """

    def __init__(self, predict: Predict[W], charge: Charge) -> None:
        if charge not in ("complete", "reserve"):
            raise ValueError(f'charge={charge!r}: it is "complete" or "reserve"')
        if charge == "reserve" and predict is not None:
            raise ValueError(
                'charge="reserve" charges max_output_tokens at dispatch: leave predict out, or say "complete"'
            )
        if not (predict is None or predict in ("mean", "oracle") or callable(predict)):
            raise ValueError(f'predict={predict!r}: it is None, "mean", "oracle" or a function of the request')
        self._predict: Predict[W] = predict
        self._reserves = charge == "reserve"
        self._recent: dict[Path, deque[int]] = {}

    def of(self, w: W) -> int:
        if self._reserves:
            return w.max_output_tokens
        if self._predict is None:
            return 0
        if self._predict == "mean":
            recent = self._recent.get(w.client)
            return sum(recent) // len(recent) if recent else 0
        if self._predict == "oracle":
            return oracle(w)
        assert callable(self._predict)
        return max(0, self._predict(w))

    def ended(self, client: Path, tokens: int) -> None:
        """An answer had so many tokens. The clients that it remembers are bounded: who ended the longest ago goes."""
        if self._predict != "mean":
            return
        recent = self._recent.pop(client, None) or deque(maxlen=RECENT)
        recent.append(tokens)
        self._recent[client] = recent
        if len(self._recent) > CLIENTS_MAX:
            del self._recent[next(iter(self._recent))]


def oracle(w: Waiting) -> int:
    """The length that the answer will have, of requests that know it: a simulation's.

    Raises:
        TypeError: it does not.
    """
    tokens = getattr(w, "output_tokens", None)
    if not isinstance(tokens, int):
        raise TypeError(f'predict="oracle": {type(w).__name__} has no output_tokens; use "mean", or a function')
    return tokens


class Within:
    """As the oracle, but wrong by up to a share: ``Within("0.5")`` is uniform in (0.5, 1.5) times the length.

    Its chance is a digest of the seed and the request's number: the same for the same request, always.
    """

    def __init__(self, share: Amount, seed: int = 0) -> None:
        self._share = exact(share)
        if not 0 <= self._share <= 1:
            raise ValueError(f"share={share!r} is not within 0 and 1")
        self._seed = seed

    def __call__(self, w: Waiting) -> int:
        digest = hashlib.blake2b(f"{self._seed}/{w.number}".encode(), digest_size=8).digest()
        chance = Fraction(int.from_bytes(digest, "big"), 1 << 64)
        return round(oracle(w) * (1 + self._share * (2 * chance - 1)))
