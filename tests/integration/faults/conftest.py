"""A flow with one call of every kind, and processes to kill it in: forked from one that has imported everything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from exoflow.journal import Journal, Kind
from exoflow.storage import LocalStore

NURSERY = """
import atexit, faulthandler, gc, json, os, runpy, sys
import exoflow, exoflow.attempts, exoflow.executors.local, exoflow.executors.processes
from exoflow import hooks
for name in dir(exoflow):
    getattr(exoflow, name)

def live(job):
    for number, path in enumerate([os.devnull, job["out"], job["err"]]):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
    faulthandler.dump_traceback_later(60, exit=True)  # a run that hangs is a failed test, and says where
    os.chdir(job["folder"])
    os.environ.update(job["environment"])
    sys.argv = job["argv"]
    sys.path.insert(0, job["folder"])
    if job["fault"]:
        hooks._armed = hooks.fault(job["fault"])
    elif job["count"]:
        reached = []
        hooks._armed = reached.append
        atexit.register(lambda: open(job["count"], "w").write(json.dumps(reached)))
    runpy.run_path(job["argv"][0], run_name="__main__")

if len(sys.argv) == 2:  # one process of its own
    live(json.loads(sys.argv[1]))
    sys.exit()
gc.collect()
gc.freeze()
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        live(job)
        atexit._run_exitfuncs()  # as an exit does; taking the interpreter apart takes longer than the run
        sys.stdout.flush()
        os._exit(0)
    answer = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if job["wait"] else child
    print(job["number"], answer, flush=True)
"""

TRIP = """
import json
import os
import sys

import exoflow
from exoflow import DidNotHappen, Happened, flow, task


def write(path, *words):
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, (json.dumps(words) + "\\n").encode())
    os.close(fd)


def effects(name, key):
    if not os.path.exists("effects"):
        return []
    return [line for line in map(json.loads, open("effects")) if line[:2] == [name, key]]


@task(deterministic=True, checkpoint="never")
def read(count):
    write("bodies", "read")
    return list(range(count))


@task
def choose(numbers):
    write("bodies", "choose")
    return f"{sum(numbers)}-{os.urandom(4).hex()}"


@task(checkpoint="sync")
def render(choice):
    write("bodies", "render")
    return choice * 20_000


def release(key, choice, size):
    write("effects", "release", key)


@task(rollback=release)
def reserve(choice, size):
    write("bodies", "reserve")
    write("effects", "reserve", exoflow.idempotency_key(), choice)
    return f"seat for {choice}"


@task(effect="idempotent")
def publish(choice):
    write("bodies", "publish")
    write("effects", "publish", exoflow.idempotency_key(), choice)
    return f"https://{choice}"


def was_charged(key, choice):
    return Happened(f"receipt for {choice}") if effects("charge", key) else DidNotHappen()


@task(effect="irrevocable", on_doubt=was_charged)
def charge(choice):
    write("bodies", "charge")
    write("effects", "charge", exoflow.idempotency_key(), choice)
    return f"receipt for {choice}"


@flow
def trip(count):
    choice = choose(read.submit(count))
    pages = render.submit(choice)
    seat = reserve(choice, len(pages.result()))
    return [choice, seat, publish(choice), charge(choice)]


if __name__ == "__main__":
    print(json.dumps(trip.options(run_id="trip", store="store").run(4)), flush=True)
"""


@dataclass(frozen=True)
class Life:
    """What a process came to."""

    code: int
    out: str
    err: str

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def error(self) -> str:
        """The last line of its traceback."""
        return self.err.strip().splitlines()[-1]


class Nursery:
    """A process from which others are forked: each starts in milliseconds, with everything imported."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._asked = 0

    def ask(self, job: dict[str, object]) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._asked += 1
        self._process.stdin.write(json.dumps({**job, "number": self._asked}) + "\n")
        self._process.stdin.flush()
        while True:  # a test that was interrupted has left its answer to the next one
            number, answer = map(int, self._process.stdout.readline().split())
            if number == self._asked:
                return answer

    def close(self) -> None:
        self._process.communicate()


