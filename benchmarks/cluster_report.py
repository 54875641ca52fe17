"""CLUSTER.md out of the raw results of cluster.py."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from cluster_workloads import BARE, ENGINES, TITLES, WORKFLOWS, WORKLOADS, Bound, keys
from figures import Results, Spread, number, of_turns, spread
from report import rows
from workloads import Figure, Workload

METHOD = """\
`python benchmarks/cluster.py` wrote this page, in one run, on one machine that was doing nothing else that we know
of. Each workload on each engine is a process with a cluster of its own: Ray by `ray.init`, Dask by a `LocalCluster`,
a worker process of one thread for each core. The bare engine and we do the same work there, in turns (A B C, C B A,
...), after one round that is not counted. A value is the median of the turns, with the least and the most in brackets;
a ratio is the median of the ratios of each turn, with the least and the most of them. The store is a folder. *exoflow*
is a task as it comes: taken as nondeterministic, saved in the background, and everything is durable when the flow
returns. *Deterministic* tasks say so, and are saved where saving is cheaper than computing again."""

WHY = {
    "array": "On Ray, 1 % of a worker's time is ours (py-spy): nothing copies or checks the array on the way. What is "
    "left are milliseconds for each task, however large its array: from `submit` until its outcome is here, a task on "
    "Dask took 10 to 14 ms with us and 5 to 7 ms without.",
    "by_reference": "The driver never holds a value. An array that need not be saved is let go when nobody has a Ref "
    "to it and nobody is to take it; one that is saved stays until then, and up to 256 MB behind it for whoever "
    "reads it next. Undeclared tasks are saved: 10 GB take the disk's time.",
    "shuffle": "The parts that a map makes are one object of the store (ADR 0022), so that what is saved waits for the "
    "disk 50 times and not 2,500. A deterministic map is saved only where its body takes longer than its parts at 200 "
    "MB/s: on a busy machine some do.",
}
"""What profiles by hand said, by workload; shown where there are figures of it."""


def write_report(results: Results, folder: Path) -> None:
    """Write the page and, where matplotlib is installed, the picture."""
    try:
        from cluster_chart import draw
    except ImportError:
        print("no matplotlib: cluster.png is left as it is")
    else:
        draw(results, folder / "cluster.png")
    told = {**results["machine"], **{f"version of {name}": value for name, value in results["versions"].items()}}
    if results["quick"]:
        told["**a quick run**"] = "few turns, small sizes; not to be quoted"
    measured = [workload for name, workload in WORKLOADS.items() if engines_of(name, results)]
    parts = [
        "# On a cluster: what it costs beside the bare engine\n",
        METHOD + "\n",
        "\n".join(f"* {name}: {value}" for name, value in told.items()) + "\n",
        "![exoflow, the bare engines and Ray Workflows](cluster.png)\n",
        "## In short\n",
        summary(measured, results),
        "## What falls short, and why\n",
        shortfalls(measured, results),
        "## Each workload\n",
        *(
            f"### {workload.title}\n\n{workload.method}\n\n"
            + table(workload, results, engines_of(workload.name, results))
            for workload in measured
        ),
    ]
    (folder / "CLUSTER.md").write_text("\n".join(parts))
    print("wrote CLUSTER.md")


def engines_of(name: str, results: Results) -> list[str]:
    """The engines on which there are figures of a workload."""
    return [engine for engine in ENGINES if results["results"].get(f"{engine}.{name}")]


def ratio(key: str, figure: Figure, system: str, against: Sequence[str], results: Results) -> Spread | None:
    """How many times what the others have together, by medians of the same turn; None where it cannot be told."""
    others = [of_turns(key, figure.name, other, results) for other in against]
    values = []
    for turn, ours in of_turns(key, figure.name, system, results).items():
        theirs = [other[turn] for other in others if turn in other]
        if others and len(theirs) == len(others) and sum(theirs) > 0:
            values.append(ours / sum(theirs))
    return Spread(statistics.median(values), min(values), max(values)) if values else None


def reached(bound: Bound, key: str, figure: Figure, results: Results) -> bool | None:
    """Whether the median keeps the bound; None where it cannot be told."""
    if bound.bound is None:
        return None
    if bound.against:
        found = ratio(key, figure, bound.system, bound.against, results)
    else:
        found = spread(key, figure.name, bound.system, results)
    if found is None:
        return None
    return found.median >= bound.bound if figure.larger_is_better else found.median <= bound.bound


def missed(workload: Workload, engine: str, results: Results) -> list[tuple[Figure, Bound]]:
    """The bounds of a workload that we do not keep on an engine."""
    return [
        (figure, bound)
        for figure in workload.figures
        for bound in figure.goals
        if reached(bound, f"{engine}.{workload.name}", figure, results) is False
    ]


def value_words(found: Spread | None) -> str:
    """A median and its bounds."""
    return f"{number(found.median)} ({number(found.least)}–{number(found.most)})" if found else "–"


def ratio_words(found: Spread | None) -> str:
    """A ratio and its bounds."""
    return f"{found.median:.2f}× ({found.least:.2f}–{found.most:.2f})" if found else "–"


def goal_words(bound: Bound, figure: Figure) -> str:
    """A bound, to be read."""
    if bound.bound is None:
        return "–"
    sign = "≥" if figure.larger_is_better else "≤"
    if not bound.against:
        return f"{sign} {bound.bound:g} {figure.unit}"
    return f"{sign} {bound.bound:g}× {' and '.join(TITLES[system] for system in bound.against)}"


def verdict(bound: Bound, key: str, figure: Figure, results: Results) -> str:
    """Whether a goal is reached, in a word."""
    if bound.bound is None:
        return "–"
    return {True: "yes", False: "**no**", None: "not known"}[reached(bound, key, figure, results)]


def summary(measured: Sequence[Workload], results: Results) -> str:
    """A line for each goal, and for each ratio that is told without one."""
    lines = [
        [
            f"{ENGINES[engine]}: {workload.title[0].lower()}{workload.title[1:]}, {figure.title}",
            TITLES[bound.system],
            f"{value_words(spread(key, figure.name, bound.system, results))} {figure.unit}",
            " and ".join(TITLES[system] for system in bound.against) or "itself",
            " + ".join(value_words(spread(key, figure.name, system, results)) for system in bound.against) or "–",
            ratio_words(ratio(key, figure, bound.system, bound.against, results)),
            goal_words(bound, figure),
            verdict(bound, key, figure, results),
        ]
        for workload in measured
        for engine in engines_of(workload.name, results)
        for key in [f"{engine}.{workload.name}"]
        for figure in workload.figures
        for bound in figure.goals
    ]
    return rows(["work", "as", "exoflow", "against", "which has", "ratio", "goal", "reached"], lines)


def table(workload: Workload, results: Results, engines: Sequence[str]) -> str:
    """Every figure of a workload, a row for each system, a pair of columns for each engine."""
    blocks = []
    for figure in workload.figures:
        lines = []
        for system in workload.systems:
            words = [TITLES[system]]
            for engine in engines:
                key = f"{engine}.{workload.name}"
                words.append(value_words(spread(key, figure.name, system, results)))
                if BARE in workload.systems:
                    against = () if system == BARE else (BARE,)
                    words.append(ratio_words(ratio(key, figure, system, against, results)))
                if WORKFLOWS.name in workload.systems:
                    against = () if system == WORKFLOWS.name else (WORKFLOWS.name,)
                    words.append(ratio_words(ratio(key, figure, system, against, results)))
            if any(word != "–" for word in words[1:]):
                lines.append(words)
        header = [f"{figure.title}, {figure.unit}"]
        for engine in engines:
            header += [ENGINES[engine]]
            header += ["× bare"] * (BARE in workload.systems) + [f"× {WORKFLOWS.title}"] * (
                WORKFLOWS.name in workload.systems
            )
        if lines:
            blocks.append(rows(header, lines))
    return "\n".join(blocks) or "no figures\n"


def shortfalls(measured: Sequence[Workload], results: Results) -> str:
    """Each goal that is missed, by how much, and what the profiles say."""
    parts = []
    for workload in measured:
        for engine in engines_of(workload.name, results):
            key = f"{engine}.{workload.name}"
            for figure, bound in missed(workload, engine, results):
                if bound.against:
                    words = ratio_words(ratio(key, figure, bound.system, bound.against, results))
                else:
                    words = f"{value_words(spread(key, figure.name, bound.system, results))} {figure.unit}"
                where = f"{ENGINES[engine]}, {workload.title}, {TITLES[bound.system]}"
                parts.append(f"* **{where}**: {figure.title} {words}; goal {goal_words(bound, figure)}.\n")
            if (found := results["profiles"].get(key)) is not None:
                parts.append(f"{found['note']} Of the driver alone.\n\n{rows(found['rows'][0], found['rows'][1:])}")
        if workload.name in WHY:
            parts.append(WHY[workload.name] + "\n")
    absent = [key for key in keys() if key not in results["results"]]
    parts += [f"* Not measured: {why}\n" for why in results["errors"]]
    parts += [f"* There are no figures of {', '.join(absent)}.\n"] if absent else []
    return "\n".join(parts) or "Every goal is reached.\n"
