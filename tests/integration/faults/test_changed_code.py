"""Code that is another one when the run goes on, and bodies that are not the same twice."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

Place = Any

PROGRAM = """
    import os, signal, sys, time
    from exoflow import flow, task

    def write(word):
        with open("bodies", "a") as file:
            file.write(f'["{word}"]\\n')

    @task
    def one(n):
        write("one")
        return n + 1  # ONE

    @task(checkpoint="sync")
    def two(n):
        write("two")
        return n * 2

    @task
    def three(n):
        if not os.path.exists("crashed"):
            open("crashed", "w")
            os.kill(os.getpid(), signal.SIGKILL)
        return n + THREE

    @flow
    def f(n):
        return three(two(one(n)))

    @flow
    def unsteady(n):
        return three(two(one(EXPRESSION)))

    if __name__ == "__main__":
        flow = globals()[sys.argv[1]]
        print(flow.options(run_id="it", store="store").run(1))
"""


def write(here: Place, **names: str) -> None:
    text = textwrap.dedent(PROGRAM)
    for name, replaced in {"THREE": "100", "EXPRESSION": "os.getpid()", **names}.items():
        text = text.replace(name, replaced)
    here.program.write_text(text)


def test_calls_whose_code_is_unchanged_keep_their_results_and_the_fixed_one_runs_anew(
    place: Callable[..., Place],
) -> None:
    here = place()
    write(here)
    assert here.live("f").killed
    write(here, THREE="200")  # its result was not recorded: nothing is mixed
    life = here.live("f")
    assert (life.code, life.out) == (0, "204\n"), life.err
    assert here.bodies() == ["one", "two"]


def test_a_call_whose_recorded_result_came_from_other_code_is_refused_with_the_difference_unless_accepted(
    place: Callable[..., Place],
) -> None:
    here = place()
    write(here)
    assert here.live("f").killed
    write(here, **{"n + 1  # ONE": "n + 5"})
    life = here.live("f")
    assert life.code == 1
    assert "exoflow.errors.RunMismatch: the code of " in life.err and "has changed since one#0 ran" in life.err
    assert "-    return n + 1" in life.err and "+    return n + 5" in life.err, life.err
    assert "resume it --accept one#0" in life.err
    command = [sys.executable, "-c", "from exoflow.cli import main; main()", "resume", "it", "--store", "store"]
    wrong = subprocess.run(
        [*command, "--accept", "one#7"], cwd=here.folder, capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 1
    assert "no result of a call 'one#7' that could be accepted; did you mean one#0?" in wrong.stderr
    asked = subprocess.run(
        [*command, "--accept", "one#0"], cwd=here.folder, capture_output=True, text=True, check=False
    )
    assert asked.returncode == 0, asked.stderr
    assert "104" in asked.stdout
    assert here.bodies() == ["one", "two"]


def test_a_body_that_is_not_the_same_twice_is_refused_with_the_difference(place: Callable[..., Place]) -> None:
    here = place()
    write(here)
    assert here.live("unsteady").killed
    life = here.live("unsteady")
    assert life.code == 1
    assert "NondeterministicFlow: one#0 was called with other arguments than recorded" in life.err, life.err
    assert "the argument n was " in life.error and "exoflow.rng()" in life.error
    write(here, EXPRESSION="7")
    life = here.live("unsteady")
    assert life.code == 1
    assert "and is 7 now" in life.error
    assert here.bodies() == ["one", "two"]