class Place:
    """A folder with a program in it, a store, and what the program's tasks leave outside of the store."""

    def __init__(self, folder: Path, nursery: Nursery, source: str = TRIP) -> None:
        self.folder = folder
        self.nursery = nursery
        self.store = folder / "store"
        self.program = folder / "program.py"
        folder.mkdir(parents=True, exist_ok=True)
        self.program.write_text(textwrap.dedent(source))

    def job(
        self, *argv: str, fault: str = "", count: str = "", wait: bool = True, **environment: str
    ) -> dict[str, object]:
        return {
            "argv": [str(self.program), *argv], "folder": str(self.folder), "environment": environment, "wait": wait,
            "out": str(self.folder / "out"), "err": str(self.folder / "err"), "fault": fault, "count": count,
        }  # fmt: skip

    def live(self, *argv: str, fault: str = "", count: str = "", **environment: str) -> Life:
        """Run the program in a forked process, to its end."""
        code = self.nursery.ask(self.job(*argv, fault=fault, count=count, **environment))
        return Life(code, (self.folder / "out").read_text(), (self.folder / "err").read_text())

    def spawn(self, *before: str, argv: tuple[str, ...] = (), **environment: str) -> Life:
        """Run the program in a process of its own, under the command ``before``."""
        command = [*before, sys.executable, "-c", NURSERY, json.dumps(self.job(*argv))]
        done = subprocess.run(command, env={**os.environ, **environment}, check=False, capture_output=True, text=True)
        return Life(done.returncode, (self.folder / "out").read_text(), (self.folder / "err").read_text() + done.stderr)

    def points(self) -> list[str]:
        """Every time that a fault point is reached when the program runs here, as ``EXOFLOW_FAULT`` has it."""
        life = self.live(count=str(self.folder / "reached"))
        assert life.code == 0, life.err
        seen: Counter[str] = Counter()
        found = []
        for point in json.loads((self.folder / "reached").read_text()):
            seen[point] += 1
            found.append(f"{point}:{seen[point]}")
        return found

    def lines(self, name: str) -> list[list[str]]:
        path = self.folder / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def bodies(self) -> list[str]:
        return [name for (name,) in self.lines("bodies")]

    def committed(self) -> list[str]:
        """Tasks of the trip whose results are in the journal, and whose choices are, too."""
        records = Journal(LocalStore(str(self.store))).find("trip").records if self.store.exists() else ()
        saved = {str(record[2]) for record in records if record[0] == Kind.SAVED}
        found = []
        for name in ["choose", "render", "reserve", "publish", "charge"]:
            if f"{name}#0" not in saved:
                break
            found.append(name)
        return found

    def check(self, life: Life) -> None:
        """The trip was made: one failure-free execution explains all that was seen."""
        assert life.code == 0, life.err
        choice, seat, url, receipt = json.loads(life.out)
        assert (seat, url, receipt) == (f"seat for {choice}", f"https://{choice}", f"receipt for {choice}")
        effects = self.lines("effects")
        assert [line[2] for line in effects if line[0] == "charge"] == [choice]
        published = [line[1:] for line in effects if line[0] == "publish"]
        assert published and all(line == published[0] for line in published) and published[0][1] == choice
        released = {line[1] for line in effects if line[0] == "release"}
        reserved = [line[1:] for line in effects if line[0] == "reserve"]
        assert len({key for key, _ in reserved}) == len(reserved)
        assert [kept for key, kept in reserved if key not in released] == [choice]

    def finish(self) -> None:
        """Run the program again without a fault: it goes on, and repeats nothing that was committed."""
        committed, before = self.committed(), len(self.bodies())
        self.check(self.live())
        again = self.bodies()[before:]
        assert not set(committed) & set(again), f"{committed} were committed, and {again} ran"


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def place(tmp_path: Path, nursery: Nursery) -> Callable[..., Place]:
    """Makes places: ``place("name")``, ``place("name", source)``."""

    def made(name: str = "here", source: str = TRIP) -> Place:
        return Place(tmp_path / name, nursery, source)

    return made
