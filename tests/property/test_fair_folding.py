"""After a crash the same is spent as before: what the log has, once a call, in whatever order it is told."""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import given, strategies as st

from exoflow.llm.engine.request import Usage
from exoflow.llm.fair.asks import Ask, Place, Waiter
from exoflow.llm.fair.costs import Linear
from exoflow.llm.fair.dispatch import Dispatch
from exoflow.llm.fair.settings import Settings
from exoflow.llm.fair.tenants import Path, Tenant, Tenants


@dataclass(frozen=True)
class Paid:
    """A call, and what it will be billed."""

    call: str
    run: str
    tenant: str
    user: str
    usage: Usage
    nano_usd: int

    @property
    def labels(self) -> dict[str, str]:
        return {"tenant": self.tenant, "user": self.user}

    @property
    def ask(self) -> Ask:
        return Ask(self.call, self.run, "", self.labels, self.usage.prompt_tokens, 50, self.nano_usd + 5)


State = dict[Path, tuple[int, int, int, int]]


class Process:
    """A scheduler, and the runs of a process. A record of a call is durable before anybody else acts."""

    def __init__(self, log: list[Paid], seed: int) -> None:
        named = ((("a",), Tenant(weight=3, budget_usd=1)), (("b",), Tenant(priority=1)))
        settings = Settings("vtc", 3, Linear(1, 2, cached="0.5"), "reserve", ("tenant", "user"), named, None, None)
        self.core = Dispatch(settings._policy(), settings.cost, Tenants(named, None, 3), settings.group_by, 3)
        self.log = log
        self.chance = random.Random(seed)
        self.waiters: list[tuple[Waiter, Paid]] = []

    def resume(self, run: str, calls: list[Paid]) -> None:
        """Fold what the run has in the log, more than once; ask for what it has not."""
        logged = [paid for paid in self.log if paid.run == run]
        self.chance.shuffle(logged)
        for paid in [*logged, *logged[: len(logged) // 2]]:
            self.core.fold(run, paid.call, paid.labels, paid.usage, paid.nano_usd, 0.0)
        for paid in calls:
            if paid.run == run and paid not in self.log:
                self.waiters.append((self.core.join(paid.ask, 0.0), paid))

    def answer(self) -> bool:
        """One of the calls in flight; False: there is none."""
        flying = [(waiter, paid) for waiter, paid in self.waiters if waiter.place is Place.RUNNING]
        if not flying:
            return False
        waiter, paid = self.chance.choice(flying)
        if self.chance.random() < 0.2:
            self.core.end(waiter, 0.0)  # it failed, and is tried again
            self.waiters.append((self.core.join(paid.ask, 0.0), paid))
        else:
            self.core.settle(waiter, paid.usage, paid.nano_usd, 0.0)
            self.log.append(paid)
        return True

    def state(self) -> State:
        return {
            account.path: (account.spent_tokens, account.spent_nano_usd, account.service, account.calls)
            for account in self.core._ledger
            if account.calls
        }

    def nothing_reserved(self) -> bool:
        return all(account.reserved_tokens == account.waiting == 0 for account in self.core._ledger)


def usages() -> st.SearchStrategy[Usage]:
    tokens = st.integers(0, 40)
    return st.builds(lambda asked, got, cached: Usage(asked + cached, got, cached), tokens, tokens, tokens)


def all_calls() -> st.SearchStrategy[list[Paid]]:
    some = st.tuples(
        st.sampled_from("rst"), st.sampled_from("abc"), st.sampled_from("xy"), usages(), st.integers(0, 99)
    )
    return st.lists(some, min_size=1, max_size=25).map(
        lambda found: [Paid(f"call-{number}", *about) for number, about in enumerate(found)]
    )


@given(all_calls(), st.lists(st.integers(0, 12), max_size=4), st.integers(0, 2**32))
def test_a_resumed_run_has_spent_what_it_had_spent(calls: list[Paid], crashes: list[int], seed: int) -> None:
    log: list[Paid] = []
    for answers in [*crashes, len(calls) * 20]:
        process = Process(log, seed)
        before = [paid.run for paid in log]
        for run in process.chance.sample("rst", 3):
            process.resume(run, calls)
        assert set(process.state()) >= {(paid.tenant,) for paid in log}
        for _ in range(answers):
            if not process.answer():
                break
        assert len(log) >= len(before)
        again = Process(log, seed + 1)
        for run in "tsr":
            again.resume(run, [])
        assert again.state() == process.state(), "what a crash here leaves"
    assert sorted(paid.call for paid in log) == sorted(paid.call for paid in calls), "each is billed once"
    assert process.nothing_reserved()
    assert process.state() == again.state()
    assert process.state()[()] == (
        sum(paid.usage.prompt_tokens + paid.usage.completion_tokens for paid in calls),
        sum(paid.nano_usd for paid in calls),
        sum(process.core._service(paid.usage) or 0 for paid in calls),
        len(calls),
    )


@given(all_calls(), st.integers(0, 2**32), st.integers(0, 2**32))
def test_counters_are_the_same_in_whatever_order_runs_are_folded(calls: list[Paid], one: int, other: int) -> None:
    counters = []
    for seed in (one, other):
        process = Process(list(calls), seed)
        for run in process.chance.sample("rst", 3):
            process.resume(run, calls)
        assert process.core._vtc is not None
        counters.append((process.core._vtc.counters(0), process.core._vtc.counters(1), process.state()))
    assert counters[0] == counters[1]
    charged = counters[0][0]
    of_a = sum(process.core._service(paid.usage) or 0 for paid in calls if paid.tenant == "a")
    assert charged.get(("a",), 0) * 3 == of_a, "divided by the weight"
