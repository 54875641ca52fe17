"""The engine's scheduler and pool, played at random: whatever comes, no page is lost, owned twice or forgotten."""

from __future__ import annotations

import contextlib
import random

import pytest

from exoflow.errors import LLMError, OutOfPages
from exoflow.llm.engine.config import EngineConfig
from exoflow.llm.engine.memory import Memory
from exoflow.llm.engine.pool import PagePool
from exoflow.llm.engine.queues import Fcfs
from exoflow.llm.engine.request import AdapterRef, Request, SamplingParams, State
from exoflow.llm.engine.residency import AdapterCost, Place
from exoflow.llm.engine.scheduler import Scheduler


class World:
    """A scheduler, and a device that computes nothing and gives tokens at random."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        draw = self.chance.randint
        self.config = EngineConfig(
            block=draw(1, 4),
            max_batch=draw(1, 6),
            token_budget=draw(6, 24),
            adapter_slots=draw(1, 5),
            prefix_cache=self.chance.random() < 0.8,
            policy=self.chance.choice(["fcfs", "deadline"]),
            slo_s=30.0,
        )
        self.pool = PagePool(draw(12, 40))
        self.memory = Memory(self.pool)
        self.costs = {f"v{index}": AdapterCost(draw(1, 9), self.chance.random()) for index in range(8)}
        self.scheduler = Scheduler(
            self.config,
            self.memory,
            Fcfs(self.chance.choice([0.0, 0.5])),
            max_context=40,
            cost=self.costs.__getitem__,
            first_token_s=lambda n: n / 10,
        )
        self.now = 0.0
        self.requests: list[Request] = []
        self.coming: list[str] = []
        self.pinned: list[str] = []

    def do_something(self) -> None:
        self.now += 0.1
        actions = [self.ask, self.step, self.load, self.stop, self.pin]
        action = self.chance.choices(actions, [2, 6, 2, 0.5, 0.2])[0]
        action()
        self.check()

    def ask(self) -> None:
        prompt = tuple(self.chance.choices(range(2), k=self.chance.randint(1, 20)))
        name = self.chance.choice([None, *self.costs])
        params = SamplingParams(max_tokens=self.chance.randint(1, 12))
        adapter = AdapterRef(name, name) if name else None
        leader: Request | None = None
        for index in range(self.chance.choice([1, 1, 3])):
            request = Request(
                prompt,
                params,
                adapter,
                arrival_s=self.now,
                index=index,
                leader=leader,
                scores=self.chance.random() < 0.1,
            )
            try:
                self.scheduler.add(request, self.now)
            except LLMError:
                return
            self.requests.append(request)
            leader = leader or request

    def step(self) -> None:
        plan = self.scheduler.step(self.now)
        assert sum(chunk.count for chunk in plan.chunks) <= self.config.token_budget
        assert len({chunk.request for chunk in plan.chunks}) == len(plan.chunks) <= self.config.max_batch
        self.coming += [load.version for load in plan.loads]
        if not plan.chunks:  # nobody would call again until a load has ended
            assert self.coming or all(request.state is State.DONE for request in self.requests)
        for chunk in plan.chunks:
            request = chunk.request
            assert chunk.count > 0
            assert chunk.start == request.computed
            assert chunk.start + chunk.count <= len(request.pages) * self.config.block
            if request.adapter is not None:
                resident = self.scheduler.residency.find(request.adapter.version)
                assert resident is not None
                assert resident.place is Place.HERE
        for chunk in plan.chunks:
            token = self.chance.randint(0, 1) if chunk.gives_token and not chunk.request.scores else None
            self.scheduler.computed(chunk, token, self.now)
            request = chunk.request
            if request.state is State.RUNNING and (
                len(request.output) == request.params.max_tokens
                or (request.scores and request.computed == request.length)
            ):
                self.scheduler.finish(request, "length", self.now)

    def load(self) -> None:
        if self.coming:
            version = self.coming.pop(self.chance.randrange(len(self.coming)))
            resident = self.scheduler.residency.find(version)
            assert resident is not None
            if self.chance.random() < 0.15:
                self.scheduler.failed(version, self.now)
            else:
                self.scheduler.residency.arrived(version)

    def stop(self) -> None:
        live = [request for request in self.requests if request.state is not State.DONE]
        if live and self.chance.random() < 0.8:
            self.scheduler.finish(self.chance.choice(live), "abort", self.now)
        else:
            version = self.chance.choice(list(self.costs))
            self.scheduler.residency.forget(version)
            self.scheduler.prefixes.forget(version)

    def pin(self) -> None:
        if self.pinned and self.chance.random() < 0.6:
            self.scheduler.limits.unpin(self.pinned.pop(self.chance.randrange(len(self.pinned))))
            return
        version = self.chance.choice(list(self.costs))
        before = self.pinned[-1] if self.pinned and self.chance.random() < 0.5 else None
        with contextlib.suppress(OutOfPages):
            self.scheduler.pin(version, instead_of=before)
            self.pinned = [*self.pinned[: -1 if before else None], version]

    def check(self) -> None:
        scheduler = self.scheduler
        live = [request for request in self.requests if request.state is not State.DONE]
        self.requests = live
        for request in live:
            assert (request in scheduler.running) == (request.state is State.RUNNING)
            assert (request in scheduler.loading) == (request.state is State.LOADING)
            assert bool(request.pages) == (request.state is State.RUNNING)
        tree = list(scheduler.prefixes.owned())
        residents = [resident.pages for resident in scheduler.residency]
        self.pool.check([*(request.pages for request in live), *tree, *residents])
        loose = sum(len(resident.pages) for resident in scheduler.residency if resident.kept in kept_loose(self.memory))
        alone = sum(self.pool.owners(page) == 1 for pages in tree for page in pages)
        assert self.memory.reclaimable == loose + alone
        assert scheduler.limits.pinned_pages == sum(
            scheduler.residency.size_of(version) for version in scheduler.limits.pins
        )

    def drain(self) -> None:
        """Nobody asks any more, and loads succeed: everybody is served in the end."""
        for _ in range(2000):
            if self.scheduler.is_idle:
                break
            self.now += 0.1
            self.step()
            while self.coming:
                self.scheduler.residency.arrived(self.coming.pop())
            self.check()
        assert self.scheduler.is_idle
        assert all(request.state is State.DONE for request in self.requests)
        while self.pinned:
            self.scheduler.limits.unpin(self.pinned.pop())
        self.check()
        assert self.memory.room == self.pool.size


def kept_loose(memory: Memory) -> set[object]:
    return {kept for _, _, kept in memory._heap if kept.is_loose}


@pytest.mark.parametrize("seed", range(40))
def test_no_page_is_lost_and_everybody_is_served(seed: int) -> None:
    world = World(seed)
    for _ in range(250):
        world.do_something()
    world.drain()
