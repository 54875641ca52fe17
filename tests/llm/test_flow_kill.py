"""Flows that generate, killed in the middle: what was recorded is never generated again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest
from llm_zoo import Zoo

REQUESTS = 30

QUEUE = """
    import os, signal
    from exoflow.llm.engine.queues import Fcfs

    class Told(Fcfs):
        # What is taken to be generated stands in a file; at the n-th, somebody dies.
        def pop(self, now_s):
            request = super().pop(now_s)
            file = os.open(os.environ["TOLD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(file, f"{request.prompt[0]}\\n".encode())
            os.close(file)
            with open(os.environ["TOLD"]) as lines:
                if len(lines.readlines()) == int(os.environ.get("DIES_AT", 0)):
                    whom = os.environ["WHO_DIES"]
                    if whom == "thread":
                        raise OSError("the engine's thread dies, and its process does not")
                    os.kill(os.getpid() if whom == "engine" else int(os.environ["CONTROLLER"]), signal.SIGKILL)
            return request
"""

PROGRAM = """
    import json, os, sys
    os.environ.setdefault("CONTROLLER", str(os.getpid()))  # Dask's workers run these lines, too
    from told import Told
    from exoflow import flow
    from exoflow.llm import EngineSpec, SamplingParams

    base, adapter, executor = sys.argv[1:4]
    engine = EngineSpec(
        base, adapters={"r8": adapter}, executor=executor, queue=Told, pages=400, block=8, max_batch=3, threads=1
    )

    @flow
    def tales():
        refs = [
            engine.submit([n, 1, 2], SamplingParams(max_tokens=3 + n % 5), "r8" if n % 2 else None)
            for n in range(30)
        ]
        return [ref.result()[0].token_ids for ref in refs]

    if __name__ == "__main__":
        if executor == "ray":
            import ray
            ray.init(
                "local", num_cpus=2, object_store_memory=100_000_000, include_dashboard=False, logging_level="error"
            )
        with open("answers.json", "w") as file:  # Ray prints what it thinks of a worker's death
            json.dump(tales.options(run_id="tales", store="store").run(), file)
"""


class Lives:
    """One run, in one process after another."""

    def __init__(self, folder: Path, zoo: Zoo, executor: str) -> None:
        self.folder = folder
        self.arguments = [str(zoo.path), str(zoo.folders["r8"]), executor]
        (folder / "told.py").write_text(textwrap.dedent(QUEUE))
        (folder / "program.py").write_text(textwrap.dedent(PROGRAM))
        self.told = folder / "told.txt"

    def live(self, who_dies: str = "nobody", at: int = 0) -> subprocess.CompletedProcess[str]:
        paths = [path for path in sys.path if path and os.path.isdir(path)]
        environment = os.environ | {
            "TOLD": str(self.told),
            "WHO_DIES": who_dies,
            "DIES_AT": str(at),
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.run(
            [sys.executable, "program.py", *self.arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def answers(self) -> list[list[int]]:
        answers: list[list[int]] = json.loads((self.folder / "answers.json").read_text())
        return answers

    def taken(self) -> Counter[int]:
        """How often each prompt was taken to be generated."""
        return Counter(int(line) for line in self.told.read_text().splitlines())

    def recorded(self) -> set[int]:
        """The prompts whose answers are durable."""
        from typer.testing import CliRunner

        from exoflow.cli.app import app

        shown = CliRunner().invoke(app, ["show", "tales", "--store", str(self.folder / "store"), "--json"])
        assert shown.exit_code == 0, shown.stderr
        calls = [call for call in json.loads(shown.stdout)["calls"] if call["task"] == "generate"]
        return {int(call["id"].rpartition("#")[2]) for call in calls if call["attempts"][-1]["saved"]}


@pytest.fixture(params=["local", *(pytest.param(name, marks=pytest.mark.big) for name in ("processes", "ray", "dask"))])
def lives(request: pytest.FixtureRequest, tmp_path: Path, zoo: Zoo) -> Lives:
    if request.param in ("ray", "dask"):
        pytest.importorskip({"dask": "distributed"}.get(request.param, request.param))
    return Lives(tmp_path, zoo, request.param)


def test_a_killed_flow_generates_only_what_was_not_recorded(lives: Lives) -> None:
    killed = lives.live("controller", at=20)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert sum(lives.taken().values()) >= 20
    recorded = lives.recorded()
    assert 10 < len(recorded) < REQUESTS
    lives.told.unlink()

    ended = lives.live()
    assert ended.returncode == 0, ended.stderr
    assert lives.taken() == Counter(set(range(REQUESTS)) - recorded)
    answers = lives.answers()
    assert len(answers) == REQUESTS

    assert lives.live().returncode == 0
    assert lives.answers() == answers
    assert sum(lives.taken().values()) == REQUESTS - len(recorded)


@pytest.mark.parametrize(
    "lives", ["processes", *(pytest.param(name, marks=pytest.mark.big) for name in ("ray", "dask"))], indirect=True
)
@pytest.mark.big
@pytest.mark.parametrize("who_dies", ["engine", pytest.param("thread", marks=pytest.mark.big)])
def test_a_worker_that_dies_is_replaced_and_only_what_it_had_is_generated_again(lives: Lives, who_dies: str) -> None:
    ended = lives.live(who_dies, at=20)
    assert ended.returncode == 0, ended.stderr
    assert len(lives.answers()) == REQUESTS
    taken = lives.taken()
    assert set(taken) == set(range(REQUESTS))
    assert max(taken.values()) <= 2
    twice = sum(count - 1 for count in taken.values())
    assert 1 <= twice < 20
