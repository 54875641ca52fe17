"""Tiny bases, and adapters for them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exoflow.llm.engine.geometry import Geometry

HAS_ALL = all(importlib.util.find_spec(name) for name in ("torch", "transformers", "peft", "safetensors"))
collect_ignore_glob = [] if HAS_ALL else ["test_*.py"]

if HAS_ALL:
    import torch

    from exoflow.llm.bench.adapters import ALL, make_adapters
    from exoflow.llm.engine.adapters.reading import AdapterReader
    from exoflow.llm.engine.adapters.store import AdapterStore

TINY = Geometry(layers=2, hidden=128, heads=4, kv_heads=2, head_dim=32, intermediate=344)
ODD = Geometry(layers=2, hidden=72, heads=4, kv_heads=2, head_dim=18, intermediate=200)


@pytest.fixture(params=[TINY, ODD], ids=["tiny", "odd"])
def geometry(request: pytest.FixtureRequest) -> Geometry:
    return request.param


@pytest.fixture
def tiny() -> Geometry:
    return TINY


@pytest.fixture
def reader(tiny: Geometry) -> AdapterReader:
    return AdapterReader(geometry=tiny, page_elems=tiny.page_elems(4), dtype=torch.float32, max_rank=64)


@pytest.fixture
def store(reader: AdapterReader) -> AdapterStore:
    return AdapterStore(reader, host_bytes=1 << 30)


@pytest.fixture
def adapter(tmp_path: Path, tiny: Geometry) -> Callable[..., Path]:
    """Writes one adapter; its content depends on the seed and the rank alone."""

    def write(where: str = "one", *, seed: int = 0, rank: int = 4, **fields: Any) -> Path:
        made = make_adapters(tmp_path / "new", tiny, 1, [rank], ALL, seed)["adapter-0"]
        directory = tmp_path / where
        directory.mkdir(exist_ok=True)
        for file in made.iterdir():
            file.replace(directory / file.name)
        change(directory, **fields)
        return directory

    return write


@pytest.fixture
def edit() -> Callable[..., None]:
    return change


def change(directory: Path, **fields: Any) -> None:
    """Set fields of the configuration."""
    path = directory / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
