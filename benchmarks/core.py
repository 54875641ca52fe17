"""Measure exoflow, its peers and the machine alone, on one machine, in one run, in turns.

    python benchmarks/core.py                       everything; writes RESULTS.md, core.png and core.json beside it
    python benchmarks/core.py --quick               the same in a few minutes, smaller; prints only
    python benchmarks/core.py --only chain,fanout   some workloads; prints only (--json FILE keeps the figures)
    python benchmarks/core.py --from FILE           no measuring: the report and the chart from an earlier --json FILE

Peers are installed by pip, pinned, each in a virtual environment of its own. Each measurement is a new process in a new
folder; the systems take turns (A B C, B C A, ...), and a ratio is between two measurements of the same turn.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from crash import crash
from figures import missed
from machine import checkout, describe
from report import table, write_report
from systems import LIMIT, OURS, PEERS, SYSTEMS, Bench, Broken, System, install, versions
from workloads import WORKLOADS, Workload

HERE = Path(__file__).parent
PROFILED = {"chain", "chain_sync", "fanout", "flows", "flows_async", "one", "array", "calls"}


def main() -> int:
    """Measure and report; 1 where a system did not answer."""
    words = parse()
    if words.from_file:
        results = json.loads(words.from_file.read_text())
        write_report(results, HERE)
        return 0
    names = [OURS, LIMIT, *words.peers]
    results = {
        "machine": describe(words.data),
        "quick": words.quick,
        "systems": {},
        "results": {},
        "errors": [],
        "profiles": {},
    }
    bench = Bench(words.venvs.expanduser(), words.data.expanduser() / f"run{time.time_ns()}", {})
    try:
        with contextlib.ExitStack() as servers:
            systems = [SYSTEMS[name] for name in names if prepared(bench, SYSTEMS[name], servers, results)]
            measure(bench, [WORKLOADS[name] for name in words.only], systems, words, results)
    finally:
        shutil.rmtree(bench.data, ignore_errors=True)
    whole = not words.quick and words.only == list(WORKLOADS) and words.peers == list(PEERS)
    path = words.json or (HERE / "core.json" if whole else None)
    if path:
        path.write_text(json.dumps(results, indent=1) + "\n")
        print(f"wrote {path.name}")
    if words.report or whole:
        write_report(results, HERE)
    return 1 if results["errors"] else 0


def chosen_from(known: Sequence[str]) -> Any:
    """Makes a list of some of these out of a word with commas, for argparse."""

    def split(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"no {', '.join(unknown)}; there are: {', '.join(known)}")
        return names

    return split


def add_common(parser: argparse.ArgumentParser, page: Path, raw: Path) -> None:
    """The arguments that say how carefully to measure, and where everything lies."""
    cache = Path("~/.cache/exoflow-bench")
    parser.add_argument("--quick", action="store_true", help="fewer turns, smaller sizes")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help=f"raw results (default: {raw.name} here, of a whole run only)"
    )
    parser.add_argument("--report", action="store_true", help=f"write {page.name} and its chart of a partial run too")
    parser.add_argument(
        "--from", dest="from_file", type=Path, metavar="FILE", help="report from raw results, measure nothing"
    )
    parser.add_argument(
        "--venvs", type=Path, default=cache, metavar="DIR", help="the peers' environments (default: %(default)s)"
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=cache / "data",
        metavar="DIR",
        help="where stores are written; a real disk (default: %(default)s)",
    )
    parser.add_argument("--no-profile", action="store_true", help="do not profile what misses its goal")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only",
        type=chosen_from(tuple(WORKLOADS)),
        default=list(WORKLOADS),
        metavar="WORKLOAD,...",
        help=f"which workloads: {', '.join(WORKLOADS)} (default: all)",
    )
    parser.add_argument(
        "--peers",
        type=chosen_from(PEERS),
        default=list(PEERS),
        metavar="PEER,...",
        help=f"which peers: {', '.join(PEERS)}; '' for none (default: all)",
    )
    parser.add_argument("--repeats", type=int, help="turns (default: 7, quick: 2)")
    add_common(parser, HERE / "RESULTS.md", HERE / "core.json")
    words = parser.parse_args()
    words.repeats = words.repeats or (2 if words.quick else 7)
    words.data.expanduser().mkdir(parents=True, exist_ok=True)
    return words


def prepared(bench: Bench, system: System, servers: contextlib.ExitStack, results: dict[str, Any]) -> bool:
    """Whether the system is installed and its server, if it has one, runs; else the reason is in the results."""
    try:
        install(system, bench.environments)
        told = versions(bench.python(system), system.packages) if system.packages else {}
        if system.name == "absurd":
            servers.enter_context(bench.server(system))
    except Broken as why:
        return fail(results, f"{system.title} is left out: {why}")
    if system.name == OURS:
        told = {"exoflow": checkout(HERE)}
    results["systems"][system.name] = {"versions": told, "settings": system.settings}
    return True


def measure(
    bench: Bench,
    workloads: Sequence[Workload],
    systems: Sequence[System],
    words: argparse.Namespace,
    results: dict[str, Any],
) -> None:
    """Every workload on every system that has it, in turns; prints each table, and profiles what we miss."""
    for workload in workloads:
        print(f"\n{workload.title}", flush=True)
        for turn, system in turns(workload, systems, words.repeats):
            try:
                figures = ask(bench, workload, system, words.quick)
            except Broken as why:
                fail(results, f"{workload.name} on {system.title}: {why}")
                continue
            for name, samples in figures.items():
                of_system = (
                    results["results"].setdefault(workload.name, {}).setdefault(name, {}).setdefault(system.name, [])
                )
                of_system.append({"turn": turn, "samples": samples})
        print(table(workload, results), end="", flush=True)
        if missed(workload, results) and workload.name in PROFILED and not words.no_profile:
            profile(bench, workload, words.quick, results)


def turns(workload: Workload, systems: Sequence[System], repeats: int) -> Iterator[tuple[int, System]]:
    """Who is measured when: each turn begins with another system."""
    present = [system for system in systems if system.name in workload.systems]
    for turn in range(1 if workload.once else repeats):
        first = turn % max(1, len(present))
        for system in present[first:] + present[:first]:
            yield turn, system


def ask(bench: Bench, workload: Workload, system: System, quick: bool, *options: str) -> dict[str, list[float]]:
    """One measurement: all stages in one new folder, which is gone afterwards."""
    if workload.name == "import":
        return {"import_ms": [import_ms(bench, system) for _ in range(workload.times)]}
    directory = bench.fresh_directory()
    try:
        if workload.name == "crash":
            return crash(bench, system, directory)
        figures: dict[str, list[float]] = {}
        for stage in workload.stages or (workload.name,):
            figures |= bench.ask(system, stage, directory, *size(workload, quick))["figures"]
        return figures
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def size(workload: Workload, quick: bool) -> tuple[str, ...]:
    """A program's options for how much and how often."""
    return ("--size", str(workload.quick_size if quick else workload.size), "--times", str(workload.times))


