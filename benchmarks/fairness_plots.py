"""plots/fairness-*: who got what under which policy, as PNG and SVG."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from fairness_workloads import BOUND, COST, RETURN, VTC, eight, lead, overload, restart, returner, run, serve, weighted
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from exoflow.llm.fair import Result
from exoflow.llm.fair.plots import COLOURS, GREY, draw, sheet
from exoflow.llm.fair.result import CENTRES_S

INK = "#22252b"
SHOWN = ("FCFS", "VTC", "VTC, ±50 % prediction", "VTC, oracle")
WORTH = "service so far, tokens' worth"


def draw_all(folder: Path) -> None:
    mpl.rcParams.update({"font.family": "DejaVu Sans", "font.size": 9, "text.color": INK, "svg.hashsalt": "exoflow"})
    folder.mkdir(parents=True, exist_ok=True)
    drawings = {
        "fairness-service": service,
        "fairness-difference": difference,
        "fairness-eight": eight_clients,
        "fairness-restart": restarts,
        "fairness-returner": returns,
        "fairness-weights": weights,
    }
    for name, made in drawings.items():
        canvas = made()
        canvas.savefig(folder / f"{name}.png", dpi=150)
        canvas.savefig(folder / f"{name}.svg", metadata={"Date": None})
        print(f"wrote {name}")


def service() -> Canvas:
    canvas, axes = sheet(4, f"Two clients that ask for 1.5 and 3 requests a second: {WORTH}")
    for axis, policy in zip(axes, SHOWN, strict=True):
        times_s, got = run(overload(), policy).history(600)
        draw(axis, policy, times_s, {f"{rate} a second": got[client] for client, rate in (("1", 1.5), ("2", 3))})
        axis.set_ylim(0, 600_000)
        arrivals_end(axis)
    return canvas


def difference() -> Canvas:
    canvas, (windows, sums) = sheet(2, "Two clients, overload: how unequal the service is")
    draw_both(windows, sums, {policy: run(overload(), policy) for policy in SHOWN})
    sums.set_yscale("log")
    sums.yaxis.set_major_formatter("{x:,.0f}")
    sums.axhline(2 * BOUND, color=GREY, linestyle=":", linewidth=1)
    sums.annotate("2U", (30, 2 * BOUND), xytext=(0, 2), textcoords="offset points", size=8, color=GREY)
    return canvas


def eight_clients() -> Canvas:
    title = "Eight clients, three at 0.4 and five at 0.6 requests a second: the windows and the sums disagree"
    canvas, (windows, sums) = sheet(2, title)
    draw_both(windows, sums, {policy: run(eight(8), policy) for policy in SHOWN})
    sums.set_ylim(bottom=0)
    return canvas


def draw_both(windows: Axes, sums: Axes, results: dict[str, Result]) -> None:
    """Both measures of how unequal the service is."""
    differences = {name: result.differences for name, result in results.items()}
    draw(windows, "D: difference of service rates in ±30 s, a second", CENTRES_S, differences, marker="o")
    windows.set_ylim(bottom=0)
    accumulated = {name: [*map(result.accumulated_difference, CENTRES_S)] for name, result in results.items()}
    draw(sums, "accumulated: who got most less who got least", CENTRES_S, accumulated, marker="o")
    arrivals_end(windows)
    sums.axvline(360, color=GREY, linestyle=":", linewidth=1)


def restarts() -> Canvas:
    canvas, axes = sheet(3, "A newcomer and an old client come to an idle system, at 260 s")
    results = {"without the lift": run(restart(), "LCF (no lift)"), "with the lift": run(restart(), "VTC")}
    for axis, (name, result) in zip(axes, results.items(), strict=False):
        draw(axis, f"{name}: {WORTH}", *result.history(500))
        axis.axvline(260, color=GREY, linestyle=":", linewidth=1)
        axis.set_ylim(0, 420_000)
    for name, result, colour in zip(results, results.values(), (COLOURS[1], COLOURS[0]), strict=True):
        axes[2].plot(*zip(*lead(result, "new", "old", 265), strict=True), color=colour, linewidth=1.4, label=name)
    axes[2].axhspan(-2 * BOUND, 2 * BOUND, color=GREY, alpha=0.12, linewidth=0, label="within 2U")
    draw(axes[2], "the newcomer's lead while both wait", (600.0,), {})
    axes[2].set_xlim(265, 600)
    axes[2].legend(frameon=False, fontsize=8)
    return canvas


def returns() -> Canvas:
    canvas, axes = sheet(3, "Away from 60 to 300 s, then back: service a second, in windows of 30 s")
    for axis, policy in zip(axes, ("FCFS", "LCF (no lift)", "VTC"), strict=True):
        result = run(returner(), policy)
        times_s = range(15, 600, 15)
        rates = {who: [result.service(who, at - 15, at + 15) / 30 for at in times_s] for who in result.clients}
        draw(axis, policy, times_s, rates)
        axis.axvspan(*RETURN, color=GREY, alpha=0.12, linewidth=0)
        axis.set_xlabel("s; shaded: where the share is taken")
        axis.set_ylim(0, 1_700)
    return canvas


def weights() -> Canvas:
    canvas, axes = sheet(2, "Four clients that ask for the same, 1.6 requests a second each")
    policy = VTC(COST, weights={f"weight {weight}": weight for weight in range(1, 5)})
    results = {"without weights": run(weighted(), "VTC"), "weights 1 : 2 : 3 : 4": serve(weighted(), policy)}
    for axis, (name, result) in zip(axes, results.items(), strict=True):
        draw(axis, f"{name}: {WORTH}", *result.history(360))
        axis.set_ylim(0, 200_000)
    return canvas


def arrivals_end(axis: Axes) -> None:
    axis.axvline(360, color=GREY, linestyle=":", linewidth=1)
    top = axis.get_ylim()[1]
    axis.annotate("arrivals end", (360, top), xytext=(3, -3), textcoords="offset points", size=7, color=GREY, va="top")
