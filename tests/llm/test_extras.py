"""Who lacks a package is told what to install, wherever it is first needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from exoflow.extras import needed

PLAN = "pip install 'exoflow[plan]'"
ENGINE = "Engine needs transformers: pip install 'exoflow[llm]'"
PROGRAM = """
import sys
for package in {lacking!r}:
    sys.modules[package] = None
for wanted in {wanted!r}:
    try:
        exec(wanted)
    except ImportError as error:
        print(error)
"""
LOG = "Log([{'id': str(i), 'index': j, 'answer': 'AAAAB'[j], 'correct': j < 4} for i in range(3) for j in range(5)])"
NEEDS = {
    "from exoflow.llm import Engine; Engine('.')": "Engine needs numpy: pip install 'exoflow[llm]'",
    "from exoflow.llm import curve": "curve needs numpy: pip install 'exoflow[plan]'",
    "from exoflow.llm.planning import plan": "plan needs numpy: pip install 'exoflow[plan]'",
    f"from exoflow.llm import Log; {LOG}.write('log.parquet')": f"log.parquet needs pyarrow: {PLAN}",
    "from exoflow.llm import Log; Log.read('log.parquet')": f"log.parquet needs pyarrow: {PLAN}",
    "from exoflow.llm import FairScheduler; FairScheduler().prometheus()": (
        "FairScheduler.prometheus() needs prometheus_client: pip install 'exoflow[calls]'"
    ),
    "from exoflow.llm import LLM; LLM('http://x/v1', model='m')('?')": (
        "a call of an endpoint needs aiohttp: pip install 'exoflow[calls]'"
    ),
    "from exoflow.testing import FakeEndpoint": "FakeEndpoint needs aiohttp: pip install 'exoflow[calls]'",
    "from exoflow.llm import Answer; Answer('3', form={'type': 'integer'}).parsed": (
        "Answer.parsed needs jsonschema: pip install 'exoflow[calls]'"
    ),
}
NEEDS_WITH_NUMPY = {
    f"from exoflow.llm import Log, curve; curve({LOG})": f"an interval needs scipy: {PLAN}",
    f"from exoflow.llm import Log, fit_scaling; fit_scaling({LOG})": f"fit_scaling needs scipy: {PLAN}",
    "from exoflow.llm.fair import *; simulate([], FCFS(), BatchCost.a10g(), memory_tokens=9).plot()": (
        "a plot needs matplotlib: pip install 'exoflow[plan]'"
    ),
    "from exoflow.llm.planning.drawing import _canvas; _canvas()": (
        "a plot needs matplotlib: pip install 'exoflow[plan]'"
    ),
}

NEEDS_WITH_TORCH = {
    "from exoflow.llm import Engine; Engine('.')": ENGINE,
    "from exoflow.llm import EngineSpec; EngineSpec('.').generate('Why?')": ENGINE,
}


def run(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, timeout=240, cwd=cwd)


@pytest.mark.parametrize(
    ("lacking", "needs"),
    [
        (["numpy", "pyarrow", "prometheus_client", "aiohttp", "jsonschema"], NEEDS),
        (["scipy", "matplotlib"], NEEDS_WITH_NUMPY),
        (["transformers"], NEEDS_WITH_TORCH),
        (["torch"], {key: value.replace("transformers", "torch") for key, value in NEEDS_WITH_TORCH.items()}),
    ],
)
def test_who_lacks_a_package_is_told_what_to_install(lacking: list[str], needs: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")  # a model, as far as it is read
    done = run("-c", PROGRAM.format(lacking=lacking, wanted=list(needs)), cwd=tmp_path)
    assert done.stdout.splitlines() == list(needs.values())


@pytest.mark.parametrize("lacking", ["aiohttp", "numpy"])
def test_who_measures_an_endpoint_without_a_package_is_told_what_to_install(lacking: str) -> None:
    command = "sys.argv[1:] = ['llm', 'bench', 'http://127.0.0.1:1/v1', '--models', 'a']; main()"
    done = run("-c", f"import sys; sys.modules[{lacking!r}] = None; from exoflow.cli import main; {command}")
    assert done.returncode == 2
    assert f"({lacking} is missing): pip install 'exoflow[calls,plan]'" in done.stderr


def test_a_module_of_ours_that_is_missing_is_not_taken_for_a_package() -> None:
    with pytest.raises(ModuleNotFoundError), needed("it", "plan"):
        import exoflow.there_is_none  # type: ignore[import-not-found]  # noqa: F401 -- it is not there
    with (
        pytest.raises(ImportError, match=r"it needs no_such_thing: pip install 'exoflow\[plan\]'"),
        needed("it", "plan"),
    ):
        import no_such_thing.part  # type: ignore[import-not-found]  # noqa: F401 -- nor is this


def test_an_engine_is_imported_without_torch_which_takes_seconds() -> None:
    done = run("-c", "import sys; from exoflow.llm import Engine; print({'torch', 'numpy'} & set(sys.modules))")
    assert done.stdout == "set()\n", done.stderr
