"""VTC's heaps and forgetting against the algorithm as it is written down, with fractions and a search through all."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from exoflow.llm.fair import VTC, Linear
from exoflow.llm.fair.costs import weight_of
from exoflow.llm.fair.counters import Counters

Path = tuple[str | None, ...]


@dataclass(frozen=True)
class Asked:
    number: int
    client: tuple[str, ...]
    input_tokens: int
    output_tokens: int
    arrival_s: float
    max_output_tokens: int = 40
    priority: int = 0
    job: str = ""


@dataclass
class Plain:
    """Algorithms 2 and 4 of the paper, with the lift that the published code omits, on a tree of clients."""

    weights: dict[tuple[str, ...], Fraction]
    charge_as: str = "complete"
    waiting: list[Asked] = field(default_factory=list)
    counters: dict[Path, Fraction] = field(default_factory=dict)
    last: dict[Path, Path] = field(default_factory=dict)
    got: dict[int, int] = field(default_factory=dict)
    paid: dict[int, int] = field(default_factory=dict)
    places: dict[tuple[Path, str], tuple[float, int]] = field(default_factory=dict)
    cost: Linear = field(default_factory=Linear)

    def add(self, w: Asked, now_s: float) -> None:
        for path in paths(w):
            if not self.queued(path):
                siblings = self.siblings(path)
                if siblings:
                    floor = min(self.counters[each] for each in siblings)
                else:
                    floor = self.counters[self.last[path[:-1]]] if path[:-1] in self.last else Fraction(0)
                self.counters[path] = max(self.counters.get(path, Fraction(0)), floor)
        self.waiting.append(w)
        if w.job:
            self.places.setdefault((paths(w)[-1], w.job), (w.arrival_s, w.number))

    requeue = add

    def peek(self, now_s: float) -> Asked | None:
        return self.next_in(()) if self.waiting else None

    def next_in(self, group: Path) -> Asked:
        if group and group[-1] is None:
            return min(self.queued(group), key=lambda w: (self.places.get((group, w.job), order(w)), order(w)))
        children = {path[: len(group) + 1] for w in self.waiting for path in [paths(w)[-1]] if within(path, group)}
        nexts = {child: self.next_in(child) for child in children}
        return nexts[min(children, key=lambda child: (self.counters[child], order(nexts[child])))]

    def pop(self, now_s: float) -> Asked:
        w = self.next_in(())
        if w.number not in self.paid:
            self.got[w.number] = self.paid[w.number] = 0
            self.bill(w, self.cost(w.input_tokens, self.expected(w)))
        self.leave(w)
        return w

    def expected(self, w: Asked) -> int:
        return {"complete": 0, "reserve": w.max_output_tokens, "oracle": w.output_tokens}[self.charge_as]

    def charge(self, w: Asked, tokens: int) -> None:
        self.got[w.number] += tokens
        self.bill(w, self.cost(w.input_tokens, max(self.got[w.number], self.expected(w))))

    def finish(self, w: Asked, billed: int | None = None) -> None:
        self.bill(w, self.cost(w.input_tokens, self.got[w.number]) if billed is None else billed)
        del self.got[w.number], self.paid[w.number]
        self.rest(w)

    def cancel(self, w: Asked) -> bool:
        if w not in self.waiting:
            return False
        self.leave(w)
        if w.number in self.paid:
            self.finish(w)
        self.rest(w)
        return True

    def weigh(self, client: tuple[str, ...], weight: str) -> None:
        before, self.weights[client] = self.weights.get(client, Fraction(1)), weight_of(weight)
        for w in self.known.values():
            if w.number in self.paid and within(w.client, client) and self.got[w.number] < self.expected(w):
                reserved = self.paid[w.number] - self.cost(w.input_tokens, self.got[w.number])
                self.counters[client] += reserved * (1 / self.weights[client] - 1 / before)

    known: dict[int, Asked] = field(default_factory=dict)

    def bill(self, w: Asked, total: int) -> None:
        for path in paths(w):
            self.counters[path] += (total - self.paid[w.number]) / self.weights.get(path, Fraction(1))  # type: ignore[call-overload]
        self.paid[w.number] = total

    def leave(self, w: Asked) -> None:
        self.waiting.remove(w)
        for path in paths(w):
            if not self.queued(path):
                self.last[path[:-1]] = path

    def rest(self, w: Asked) -> None:
        leaf = paths(w)[-1]
        if not self.queued(leaf) and not any(self.known[number].client == w.client for number in self.paid):
            self.places = {key: place for key, place in self.places.items() if key[0] != leaf}

    def queued(self, path: Path) -> list[Asked]:
        return [w for w in self.waiting if within(paths(w)[-1], path)]

    def siblings(self, path: Path) -> set[Path]:
        return {full[: len(path)] for w in self.waiting for full in [paths(w)[-1]] if within(full, path[:-1])}


def paths(w: Asked) -> list[Path]:
    full = (*w.client, None)
    return [full[:depth] for depth in range(1, len(full) + 1)]


def within(path: Path, group: Path) -> bool:
    return path[: len(group)] == group


def order(w: Asked) -> tuple[float, int]:
    return w.arrival_s, w.number


class Eager(Counters[Any]):
    """Forgets whenever it can."""

    def _rest(self, leaf: Any) -> None:
        self._sweep_at = -1
        super()._rest(leaf)


class Never(Counters[Any]):
    def _sweep(self, group: Any, paid: Any) -> bool:
        return False


class EagerVTC(VTC[Any]):
    _counters = Eager


class NeverVTC(VTC[Any]):
    _counters = Never


CLIENTS = [(), ("a",), ("b",), ("a", "x"), ("a", "y"), ("b", "x", "1"), ("b", "x", "2"), ("c",), ("d", "e")]
WEIGHTS = ["1", "2", "3", "1.5", "0.25", "7"]


def trace(policies: list[Any], chance: random.Random, steps: int, *, weighing: bool, billing: bool) -> list[int]:
    """Do the same to all, and ask all who is next; what they all said."""
    told: list[int] = []
    waiting: dict[int, Asked] = {}
    running: dict[int, Asked] = {}
    for number in range(steps):
        now = number // 3 * 0.5
        act = chance.choice(
            ["add", "add", "add", "pop", "pop", "charge", "finish", "finish", "requeue", "cancel", "weigh"]
        )
        if act == "add":
            sizes = chance.randint(1, 30), chance.randint(0, 40)
            w = Asked(number, chance.choice(CLIENTS), *sizes, now, job=chance.choice(["", "", "j", "k"]))
            waiting[number] = w
            for policy in policies:
                if isinstance(policy, Plain):
                    policy.known[number] = w
                policy.add(w, now)
        elif act == "weigh" and weighing:
            client, weight = chance.choice(CLIENTS[1:]), chance.choice(WEIGHTS)
            for policy in policies:
                policy.weigh(client, weight)
        elif act == "pop" and waiting:
            popped = [policy.pop(now) for policy in policies]
            assert all(w is popped[0] for w in popped), [w.number for w in popped]
            told.append(popped[0].number)
            running[told[-1]] = waiting.pop(told[-1])
        elif act == "cancel" and waiting:
            w = waiting.pop(chance.choice(list(waiting)))
            assert all(policy.cancel(w) for policy in policies)
        elif act in ("charge", "finish", "requeue") and running:
            w = running[chance.choice(list(running))]
            arguments: tuple[int, ...] = ()
            if act == "charge":
                arguments = (chance.randint(1, 15),)
            elif act == "requeue":
                waiting[w.number] = running.pop(w.number)
                arguments = (now,)  # type: ignore[assignment]
            else:
                del running[w.number]
                arguments = (chance.randint(0, 20),) if billing and chance.random() < 0.3 else ()
            for policy in policies:
                getattr(policy, act)(w, *arguments)
        peeked = [policy.peek(now) for policy in policies]
        assert all(w is peeked[0] for w in peeked)
    return told


@pytest.mark.parametrize("charge", ["complete", "reserve", "oracle"])
@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=60)
def test_who_is_next_is_whom_the_algorithm_as_written_names(charge: str, seed: int) -> None:
    how: dict[str, Any] = {"predict": "oracle"} if charge == "oracle" else {"charge": charge}
    weights = {("a",): "1.5", ("b", "x"): "3"}
    plain = Plain({client: weight_of(weight) for client, weight in weights.items()}, charge)
    for client in CLIENTS:
        for depth in range(1, len(client) + 2):
            plain.counters[(*client, None)[:depth]] = Fraction(0)
    policies = [plain, VTC(weights=weights, **how), EagerVTC(weights=weights, **how)]
    trace(policies, random.Random(seed), 150, weighing=True, billing=False)


@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=60)
def test_forgetting_who_is_idle_changes_no_decision(seed: int) -> None:
    chance = random.Random(seed)
    how: dict[str, Any] = chance.choice([{}, {"charge": "reserve"}, {"predict": "oracle"}, {"predict": "mean"}])
    weights = {client: chance.choice(WEIGHTS) for client in CLIENTS[1:5]}
    policies = [NeverVTC(weights=weights, **how), EagerVTC(weights=weights, **how)]
    trace(policies, chance, 300, weighing=False, billing=True)


def test_who_owes_nothing_is_forgotten_and_who_owes_is_not() -> None:
    vtc = EagerVTC()
    for number in range(1000):
        w = Asked(number, (f"t{number}",), 10, 1, float(number))
        vtc.add(w, 0.0)
        vtc.pop(0.0)
        vtc.finish(w)
    assert set(vtc.counters()) == {("t999",)}
    large = Asked(1000, ("debtor",), 1_000_000, 1, 1000.0)
    small = replace(large, number=1001, client=("other",), input_tokens=1)
    for w in (large, small):
        vtc.add(w, 0.0)
    for w in (vtc.pop(0.0), vtc.pop(0.0)):
        vtc.finish(w)
    assert ("debtor",) in vtc.counters()
