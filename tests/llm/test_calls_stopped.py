"""Ctrl-C, or whatever else stops a run in a process that lives on: no call is made for nobody, and no slot is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from exoflow.testing import Asked, FakeEndpoint, Reply

PROGRAM = """
    import os, signal, sys, threading
    from exoflow import flow, task
    from exoflow.driver.loops import waited
    from exoflow.llm import LLM, FairScheduler, Prices

    sched = FairScheduler(slots=2)
    llm = LLM(os.environ["URL"], model="m", max_tokens=4, scheduler=sched, prices=Prices(1, 1))

    @flow
    def many():
        return [answer.text for answer in llm.map([f"question {number}" for number in range(6)]).result()]

    @task
    def asks() -> str:
        return llm("in a task").text

    @flow
    def with_task():
        return asks()

    async def all_looked_at():
        pass

    def given_back():
        while True:
            waited(all_looked_at())
            stats = sched.stats()[""]
            if not stats.in_flight and not stats.waiting and not stats.reserved_usd:
                return

    what = {
        "many": lambda: many.options(run_id="r").run(),
        "task": lambda: with_task.options(run_id="r").run(),
        "stream": lambda: list(llm.stream("as it comes")),
    }
    try:
        what[sys.argv[1]]()
    except KeyboardInterrupt as error:
        print("stopped", flush=True)
    given_back()
    print("given back", flush=True)
    if sys.argv[1] == "many":
        sys.stdin.readline()
        print(len(many.options(run_id="r").run()), flush=True)
"""


@pytest.mark.parametrize("what", ["many", "task", "stream"])
def test_ctrl_c_ends_calls_that_wait_and_calls_in_flight(what: str, tmp_path: Path) -> None:
    hangs = [True]

    def answer(asked: Asked) -> Reply:
        return Reply("yes", hangs=hangs[0])

    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    with FakeEndpoint(answer) as endpoint:
        program = subprocess.Popen(
            [sys.executable, "program.py", what], cwd=tmp_path, env={**os.environ, "URL": endpoint.url},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        with program:
            in_flight = 2 if what == "many" else 1
            while endpoint.in_flight < in_flight and program.poll() is None:
                pass
            program.send_signal(signal.SIGINT)
            assert program.stdout is not None and program.stderr is not None
            assert [program.stdout.readline(), program.stdout.readline()] == ["stopped\n", "given back\n"]
            assert len(endpoint.asked) == in_flight
            hangs[0] = False
            said, complained = program.communicate("go on\n")
            assert (program.returncode, complained) == (0, "")
            if what == "many":
                assert said == "6\n"
                assert len(endpoint.asked) == 6 + in_flight  # those in flight once more, and no other
