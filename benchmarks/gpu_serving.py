"""The engine's loop under S-LoRA's workload, in process: throughput (S1 to S5), loads (L1, L2), deadlines (L3, L4) and
one pool against padded slots (U1).
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from gpu_world import ALL, QKVO, Bench, NoText, RandomStore, runner_of

from exoflow.llm.bench.roofline import distinct
from exoflow.llm.bench.workload import Call, attainment, satisfaction, synthetic
from exoflow.llm.engine.adapters.transfer import Transfer
from exoflow.llm.engine.config import EngineConfig
from exoflow.llm.engine.core import Core
from exoflow.llm.engine.generation import Answer, Generation
from exoflow.llm.engine.models.loaded import LoadedModel
from exoflow.llm.engine.queues import Fcfs
from exoflow.llm.engine.request import AdapterRef, Request, SamplingParams
from exoflow.llm.engine.runner import Runner

Rows = list[dict[str, Any]]
MEAN = 259.5
"""Tokens of a prompt, and of an answer."""
SETTINGS: dict[str, tuple[str, tuple[int, ...]]] = {"S1": ("7b", (8,)), "S2": ("7b", (64, 32, 16, 8))}


class Server:
    """One runner, and a new core for each measurement."""

    def __init__(self, bench: Bench, name: str, runner: Runner, config: EngineConfig, ranks: Sequence[int]) -> None:
        self.bench, self.runner, self.config, self.ranks = bench, runner, config, ranks
        self._model = LoadedModel(name, runner.decoder, NoText(), len(runner.decoder.cos))  # type: ignore[arg-type]
        self._vocab = bench.model(name).vocab

    def core(self, store: RandomStore, **changes: Any) -> Core:
        config = dataclasses.replace(self.config, **changes)
        transfer = Transfer(store, self.runner.pool, self.runner.tables)  # type: ignore[arg-type]  # a stand-in
        return Core(self._model, self.runner, config, transfer, Fcfs())

    def generation(self, call: Call, is_base: bool) -> Generation:
        version = f"{self.ranks[call.adapter % len(self.ranks)]}/{call.adapter}"
        ref = None if is_base else AdapterRef(version, version)
        prompt = tuple(random.Random(call.at_s).choices(range(self._vocab), k=call.prompt_tokens))
        params = SamplingParams(max_tokens=call.output_tokens, temperature=0, ignore_eos=True)
        request = Request(prompt, params, ref)
        return Generation([Answer(request, NoText(), 0)], ref, lambda: None)  # type: ignore[arg-type]

    def serve(self, core: Core, calls: Sequence[Call], limit_s: float, *, is_base: bool = False) -> Served:
        """Make the calls at their times, until all have ended or the time is up."""
        pending = [(call.at_s, self.generation(call, is_base)) for call in reversed(calls)]
        served = Served([generation.answers[0].request for _, generation in reversed(pending)])
        begin = time.monotonic()
        while (pending or not core.is_idle) and (passed_s := time.monotonic() - begin) < limit_s:
            while pending and pending[-1][0] <= passed_s:
                core.add(pending.pop()[1])
            if core.step():
                output = core._counts["output"]
                served.steps.append((time.monotonic() - begin, output, len(core.scheduler.running)))
            else:
                time.sleep(0.0002)
        self.bench.sync()
        core.close(RuntimeError("measured"))  # type: ignore[arg-type]
        return served


@dataclasses.dataclass
class Served:
    requests: list[Request]
    steps: list[tuple[float, int, int]] = dataclasses.field(default_factory=list)
    """When each ended, the tokens of answers so far, the sequences that run."""

    def rate(self, begin_s: float, end_s: float) -> float:
        """Tokens of answers a second in between."""
        inside = [step for step in self.steps if begin_s <= step[0] <= end_s]
        if len(inside) < 2:
            return 0.0
        (first_s, before, _), (last_s, after, _) = inside[0], inside[-1]
        return (after - before) / (last_s - first_s)

    @property
    def batch(self) -> float:
        return statistics.mean(running for _, _, running in self.steps[len(self.steps) // 3 :])

    def first_tokens(self) -> list[float | None]:
        return [
            None if request.first_token_s is None else request.first_token_s - request.arrival_s
            for request in self.requests
        ]

    def gaps(self) -> list[float]:
        ends = [ended for ended, _, _ in self.steps]
        return [after - before for before, after in itertools.pairwise(ends)]


@contextlib.contextmanager
def server_of(bench: Bench, name: str, ranks: Sequence[int], **settings: Any) -> Iterator[Server]:
    """With all the memory that the weights leave."""
    model = bench.model(name)
    config = EngineConfig(
        **{
            "block": model.block, "max_rank": 64, "max_context": bench.scaled(2048, 512), "prefix_cache": False,
            "max_batch": bench.scaled(256, 4), "token_budget": bench.scaled(1024, 64), "max_waiting": 1 << 20,
            "adapter_slots": 512,
        } | settings
    )  # fmt: skip
    page_bytes = model.geometry.layers * model.geometry.page_elems(model.block) * 2
    pages = 400
    if bench.device.type == "cuda":
        free = torch.cuda.mem_get_info(bench.device)[0] - bench.roofline(name).weight_bytes
        pages = int(0.85 * free) // page_bytes
    kept = dataclasses.asdict(config)
    del kept["pages"]
    with runner_of(bench, name, pages, **kept) as runner:
        runner.warm_up()
        yield Server(bench, name, runner, config, ranks)


def serving(bench: Bench, only: Sequence[str] = tuple(SETTINGS)) -> Rows:
    """Saturated: far more calls than can be served."""
    rows: Rows = []
    for setting in only:
        name, ranks = SETTINGS[setting]
        with server_of(bench, name, ranks) as server:
            rows += saturated(bench, server, setting, name, QKVO)
        del server
    return rows


def saturated(bench: Bench, server: Server, setting: str, name: str, modules: Sequence[str]) -> Rows:
    rows: Rows = []
    window_s, roofline = bench.scaled(40, 1), bench.roofline(name)
    store = RandomStore(bench, server.runner, server.ranks, modules)
    base = 0.0
    for count in (0, 1, 100, 1000, 2000) if not bench.tiny else (0, 3):
        calls = synthetic(bench.scaled(200, 400), window_s, max(count, 1), lengths=(8, bench.scaled(512, 40)))
        calls = [dataclasses.replace(call, at_s=index * 1e-6) for index, call in enumerate(calls)]
        served = server.serve(server.core(store), calls, window_s, is_base=count == 0)
        rate = served.rate(window_s * 0.4, window_s)
        base = base or rate
        each = distinct(max(1, round(served.batch)), count) if count else 0.0
        mix = {rank: each / len(server.ranks) for rank in server.ranks}
        context = int(served.batch * 1.5 * MEAN)
        bound = roofline.step_s(context) / roofline.step_s(context, mix, modules)  # type: ignore[arg-type]
        rows.append(
            {
                "what": setting, "adapters": count, "tokens/s": rate, "req/s": rate / MEAN, "batch": served.batch,
                "of base": rate / base if base else None, "bound of base": bound,
                "step_ms": 1e3 * statistics.median(served.gaps()),
            }
        )  # fmt: skip
    return rows


def loading(bench: Bench) -> Rows:
    """L1: a first token with an adapter that is in host memory, against one that is in the pool. L2: running requests
    while 20 adapters a second are loaded.
    """
    rows: Rows = []
    for rank, modules, what in ((16, QKVO, "r16 qkvo"), (64, ALL, "r64 all")):
        with server_of(bench, "8b", (rank,)) as server:
            store = RandomStore(bench, server.runner, (rank,), modules)
            rows.append(cold_start(server, store, what))
            rows.append(under_loads(bench, server, store, rank, what))
        del server, store
    return rows


def cold_start(server: Server, store: RandomStore, what: str) -> dict[str, Any]:
    core = server.core(store)
    times: dict[bool, list[float]] = {True: [], False: []}
    for index in range(12):
        for is_cold in (True, False):
            generation = server.generation(Call(index, index, 32, 1), is_base=False)
            core.add(generation)
            while not generation.is_done:
                core.step()
            request = generation.answers[0].request
            assert request.first_token_s is not None
            times[is_cold].append(request.first_token_s - request.arrival_s)
    cold, warm = (statistics.median(times[is_cold][2:]) for is_cold in (True, False))
    least_s = store.host(next(iter(core.resident_versions()))).bytes / 50e9
    core.close(RuntimeError("measured"))  # type: ignore[arg-type]
    return {"what": f"L1 {what}", "extra_ms": (cold - warm) * 1e3, "warm_ms": warm * 1e3, "bound_ms": least_s * 1e3}


def under_loads(bench: Bench, server: Server, store: RandomStore, rank: int, what: str) -> dict[str, Any]:
    found = {}
    for loads in (0, 20):
        core, calls = server.core(store), [Call(0.0, 0, 64, bench.scaled(1500, 100))] * bench.scaled(64, 4)
        for call in calls:
            core.add(server.generation(call, is_base=True))
        gaps, begin, loaded, before = [], time.monotonic(), 0, 0.0
        while not core.is_idle and (passed_s := time.monotonic() - begin) < bench.scaled(10, 1):
            if loaded < passed_s * loads:
                cost = store.cost(f"{rank}/{loaded}")
                core.scheduler.residency.prefetch(f"{rank}/{loaded}", cost.pages, cost.load_s)
                core.forget(f"{rank}/{loaded - 20}")
                loaded += 1
            core.step()
            gaps.append(time.monotonic() - begin - before)
            before += gaps[-1]
        core.close(RuntimeError("measured"))  # type: ignore[arg-type]
        found[loads] = percentile(gaps[5:], 99)
    return {
        "what": f"L2 {what}", "p99_ms": found[0] * 1e3, "p99_ms at 20 loads/s": found[20] * 1e3,
        "more": found[20] / found[0] - 1,
    }  # fmt: skip


def percentile(values: Sequence[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def deadlines(bench: Bench) -> Rows:
    """L3: first tokens at 0.85 of saturation; L4: at 1.5 of it, by both policies."""
    rows: Rows = []
    window_s, lengths = bench.scaled(60, 1), (8, bench.scaled(512, 40))
    with server_of(bench, "7b", SETTINGS["S2"][1]) as server:
        store = RandomStore(bench, server.runner, server.ranks, QKVO)
        many = synthetic(200, window_s, 1000, lengths=lengths)
        many = [dataclasses.replace(call, at_s=index * 1e-6) for index, call in enumerate(many)]
        rate = server.serve(server.core(store), many, window_s / 2).rate(window_s * 0.2, window_s / 2)
        saturation = max(1.0, rate / (MEAN if not bench.tiny else 24))
        for what, load, policy in (("L3", 0.85, "fcfs"), ("L4", 1.5, "fcfs"), ("L4", 1.5, "deadline")):
            calls = synthetic(load * saturation, window_s, 1000, lengths=lengths)
            served = server.serve(server.core(store, policy=policy), calls, window_s + bench.scaled(10, 1))
            firsts = served.first_tokens()
            rows.append(
                {
                    "what": f"{what} {policy}", "req/s": load * saturation, "under 6 s": attainment(firsts),
                    "under 1 s": attainment(firsts, 1.0), "satisfaction": satisfaction(firsts),
                }
            )  # fmt: skip
    return rows


class PaddedStore(RandomStore):
    """Adapters take the pages of the largest rank, as fixed slots do, and are copied whole."""

    def __init__(self, bench: Bench, runner: Runner, ranks: Sequence[int], modules: Sequence[str]) -> None:
        super().__init__(bench, runner, ranks, modules)
        widest = self._hosts[max(ranks)].pages
        self._hosts = {rank: dataclasses.replace(host, pages=widest) for rank, host in self._hosts.items()}


def unified(bench: Bench) -> Rows:
    """U1: S2's mix at n = 1000, in pages of its own ranks and in slots padded to r64. (Padded slots that stand empty
    are used for KV here, which fixed slots cannot.)
    """
    rows: Rows = []
    window_s = bench.scaled(40, 1)
    with server_of(bench, "7b", SETTINGS["S2"][1]) as server:
        for what, kind in (("unified", RandomStore), ("padded to r64", PaddedStore)):
            store = kind(bench, server.runner, server.ranks, QKVO)
            calls = synthetic(200, window_s, bench.scaled(1000, 10), lengths=(8, bench.scaled(512, 40)))
            calls = [dataclasses.replace(call, at_s=index * 1e-6) for index, call in enumerate(calls)]
            rate = server.serve(server.core(store), calls, window_s).rate(window_s * 0.4, window_s)
            pages = statistics.mean(store.cost(f"{rank}/0").pages for rank in server.ranks)
            fitting = int(20e9 / (pages * page_bytes(server.runner)))
            rows.append({"what": f"U1 {what}", "adapters in 20 GB": fitting, "tokens/s": rate})
    return rows


def page_bytes(runner: Runner) -> int:
    return runner.pool.shape[0] * runner.pool.shape[2] * runner.pool.element_size()
