"""Measure the bare engines, exoflow on them, and Ray Workflows, on one machine, in one run, in turns.

    python benchmarks/cluster.py              everything; writes CLUSTER.md, cluster.png and cluster.json beside it
    python benchmarks/cluster.py --quick      the same in some minutes, smaller; prints only
    python benchmarks/cluster.py --only fanout,dask.shuffle
                                              some workloads; prints only (--json FILE keeps the figures)
    python benchmarks/cluster.py --from FILE  no measuring: the report and the chart from an earlier --json FILE

Each workload on each engine is a process of its own with a cluster of its own, on which the bare engine and we take
turns (A B C, C B A, ...); a ratio is between two measurements of the same turn. Ray Workflows needs an old Ray, which
is installed by pip in a virtual environment of its own: there, a turn is one process after another.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from cluster_report import missed, table, write_report
from cluster_train import trainings
from cluster_workloads import ALONE, ENGINES, ON_ENGINE, WORKFLOWS, WORKLOADS, keys
from core import add_common, chosen_from, fail, turns
from machine import checkout, describe
from systems import Bench, Broken, install, versions
from workloads import Workload

HERE = Path(__file__).parent
PROFILED = {"fanout", "fanout_10ms"}
LIMIT_S = 1800.0


def main() -> int:
    """Measure and report; 1 where something did not answer."""
    words = parse()
    if words.from_file:
        write_report(json.loads(words.from_file.read_text()), HERE)
        return 0
    bench = Bench(words.venvs.expanduser(), words.data.expanduser() / f"run{time.time_ns()}", {})
    results: dict[str, Any] = {
        "machine": describe(words.data),
        "quick": words.quick,
        "versions": {"exoflow": checkout(HERE), **versions(sys.executable, ["ray", "dask", "distributed", "numpy"])},
        "results": {},
        "errors": [],
        "profiles": {},
    }
    whole = not words.quick and words.only == keys()
    path = words.json or (HERE / "cluster.json" if whole else None)
    try:
        for key in words.only:
            measure(bench, key, words, results)
            if path:  # what there is, should the machine stop
                path.write_text(json.dumps(results, indent=1) + "\n")
    finally:
        shutil.rmtree(bench.data, ignore_errors=True)
    if words.report or whole:
        write_report(results, HERE)
    return 1 if results["errors"] else 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*WORKLOADS, *ENGINES, *keys()]
    parser.add_argument(
        "--only",
        type=chosen_from(names),
        default=keys(),
        metavar="WORKLOAD,...",
        help=f"which: {', '.join(WORKLOADS)}; with an engine as dask.fanout; or an engine (default: all)",
    )
    parser.add_argument("--turns", type=int, help="of each workload (default: from 2 to 7, quick: 2)")
    add_common(parser, HERE / "CLUSTER.md", HERE / "cluster.json")
    words = parser.parse_args()
    words.only = [key for key in keys() if {key, *key.split(".")} & set(words.only)]
    words.data.expanduser().mkdir(parents=True, exist_ok=True)
    return words


def measure(bench: Bench, key: str, words: argparse.Namespace, results: dict[str, Any]) -> None:
    """One workload on one engine; prints its table, and profiles what we miss."""
    engine, _, name = key.partition(".")
    workload = WORKLOADS[name]
    print(f"\n{ENGINES[engine]}: {workload.title}", flush=True)
    count = words.turns or (min(2, workload.times) if words.quick else workload.times)
    size = workload.quick_size if words.quick else workload.size
    if name == "train":
        train(bench, key, size, count, results)
    elif WORKFLOWS.name in workload.systems:
        beside_workflows(bench, key, size, count, results)
    else:
        keep(results, key, 0, asked(bench, ON_ENGINE, key, results, "--size", str(size), "--times", str(count)))
    print(table(workload, results, [engine]), end="", flush=True)
    if missed(workload, engine, results) and name in PROFILED and not words.no_profile:
        profile(bench, f"{key}.{ALONE}", size, results)


def beside_workflows(bench: Bench, key: str, size: int, count: int, results: dict[str, Any]) -> None:
    """Processes that take turns: the bare engine and we in one, Ray Workflows in the other."""
    systems = [ON_ENGINE]
    try:
        install(WORKFLOWS, bench.environments)
        results["versions"][WORKFLOWS.title] = versions(bench.python(WORKFLOWS), WORKFLOWS.packages)["ray"]
        systems.append(WORKFLOWS)
    except Broken as why:
        fail(results, f"{key}: {WORKFLOWS.title} is left out: {why}")
    either = Workload(key, "", "", (), tuple(system.name for system in systems))
    for turn, system in turns(either, systems, count):
        name = key if system is ON_ENGINE else key.partition(".")[2]
        keep(results, key, turn, asked(bench, system, name, results, "--size", str(size), "--times", "1"))


def asked(bench: Bench, system: Any, name: str, results: dict[str, Any], *options: str) -> dict[str, list[float]]:
    """What a program found, in a new folder that is gone afterwards; nothing where it did not answer."""
    directory = bench.fresh_directory()
    try:
        figures: dict[str, list[float]] = bench.ask(system, name, directory, *options, limit_s=LIMIT_S)["figures"]
    except Broken as why:
        fail(results, f"{name} on {system.title}: {why}")
        return {}
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return figures


def keep(results: dict[str, Any], key: str, first: int, figures: dict[str, list[float]]) -> None:
    """Note the figures, which a program names ``system/figure`` and lists by turn."""
    for name, values in figures.items():
        system, _, figure = name.partition("/")
        kept = results["results"].setdefault(key, {}).setdefault(figure, {}).setdefault(system, [])
        if "_trace_" in figure:
            kept.append({"turn": first, "samples": values})
        else:
            kept += [{"turn": first + place, "samples": [value]} for place, value in enumerate(values)]


def train(bench: Bench, key: str, epochs: int, count: int, results: dict[str, Any]) -> None:
    """The training in each mode, and with each accident."""
    for turn in range(count):
        for system, numbers in trainings(bench, key.partition(".")[0], epochs):
            if isinstance(numbers, Broken):
                fail(results, f"{key}, {system}: {numbers}")
            else:
                keep(results, key, turn, {f"{system}/{figure}": [value] for figure, value in numbers.items()})


def profile(bench: Bench, name: str, size: int, results: dict[str, Any]) -> None:
    """Where the time of our driver goes."""
    directory = bench.fresh_directory()
    try:
        answer = bench.ask(ON_ENGINE, name, directory, "--size", str(size), "--times", "1", "--profile")
        results["profiles"][name.rpartition(".")[0]] = answer["profile"]
    except Broken as why:
        fail(results, f"profile of {name}: {why}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
