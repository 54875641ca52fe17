"""cluster.png: each workload on both engines, beside the bare engine."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from chart import INK, LIMIT_COLOUR, OUR_COLOUR, PEER_COLOUR, bars
from cluster_workloads import AGAIN, ALONE, BARE, DISK, ENGINES, MODES, PLACES, TITLES, WORKFLOWS, WORKLOADS
from figures import Results, entries, spread
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

AGAIN_COLOUR, DISK_COLOUR = "#e9a3ad", "#22252b"
COLOURS = {BARE: LIMIT_COLOUR, ALONE: OUR_COLOUR, AGAIN: AGAIN_COLOUR, DISK: DISK_COLOUR, WORKFLOWS.name: PEER_COLOUR}
BOTH = (BARE, ALONE, AGAIN)

PANELS = (  # workload, figure, systems, title
    ("fanout", "tasks_per_s", BOTH, "1,000 no-ops, tasks a second"),
    ("fanout_10ms", "tasks_per_s", BOTH, "400 tasks of 10 ms, tasks a second"),
    ("array", "s", (*BOTH, DISK), "100 MB between two tasks, s"),
    ("array_1gb", "s", (*BOTH, DISK), "1 GB between two tasks, s"),
    ("shuffle", "s", BOTH, "shuffle of 50×50, s"),
    ("by_reference", "growth_trace_mb", BOTH, "10 GB by reference: MB more in the driver"),
    ("chain", "step_ms", (BARE, ALONE, WORKFLOWS.name), "chain of 100 tasks, ms a step"),
    ("reduce", "tasks_per_s", (BARE, ALONE, WORKFLOWS.name), "1,000 tasks and reduce, tasks a second"),
    ("train", "s", MODES, "training by checkpoint mode, s"),
    ("train", "recovery_s", PLACES, "time to recover, s"),
)


def draw(results: Results, path: Path) -> None:
    """Draw the panels of which there are figures."""
    mpl.rcParams.update({"font.family": "DejaVu Sans", "font.size": 9, "text.color": INK, "axes.labelcolor": INK})
    drawn = [panel for panel in PANELS if measured(panel, results)]
    if not drawn:
        return
    lines = (len(drawn) + 1) // 2
    canvas = Canvas(figsize=(12, 0.8 + 2.4 * lines), layout="constrained", facecolor="white")
    axes = canvas.subplots(lines, 2, squeeze=False)
    for axis, panel in zip(axes.flat, drawn, strict=False):
        (draw_trace if "_trace_" in panel[1] else draw_bars)(axis, panel, results)
    for axis in axes.flat[len(drawn) :]:
        axis.set_visible(False)
    title = "On a cluster: exoflow beside the bare engine, in one run"
    canvas.suptitle(title, x=0.012, ha="left", size=13, weight="bold")
    canvas.savefig(path, dpi=150)
    print(f"wrote {path.name}")


def measured(panel: tuple, results: Results) -> list[tuple[str, str]]:
    """Engine and system of each thing in a panel."""
    workload, figure, systems, _ = panel
    return [
        (engine, system)
        for engine in ENGINES
        for system in systems
        if spread(f"{engine}.{workload}", figure, system, results)
    ]


def draw_bars(axis: Axes, panel: tuple, results: Results) -> None:
    """A bar for each system on each engine."""
    workload, figure, _, title = panel
    names, values, ends, colours = [], [], [], []
    for engine, system in measured(panel, results):
        found = spread(f"{engine}.{workload}", figure, system, results)
        assert found is not None
        names.append(TITLES[system] if system in (DISK, WORKFLOWS.name) else f"{ENGINES[engine]}: {TITLES[system]}")
        values.append(found.median)
        ends.append(max(found.most, found.median))
        colours.append(COLOURS.get(system, OUR_COLOUR))
    bars(axis, [name.replace("the bare engine", "bare") for name in names], values, ends, colours)
    axis.set_title(title, loc="left", size=10, weight="bold")


def draw_trace(axis: Axes, panel: tuple, results: Results) -> None:
    """A line for each system on each engine, from the beginning of its work to the end."""
    workload, figure, _, title = panel
    for engine, system in measured(panel, results):
        trace = entries(f"{engine}.{workload}", figure, system, results)[-1]["samples"]
        places = [100 * place / max(1, len(trace) - 1) for place in range(len(trace))]
        style = "-" if engine == "ray" else "--"
        label = f"{ENGINES[engine]}: {TITLES[system].replace('the bare engine', 'bare')}"
        axis.plot(places, trace, style, color=COLOURS[system], linewidth=1.2, label=label)
    goal = WORKLOADS[workload].figures[0].goals[0].bound
    axis.axhline(goal, color="#6b7280", linestyle=":", linewidth=1.1)
    axis.annotate("goal", (100, goal), xytext=(-2, 2), textcoords="offset points", ha="right", va="bottom", size=7.5)
    axis.set_ylim(min(-5, axis.get_ylim()[0]), max(1.15 * goal, axis.get_ylim()[1]))
    axis.set_xlabel("% of the time", size=7.5)
    axis.legend(fontsize=7, frameon=False, ncols=2)
    axis.set_title(title, loc="left", size=10, weight="bold")
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=7.5, colors="#6b7280")
