"""The bounds of VTC (Sheng et al., OSDI '24, section 4) on simulated runs, in what the policy charged."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from hypothesis import given, strategies as st

from exoflow.llm.fair import LCF, VTC, Arrival, BatchCost, Linear, simulate
from exoflow.llm.fair.policy import Policy
from exoflow.llm.fair.simulator import SimulatedRequest

INPUT, OUTPUT, MEMORY = 40, 40, 150
"""The longest; and what fits, without room for adapters."""
STEADY = BatchCost(prefill_s=0.2, prefill_token_s=0.001, step_s=0.02, sequence_s=0.0, context_token_s=0.0)
SCALE = 60
"""What all weights divide."""


class Moment(NamedTuple):
    """How things stand at an arrival or a dispatch."""

    got: Counter[str]
    waiting: Counter[str]
    dispatched: Counter[str]


@dataclass
class Witness:
    """A policy that is watched."""

    policy: Policy[SimulatedRequest]
    weights: dict[str, int] = field(default_factory=dict)
    got: Counter[str] = field(default_factory=Counter)
    """What was charged to each client, divided by its weight, times ``SCALE``."""
    waiting: Counter[str] = field(default_factory=Counter)
    dispatched: Counter[str] = field(default_factory=Counter)
    in_batch: int = 0
    largest_batch: int = 0
    moments: list[Moment] = field(default_factory=list)

    @property
    def bound(self) -> int:
        """U, times ``SCALE``. M is the most tokens that a batch has when each of it has its whole length: admission
        counts on what is given back meanwhile, so that this is more than the memory.
        """
        return SCALE * max(INPUT, 2 * self.largest_batch)

    def add(self, w: SimulatedRequest, now_s: float) -> None:
        self.policy.add(w, now_s)
        self._look()
        self.waiting[w.client[0]] += 1
        self._look()

    def peek(self, now_s: float) -> SimulatedRequest | None:
        return self.policy.peek(now_s)

    def pop(self, now_s: float) -> SimulatedRequest:
        self._look()
        popped = self.policy.pop(now_s)
        self.waiting[popped.client[0]] -= 1
        self.dispatched[popped.client[0]] += 1
        self._give(popped, popped.input_tokens)
        self.in_batch += popped.input_tokens + popped.output_tokens
        self.largest_batch = max(self.largest_batch, self.in_batch)
        self._look()
        return popped

    def charge(self, w: SimulatedRequest, tokens: int) -> None:
        self.policy.charge(w, tokens)
        self._give(w, 2 * tokens)

    def finish(self, w: SimulatedRequest) -> None:
        self.policy.finish(w)
        self.in_batch -= w.input_tokens + w.output_tokens

    def __len__(self) -> int:
        return len(self.policy)

    def _give(self, w: SimulatedRequest, worth: int) -> None:
        self.got[w.client[0]] += SCALE * worth // self.weights.get(w.client[0], 1)

    def _look(self) -> None:
        self.moments.append(Moment(self.got.copy(), self.waiting.copy(), self.dispatched.copy()))

    def spans(self, *clients: str) -> Iterator[list[Moment]]:
        """Each stretch in which all of them wait."""
        for backlogged, span in itertools.groupby(self.moments, lambda m: all(m.waiting[each] for each in clients)):
            if backlogged:
                yield list(span)


def ahead(span: list[Moment], one: str, other: str) -> tuple[int, int]:
    """By how much one gained on the other in the best part of a stretch, and lost in the worst."""
    lowest = highest = span[0].got[one] - span[0].got[other]
    gained = lost = 0
    for moment in span:
        lead = moment.got[one] - moment.got[other]
        gained, lost = max(gained, lead - lowest), max(lost, highest - lead)
        lowest, highest = min(lowest, lead), max(highest, lead)
    return gained, lost


def load(seed: int, clients: str, requests: int = 100) -> list[Arrival]:
    """Bursts and silences of clients that ask for very unlike amounts, sometimes all at once."""
    chance = random.Random(seed)
    hunger = {client: chance.choice((1, 1, 3, 10)) for client in clients}
    arrivals: list[Arrival] = []
    now_s = 0.0
    while len(arrivals) < requests:
        now_s += chance.choice((0.0, 0.01, 0.5, 0.5, 20.0)) * chance.random()
        client = chance.choices(clients, [hunger[each] for each in clients])[0]
        longest_in, longest_out = chance.choice(((1, OUTPUT), (INPUT, 1), (INPUT, OUTPUT)))
        arrivals += [
            Arrival(now_s, client, chance.randint(1, longest_in), chance.randint(1, longest_out))
            for _ in range(chance.choice((1, 1, 5, 20)))
        ]
    return arrivals


def watched(
    policy: Policy[SimulatedRequest], arrivals: list[Arrival], weights: dict[str, int] | None = None
) -> Witness:
    witness = Witness(policy, weights or {})
    simulate(arrivals, witness, STEADY, memory_tokens=MEMORY, client_tokens=0)  # type: ignore[arg-type]  # what is not called is left out
    return witness


seeds = st.integers(0, 2**32)


@given(seeds)
def test_two_backlogged_clients_stay_within_twice_the_bound(seed: int) -> None:
    witness = watched(VTC(Linear(1, 2)), load(seed, "abc"))
    for one, other in itertools.combinations("abc", 2):
        for span in witness.spans(one, other):
            assert max(ahead(span, one, other)) <= 2 * witness.bound


@given(seeds)
def test_a_backlogged_client_is_never_far_behind_any_other(seed: int) -> None:
    witness = watched(VTC(Linear(1, 2)), load(seed, "abc"))
    for one, other in itertools.permutations("abc", 2):
        for span in witness.spans(one):
            _, lost = ahead(span, one, other)
            assert lost <= 4 * witness.bound


@given(seeds, st.lists(st.integers(1, 5), min_size=3, max_size=3))
def test_weighted_shares_stay_within_twice_the_bound(seed: int, given_weights: list[int]) -> None:
    weights = dict(zip("abc", given_weights, strict=True))
    witness = watched(VTC(Linear(1, 2), weights=weights), load(seed, "abc"), weights)
    for one, other in itertools.combinations("abc", 2):
        for span in witness.spans(one, other):
            assert max(ahead(span, one, other)) <= 2 * witness.bound


@given(seeds)
def test_who_had_nothing_waiting_is_dispatched_before_the_others_get_much(seed: int) -> None:
    """At a service rate ``a`` they need ``2 (n - 1) U / a`` for it."""
    witness = watched(VTC(Linear(1, 2)), load(seed, "abcd"))
    for client in "abcd":
        for span in witness.spans(client):
            first = next((m for m in span if m.dispatched[client] > span[0].dispatched[client]), span[-1])
            others = sum(first.got[each] - span[0].got[each] for each in "abcd" if each != client)
            assert others <= 2 * 3 * witness.bound


@given(seeds)
def test_who_asks_for_less_than_its_share_gets_all_of_it(seed: int) -> None:
    """Less than ``T / n - 5U``, beside two floods."""
    chance = random.Random(seed)
    flood = [Arrival(0.0, client, INPUT, OUTPUT) for client in "bc" for _ in range(60)]
    modest = [
        Arrival(chance.uniform(0, 20), "a", chance.randint(1, INPUT), chance.randint(1, OUTPUT)) for _ in range(5)
    ]
    witness = watched(VTC(Linear(1, 2)), flood + modest)
    flooded = [m for m in witness.moments if m.waiting["b"] and m.waiting["c"]]
    total = sum((flooded[-1].got - flooded[0].got).values())
    asked = SCALE * sum(each.input_tokens + 2 * each.output_tokens for each in modest)
    assert asked < total / 3 - 5 * witness.bound
    assert flooded[-1].dispatched["a"] == len(modest)


def test_without_the_lift_the_first_bound_is_broken() -> None:
    """The proof that these tests see: a newcomer's old credit is paid out at once."""
    arrivals = [
        *(Arrival(0.0, "old", INPUT, OUTPUT) for _ in range(100)),
        *(Arrival(100.0, who, INPUT, OUTPUT) for who in ("new", "old") for _ in range(100)),
    ]
    for policy, holds in ((VTC(Linear(1, 2)), True), (LCF(), False)):
        witness = watched(policy, arrivals)
        most = max(max(ahead(span, "new", "old")) for span in witness.spans("new", "old"))
        assert (most <= 2 * witness.bound) is holds
