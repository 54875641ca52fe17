"""How the demo starts its program and ends it, with small programs in the ETL's place."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from exoflow.cli.demo_process import Place, ProgramFailed, differences, find_program, run, started

WITH_A_WORKER = """
import subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open("worker", "w") as file:
    file.write(str(worker.pid))
worker.wait()
"""


def place(tmp_path: Path, code: str) -> Place:
    script = tmp_path / "program.py"
    script.write_text(code)
    return Place(tmp_path / "place", script, 7)


def is_alive(pid: int) -> bool:
    """A zombie is not: where nobody reaps orphans it stays in the table."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(found.stdout.strip()) and not found.stdout.startswith("Z")


def worker_of(here: Place) -> int:
    return int((here.folder / "worker").read_text() or 0) if (here.folder / "worker").exists() else 0


def test_a_program_that_ends_tells_what_it_printed(tmp_path: Path) -> None:
    code = "import json, sys; print(json.dumps({'arguments': sys.argv[1:]}))"
    here = place(tmp_path, code)
    options = ["--run-id", "demo", "--store", str(here.store), "--resamples", "7"]
    assert run(here) == {"arguments": [str(here.folder / "output"), *options]}


def test_a_kill_takes_the_program_and_its_workers(tmp_path: Path) -> None:
    here = place(tmp_path, WITH_A_WORKER)
    assert run(here, lambda: worker_of(here) > 0) is None
    assert not is_alive(worker_of(here))


def test_a_program_that_fails_is_told_with_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(ProgramFailed, match="no such flights"):
        run(place(tmp_path, "raise SystemExit('no such flights')"))


def test_a_program_that_dies_by_a_signal_of_somebody_else_has_failed(tmp_path: Path) -> None:
    code = f"import os; os.kill(os.getpid(), {int(signal.SIGTERM)})"
    with pytest.raises(ProgramFailed, match=f"ended with -{int(signal.SIGTERM)}"):
        run(place(tmp_path, code))


def test_an_interrupt_leaves_no_process_behind(tmp_path: Path) -> None:
    here = place(tmp_path, WITH_A_WORKER)

    def interrupted() -> bool:
        if worker_of(here):
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        run(here, interrupted)
    assert not is_alive(worker_of(here))


def test_the_group_of_the_program_is_its_own(tmp_path: Path) -> None:
    with started(place(tmp_path, WITH_A_WORKER)) as process:
        assert os.getpgid(process.pid) == process.pid != os.getpgid(0)


def test_files_that_differ_or_stand_on_one_side_only_are_named(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, text in ((one, "a"), (other, "b")):
        (folder / "deep").mkdir(parents=True)
        (folder / "same").write_text("same")
        (folder / "deep" / "different").write_text(text)
    (one / "extra").touch()
    assert differences(one, other) == ["deep/different", "extra"]
    assert differences(one, one) == []


def test_two_empty_outputs_are_no_proof(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    with pytest.raises(ProgramFailed, match="hold no file"):
        differences(tmp_path / "one", tmp_path / "other")


def test_the_program_is_found() -> None:
    assert find_program().name == "etl.py"
