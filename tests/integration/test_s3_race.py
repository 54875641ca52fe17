"""Several processes take over the runs of several dead ones at the same time, and hear only half of what is said."""

import itertools
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import s3_proxy as planted
from s3_program import BEGINNING

from exoflow.journal import Journal
from exoflow.storage import S3Store

RUNS = 4
PROGRAM = (
    BEGINNING
    + """
def resume(name):
    try:
        said = exoflow.resume(name)
    except BaseException as error:
        said = type(error).__name__
    print(name, said, flush=True)

names = [f"r{n}" for n in range(int(sys.argv[2]))]
if sys.argv[1] == "run":
    for name in names:
        if not os.fork():
            work.options(run_id=name)(name)
            os._exit(1)
    sys.stdin.read()
else:
    threads = [threading.Thread(target=resume, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""
)


@pytest.fixture
def proxy(s3_environment: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    proxy = planted.Proxy(s3_environment)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    yield proxy
    proxy.close()


@pytest.mark.big
def test_of_three_that_take_the_same_runs_each_goes_to_one(
    tmp_path: Path, s3_url: str, proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXOFLOW_STORE", s3_url)
    (tmp_path / "program.py").write_text(PROGRAM)
    pipe = subprocess.PIPE

    def start(what: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "program.py", what, str(RUNS)]
        return subprocess.Popen(command, cwd=tmp_path, stdin=pipe, stdout=pipe, text=True, start_new_session=True)

    def seen() -> Counter[str]:
        file = tmp_path / "seen"
        return Counter(file.read_text().split()) if file.exists() else Counter()

    with start("run") as owners:
        while sum(seen()[f"wait-r{n}"] for n in range(RUNS)) < RUNS:
            assert owners.poll() is None
        signal_group(owners)
    numbers = itertools.count()
    proxy.fault(1_000_000, lambda each: each.kind == "PUT" and next(numbers) % 2 == 0, planted.lost_answer)
    for n in range(RUNS):
        (tmp_path / f"gate-r{n}").touch()
    takers = [start("resume") for _ in range(3)]
    said = [line.split() for taker in takers for line in taker.communicate(timeout=110)[0].splitlines()]
    for n in range(RUNS):
        answers = {answer for name, answer in said if name == f"r{n}"}
        answers -= {
            "RunIsLive",
            "Fenced",
        }  # the second: a busy machine kept its owner from beating, and another took over
        assert len(answers) == 1, said
        assert len(answers.pop()) == 16, said
    once = {f"{what}-r{n}": 1 for what in ("choose", "act") for n in range(RUNS)}
    assert seen() == {**once, **{f"wait-r{n}": 2 for n in range(RUNS)}}
    for n in range(RUNS):
        assert Journal(S3Store(s3_url)).find(f"r{n}").state == "ended"
    assert len(said) == 3 * RUNS


def signal_group(process: "subprocess.Popen[str]") -> None:
    """kill -9 to a process and all that it has forked."""
    os.killpg(process.pid, signal.SIGKILL)
