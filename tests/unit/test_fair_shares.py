"""Fairness in front of an endpoint: what slots, jobs, weights and ageing do to the order of calls."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable

import pytest

from exoflow.llm.engine.request import Usage
from exoflow.llm.fair.asks import Ask, Place, Waiter
from exoflow.llm.fair.costs import Linear
from exoflow.llm.fair.dispatch import Dispatch
from exoflow.llm.fair.reserving import PARTS_MIN
from exoflow.llm.fair.settings import Settings
from exoflow.llm.fair.tenants import Tenant, Tenants

SLOTS, LONGEST_IN, LONGEST_OUT = 16, 500, 1000


class Endpoint:
    """Slots of an endpoint, and who is in them."""

    def __init__(self, slots: int = SLOTS, *, seed: int = 0, ageing_s: float | None = None, **settings: object) -> None:
        tenants = settings.pop("tenants", {})
        named = tuple(((name,), tenant) for name, tenant in tenants.items())  # type: ignore[attr-defined]
        charge = settings.pop("charge", "reserve")
        made = Settings("vtc", slots, Linear(1, 2), charge, ("tenant", "user"), named, None, ageing_s)  # type: ignore[arg-type]
        self.core = Dispatch(made._policy(), made.cost, Tenants(named, None, 3), made.group_by, slots)
        self.chance = random.Random(seed)
        self.flying: list[Waiter] = []
        self.order: list[Waiter] = []
        self.asked: Counter[str] = Counter()

    def ask(self, tenant: str, input: int = 10, most: int = 10, now_s: float = 0.0, **more: object) -> Waiter:
        self.asked[tenant] += 1
        labels = {"tenant": tenant, "user": str(more.pop("user", ""))}
        about = {"input_tokens": input, "max_output_tokens": most, "run": "r", **more}
        waiter = self.core.join(Ask(f"{tenant}/{self.asked[tenant]}", labels=labels, **about), now_s)  # type: ignore[arg-type]
        self.look()
        return waiter

    def answer(self, waiter: Waiter, output: int | None = None, now_s: float = 0.0) -> None:
        self.flying.remove(waiter)
        used = waiter.max_output_tokens if output is None else output
        self.core.settle(waiter, Usage(waiter.input_tokens, used), 0, now_s)
        self.look()

    def look(self) -> None:
        started = [waiter for waiter in self.core.told if waiter.place is Place.RUNNING]
        self.flying += started
        self.order += started
        self.core.told.clear()

    def calls(self) -> list[str]:
        return [waiter.ask.call for waiter in self.order]

    def spread(self) -> int:
        """Of the counters of tenants of which somebody waits."""
        assert self.core._vtc is not None
        counters, ledger = self.core._vtc.counters(), self.core._ledger
        waiting = [counters[tenant,] for tenant in self.asked if ledger.account((tenant,)).waiting]
        return int(max(waiting) - min(waiting)) if waiting else 0


def worst_spread(charge: str, seed: int) -> int:
    """Two to six tenants, each with calls of its own kind, all of which want more than they get."""
    endpoint = Endpoint(seed=seed, charge=charge)
    chance = endpoint.chance
    lengths: list[Callable[[int], int]] = [lambda most: most, lambda most: 1, lambda most: chance.randint(1, most)]
    kinds = {f"t{number}": (chance.choice(lengths), chance.choice(lengths)) for number in range(chance.randint(2, 6))}
    if seed == 0:
        kinds = {"long": (lengths[0], lengths[0]), "short": (lengths[1], lengths[1])}
    for tenant, (input_of, _) in kinds.items():
        for _ in range(120):
            endpoint.ask(tenant, input_of(LONGEST_IN), LONGEST_OUT)
    worst = 0
    while endpoint.flying:
        waiter = chance.choice(endpoint.flying)
        endpoint.answer(waiter, kinds[waiter.client[0]][1](LONGEST_OUT))
        worst = max(worst, endpoint.spread())
    return worst


def test_reserving_the_most_keeps_counters_close_and_charging_at_completion_does_not() -> None:
    reserved = [worst_spread("reserve", seed) for seed in range(8)]
    completed = [worst_spread("complete", seed) for seed in range(8)]
    assert max(reserved) <= 4_300
    assert max(completed) >= 18_800
    assert max(completed) <= LONGEST_IN + 2 * SLOTS * LONGEST_OUT


def test_what_is_billed_is_charged_whatever_was_thought_before() -> None:
    endpoint = Endpoint(slots=1)
    first = endpoint.ask("a", 400, 1000)
    assert endpoint.core._vtc is not None
    assert endpoint.core._vtc.counters()["a",] == 400 + 2 * 1000
    endpoint.flying.remove(first)
    endpoint.core.settle(first, Usage(420, 7), 0, 0.0)
    assert endpoint.core._vtc.counters()["a",] == 420 + 2 * 7
    assert endpoint.core.stats()["a"].service == 420 + 2 * 7


def test_cached_tokens_of_the_prompt_have_their_own_price() -> None:
    settings = Settings("vtc", 1, Linear(1, 2, cached="0.1"), "reserve", ("tenant",), (), None, None)
    core = Dispatch(settings._policy(), settings.cost, Tenants((), None, 2), ("tenant",), 1)
    waiter = core.join(Ask("a", labels={"tenant": "a"}, input_tokens=100, max_output_tokens=10), 0.0)
    core.settle(waiter, Usage(100, 10, cached_tokens=90), 0, 0.0)
    assert core.stats()["a"].service == 10 * (10 + 9 + 20), "in units of a tenth"


def test_an_answer_that_breaks_off_is_charged_for_what_has_come() -> None:
    endpoint = Endpoint(slots=1)
    for number, came in enumerate([0, 30]):
        waiter = endpoint.ask(f"t{number}", 100, 50)
        endpoint.core.charge(waiter, came)
        endpoint.core.end(waiter, 0.0)
    endpoint.core.fold("r", "x", {"tenant": "t0"}, Usage(0, 0), 0, 0.0)
    assert endpoint.core._vtc is not None
    counters = endpoint.core._vtc.counters()
    assert (counters.get(("t0",), 0), counters["t1",]) == (0, 100 + 2 * 30)


def test_the_calls_of_a_job_keep_together_in_their_tenants_order() -> None:
    endpoint = Endpoint(slots=1)
    endpoint.ask("other")
    for _ in range(3):
        for vote in ("first", "second"):
            endpoint.ask("acme", job=vote)
    while endpoint.flying:
        endpoint.answer(endpoint.flying[0])
    jobs = [waiter.job for waiter in endpoint.order if waiter.client[0] == "acme"]
    assert jobs == ["first"] * 3 + ["second"] * 3


def test_a_tenant_that_splits_into_users_and_runs_gains_nothing() -> None:
    endpoint = Endpoint(slots=2)
    for number in range(60):
        endpoint.ask("split", user=str(number % 6), run=f"r{number}")
        endpoint.ask("whole")
    served: Counter[str] = Counter()
    for _ in range(60):
        waiter = endpoint.flying[0]
        served[waiter.client[0]] += 1
        endpoint.answer(waiter)
    assert abs(served["split"] - served["whole"]) <= 2


def test_weights_share_what_is_contended_and_change_while_calls_are_in_flight() -> None:
    endpoint = Endpoint(slots=4, tenants={"a": Tenant(weight=1), "b": Tenant(weight=3)})

    def served(calls: int) -> dict[str, int]:
        of: Counter[str] = Counter()
        for _ in range(calls):
            waiter = endpoint.flying[0]
            of[waiter.client[0]] += 1
            endpoint.answer(waiter)
            endpoint.ask(waiter.client[0])
        return dict(of)

    for tenant in "ab":
        for _ in range(20):
            endpoint.ask(tenant)
    served(20)
    assert served(400)["b"] == pytest.approx(300, abs=4)
    endpoint.core.update(("a",), Tenant(weight="4.5"), 1, 0.0)
    served(8)
    assert served(400)["a"] == pytest.approx(240, abs=4)
    endpoint.core.update(("a",), Tenant(weight=9), 0, 0.0)
    assert served(400)["a"] == pytest.approx(240, abs=4), "an older change is nothing"


def test_the_users_of_a_tenant_have_the_weights_that_it_gives_each() -> None:
    each = Tenant(each=Tenant(weight=1))
    endpoint = Endpoint(slots=1, tenants={"a": each})
    endpoint.core.update(("a", "big"), Tenant(weight=3), 1, 0.0)
    for user in ("big", "small"):
        for _ in range(40):
            endpoint.ask("a", user=user)
    of: Counter[str] = Counter()
    for _ in range(40):
        of[endpoint.flying[0].client[1]] += 1
        endpoint.answer(endpoint.flying[0])
    assert of["big"] == pytest.approx(30, abs=1)


def test_one_call_among_those_of_flooders_is_not_kept_waiting() -> None:
    endpoint = Endpoint()
    for number in range(20):
        for _ in range(40):
            endpoint.ask(f"flood{number}", 500, 1000)
    for _ in range(100):
        endpoint.answer(endpoint.chance.choice(endpoint.flying), endpoint.chance.randint(0, 1000))
    late, before = endpoint.ask("late", 500, 1000), len(endpoint.order)
    while late.waits:
        endpoint.answer(endpoint.chance.choice(endpoint.flying), endpoint.chance.randint(0, 1000))
    assert len(endpoint.order) - before <= 20 + 1, "one of each at most"


def test_nobody_waits_for_ever_where_calls_age() -> None:
    waits: dict[bool, int] = {}
    for ages in (False, True):
        endpoint = Endpoint(slots=1, ageing_s=10.0 if ages else None, tenants={"last": Tenant(priority=2)})
        endpoint.ask("first")
        endpoint.ask("first")
        last = endpoint.ask("last")
        now_s = 0
        while last.waits and now_s < 500:
            now_s += 1
            endpoint.answer(endpoint.flying[0], now_s=now_s)
            endpoint.ask("first", now_s=now_s)
        waits[ages] = now_s
    assert waits[False] == 500, "a band is strict"
    assert 20 <= waits[True] <= 25


def test_a_call_that_waited_for_a_budget_rises_as_slowly_as_others() -> None:
    tenants = {"last": Tenant(priority=3, budget_tokens=40)}
    endpoint = Endpoint(slots=3, ageing_s=10.0, tenants=tenants)
    first, second, third = (endpoint.ask("last") for _ in range(3))
    assert third.place is Place.HELD
    for _ in range(2):
        endpoint.ask("first")
    endpoint.core.end(first, 1.0)
    assert third.place is Place.QUEUED
    assert endpoint.core._policy.peek(12.0) is third
    assert third.priority == 3
    band_1 = [waiter for waiter in [endpoint.ask("first", now_s=12.0)] if waiter.place is Place.QUEUED]
    assert endpoint.core._policy.peek(12.0) is band_1[0]
    assert second.place is Place.RUNNING


def test_a_newcomer_is_not_held_back_by_reservations_that_will_be_given_back() -> None:
    endpoint = Endpoint(slots=64)

    def served(calls: int, *tenants: str) -> Counter[str]:
        of: Counter[str] = Counter()
        for _ in range(calls):
            for tenant in tenants:
                while endpoint.core._ledger.account((tenant,)).waiting < 2:
                    endpoint.ask(tenant, 10, LONGEST_OUT)
            waiter = endpoint.chance.choice(endpoint.flying)
            of[waiter.client[0]] += 1
            endpoint.answer(waiter, 10)
        return of

    served(200, "first")
    assert served(200, "first", "newcomer")["newcomer"] > 60
    assert 0.45 < served(1000, "first", "newcomer")["newcomer"] / 1000 < 0.55


def test_what_is_known_of_ended_runs_is_forgotten() -> None:
    endpoint = Endpoint(slots=2)
    kept = endpoint.ask("a", run="kept", most=500)
    for number in range(PARTS_MIN):
        endpoint.answer(endpoint.ask("a", run=f"r{number}"), 1)
    endpoint.answer(kept, 1)
    assert endpoint.core._vtc is not None
    assert len(endpoint.core._vtc._bands[0]._parts) <= PARTS_MIN  # type: ignore[attr-defined]


def test_a_grant_that_has_ended_takes_no_more_charges() -> None:
    endpoint = Endpoint()
    waiter = endpoint.ask("a")
    endpoint.answer(waiter, 3)
    endpoint.core.charge(waiter, 5)
    endpoint.core.settle(waiter, Usage(10, 3), 0, 0.0)
    assert endpoint.core.stats()["a"].service == 16


def test_waits_are_told_by_their_95th_percentile() -> None:
    endpoint = Endpoint(slots=1)
    endpoint.ask("a")
    for number in range(1, 20):
        endpoint.ask("a", now_s=0.0)
        endpoint.answer(endpoint.flying[0], now_s=float(number))
    assert endpoint.core.stats()["a"].wait_p95_s == 18.0


def test_shares_are_of_what_all_were_charged() -> None:
    endpoint = Endpoint()
    by: dict[str, list[Waiter]] = defaultdict(list)
    for tenant in "aab":
        by[tenant].append(endpoint.ask(tenant))
    for waiter in list(endpoint.flying):
        endpoint.answer(waiter)
    stats = endpoint.core.stats()
    assert (stats["a"].share, stats["b"].share) == pytest.approx((2 / 3, 1 / 3))
    assert stats["a"].service == 2 * 30