def import_ms(bench: Bench, system: System) -> float:
    """How long the system's import takes within a new interpreter."""
    code = f"import time; start = time.perf_counter(); {system.imports}; print((time.perf_counter() - start) * 1e3)"
    environment = {"PYTHONPATH": str(HERE.parent)} if not system.packages else {}
    done = subprocess.run(
        [bench.python(system), "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        raise Broken(done.stderr.strip().splitlines()[-1])
    return float(done.stdout.splitlines()[-1])


def profile(bench: Bench, workload: Workload, quick: bool, results: dict[str, Any]) -> None:
    """Where our time, or our memory, goes in a workload that misses a goal."""
    directory = bench.fresh_directory()
    try:
        if workload.name == "calls":
            answer = bench.ask(SYSTEMS[OURS], "calls_memory", directory, "--size", str(workload.quick_size))
        else:
            answer = bench.ask(SYSTEMS[OURS], workload.name, directory, *size(workload, quick), "--profile")
        results["profiles"][workload.name] = answer["profile"]
    except Broken as why:
        fail(results, f"profile of {workload.name}: {why}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def fail(results: dict[str, Any], why: str) -> bool:
    """Note what went wrong; the run goes on without it."""
    print(f"! {why}", file=sys.stderr, flush=True)
    results["errors"].append(why)
    return False


if __name__ == "__main__":
    sys.exit(main())
