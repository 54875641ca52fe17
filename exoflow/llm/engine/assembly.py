"""What an engine consists of, put together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import torch

from exoflow.errors import LLMError
from exoflow.llm.engine.adapters.host import HostAdapter
from exoflow.llm.engine.adapters.reading import AdapterReader
from exoflow.llm.engine.adapters.store import AdapterStore
from exoflow.llm.engine.adapters.transfer import Transfer
from exoflow.llm.engine.config import EngineConfig
from exoflow.llm.engine.core import Core
from exoflow.llm.engine.cores import one_core
from exoflow.llm.engine.models.decoder import Decoder
from exoflow.llm.engine.models.loaded import LoadedModel
from exoflow.llm.engine.models.loading import load_model
from exoflow.llm.engine.models.sharding import check_split
from exoflow.llm.engine.parallel import Leader
from exoflow.llm.engine.queues import Queue
from exoflow.llm.engine.residency import Load
from exoflow.llm.engine.runner import Runner

CPU_MEMORY = 4 << 30
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def assemble(
    name: str, config: EngineConfig, queue: Queue, *, wake: Callable[[], None], forgotten: Callable[[str], None]
) -> tuple[LoadedModel, AdapterStore, Core]:
    """Load the model, take the memory, and connect the parts.

    Args:
        wake: called from a thread that has brought an adapter.
        forgotten: called with a version that nobody needs any more.
    """
    device = _device(config)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    ranks = config.tensor_parallel
    alone = one_core if device.type == "cpu" else nullcontext
    with alone():
        model = load_model(name, device if ranks == 1 else torch.device("cpu"), _dtype(config, device))
    geometry, filled = model.decoder.geometry, _nothing
    runner: Runner | Leader
    if ranks == 1:
        with alone():
            runner = Runner(model.decoder.packed(), config, _pages(model.decoder, config, device))
    else:
        check_split(name, geometry, ranks)
        runner = Leader(name, model.decoder, config, device, lambda part: _pages(part, config, device))
        filled = runner.filled
    model = replace(model, decoder=runner.decoder)  # nobody holds weights that nobody computes with
    reader = AdapterReader(
        geometry=geometry,
        page_elems=runner.pool.shape[2],
        dtype=runner.pool.dtype,
        max_rank=config.max_rank,
        ranks=ranks,
        page_locked=device.type == "cuda",
    )
    store = AdapterStore(reader, host_bytes=config.host_cache_bytes, base_model=model.name, forgotten=forgotten)
    transfer = Transfer(store, runner.pool, runner.tables, wake, filled=filled)
    return model, store, Core(model, runner, config, transfer, queue)


def _nothing(load: Load, adapter: HostAdapter) -> None:
    """One rank: nobody else has to be told."""


def _device(config: EngineConfig) -> torch.device:
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(config.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise LLMError(f"device={config.device!r}: torch finds no GPU here")
    return device


def _dtype(config: EngineConfig, device: torch.device) -> torch.dtype:
    if config.dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return DTYPES[config.dtype]


def _pages(decoder: Decoder, config: EngineConfig, device: torch.device) -> int:
    if config.pages is not None:
        return config.pages
    geometry = decoder.geometry
    page_bytes = geometry.layers * geometry.page_elems(config.block) * decoder.embedding.element_size()
    free = CPU_MEMORY if device.type == "cpu" else torch.cuda.mem_get_info(device)[0]
    return max(1, int(free * config.memory_fraction) // page_bytes)
