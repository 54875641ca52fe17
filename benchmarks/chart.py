"""core.png: the workloads that a person would want to look at, a panel each, on a log scale."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from figures import Results, number, quotient, source, spread
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from systems import LIMIT, OURS, PEERS, SYSTEMS
from workloads import WORKLOADS

OUR_COLOUR, PEER_COLOUR, LIMIT_COLOUR, INK = "#d1495b", "#b8c0cc", "#30638e", "#22252b"

PANELS = (  # workload, figure, title, unit, from the figure to a time or an amount: shorter is better everywhere
    ("chain", "step_ms", "Chain of 100 steps", "µs a step", lambda ms: ms * 1e3),
    ("fanout", "tasks_per_s", "Fan-out of 1,000 tasks", "µs a task", lambda rate: 1e6 / rate),
    ("one", "flow_ms", "One flow of one step", "ms", lambda ms: ms),
    ("flows", "flows_per_s", "1,000 flows of one step, from threads", "µs a flow", lambda rate: 1e6 / rate),
    ("array", "s", "100 MB between two steps", "ms", lambda s: s * 1e3),
    ("array", "written_mb", "Bytes written for these 100 MB", "MB", lambda mb: mb),
    ("crash", "first_step_s", "Restart after kill -9, to the next step", "ms", lambda s: s * 1e3),
    ("import", "import_ms", "Import", "ms", lambda ms: ms),
)


def draw(results: Results, path: Path) -> None:
    """Draw the panels of which there are figures."""
    mpl.rcParams.update({"font.family": "DejaVu Sans", "font.size": 9, "text.color": INK, "axes.labelcolor": INK})
    drawn = [panel for panel in PANELS if spread(panel[0], panel[1], OURS, results)]
    if not drawn:
        return
    lines = (len(drawn) + 1) // 2
    canvas = Canvas(figsize=(11, 0.75 + 1.95 * lines), layout="constrained", facecolor="white")
    axes = canvas.subplots(lines, 2, squeeze=False)
    for axis, panel in zip(axes.flat, drawn, strict=False):
        draw_panel(axis, panel, results)
    for axis in axes.flat[len(drawn) :]:
        axis.set_visible(False)
    canvas.get_layout_engine().set(hspace=0.09, wspace=0.06, rect=(0.005, 0.005, 0.99, 0.915))
    canvas.text(0.012, 0.985, "Durable steps: exoflow and its peers, in one run", size=13, weight="bold", va="top")
    note = (
        "log scale, shorter is better · median, thin line from least to most · × times as much as exoflow · "
        + results["machine"]["processor"]
    )
    canvas.text(0.012, 0.985 - 0.3 / canvas.get_figheight(), note, size=8.5, va="top", alpha=0.75)
    canvas.savefig(path, dpi=150)
    print(f"wrote {path.name}")


def round_two(value: float) -> str:
    """Two digits, thousands apart: a ratio of noisy figures knows no more."""
    return f"{float(f'{value:.2g}'):,g}"


def draw_panel(axis: Axes, panel: tuple, results: Results) -> None:
    """One workload: a bar for each system that does it, a dashed line for the machine alone."""
    workload, figure, title, unit, convert = panel
    described = next(item for item in WORKLOADS[workload].figures if item.name == figure)
    found = []
    for name in (OURS, *PEERS):
        value = spread(source(WORKLOADS[workload], described, name), figure, name, results)
        if value is not None and value.median > 0:
            found.append((name, *(convert(x) for x in (value.median, value.least, value.most))))
    alone = spread(workload, figure, LIMIT, results)
    limit = convert(alone.median) if alone and alone.median > 0 else None
    values = [x for _, median, least, most in found for x in (median, least, most)] + ([limit] if limit else [])
    left, right = min(values) / 2.2, max(values)
    axis.set_xscale("log")
    axis.set_xlim(left, right * (right / left) ** 0.6)
    for row, (name, median, least, most) in enumerate(found):
        ours = name == OURS
        axis.barh(row, median - left, left=left, height=0.62, color=OUR_COLOUR if ours else PEER_COLOUR)
        axis.plot(sorted((least, most)), [row, row], color=INK, linewidth=0.9, alpha=0.55)
        ratio = None if ours else quotient(WORKLOADS[workload], described, name, results)
        times = f"   {round_two(ratio.median)}×" if ratio else ""
        axis.annotate(
            f"{number(median)} {unit}{times}",
            (max(median, least, most), row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            weight="bold" if ours else "normal",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        ).set_in_layout(False)
    if limit:
        axis.axvline(limit, color=LIMIT_COLOUR, linestyle=(0, (4, 3)), linewidth=1.1)
        axis.annotate(
            f"machine alone {number(limit)}",
            (limit, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, -1),
            textcoords="offset points",
            va="bottom",
            size=7.5,
            color=LIMIT_COLOUR,
        )
    axis.set_yticks(range(len(found)), [SYSTEMS[name].title for name, *_ in found])
    axis.set_ylim(len(found) - 0.4, -0.6)
    axis.set_title(title, loc="left", size=10, weight="bold", pad=13)
    axis.xaxis.set_major_locator(LogLocator(10))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", which="both", labelsize=7.5, colors="#6b7280")


def bars(
    axis: Axes, names: Sequence[str], values: Sequence[float], ends: Sequence[float], colours: Sequence[str]
) -> None:
    """A bar for each name on a linear scale, its value behind it, and a thin line to where it may end."""
    axis.barh(range(len(names)), values, height=0.62, color=colours)
    for place, (value, end) in enumerate(zip(values, ends, strict=True)):
        axis.plot([value, end], [place, place], color=INK, linewidth=0.9, alpha=0.55)
        axis.annotate(number(value), (end, place), xytext=(5, 0), textcoords="offset points", va="center")
    axis.set_xlim(0, 1.15 * max(ends))
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelsize=7.5, colors="#6b7280")
