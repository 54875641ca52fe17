"""RESULTS.md out of the raw results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from figures import (
    Results,
    best_peer,
    goal_words,
    measured,
    missed,
    number,
    present,
    quotient,
    reached,
    source,
    spread,
)
from systems import LIMIT, OURS, SYSTEMS
from workloads import Figure, Workload

METHOD = """\
`python benchmarks/core.py` wrote this page. One run measured everything on it, on one machine that was doing
nothing else that we know of. Each measurement is a new process in a new folder; the systems take turns and each
turn begins with another one. A value is the median of the turns' medians, with the least and the most of all
samples in brackets. A ratio compares measurements of the same turn: its median, with the least and the most of
the turns in brackets. Above 1× exoflow is better. Each peer does the work in its own idiom and, where it has a
choice, in the setting that is best for it (below). kill -9 is no power cut: what a system without fsync would
lose then is not seen here.

On a cluster (Ray, Dask, large values, training): [CLUSTER.md](CLUSTER.md). A reservation service:
[SERVERLESS.md](SERVERLESS.md). The multi-LoRA engine on a CPU: [ENGINE_CPU.md](ENGINE_CPU.md). LLM calls:
[CALLS.md](CALLS.md). Fairness: [FAIRNESS.md](FAIRNESS.md)."""


def write_report(results: Results, folder: Path) -> None:
    """Write RESULTS.md and, where matplotlib is installed, core.png."""
    try:
        from chart import draw
    except ImportError:
        print("no matplotlib: core.png is left as it is")
    else:
        draw(results, folder / "core.png")
    parts = [
        "# How fast it is\n",
        METHOD + "\n",
        machine(results),
        "![exoflow and its peers, log scale, shorter is better](core.png)\n",
        "## In short\n",
        summary(results),
        "## What falls short\n",
        shortfalls(results),
        "## Each workload\n",
        *(f"### {workload.title}\n\n{workload.method}\n\n{table(workload, results)}" for workload in measured(results)),
        "## The systems\n",
        systems(results),
    ]
    (folder / "RESULTS.md").write_text("\n".join(parts))
    print("wrote RESULTS.md")


def machine(results: Results) -> str:
    """The machine and the date, as a list."""
    lines = [f"* {name}: {value}" for name, value in results["machine"].items()]
    if results["quick"]:
        lines.append("* **a quick run**: few turns, small sizes; not to be quoted")
    return "\n".join(lines) + "\n"


def rows(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    rule = ["--", *["--:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *lines]) + "\n"


def summary(results: Results) -> str:
    """One line for each figure: us, the best peer, the machine, the goals."""
    lines = []
    for workload in measured(results):
        for figure in workload.figures:
            ours = spread(workload.name, figure.name, OURS, results)
            if ours is not None:
                peer = best_peer(workload, figure, results)
                lines.append(
                    [
                        figure.title,
                        f"**{number(ours.median)} {figure.unit}**",
                        against(workload, figure, peer, results) if peer else "–",
                        ratio_words(workload, figure, peer, results) if peer else "–",
                        slower_words(workload, figure, results),
                        "; ".join(goal_words(goal, figure) for goal in figure.goals) or "–",
                        verdict(workload, figure, results),
                    ]
                )
    return rows(["work", "exoflow", "best peer", "better by", "machine alone", "goal", "reached"], lines)


def against(workload: Workload, figure: Figure, peer: str, results: Results) -> str:
    """The best peer's name and value."""
    value = spread(source(workload, figure, peer), figure.name, peer, results)
    return f"{SYSTEMS[peer].title}: {number(value.median)}" if value else "–"


def ratio_words(workload: Workload, figure: Figure, system: str, results: Results) -> str:
    """A ratio and its bounds."""
    ratio = quotient(workload, figure, system, results)
    return f"{number(ratio.median)}× ({number(ratio.least)}–{number(ratio.most)})" if ratio else "–"


def slower_words(workload: Workload, figure: Figure, results: Results) -> str:
    """What the machine does alone, and how many times that we take."""
    alone = spread(workload.name, figure.name, LIMIT, results)
    ratio = quotient(workload, figure, LIMIT, results)
    return f"{number(alone.median)}; we take {number(1 / ratio.median)}×" if alone and ratio else "–"


def verdict(workload: Workload, figure: Figure, results: Results) -> str:
    """Whether all goals of a figure are reached."""
    answers = [reached(goal, workload, figure, results) for goal in figure.goals]
    if not answers:
        return "–"
    if False in answers:
        return "**no**"
    return "not known" if None in answers else "yes"


def table(workload: Workload, results: Results) -> str:
    """All systems on one workload."""
    blocks = []
    for figure in workload.figures:
        lines = []
        for name in present(workload, results):
            origin = source(workload, figure, name)
            value = spread(origin, figure.name, name, results)
            if value is not None:
                words = f"{number(value.median)} ({number(value.least)}–{number(value.most)})"
                ratio = "1" if name == OURS else ratio_words(workload, figure, name, results)
                title = SYSTEMS[name].title + (f" ({origin})" if origin != workload.name else "")
                lines.append([title, words, ratio])
        if lines:
            blocks.append(rows([figure.title, figure.unit, "exoflow is better by"], lines))
    return "\n".join(blocks) or "no figures\n"


def shortfalls(results: Results) -> str:
    """Each goal that is missed, by how much, and the profile of the workload."""
    parts = []
    for workload in measured(results):
        for figure, goal in missed(workload, results):
            ours = spread(workload.name, figure.name, OURS, results)
            if ours is not None:
                parts.append(
                    f"* **{figure.title}**: {number(ours.median)} {figure.unit}; goal {goal_words(goal, figure)}.\n"
                )
        if missed(workload, results) and workload.name in results["profiles"]:
            parts.append(profile(workload, results))
    parts += [f"* Not measured: {why}\n" for why in results["errors"]]
    return "\n".join(parts) or "Every goal that was measured is reached.\n"


def profile(workload: Workload, results: Results) -> str:
    """Where our time, or our memory, goes in a workload."""
    found = results["profiles"][workload.name]
    return f"{found['note']}\n\n{rows(found['rows'][0], found['rows'][1:])}"


def systems(results: Results) -> str:
    """How each system was set up, and the versions that pip gave."""
    lines = []
    for name, told in results["systems"].items():
        packages = ", ".join(f"{package} {version}" for package, version in told["versions"].items())
        lines.append([SYSTEMS[name].title, told["settings"], packages or "–"])
    return rows(["system", "as measured", "packages"], lines).replace("--:", "--")
