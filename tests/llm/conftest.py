"""The engine under test: left out where torch, transformers or PEFT are not installed."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

HAS_ALL = all(importlib.util.find_spec(name) for name in ("torch", "transformers", "peft", "openai", "uvicorn"))
collect_ignore_glob = [] if HAS_ALL else ["test_*.py"]


def beside(name: str, file: str) -> ModuleType:
    """A module of this folder, under a name by which tests can import it: the folder is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(file))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


if HAS_ALL:
    llm_zoo = beside("llm_zoo", "zoo.py")
    beside("kernel_world", "kernel_world.py")
    beside("llm_served", "served.py")
    from llm_served import Gate, Served

if TYPE_CHECKING:
    from llm_zoo import Zoo

    from exoflow.llm import Engine
    from exoflow.testing import FakeEndpoint


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Two threads beside a busy process are far slower than one."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return llm_zoo.Zoo(llm_zoo.tiny_model(), tmp_path_factory.mktemp("zoo"), llm_zoo.ADAPTERS)


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[FakeEndpoint]:
    """Answers as the module's ``answers`` says."""
    from exoflow.testing import FakeEndpoint

    with FakeEndpoint(request.module.answers) as endpoint:
        yield endpoint


@pytest.fixture
def endpoint(server: FakeEndpoint) -> FakeEndpoint:
    """It, and nothing was asked of it."""
    server.forget()
    return server


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Any]:
    """Runs a flow under the id ``r``, sync or async; again with the same store if it is called again."""

    def run(of: Any, *args: Any) -> Any:
        found = of.options(run_id="r", store=tmp_path / "store").run(*args)
        return asyncio.run(found) if asyncio.iscoroutine(found) else found

    return run


@pytest.fixture
def open_engine(zoo: Zoo) -> Iterator[Callable[..., Engine]]:
    """Engines on the zoo's model, with all its adapters; closed at the end."""
    from exoflow.llm import Engine

    opened: list[Engine] = []

    def open_one(**settings: object) -> Engine:
        engine = Engine(zoo.path, **({"pages": 400, "block": 8} | settings))  # type: ignore[arg-type]
        opened.append(engine)
        for name, folder in zoo.folders.items():
            engine.load_adapter(name, folder)
        return engine

    yield open_one
    for engine in opened:
        engine.close()


@pytest.fixture(scope="module")
def served(zoo: Zoo) -> Iterator[Served]:
    """The zoo's model, and the zoo's adapters as a folder."""
    from exoflow.llm import Engine

    with Engine(zoo.path, pages=400, block=8) as engine, Served(engine, zoo.path.parent) as server:
        yield server


@pytest.fixture
def open_server(zoo: Zoo) -> Iterator[Callable[..., Served]]:
    """Servers of their own, with an engine as they need it; closed at the end."""
    from exoflow.llm import Engine

    opened: list[Served] = []

    def open_one(folder: Path | None = None, **settings: object) -> Served:
        ours = {name: settings.pop(name) for name in ("named", "tokens", "any_host", "max_body") if name in settings}
        gate = Gate()
        engine = Engine(zoo.path, queue=gate, **({"pages": 400, "block": 8} | settings))  # type: ignore[arg-type]
        opened.append(Served(engine, folder, gate, **ours))
        return opened[-1]

    yield open_one
    for server in opened:
        server.close()
        server.engine.close()
