"""The stage on which the scenarios of this folder are played."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


def room(name: str) -> ModuleType:
    """A module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(f"scenario_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


harness = room("harness")
room("predicted")


@pytest.fixture(scope="session")
def zygote() -> Iterator["harness.Zygote"]:
    started = harness.Zygote()
    yield started
    started.close()


@pytest.fixture
def stage(zygote: "harness.Zygote", tmp_path: Path) -> "harness.Stage":
    return harness.Stage(zygote, tmp_path)


@pytest.fixture(params=harness.FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)
