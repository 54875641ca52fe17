"""How runs are drawn: lines over time, a panel each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

GREY = "#6b7280"
COLOURS = ("#30638e", "#d1495b", "#edae49", "#66a182", "#8d6a9f", "#2e4057", "#b5651d", "#7a7a7a")


def sheet(columns: int, title: str = "") -> tuple[Figure, list[Axes]]:
    """Panels side by side."""
    figure = Figure(figsize=(11, 3.9), layout="constrained", facecolor="white")
    if title:
        figure.suptitle(title, x=0.012, ha="left", size=12, weight="bold")
    return figure, list(figure.subplots(1, columns, squeeze=False).flat)


def draw(
    axis: Axes, title: str, times_s: Sequence[float], values: Mapping[str, Sequence[float]], *, marker: str = ""
) -> None:
    """A line for each name."""
    for number, (name, line) in enumerate(values.items()):
        colour = COLOURS[number % len(COLOURS)]
        axis.plot(times_s, line, color=colour, linewidth=1.4, marker=marker, markersize=3, label=name)
    axis.set_title(title, loc="left", size=10)
    axis.set_xlabel("s", size=8, color=GREY)
    axis.set_xlim(0, max(times_s, default=1.0))
    axis.yaxis.set_major_formatter("{x:,.0f}")
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8, colors=GREY)
    if len(values) > 1:
        axis.legend(frameon=False, fontsize=8, ncols=1 + len(values) // 5)
