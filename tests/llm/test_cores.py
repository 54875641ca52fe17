"""Only the engine's own thread computes on several cores (ADR 0028)."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import torch

from exoflow.llm import Engine, SamplingParams
from exoflow.llm.engine import assembly
from exoflow.llm.engine.adapters import reading, transfer
from exoflow.llm.engine.adapters.tables import AdapterTables
from exoflow.llm.engine.cores import one_core
from exoflow.llm.engine.runner import Runner

if TYPE_CHECKING:
    from llm_zoo import Zoo

CORES = 2


def test_nothing_computed_on_one_core_leaves_helpers_behind() -> None:
    program = """
        import os
        import torch
        from exoflow.llm.engine.cores import one_core

        def threads():
            return len(os.listdir("/proc/self/task"))

        torch.set_num_threads(2)
        large = torch.empty(1 << 22)
        before = threads()
        with one_core():
            large.mul_(2)
        assert threads() == before
        large.mul_(2)
        assert threads() == before + 1, "this would be no test"
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)


@pytest.fixture
def several() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(CORES)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("several")
def test_other_threads_and_what_comes_later_have_the_cores_that_they_had() -> None:
    with ThreadPoolExecutor(1) as elsewhere:
        assert elsewhere.submit(torch.get_num_threads).result() == CORES
        with one_core():
            assert torch.get_num_threads() == 1
            with one_core():
                assert torch.get_num_threads() == 1
            assert torch.get_num_threads() == 1
            assert elsewhere.submit(torch.get_num_threads).result() == CORES
            with ThreadPoolExecutor(1) as later:
                assert later.submit(torch.get_num_threads).result() == CORES
        assert torch.get_num_threads() == CORES


@pytest.mark.usefixtures("several")
def test_who_loads_reads_and_copies_has_one_core_and_who_steps_has_all(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores: dict[str, set[tuple[int, bool]]] = {}
    main = threading.current_thread()

    def watched(name: str, function: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            cores.setdefault(name, set()).add((torch.get_num_threads(), threading.current_thread() is main))
            return function(*args, **options)

        return call

    monkeypatch.setattr(assembly, "load_model", watched("load", assembly.load_model))
    monkeypatch.setattr(assembly, "Runner", watched("make", Runner))
    monkeypatch.setattr(reading, "pack", watched("read", reading.pack))
    monkeypatch.setattr(transfer, "_runs", watched("copy", transfer._runs))
    monkeypatch.setattr(Runner, "run", watched("step", Runner.run))
    monkeypatch.setattr(AdapterTables, "fill", watched("fill", AdapterTables.fill))
    with Engine(str(zoo.path), device="cpu", threads=CORES) as engine:
        name, folder = next(iter(zoo.folders.items()))
        engine.load_adapter(name, folder)
        engine.generate([[5, 6, 7]], SamplingParams(max_tokens=2), [name])
    assert cores == {
        "load": {(1, True)}, "make": {(1, True)}, "read": {(1, True)}, "copy": {(1, False)},
        "step": {(CORES, False)}, "fill": {(CORES, False)},
    }  # fmt: skip
    assert torch.get_num_threads() == CORES
