"""The stage on which the scenarios of this folder are played."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("scenario_harness", Path(__file__).with_name("harness.py"))
assert _spec is not None
assert _spec.loader is not None
harness = importlib.util.module_from_spec(_spec)
sys.modules["scenario_harness"] = harness
_spec.loader.exec_module(harness)


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
