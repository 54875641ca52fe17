"""Serving with continuous batching, simulated: which policy gives whom how much, in seconds instead of a GPU's hours.

Sheng et al., "Fairness in Serving Large Language Models", OSDI '24, section 5: the machine of its experiments.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

from exoflow.llm.fair.batch_cost import BatchCost
from exoflow.llm.fair.costs import Cost, Linear, checked
from exoflow.llm.fair.policy import Policy
from exoflow.llm.fair.result import Result, Served

_LOOK_AGAIN_S = 0.01
"""How often an idle machine asks a policy that holds everybody back."""
_PATIENCE_S = 3600.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request: when it comes, from whom, and how long it turns out to be."""

    time_s: float
    client: str | tuple[str, ...]
    """A path from the root where counters are hierarchical."""
    input_tokens: int
    output_tokens: int
    max_output_tokens: int | None = None
    """What it asks for at most; as many as it gets, unless said."""
    priority: int = 0
    job: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.time_s < inf or self.input_tokens < 1 or self.output_tokens < 1:
            raise ValueError(f"{self}: a time must be ≥ 0, and there must be a token of input and of output")
        if self.max_output_tokens is not None and self.max_output_tokens < self.output_tokens:
            raise ValueError(f"{self}: it gets more tokens than it asks for; raise max_output_tokens")

    @property
    def path(self) -> tuple[str, ...]:
        return (self.client,) if isinstance(self.client, str) else self.client


@dataclass(slots=True, eq=False)
class SimulatedRequest:
    """A request in the simulated machine; what a ``Policy`` sees as ``Waiting``."""

    number: int
    arrival_s: float
    client: tuple[str, ...]
    input_tokens: int
    max_output_tokens: int
    output_tokens: int
    priority: int = 0
    job: str = ""
    generated: int = 0
    first_token_s: float = 0.0
    finish_s: float = 0.0

    @property
    def remaining(self) -> int:
        """Tokens it may still get, besides the one that the next step gives."""
        return self.max_output_tokens - self.generated - 1


