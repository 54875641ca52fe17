"""Models with random weights, adapters with random weights, and clocks: what the measurements of gpu.py stand on."""

from __future__ import annotations

import contextlib
import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from exoflow.llm.bench.roofline import Roofline
from exoflow.llm.engine.adapters.host import HostAdapter
from exoflow.llm.engine.adapters.layout import AdapterLayout
from exoflow.llm.engine.config import EngineConfig
from exoflow.llm.engine.geometry import Geometry
from exoflow.llm.engine.models.decoder import Decoder, Layer
from exoflow.llm.engine.plan import Chunk
from exoflow.llm.engine.request import Request, SamplingParams
from exoflow.llm.engine.residency import AdapterCost
from exoflow.llm.engine.runner import Runner

QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")
ALL = (*QKVO, "gate_proj", "up_proj", "down_proj")
POSITIONS = 8192


@dataclass(frozen=True)
class Model:
    geometry: Geometry
    vocab: int
    block: int


MODELS = {
    "7b": Model(Geometry(32, 4096, 32, 32, 128, 11008), 32000, 4),
    "8b": Model(Geometry(32, 4096, 32, 8, 128, 14336), 128256, 16),
    "13b": Model(Geometry(40, 5120, 40, 40, 128, 13824), 32000, 4),
    "tiny": Model(Geometry(2, 128, 4, 2, 32, 256), 300, 8),
}


@dataclass
class Bench:
    """One device and what it moves."""

    device: torch.device
    dtype: torch.dtype
    tiny: bool
    bandwidth: float = 0.0

    def model(self, name: str) -> Model:
        return MODELS["tiny" if self.tiny else name]

    def roofline(self, name: str) -> Roofline:
        model = self.model(name)
        return Roofline(model.geometry, model.vocab, self.bandwidth, torch.finfo(self.dtype).bits // 8)

    def scaled(self, number: int, tiny: int) -> int:
        return tiny if self.tiny else number

    def sync(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def empty(self) -> None:
        """What the last measurement took is given back."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def seconds(self, function: Callable[[], object], repeats: int = 20, *, graph: bool = True) -> float:
        """How long it takes on the device, the median. On a GPU it is captured, so that launches cost nothing, unless
        it must not be.
        """
        function()
        if self.device.type == "cpu":
            return statistics.median(_host_seconds(function) for _ in range(3))
        if graph:
            self.sync()
            captured = torch.cuda.CUDAGraph()
            with torch.cuda.graph(captured):
                function()
            function = captured.replay
        times = []
        for _ in range(3 + repeats):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            function()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) / 1e3)
        return statistics.median(times[3:])

    def host_seconds(self, function: Callable[[], object], repeats: int = 20) -> float:
        """How long the caller is busy with it; the device is idle when it begins."""
        times = []
        for _ in range(repeats):
            self.sync()
            times.append(_host_seconds(function))
        self.sync()
        return statistics.median(times)


def _host_seconds(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


@contextlib.contextmanager
def runner_of(bench: Bench, name: str, pages: int, **settings: object) -> Iterator[Runner]:
    """A model with random weights, and a pool. It takes most of a device: let go of it before the next is made."""
    model = bench.model(name)
    config = EngineConfig(**({"block": model.block, "max_rank": 64, "max_context": POSITIONS} | settings))  # type: ignore[arg-type]
    yield Runner(random_decoder(bench, model), config, pages)
    bench.empty()


def random_decoder(bench: Bench, model: Model) -> Decoder:
    shape, chance = model.geometry, torch.Generator(bench.device).manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.empty(*size, dtype=bench.dtype, device=bench.device).normal_(0, 0.02, generator=chance)

    ones = torch.ones(shape.hidden, dtype=bench.dtype, device=bench.device)
    layers = []
    for _ in range(shape.layers):
        qkv, o, gate_up, down = (normal(group.outputs, group.inputs) for group in shape.groups)
        layers.append(Layer((qkv, o, gate_up, down), (None,) * 4, ones, ones, None, None))
    halves = 10000 ** -(torch.arange(0, shape.head_dim, 2) / shape.head_dim)
    angles = (torch.arange(POSITIONS)[:, None] * halves).repeat(1, 2)
    return Decoder(
        shape, normal(model.vocab, shape.hidden), tuple(layers), ones, normal(model.vocab, shape.hidden),
        angles.cos().to(bench.device), angles.sin().to(bench.device), 1e-5,
    )  # fmt: skip


@dataclass
class Pages:
    """Pages of a pool, handed out in no order, as they are after hours of traffic."""

    free: list[int]

    @classmethod
    def of(cls, count: int) -> Pages:
        free = list(range(count))
        random.Random(0).shuffle(free)
        return cls(free)

    def take(self, count: int) -> list[int]:
        if count > len(self.free):
            raise RuntimeError(f"{count} pages are needed and {len(self.free)} are left: this needs a larger pool")
        return [self.free.pop() for _ in range(count)]


def layout_of(geometry: Geometry, rank: int, modules: Sequence[str] = ALL) -> AdapterLayout:
    return AdapterLayout.of(geometry, dict.fromkeys(modules, rank))


def put_adapter(runner: Runner, slot: int, layout: AdapterLayout, pages: Pages) -> None:
    """Random numbers of the size that trained ones have."""
    taken = pages.take(layout.pages(runner.tables.page_elems))
    for page in taken:
        runner.pool[:, page].normal_(0, 0.02)
    scale = torch.full((layout.geometry.layers, len(layout.ranks)), 2.0)
    runner.tables.fill(slot, layout, taken, scale)


def decoding(model: Model, batch: int, context: int, pages: Pages, seed: int = 0) -> list[Chunk]:
    """Sequences that have all but their last token in the pool."""
    chance = random.Random(seed)
    chunks = []
    for _ in range(batch):
        request = Request(tuple(chance.choices(range(model.vocab), k=context)), SamplingParams())
        request.pages = pages.take(-(-context // model.block))
        chunks.append(Chunk(request, context - 1, 1))
    return chunks


class RandomStore:
    """Stands where ``AdapterStore`` stands: any number of versions ``rank/number``, whose bytes are the same for each
    rank, so that thousands fit into a host's memory. What is copied to the device is copied for each.
    """

    def __init__(self, bench: Bench, runner: Runner, ranks: Sequence[int], modules: Sequence[str]) -> None:
        self._hosts: dict[int, HostAdapter] = {}
        geometry, elems = runner.decoder.geometry, runner.tables.page_elems
        for rank in set(ranks):
            layout = layout_of(geometry, rank, modules)
            pinned = bench.device.type == "cuda"
            packed = torch.empty(geometry.layers, layout.pages(elems), elems, dtype=bench.dtype, pin_memory=pinned)
            packed.normal_(0, 0.02)
            self._hosts[rank] = HostAdapter(layout, torch.full((geometry.layers, len(layout.ranks)), 2.0), packed)

    def cost(self, version: str) -> AdapterCost:
        host = self.host(version)
        return AdapterCost(host.pages.shape[1], host.bytes / 50e9)

    def in_host(self, version: str) -> bool:
        return True

    def host(self, version: str) -> HostAdapter:
        return self._hosts[int(version.partition("/")[0])]


class NoText:
    """Tokens without a text: what is measured is the engine."""

    eos_ids: frozenset[int] = frozenset()

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, tokens: Sequence[int]) -> str:
        return ""

    def chat(self, messages: Sequence[Mapping[str, object]]) -> list[int]:
        return []
