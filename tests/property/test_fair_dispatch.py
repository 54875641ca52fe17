"""The scheduler's core, played at random: nobody is forgotten, nothing is spent twice, no budget is overspent."""

from __future__ import annotations

import contextlib
import random
from collections import defaultdict
from collections.abc import Iterator

import pytest

from exoflow.errors import LLMError
from exoflow.llm.engine.request import Usage
from exoflow.llm.fair.asks import Ask, Place, Waiter
from exoflow.llm.fair.costs import Linear
from exoflow.llm.fair.dispatch import Dispatch
from exoflow.llm.fair.ledger import Account, short
from exoflow.llm.fair.settings import PolicyName, Settings
from exoflow.llm.fair.tenants import Path, Tenant, Tenants


def dispatch(slots: int, policy: PolicyName = "vtc", *, ageing_s: float | None = None, **tenants: Tenant) -> Dispatch:
    named = tuple(((name,), tenant) for name, tenant in tenants.items())
    settings = Settings(policy, slots, Linear(1, 2), "reserve", ("tenant", "user"), named, None, ageing_s)
    return Dispatch(settings._policy(), settings.cost, Tenants(named, None, 3), settings.group_by, slots)


class World:
    """A core, and an endpoint that answers when and as it likes."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.slots = self.chance.randint(1, 6)
        policy: PolicyName = self.chance.choice(["vtc", "fcfs", "lcf", "drr"])  # type: ignore[assignment]
        self.core = dispatch(self.slots, policy, **{name: self.tenant() for name in "abc"})
        self.waiters: list[Waiter] = []
        self.started: dict[Path, list[int]] = defaultdict(list)
        self.now_s = 0.0
        self.calls = 0
        self.billed = 0
        """By settling and folding; each call once."""

    def tenant(self) -> Tenant:
        draw = self.chance.randint
        each = Tenant(budget_tokens=draw(50, 400)) if self.chance.random() < 0.5 else None
        return Tenant(
            weight=self.chance.choice([1, 2, "1.5"]),
            priority=draw(0, 1),
            budget_usd=f"{draw(100, 2000)}e-9" if self.chance.random() < 0.5 else None,
            budget_tokens=draw(100, 2000) if self.chance.random() < 0.5 else None,
            max_waiting=draw(0, 8) if self.chance.random() < 0.2 else None,
            each=each,
        )

    def of(self, *places: Place) -> list[Waiter]:
        return [waiter for waiter in self.waiters if waiter.place in places]

    def act(self) -> None:
        running, waiting = self.of(Place.RUNNING), self.of(Place.QUEUED, Place.HELD)
        match self.chance.choice(["ask"] * 4 + ["settle"] * 3 + ["release", "withdraw", "expire", "update", "fold"]):
            case "ask":
                self.ask()
            case "settle" if running:
                waiter = self.chance.choice(running)
                used = self.chance.randint(0, waiter.max_output_tokens)
                bill = self.chance.randint(0, waiter.ask.nano_usd or 0)
                self.core.charge(waiter, self.chance.randint(0, used))
                self.core.settle(waiter, Usage(waiter.input_tokens, used), bill, self.now_s)
                self.billed += bill
            case "release" if running:
                self.core.end(self.chance.choice(running), self.now_s)
            case "withdraw" if waiting:
                self.core.end(self.chance.choice(waiting), self.now_s)
            case "expire" if waiting:
                self.core.expire(self.chance.choice(waiting), self.now_s)
            case "update":
                self.core.update((self.chance.choice("abc"),), self.tenant(), int(self.now_s), self.now_s)
            case "fold":
                self.calls += 1
                labels = {"tenant": self.chance.choice("abc"), "user": self.chance.choice("xy")}
                for _ in range(self.chance.randint(1, 2)):
                    self.core.fold("r", str(self.calls), labels, Usage(5, 5), 10, self.now_s)
                self.billed += 10
        self.now_s += 1.0
        self.look()

    def ask(self) -> None:
        self.calls += 1
        draw = self.chance.randint
        ask = Ask(
            str(self.calls),
            run=self.chance.choice("rs"),
            labels={"tenant": self.chance.choice("abc"), "user": self.chance.choice("xy")},
            input_tokens=draw(1, 30),
            max_output_tokens=draw(0, 60),
            nano_usd=draw(0, 100),
        )
        with contextlib.suppress(LLMError):
            self.waiters.append(self.core.join(ask, self.now_s))

    def look(self) -> None:
        for waiter in self.core.told:
            if waiter.place is Place.RUNNING:
                self.started[waiter.client].append(waiter.number)
        self.core.told.clear()
        running, waiting = self.of(Place.RUNNING), self.of(Place.QUEUED, Place.HELD)
        assert len(running) <= self.slots
        assert len(self.core._policy) == len(self.of(Place.QUEUED))
        assert not self.of(Place.QUEUED) or len(running) == self.slots, "a slot idles while somebody could go"
        root = self.core._ledger.account(())
        assert (root.spent_nano_usd, root.waiting) == (self.billed, len(waiting))
        assert root.reserved_tokens == sum(waiter.ask.most[0] for waiter in running)
        assert root.reserved_nano_usd == sum(waiter.ask.most[1] for waiter in running)
        for account in accounts(self.core):
            below = [waiter for waiter in running if waiter.client[: len(account.path)] == account.path]
            assert account.reserved_nano_usd == sum(waiter.ask.most[1] for waiter in below)
        for account, block in self.core._held._blocks.items():
            lack = short(block.first.of.account, *block.first.ask.most)
            assert block.first.place is Place.HELD and lack is not None and not lack.is_final, account.path


def accounts(core: Dispatch) -> Iterator[Account]:
    return iter(core._ledger)


def has_room(account: Account) -> bool:
    tokens = account.limit_tokens is None or account.spent_tokens + account.reserved_tokens <= account.limit_tokens
    money = account.limit_nano_usd is None or (
        account.spent_nano_usd + account.reserved_nano_usd <= account.limit_nano_usd
    )
    return tokens and money


@pytest.mark.parametrize("block", range(10))
def test_nobody_is_forgotten_and_nothing_is_lost(block: int) -> None:
    for seed in range(block * 20, block * 20 + 20):
        world = World(seed)
        for _ in range(world.chance.randint(10, 200)):
            world.act()
        while running := world.of(Place.RUNNING):
            world.core.settle(world.chance.choice(running), Usage(0, 0), 0, world.now_s)
            world.look()
        assert not world.of(Place.QUEUED, Place.HELD), f"seed {seed}: somebody waits, and nothing is in flight"
        for numbers in world.started.values():
            assert numbers == sorted(numbers), f"seed {seed}: a client's order is its own"
        assert all(account.waiting == account.reserved_tokens == 0 for account in accounts(world.core))


@pytest.mark.parametrize("block", range(5))
def test_no_budget_is_overspent_whatever_is_in_flight(block: int) -> None:
    for seed in range(block * 20, block * 20 + 20):
        world = World(seed)
        world.chance = random.Random(seed)
        for _ in range(200):
            before = {account.path: has_room(account) for account in accounts(world.core)}
            limits = {account.path: (account.limit_tokens, account.limit_nano_usd) for account in accounts(world.core)}
            spent = world.billed
            world.act()
            for account in accounts(world.core):
                same = limits.get(account.path) == (account.limit_tokens, account.limit_nano_usd)
                if same and before[account.path] and world.billed == spent:
                    assert has_room(account), f"seed {seed}: {account.path}"