def simulate(
    arrivals: Iterable[Arrival],
    policy: Policy[SimulatedRequest],
    cost: BatchCost,
    *,
    memory_tokens: int,
    client_tokens: int = 32,
    prefill_tokens: int | None = None,
    retry_steps: int = 10,
    service: Cost | None = None,
) -> Result:
    """Serve all arrivals under a policy, until the last has ended; the same arguments give the same result.

    Prefill gives the first token, which is not charged; each step charges one more. The head of the queue is never
    passed over.

    Args:
        policy: used up; take a new one for each run.
        memory_tokens: tokens whose KV fits, M in the paper.
        client_tokens: of them, what the adapter of each client in the batch takes.
        prefill_tokens: most tokens of a prefill; ``max(memory_tokens // 6, 3072)`` unless given.
        retry_steps: so many steps after something was admitted, and then at each, it is tried again.
        service: what a request is worth to who got it; ``Linear(1, 2)`` unless given.

    Raises:
        ValueError: a request would not fit an empty machine, or the policy lets nobody go for an hour.
    """
    most = max(memory_tokens // 6, 3072) if prefill_tokens is None else prefill_tokens
    machine = Machine(policy, cost, Room(memory_tokens, client_tokens, most), retry_steps)
    sequences = _numbered(arrivals)
    for each in sequences:
        machine.room.check(each)
    machine.serve(sequences)
    served = (
        Served("/".join(s.client), s.arrival_s, s.input_tokens, s.output_tokens, s.first_token_s, s.finish_s)
        for s in sequences
    )
    return Result(tuple(served), checked(service or Linear(1, 2)))


def _numbered(arrivals: Iterable[Arrival]) -> list[SimulatedRequest]:
    in_order = sorted(arrivals, key=lambda arrival: arrival.time_s)
    return [
        SimulatedRequest(
            number, a.time_s, a.path, a.input_tokens, a.max_output_tokens or a.output_tokens, a.output_tokens,
            a.priority, a.job,
        )
        for number, a in enumerate(in_order)
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Room:
    """What fits: S-LoRA's rule, that a batch must never need more memory than there is, however it goes on."""

    memory_tokens: int
    client_tokens: int
    prefill_tokens: int

    def holds(self, running: Sequence[SimulatedRequest], new: Sequence[SimulatedRequest]) -> bool:
        """Whether the new ones can be prefilled at once, and all run to their ends."""
        if sum(each.input_tokens for each in new) > self.prefill_tokens:
            return False
        clients = {each.client for each in running} | {each.client for each in new}
        have = self.memory_tokens - self.client_tokens * len(clients)
        held = [(each.remaining, each.input_tokens + each.generated) for each in running]
        held += [(each.max_output_tokens - 1, each.input_tokens + 1) for each in new]
        return most_needed(held) < have

    def check(self, sequence: SimulatedRequest) -> None:
        if not self.holds((), (sequence,)):
            raise ValueError(
                f"request {sequence.number} of {'/'.join(sequence.client)} ({sequence.input_tokens} tokens in, "
                f"{sequence.max_output_tokens} out) can never run: there is room for {self.memory_tokens} tokens and "
                f"a prefill of {self.prefill_tokens}; raise memory_tokens, or shorten it"
            )


def most_needed(held: Iterable[tuple[int, int]]) -> int:
    """The most tokens of memory that sequences will take together, from (remaining, used) of each.

    Who has least left ends first and gives its memory back: when the i-th longest ends, i of them have grown by what
    it had left.
    """
    used_by_longest = most = 0
    for count, (remaining, used) in enumerate(sorted(held, key=lambda pair: -pair[0]), 1):
        used_by_longest += used
        most = max(most, remaining * count + used_by_longest)
    return most


@dataclass(slots=True)
class Machine:
    """A GPU that prefills and decodes by turns."""

    policy: Policy[SimulatedRequest]
    cost: BatchCost
    room: Room
    retry_steps: int
    now_s: float = 0.0
    coming: deque[SimulatedRequest] = field(default_factory=deque)
    running: list[SimulatedRequest] = field(default_factory=list)
    _steps: int = 0
    """Since something was admitted."""
    _owed: int = 0
    """Steps of which the sequences in the batch do not know yet: nobody looks at each of them."""
    _context: int = 0
    _until_end: int = 0
    """Steps until the first of the batch ends."""
    _held_s: float = 0.0
    """How long the policy has let nobody go, though nothing ran."""

    def serve(self, sequences: Iterable[SimulatedRequest]) -> None:
        """All of them, in order of their arrival."""
        self.coming.extend(sequences)
        while self.coming or self.running or len(self.policy):
            self._arrive()
            if (self.running and self._steps < self.retry_steps) or not self._admit():
                if self.running:
                    self._decode()
                else:
                    self._idle()

    def _arrive(self) -> None:
        if self.coming and self.coming[0].arrival_s <= self.now_s:
            self._account()
        while self.coming and self.coming[0].arrival_s <= self.now_s:
            arrived = self.coming.popleft()
            self.policy.add(arrived, arrived.arrival_s)

    def _admit(self) -> bool:
        """Prefill as many as fit; whether there was one."""
        self._account()
        new: list[SimulatedRequest] = []
        while (head := self.policy.peek(self.now_s)) is not None and self.room.holds(self.running, [*new, head]):
            new.append(self.policy.pop(self.now_s))
        if not new:
            return False
        self.now_s += self.cost.prefill(sum(each.input_tokens for each in new))
        for each in new:
            each.generated, each.first_token_s = 1, self.now_s
        self.running += new
        self._steps, self._held_s = 0, 0.0
        self._let_go()
        return True

    def _decode(self) -> None:
        self.now_s += self.cost.decode(len(self.running), self._context)
        self._context += len(self.running)
        self._steps += 1
        self._owed += 1
        if self._owed == self._until_end:
            self._account()
            self._let_go()

    def _account(self) -> None:
        """Tell each sequence, and the policy, of the steps since."""
        if self._owed:
            for each in self.running:
                each.generated += self._owed
                self.policy.charge(each, self._owed)
            self._until_end -= self._owed
            self._owed = 0

    def _let_go(self) -> None:
        for each in self.running:
            if each.generated == each.output_tokens:
                each.finish_s = self.now_s
                self.policy.finish(each)
        self.running = [each for each in self.running if each.generated < each.output_tokens]
        self._context = sum(each.input_tokens + each.generated for each in self.running)
        self._until_end = min((each.output_tokens - each.generated for each in self.running), default=0)

    def _idle(self) -> None:
        """Nothing runs: wait for who comes next, or for a policy that lets nobody go yet."""
        next_s = self.coming[0].arrival_s if self.coming else inf
        if len(self.policy):
            self._held_s += _LOOK_AGAIN_S
            if self._held_s > _PATIENCE_S:
                raise ValueError(
                    f"the policy lets none of {len(self.policy)} requests go on an idle machine, since "
                    f"{_PATIENCE_S:g} s: raise its limits"
                )
            next_s = min(next_s, self.now_s + _LOOK_AGAIN_S)
        self.now_s = next_s
