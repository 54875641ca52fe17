"""``exoflow serve`` and ``exoflow gc`` on a bucket, in processes of their own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from exoflow.journal import Journal
from exoflow.storage import S3Store

PROGRAM = """
import os, time
from exoflow import flow, task

@task
def choose():
    return os.urandom(100_000)

@task
def pass_gate(name, choice):
    with open("begun", "a") as file:
        file.write(f"{name}\\n")
    while not os.path.exists(f"gate-{name}"):
        time.sleep(0.01)
    return name

@flow
def wait(name: str) -> str:
    return pass_gate(name, choose())
"""

EXOFLOW = """
from exoflow.journal import journal, takeover
journal.BEAT_S = takeover.BEAT_S = 1.0
from exoflow.cli import main
main()
"""


class Served:
    """Gateways of one program on one bucket."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.processes: list[subprocess.Popen[str]] = []
        (folder / "program.py").write_text(PROGRAM)

    def run(self, *words: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", EXOFLOW, *words, "--store", self.url]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, cwd=self.folder, stdout=pipe, stderr=pipe, text=True, env=os.environ)
        self.processes.append(process)
        return process

    def serve(self) -> "tuple[subprocess.Popen[str], str]":
        process = self.run("serve", "program.py", "--port", "0")
        assert process.stderr is not None
        for line in process.stderr:
            for word in line.split():
                if word.startswith("http://"):
                    return process, word.rstrip(",")
        raise AssertionError(process.communicate())

    def begun(self) -> list[str]:
        file = self.folder / "begun"
        return file.read_text().splitlines() if file.exists() else []

    def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            time.sleep(0.05)


@pytest.fixture
def served(tmp_path: Path, s3_url: str) -> Iterator[Served]:
    served = Served(tmp_path, s3_url)
    yield served
    for process in served.processes:
        process.kill()
        process.communicate()


@pytest.mark.big
def test_what_a_killed_gateway_leaves_in_a_bucket_the_other_adopts_and_gc_clears(served: Served) -> None:
    (first, one), (_, two) = served.serve(), served.serve()
    later = {"Prefer": "respond-async"}
    for name in ("a", "b"):
        asked = httpx.post(f"{one}/flows/wait", json={"name": name}, headers=later, timeout=60)
        assert asked.status_code == 202
    served.until(lambda: len(served.begun()) == 2)
    first.kill()
    first.wait()
    served.until(lambda: len(served.begun()) == 4)
    for name in ("a", "b"):
        (served.folder / f"gate-{name}").touch()
    served.until(lambda: httpx.get(f"{two}{asked.headers['location']}", timeout=60).json()["status"] == "done")
    served.processes[1].terminate()
    assert served.processes[1].wait(60) == 0
    collected = served.run("gc", "--keep-days", "0")
    said = "".join(collected.communicate(timeout=60))
    assert "2 runs deleted" in said
    store = S3Store(served.url)
    assert store.list("values") == store.list("packs") == []
    assert len(store.list("journals")) == 2, "the seals"
    assert Journal(store).find(asked.headers["run-id"]).state == "absent"
