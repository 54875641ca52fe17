"""What the next step computes. Pure: no torch, no clock, no thread.

Continuous batching (Orca, OSDI '22) with chunked prefill (Sarathi-Serve, OSDI '24): a step computes some tokens of
each running sequence, one of those that decode and as many as the budget allows of those that are in their prompt.
When pages run out, who was admitted last gives up its pages and computes again later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from exoflow.errors import OutOfPages
from exoflow.llm.engine.config import EngineConfig
from exoflow.llm.engine.followers import Followers
from exoflow.llm.engine.limits import Limits
from exoflow.llm.engine.memory import Memory
from exoflow.llm.engine.plan import Chunk, Plan
from exoflow.llm.engine.prefix import PrefixCache
from exoflow.llm.engine.queues import Fcfs, Queue
from exoflow.llm.engine.request import FinishReason, Overloaded, Request, State
from exoflow.llm.engine.residency import AdapterCost, Place, Residency


class Scheduler:
    """The sequences of one engine: waiting, loading, running.

    Args:
        cost: of the adapter of this version. Versions of requests are known to it until they have ended.
        first_token_s: how long a prompt of so many tokens takes to its first token, for deadlines.
    """

    def __init__(
        self,
        config: EngineConfig,
        memory: Memory,
        queue: Queue,
        *,
        max_context: int,
        cost: Callable[[str], AdapterCost],
        first_token_s: Callable[[int], float] = lambda tokens: 0.0,
    ) -> None:
        self.config = config
        self.queue = queue
        self.running: list[Request] = []
        """In the order of their admission."""
        self.loading: deque[Request] = deque()
        """Admitted, their adapters on the way: in the order of their admission, too."""
        self.preemptions = 0
        self._cost = cost
        self._first_token_s = first_token_s
        self._memory = memory
        self.prefixes = PrefixCache(memory, config.block)
        self.residency = Residency(memory, config.adapter_slots)
        self.limits = Limits(config, self.residency, memory.pool.size, max_context=max_context, cost=cost)
        self.followers = Followers()
        if isinstance(queue, Fcfs):
            queue.is_near = lambda version: self.residency.find(version) is not None

    # What comes in.

    def add(self, request: Request, now_s: float) -> None:
        """Let it wait.

        Raises:
            ContextTooLong: prompt and answer are longer than the model's context.
            OutOfPages: they and the adapter would not fit into the pool if it were theirs alone.
            Overloaded: too many wait already.
        """
        shares = self._is_shared(request) and len(request.prompt) > self.config.block
        leader = self.followers.leader_of(request, shares=shares) if self.config.prefix_cache else None
        self.limits.check(request)
        self._check_waiting(len(self.queue) + self.followers.count(leader))
        if request.adapter is not None:
            cost = self._cost(request.adapter.version)
            self.residency.prefetch(request.adapter.version, cost.pages, cost.load_s)
        if leader is not None:
            self.followers.follow(request, leader)
            return
        self.queue.add(request, now_s)
        if shares:
            self.followers.lead(request)

    def finish(self, request: Request, reason: FinishReason, now_s: float) -> None:
        """It has ended, wherever it was: a stop string, its length, its client is gone."""
        if request.state is State.DONE:
            return
        if request.state is State.WAITING:
            if not self.queue.cancel(request):
                self.followers.withdraw(request)
        else:
            self._give_up(request)
            self.queue.finish(request)
        request.state, request.finish_reason = State.DONE, reason
        self._let_follow(request, now_s)

    def failed(self, version: str, now_s: float) -> list[Request]:
        """A ``Load`` could not be carried out: those who waited for it have ended."""
        while version in self.limits.pins:
            self.limits.unpin(version)
        ended = [request for request in self.loading if request.adapter and request.adapter.version == version]
        for request in ended:
            self.finish(request, "abort", now_s)
        self.residency.failed(version)
        return ended

    def computed(self, chunk: Chunk, token: int | None, now_s: float) -> None:
        """A chunk of the last plan is done; ``token`` is what followed, if it gives one."""
        request = chunk.request
        if request.state is not State.RUNNING:
            return  # it ended, or gave up its pages, meanwhile
        request.computed = chunk.start + chunk.count
        if self._is_shared(request):
            self.prefixes.extend(request)
        if token is not None:
            request.output.append(token)
            self.queue.charge(request, 1)
            if request.first_token_s is None:
                request.first_token_s = now_s
        if not request.in_prefill or request.scores:
            self._let_follow(request, now_s)

    def pin(self, version: str, instead_of: str | None = None) -> None:
        """As of ``Limits``."""
        self.limits.pin(version, instead_of, self._under_way)

    @property
    def is_idle(self) -> bool:
        return not (self.running or self.loading or len(self.queue))

    # What comes out.

    def step(self, now_s: float) -> Plan:
        """Who computes what next."""
        dropped = self._drop_late(now_s)
        chunks, preempted = self._go_on(now_s)
        if not preempted or not chunks:  # nobody's step would come after this one to let them in
            self._join_loaded(now_s)
            self._admit(now_s)
        budget = self.config.token_budget - sum(chunk.count for chunk in chunks)
        begun = {chunk.request for chunk in chunks}
        for request in self.running:
            if budget and request not in begun:
                chunks.append(Chunk(request, request.computed, min(request.length - request.computed, budget)))
                budget -= chunks[-1].count
        return Plan(tuple(chunks), tuple(self.residency.take_orders()), tuple(dropped))

    def _go_on(self, now_s: float) -> tuple[list[Chunk], bool]:
        """One token for each that decodes, before any prompt: nobody's answer stops because another's prompt is
        long.
        """
        chunks: dict[Request, Chunk] = {}
        before = self.preemptions
        for request in list(self.running):
            if request.state is not State.RUNNING or request.length - request.computed != 1:
                continue
            while not self._grow(request):
                victim = self.running[-1]
                chunks.pop(victim, None)
                self._preempt(victim, now_s)
                if victim is request:
                    break
            else:
                chunks[request] = Chunk(request, request.computed, 1)
        return list(chunks.values()), self.preemptions > before

    def _grow(self, request: Request) -> bool:
        missing = self.config.pages_for(request.length) - len(request.pages)
        if missing <= 0:
            return True
        if missing > self._memory.room:
            return False
        request.pages += self._memory.take(missing)
        return True

    def _join_loaded(self, now_s: float) -> None:
        """Those whose adapter has come begin to run, as long as there is room."""
        for request in list(self.loading):
            if len(self.running) >= self.config.max_batch:
                return
            if not self._is_here(request):
                continue
            while not self._begin(request, now_s):
                if self.running or self.loading[-1] is request:
                    return  # somebody who runs will make room
                self._preempt(self.loading[-1], now_s)  # adapters of others that wait take the room
            self.loading.remove(request)

    def _admit(self, now_s: float) -> None:
        """Take from the queue, in its order, whoever fits. Its head is never passed over."""
        while request := self.queue.peek(now_s):
            # Those that load take nobody's place: a slow disk does not empty the batch.
            others = self.running if self._is_here(request) else self.loading
            if len(others) >= self.config.max_batch or not self._fits(request):
                return
            if request.adapter is not None:
                cost = self._cost(request.adapter.version)
                try:
                    resident = self.residency.hold(request.adapter.version, cost.pages, cost.load_s)
                except OutOfPages:
                    return  # no slot: somebody who ends gives one back
                if resident.place is not Place.HERE:
                    self.queue.pop(now_s)
                    request.state = State.LOADING
                    self.loading.append(request)
                    continue
            if not self._begin(request, now_s):
                if request.adapter is not None:
                    self.residency.let_go(request.adapter.version)
                return
            self.queue.pop(now_s)

    def _is_here(self, request: Request) -> bool:
        """Its adapter is in the pool, or it needs none."""
        if request.adapter is None:
            return True
        resident = self.residency.find(request.adapter.version)
        return resident is not None and resident.place is Place.HERE

    def _fits(self, request: Request) -> bool:
        adapter = request.adapter
        missing = self.residency.missing_pages(adapter.version, self._cost(adapter.version).pages) if adapter else 0
        known = self.prefixes.known(request) if self._is_shared(request) else 0
        needed = self.config.pages_for(request.length) - known // self.config.block + missing
        spare = len(self.running)  # the next page of each that runs: else it would be preempted soon
        return needed + (spare if self.running else 0) <= self._memory.room

    def _begin(self, request: Request, now_s: float) -> bool:
        """Give it pages for all that is known of it; its adapter is held. False, and nothing changed, if there is no
        room.
        """
        request.computed = self.prefixes.begin(request) if self._is_shared(request) else 0
        if not self._grow(request):
            self._release(request)
            return False
        if request.admitted_s is None:
            request.admitted_s, request.cached = now_s, request.computed
        request.state = State.RUNNING
        self.running.append(request)
        return True

    # Giving up.

    def _preempt(self, request: Request, now_s: float) -> None:
        self._give_up(request)
        request.state = State.WAITING
        request.preemptions += 1
        self.preemptions += 1
        self.queue.requeue(request, now_s)

    def _give_up(self, request: Request) -> None:
        """It is neither running nor loading any more, and holds nothing."""
        if request.state is State.RUNNING:
            self._release(request)
            self.running.remove(request)
        else:
            self.loading.remove(request)
        if request.adapter is not None:
            self.residency.let_go(request.adapter.version)

    def _release(self, request: Request) -> None:
        if self._is_shared(request):
            self.prefixes.end(request)
        self._memory.pool.release(request.pages)
        request.pages, request.computed = [], 0

    def _let_follow(self, request: Request, now_s: float) -> None:
        """Its prompt lies in the prefix cache, or never will."""
        for follower in self.followers.end(request):
            self.queue.add(follower, now_s)

    def _drop_late(self, now_s: float) -> list[Request]:
        if self.config.policy != "deadline":
            return []
        late = [
            request
            for request in self.queue
            if request.first_token_s is None
            and now_s - request.arrival_s + self._first_token_s(len(request.prompt)) > self.config.slo_s
        ]
        for request in late:
            self.finish(request, "abort", now_s)
        return late

    def _check_waiting(self, waiting: int) -> None:
        at_once = max(0, self.config.max_batch - len(self.running) - len(self.loading))  # they only seem to wait
        if waiting - at_once >= self.config.max_waiting:
            raise Overloaded(f"max_waiting={self.config.max_waiting}: so many requests wait already")

    def _under_way(self) -> Iterator[Request]:
        yield from self.running
        yield from self.loading
        yield from self.queue
        yield from self.followers

    def _is_shared(self, request: Request) -> bool:
        """Its KV may be another's, and another's its. Not if its logits are wanted: they are made with the KV."""
        return self.config.prefix_cache and not request.scores
