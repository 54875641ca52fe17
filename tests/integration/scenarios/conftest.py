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


@pytest.hookimpl(tryfirst=True)  # before pytest looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each row is played in a quarter of its forms, and which one goes round; in the others with ``-m big``."""
    rows: dict[str, list[pytest.Item]] = {}
    for item in items:
        callspec = getattr(item, "callspec", None)
        form = callspec.params.get("form") if callspec is not None else None
        if form in harness.FORMS and item.path.parent == Path(__file__).parent:  # all items are told here
            rows.setdefault(item.nodeid.replace(form, ""), []).append(item)
    for number, forms in enumerate(rows.values()):
        first = number % len(forms)
        for item in (forms[first:] + forms[:first])[(len(forms) + 3) // 4 :]:
            item.add_marker(pytest.mark.big)
