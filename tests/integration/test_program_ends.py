"""A program that ends itself in the middle of a task: its run is broken off, and the same command goes on."""

import subprocess
import sys
from pathlib import Path

import pytest

import exoflow

PROGRAM = """
import asyncio, os, signal, sys
import exoflow
from exoflow import flow, task

signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))

def end(how):
    if os.path.exists("ended"):
        return
    open("ended", "w").close()
    if how == "signal":
        signal.raise_signal(signal.SIGTERM)
    elif how == "exit":
        sys.exit(3)

@task
def first():
    print("first", flush=True)

@task
def work(how):
    end(how)
    return "worked"

@task
async def work_async(how):
    end(how)
    return "worked"

@flow
def plain(how):
    first()
    try:
        return work(how)
    except BaseException:  # careless, and of no consequence
        return work("not again")

@flow
async def awaiting(how):
    await first.submit()
    try:
        return await work_async(how)
    except BaseException:
        return await work_async("not again")

if __name__ == "__main__":
    kind, how = sys.argv[1:]
    if kind == "plain":
        print(plain.options(run_id="p").run(how))
    else:
        print(asyncio.run(awaiting.options(run_id="p").run(how)))
"""


@pytest.mark.parametrize("how", ["signal", "exit"])
@pytest.mark.parametrize("kind", ["plain", "awaiting"])
def test_what_ends_the_program_in_a_task_ends_it_and_the_same_command_goes_on(
    kind: str, how: str, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)

    def life() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", "program.py", kind, how]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    ended = life()
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "first\n", "")
    assert exoflow.get("p", store=tmp_path / ".exoflow").status is exoflow.Status.BROKEN_OFF
    again = life()
    assert (again.returncode, again.stdout, again.stderr) == (0, "worked\n", "")
