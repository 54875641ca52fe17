"""Drawings of simulated runs."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from exoflow.llm.fair.result import CENTRES_S, Result

GREY = "#6b7280"
COLOURS = ("#30638e", "#d1495b", "#edae49", "#66a182", "#8d6a9f", "#2e4057", "#b5651d", "#7a7a7a")
POINTS = 200


def overview(result: Result) -> Figure:
    """Accumulated service by client, and D."""
    figure = Figure(figsize=(10, 4), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    draw_service(left, result)
    draw_differences(right, [("D", result)])
    return figure


def draw_service(axis: Axes, result: Result, end_s: float | None = None) -> None:
    """A line for each client: what it has got so far."""
    end_s = result.finish_s if end_s is None else end_s
    times = [end_s * number / POINTS for number in range(POINTS + 1)]
    for number, client in enumerate(result.clients):
        got = [result.service(client, 0.0, time_s) / 1000 for time_s in times]
        axis.plot(times, got, color=COLOURS[number % len(COLOURS)], linewidth=1.4, label=client)
    axis.set_xlabel("s")
    axis.set_title("Accumulated service, 1,000 tokens' worth", loc="left", size=10)
    axis.legend(frameon=False, fontsize=8, ncols=1 + len(result.clients) // 5)
    tidy(axis)


def draw_differences(axis: Axes, results: Sequence[tuple[str, Result]]) -> None:
    """A line for each run: how unequal the rates of service are, in windows of a minute."""
    for number, (name, result) in enumerate(results):
        colour = COLOURS[number % len(COLOURS)]
        axis.plot(CENTRES_S, result.differences, color=colour, linewidth=1.4, marker="o", markersize=3, label=name)
    axis.set_xlabel("s")
    axis.set_ylim(bottom=0)
    axis.set_title("D: difference of service rates in ±30 s, a second", loc="left", size=10)
    if len(results) > 1:
        axis.legend(frameon=False, fontsize=8)
    tidy(axis)


def tidy(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8, colors=GREY)
    axis.xaxis.label.set(size=8, color=GREY)
    axis.set_xlim(left=0)
