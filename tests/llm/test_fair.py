"""The engine, shared by VTC: who is admitted when, and what everybody pays."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from llm_served import BASE, Served, tokens
from llm_zoo import Zoo

from exoflow.llm import Engine, EngineSpec, SamplingParams
from exoflow.llm.engine.request import Request
from exoflow.llm.fair import RPM, VTC

TEN = SamplingParams(max_tokens=10, ignore_eos=True, temperature=0)


class Gated(VTC[Request]):
    """Gives nobody before it is opened, so that all have asked; and tells whom it gave."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.gate = threading.Event()
        self.admitted: list[Request] = []

    def peek(self, now_s: float) -> Request | None:
        self.gate.wait()
        return super().peek(now_s)

    def pop(self, now_s: float) -> Request:
        self.admitted.append(super().pop(now_s))
        return self.admitted[-1]


@pytest.fixture
def shared(zoo: Zoo) -> Any:
    opened: list[tuple[Engine, Gated]] = []

    def open_one(queue: Gated | None = None, **settings: Any) -> tuple[Engine, Gated]:
        queue = Gated() if queue is None else queue
        engine = Engine(zoo.path, queue=queue, **({"pages": 400, "block": 8, "max_batch": 1} | settings))
        opened.append((engine, queue))
        return engine, queue

    yield open_one
    for engine, queue in opened:
        queue.gate.set()
        engine.close()


def prompt(number: int) -> list[int]:
    return [number + 3, *range(20, 27)]


def test_two_tenants_take_turns_whoever_asked_first(shared: Callable[..., tuple[Engine, Gated]]) -> None:
    engine, queue = shared()
    asked = [engine.submit(prompt(place), TEN, labels={"tenant": "flood"}) for place in range(6)]
    asked += [engine.submit(prompt(9), TEN, labels={"tenant": "modest", "user": "ann"}) for _ in range(2)]
    queue.gate.set()
    for generation in asked:
        generation.outputs()
    assert [request.client[0] for request in queue.admitted][:5] == ["flood", "modest", "flood", "modest", "flood"]
    assert {client: queue.counters()[client] for client in [("flood",), ("modest",)]} == {
        ("flood",): 6 * (8 + 20), ("modest",): 2 * (8 + 20)
    }  # fmt: skip


def test_a_tenant_of_twice_the_weight_gets_two_turns_in_three(shared: Callable[..., tuple[Engine, Gated]]) -> None:
    engine, queue = shared(Gated(weights={"a": 2}))
    asked = [engine.submit(prompt(place), TEN, labels={"tenant": "ba"[place % 2]}) for place in range(24)]
    queue.gate.set()
    for generation in asked:
        generation.outputs()
    first = [request.client for request in queue.admitted[:15]]
    assert first.count(("a",)) == 10


def test_the_answers_to_one_prompt_are_one_job_and_its_prompt_is_computed_once(
    shared: Callable[..., tuple[Engine, Gated]],
) -> None:
    engine, queue = shared()
    many = SamplingParams(max_tokens=10, ignore_eos=True, n=5, seed=1)
    asked = [engine.submit(prompt(0) * 4, many, labels={"tenant": "votes"})]
    asked += [engine.submit(prompt(place), TEN, labels={"tenant": "votes"}) for place in (1, 2)]
    asked += [engine.submit(prompt(place), TEN, labels={"tenant": "other"}) for place in (3, 4, 5)]
    queue.gate.set()
    ended = [generation.outputs() for generation in asked]
    votes = [request for request in queue.admitted if request.client == ("votes",)]
    assert [request.index for request in votes] == [0, 1, 2, 3, 4, 0, 0]
    others = [place for place, request in enumerate(queue.admitted) if request.client == ("other",)]
    assert others[0] == 1, "between tenants it is per call"
    assert [output.usage.cached_tokens for output in ended[0]] == [0] + 4 * [24]


def test_calls_of_a_job_keep_together(shared: Callable[..., tuple[Engine, Gated]]) -> None:
    engine, queue = shared()
    asked = [engine.submit(prompt(place), TEN, labels={"tenant": "a", "job": "xyx"[place % 3]}) for place in range(6)]
    queue.gate.set()
    for generation in asked:
        generation.outputs()
    assert [request.job for request in queue.admitted] == list("xxxxyy")


def test_what_is_preempted_is_paid_for_once(shared: Callable[..., tuple[Engine, Gated]]) -> None:
    engine, queue = shared(max_batch=8, pages=24, block=4, token_budget=64)
    long = SamplingParams(max_tokens=30, ignore_eos=True)
    asked = [engine.submit(prompt(place), long, labels={"tenant": "ab"[place % 2]}) for place in range(8)]
    queue.gate.set()
    for generation in asked:
        generation.outputs()
    assert engine.stats().preemptions > 0
    assert len(queue.admitted) > 8
    lifted = {client: counter - 4 * (8 + 60) for client, counter in queue.counters().items()}
    assert all(lift >= 0 for lift in lifted.values()) and min(lifted.values()) == 0


def test_an_urgent_request_does_not_wait_for_others(shared: Callable[..., tuple[Engine, Gated]]) -> None:
    engine, queue = shared()
    asked = [engine.submit(prompt(place), TEN, priority=1 - place // 4) for place in range(6)]
    queue.gate.set()
    for generation in asked:
        generation.outputs()
    assert [request.priority for request in queue.admitted] == [0, 0, 1, 1, 1, 1]
    with pytest.raises(ValueError, match="most urgent"):
        engine.submit(prompt(0), priority=-1)


def test_what_is_aborted_gives_its_reserve_back(shared: Callable[..., tuple[Engine, Gated]]) -> None:
    engine, queue = shared(Gated(charge="reserve"))
    gone, kept = (engine.submit(prompt(place), TEN, labels={"tenant": "a"}) for place in (0, 1))
    engine.abort(gone)
    queue.gate.set()
    kept.outputs()
    engine.stats()
    assert queue.counters()[("a",)] == 8 + 20


def test_an_engine_waits_for_the_next_minute_where_a_queue_limits_rates(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exoflow.llm.fair import baselines

    monkeypatch.setattr(baselines, "MINUTE_S", 0.05)
    with Engine(zoo.path, queue=RPM(1), pages=100, block=8) as engine:
        asked = [engine.submit(prompt(place), TEN) for place in range(3)]
        assert all(len(generation.outputs()) == 1 for generation in asked)


def test_groups_of_labels_are_checked(zoo: Zoo) -> None:
    with pytest.raises(ValueError, match="group_by"):
        Engine(zoo.path, group_by="tenant")


async def test_the_server_charges_api_keys_and_their_users(zoo: Zoo) -> None:
    queue = Gated()
    queue.gate.set()
    with (
        Engine(zoo.path, queue=queue, pages=400, block=8) as engine,
        Served(engine, tokens=tokens(acme="k1", beta="k2")) as server,
    ):
        for key, user in (("k1", "ann"), ("k1", "bob"), ("k2", None)):
            who = {"user": user} if user else {}
            async with server.openai(key) as client:
                await client.completions.create(model=BASE, prompt=[1, 2, 3], max_tokens=4, **who)
        await server.is_idle()
    assert [request.client for request in queue.admitted] == [("acme", "ann"), ("acme", "bob"), ("beta",)]


def test_an_engine_that_is_described_makes_its_own_queue(zoo: Zoo) -> None:
    spec = EngineSpec(zoo.path, queue=VTC, pages=200, block=8)
    assert len(spec.generate([prompt(0), prompt(1)], TEN)) == 2
    spec.close()
