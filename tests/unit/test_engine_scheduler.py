"""The engine's scheduler over hours of a clock that costs nothing: who is served, when, and who is not."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from exoflow.llm.engine.config import EngineConfig
from exoflow.llm.engine.memory import Kept, Memory
from exoflow.llm.engine.pool import PagePool
from exoflow.llm.engine.queues import Fcfs, Queue
from exoflow.llm.engine.request import AdapterRef, Overloaded, Request, SamplingParams, State
from exoflow.llm.engine.residency import AdapterCost
from exoflow.llm.engine.scheduler import Scheduler
from exoflow.llm.fair import VTC

STEP_S, TOKEN_S = 0.01, 0.0001
"""A step of a decoder: reading the weights, and what each token adds."""


class Told(Fcfs):
    """Tells in which order it was emptied."""

    def __init__(self, cluster_s: float) -> None:
        super().__init__(cluster_s)
        self.popped: list[Request] = []

    def pop(self, now_s: float) -> Request:
        self.popped.append(super().pop(now_s))
        return self.popped[-1]


@dataclass
class Simulation:
    """An engine whose steps and loads take as long as they are said to take. Loads go one after the other."""

    config: EngineConfig
    pages: int = 2000
    adapter_pages: int = 10
    load_s: float = 0.02
    cluster_s: float = 0.0
    now: float = 0.0
    ended: list[Request] = field(default_factory=list)
    step_s: float = STEP_S
    fair: Queue | None = None

    def __post_init__(self) -> None:
        cost = AdapterCost(self.adapter_pages, self.load_s)
        self.queue = Told(self.cluster_s)
        self.scheduler = Scheduler(
            self.config,
            Memory(PagePool(self.pages)),
            self.queue if self.fair is None else self.fair,
            max_context=2048,
            cost=lambda version: cost,
            first_token_s=lambda tokens: self.step_s + tokens * TOKEN_S,
        )
        self.loads: list[tuple[float, str]] = []
        self._copied_s = 0.0

    def run(self, requests: list[Request]) -> None:
        coming = sorted(requests, key=lambda request: request.arrival_s)[::-1]
        while coming or not self.scheduler.is_idle:
            while coming and coming[-1].arrival_s <= self.now:
                self.scheduler.add(coming[-1], self.now)
                coming.pop()
            while self.loads and self.loads[0][0] <= self.now:
                self.scheduler.residency.arrived(heapq.heappop(self.loads)[1])
            if not self._step():
                self._sleep(coming)

    def _step(self) -> bool:
        plan = self.scheduler.step(self.now)
        for load in plan.loads:
            self._copied_s = max(self._copied_s, self.now) + self.load_s
            heapq.heappush(self.loads, (self._copied_s, load.version))
        self.ended += plan.dropped
        if not plan.chunks:
            return False
        self.now += self.step_s + TOKEN_S * sum(chunk.count for chunk in plan.chunks)
        for chunk in plan.chunks:
            request = chunk.request
            self.scheduler.computed(chunk, 1 if chunk.gives_token else None, self.now)
            if len(request.output) == request.params.max_tokens:
                self.scheduler.finish(request, "length", self.now)
                self.ended.append(request)
        return True

    def _sleep(self, coming: list[Request]) -> None:
        nexts = [request.arrival_s for request in coming[-1:]] + [when for when, _ in self.loads[:1]]
        assert nexts, "it sleeps, and nothing will wake it"
        self.now = max(self.now, min(nexts))


def workload(
    count: int, rate: float, adapters: int, *, tokens: int = 8, prompt: int = 64, alpha: float = 1.0, seed: int = 0
) -> list[Request]:
    """As S-LoRA (MLSys '24, section 7.1) makes it: Poisson arrivals, adapters by a power law."""
    chance = random.Random(seed)
    at, made = 0.0, []
    for index in range(count):
        at += chance.expovariate(rate)
        name = f"v{int(chance.random() ** (1 / alpha) * adapters)}"
        content = (index, *range(chance.randint(1, 2 * prompt)))  # no two alike: nothing to find in the prefix cache
        params = SamplingParams(max_tokens=chance.randint(1, 2 * tokens))
        made.append(Request(content, params, AdapterRef(name, name), arrival_s=at))
    return made


def attainment(requests: list[Request], slo_s: float) -> float:
    """The share of those whose first token came in time."""
    in_time = [
        request for request in requests if request.first_token_s and request.first_token_s - request.arrival_s <= slo_s
    ]
    return len(in_time) / len(requests)


def waits(requests: list[Request]) -> list[float]:
    return sorted((request.first_token_s or 1e9) - request.arrival_s for request in requests)


@pytest.mark.parametrize(("pages", "slots"), [(2000, 500), (120, 500), (400, 8)])
def test_everybody_is_served_and_the_last_soon(pages: int, slots: int) -> None:
    """Loading adapters, short memory, few slots: nobody waits for ever, nor for much longer than the others."""
    asked = workload(1500, rate=60, adapters=300)
    simulation = Simulation(EngineConfig(max_batch=32, adapter_slots=slots), pages=pages)
    simulation.run(asked)
    assert {request.state for request in asked} == {State.DONE}
    assert all(len(request.output) == request.params.max_tokens for request in asked)
    busy = simulation.now - asked[-1].arrival_s
    assert waits(asked)[-1] < 1 + busy + 2 * waits(asked)[len(asked) // 2]
    if pages == 120:
        assert simulation.scheduler.preemptions > 0


def test_whoever_was_preempted_is_the_first_to_be_admitted_again() -> None:
    asked = workload(400, rate=1000, adapters=3, tokens=40)
    simulation = Simulation(EngineConfig(max_batch=32), pages=120)
    simulation.run(asked)
    assert simulation.scheduler.preemptions > 5
    first = {request: place for place, request in reversed(list(enumerate(simulation.queue.popped)))}
    last = {request: place for place, request in enumerate(simulation.queue.popped)}
    for earlier, later in pairwise(asked):
        assert first[earlier] < first[later]
        if later.preemptions:  # when it was admitted for good, all that came before it had been
            assert last[earlier] < last[later] or earlier.preemptions


def test_those_with_room_are_admitted_in_the_order_of_their_arrival() -> None:
    asked = workload(1000, rate=100, adapters=50)
    simulation = Simulation(EngineConfig(max_batch=16), pages=100_000)
    simulation.run(asked)
    assert simulation.queue.popped == asked


def test_a_load_holds_up_nobody_else() -> None:
    asked = workload(200, rate=100, adapters=1)
    slow = Request((1, 2, 3), SamplingParams(max_tokens=1), AdapterRef("slow", "slow"), arrival_s=0.0)
    simulation = Simulation(EngineConfig(max_batch=16))
    simulation.scheduler.add(asked[0], 0.0)
    simulation._step()
    simulation.loads = [(0.0, "v0")]
    simulation.load_s = 1000.0
    simulation.run([slow, *asked[1:]])
    assert simulation.ended[-1] is slow
    assert waits(asked)[-1] < 1


def test_loads_that_take_long_do_not_empty_the_batch() -> None:
    cold = [
        Request((1, index), SamplingParams(max_tokens=1), AdapterRef(f"cold{index}", f"cold{index}"), arrival_s=0.0)
        for index in range(20)
    ]
    simulation = Simulation(EngineConfig(max_batch=32), load_s=50.0)
    hot = [Request((2, index), SamplingParams(max_tokens=8), arrival_s=index / 100) for index in range(500)]
    simulation.run([*cold, *hot])
    assert waits(hot)[-1] < 1


def test_in_overload_deadlines_serve_most_of_what_can_be_served() -> None:
    """1.5 times what it can do, for two minutes: S-LoRA's abort strategy (section 4.2), figure L4 of our design."""
    slow = {"pages": 4000, "step_s": 0.05}
    burst = workload(300, rate=1000, adapters=50, tokens=30)
    full = Simulation(EngineConfig(max_batch=16), **slow)  # type: ignore[arg-type]
    full.run(burst)
    rate = 1.5 * len(burst) / full.now
    found = {}
    for policy in ("fcfs", "deadline"):
        asked = workload(int(rate * 120), rate=rate, adapters=50, tokens=30)
        config = EngineConfig(policy=policy, max_batch=16, slo_s=6.0)  # type: ignore[arg-type]
        simulation = Simulation(config, **slow)  # type: ignore[arg-type]
        simulation.run(asked)
        found[policy] = attainment(asked, 6.0)
        assert len(simulation.ended) == len(asked)
    assert found["deadline"] >= 0.60
    assert found["fcfs"] <= 0.15


@pytest.mark.parametrize("is_fair", [False, True])
def test_deadlines_drop_whom_a_fair_queue_lets_wait(is_fair: bool) -> None:
    """The one who asks for too much loses its own requests; in the order of arrival, the modest one does, too."""
    flood = workload(6000, rate=100, adapters=50, tokens=30, seed=1)
    modest = workload(60, rate=1, adapters=50, tokens=30, seed=2)
    for client, requests in (("flood", flood), ("modest", modest)):
        for request in requests:
            request.client = (client,)
    config = EngineConfig(policy="deadline", max_batch=16, slo_s=2.0)
    Simulation(config, pages=4000, step_s=0.05, fair=VTC() if is_fair else None).run([*flood, *modest])
    assert attainment(flood, 2.0) < 0.3
    assert (attainment(modest, 2.0) > 0.95) is is_fair


def clustered(cluster_s: float) -> tuple[Simulation, list[Request]]:
    asked = workload(1500, rate=200, adapters=200, tokens=2, alpha=0.5)
    simulation = Simulation(EngineConfig(max_batch=16, adapter_slots=24), load_s=0.01, cluster_s=cluster_s)
    simulation.run(asked)
    return simulation, asked


def test_clustering_loads_fewer_adapters_and_nobody_starves() -> None:
    plain, alone = clustered(0.0)
    grouped, together = clustered(0.5)
    assert grouped.scheduler.residency.loads <= 0.85 * plain.scheduler.residency.loads
    assert waits(together)[-1] <= waits(alone)[-1] + 0.5


def test_clustering_lets_nobody_pass_who_came_a_span_later() -> None:
    simulation, _ = clustered(0.5)
    spans = [request.arrival_s // 0.5 for request in simulation.queue.popped if not request.preemptions]
    assert spans == sorted(spans)


def drops(memory: Memory, kept: dict[str, Kept], order: list[str]) -> Callable[[str, int, float], None]:
    def keep(name: str, pages: int, cost_s: float) -> None:
        taken = memory.take(pages)

        def drop() -> None:
            order.append(name)
            memory.pool.release(taken)
            memory.reclaimable -= pages

        kept[name] = Kept(pages, cost_s, drop)
        memory.reclaimable += pages
        memory.loosen(kept[name])

    return keep


def test_memory_drops_the_least_worth_first() -> None:
    memory, kept, order = Memory(PagePool(10)), dict[str, Kept](), list[str]()
    keep = drops(memory, kept, order)
    keep("dear", 2, 8.0)
    keep("cheap", 2, 1.0)
    keep("large", 4, 4.0)
    keep("often", 2, 1.0)
    memory.hold(kept["often"])
    kept["often"].uses = 10
    memory.loosen(kept["often"])
    assert memory.room == 10
    memory.pool.release(memory.take(8))
    assert order == ["cheap", "large", "dear"]  # 0.5, 1 and 4 a page; often: 5


@pytest.mark.parametrize("seed", range(20))
def test_memory_agrees_with_greedydual_size_frequency_written_plainly(seed: int) -> None:
    chance = random.Random(seed)
    memory, kept, order = Memory(PagePool(40)), dict[str, Kept](), list[str]()
    keep = drops(memory, kept, order)
    age, worth, since, expected = 0.0, dict[str, float](), dict[str, int](), list[str]()
    for turn in range(300):
        loose = [name for name in worth if name not in order]
        if loose and chance.random() < 0.4:
            name = chance.choice(loose)
            memory.hold(kept[name])
            kept[name].uses += 1
            memory.loosen(kept[name])
        else:
            name, pages = f"{turn}", chance.randint(1, 8)
            free = memory.pool.free
            while free < pages:
                least = min(loose, key=lambda each: (worth[each], since[each]))
                loose.remove(least)
                age, free = worth[least], free + kept[least].pages
                expected.append(least)
            keep(name, pages, chance.choice([0.5, 1.0, 3.0]))
        worth[name] = age + kept[name].uses * kept[name].cost_s / kept[name].pages
        since[name] = turn
        assert order == expected
    assert len(expected) > 50


def asked(prompt: range, count: int, *client: str) -> list[Request]:
    return [Request(tuple(prompt), SamplingParams(max_tokens=4), client=client) for _ in range(count)]


def test_samples_that_come_one_by_one_compute_their_prompt_once() -> None:
    """As those of a vote do, whose calls are requests of their own."""
    one, other = asked(range(64), 5), asked(range(100, 164), 5)
    simulation = Simulation(EngineConfig(pages=2000, block=16, max_batch=32))
    simulation.run([*one, *other])
    assert [request.cached for request in (*one, *other)] == [0, 48, 48, 48, 48] * 2
    assert len(simulation.ended) == 10
    assert simulation.scheduler.followers.is_empty


def test_nobody_waits_for_the_prompt_of_another_client() -> None:
    mine, yours = asked(range(64), 2, "me"), asked(range(64), 1, "you")
    simulation = Simulation(EngineConfig(pages=2000, block=16, max_batch=32))
    for request in (*mine, *yours):
        simulation.scheduler.add(request, 0.0)
    assert [request.leader for request in (*mine, *yours)] == [None, mine[0], None]


def test_who_waits_for_a_prompt_that_is_given_up_is_served_all_the_same() -> None:
    first, second, third = asked(range(64), 3)
    simulation = Simulation(EngineConfig(pages=2000, block=16, max_batch=32))
    for request in (first, second, third):
        simulation.scheduler.add(request, 0.0)
    simulation.scheduler.finish(second, "abort", 0.0)
    simulation.scheduler.finish(first, "abort", 0.0)
    simulation.run([])
    assert simulation.ended == [third]
    assert len(third.output) == 4


def test_those_that_wait_for_a_prompt_count_among_those_that_wait() -> None:
    simulation = Simulation(EngineConfig(pages=2000, block=16, max_batch=1, max_waiting=2))
    requests = asked(range(64), 4)
    for request in requests[:3]:
        simulation.scheduler.add(request, 0.0)
    with pytest.raises(Overloaded):
        simulation.scheduler.add(requests[3], 0.0)
