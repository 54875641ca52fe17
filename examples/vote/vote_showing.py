"""What votes get right: a table, the picture, what was asked again, and what all that was worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from exoflow.llm import FilterVote, Log, Vote, curve, fit_scaling, plan
from exoflow.llm.planning import Curve, Point
from vote_asked import Asked
from vote_tasks import TASKS

VOTE, FILTERED, CHOSEN, FITTED = "#0072B2", "#009E73", "#D55E00", "#6E6E6E"  # Okabe and Ito's
VALUE_USD = 0.0005
"""What a right answer is worth, for the plan: some thirty calls."""


def show(
    logs: Mapping[str, Log],
    taken: Sequence[tuple[str, Vote, FilterVote]],
    asked: Asked,
    folder: Path,
    console: Console,
) -> None:
    """All of it; the picture goes into ``votes.png`` and ``votes.svg``."""
    votes = {name: curve(log) for name, log in logs.items()}
    filtered = {name: curve(log, rule="filter_vote") for name, log in logs.items() if TASKS[name].judge}
    console.print(_table(logs, votes, filtered))
    console.print(_plans(logs))
    for question, plain, judged in taken:
        how = "none passed: all voted" if judged.fell_back else f"{judged.n_passed} of {len(judged.samples)} passed"
        console.print(f"{question}: vote {_said(plain)}; filter-vote {_said(judged)}, {how}", highlight=False)
    _tell_asked(logs, taken, asked, console)
    _draw(logs, votes, filtered, folder)
    console.print(f"The picture: {folder / 'votes.png'}, and votes.svg beside it; each sample: *.jsonl there.")


def _table(logs: Mapping[str, Log], votes: Mapping[str, Curve], filtered: Mapping[str, Curve]) -> Table:
    of_all = next(iter(votes.values())).ks
    shown = sorted({k for k in (1, 3, 11, 21) if k in of_all} | {of_all[-1]})
    title = "How often a vote of K is right, with 95 % intervals over questions; filtered: of those that a rule passes"
    table = Table(title=title, title_justify="left")
    table.add_column("task")
    for k in shown:
        table.add_column(f"K = {k}", justify="right", no_wrap=True)
    table.add_column("enough:\n1 s.e. rule", justify="right")
    table.add_column("best by the\nfitted law", justify="right")
    for name, each in votes.items():
        law = fit_scaling(logs[name])
        best = "none" if any("no best k" in said for said in law.cautions) else str(law.best_k().k)
        table.add_row(name, *(_accuracy(each[k]) for k in shown), str(each.best_k().k), best)
        if name in filtered:
            judged = filtered[name]
            table.add_row("  filtered", *(_accuracy(judged[k]) for k in shown), str(judged.best_k().k), "")
    return table


def _accuracy(point: Point) -> str:
    return f"{point.accuracy:.3f} {point.low:.2f}–{point.high:.2f}"


def _plans(logs: Mapping[str, Log]) -> Table:
    table = Table(
        title=f"If a right answer were worth ${VALUE_USD:.4f}, at $0.15 and $0.60 for a million tokens",
        title_justify="left",
    )
    for head in ("task", "best K", "it may be", "USD for 1,000 questions", "gain for 1,000 against K = 1"):
        table.add_column(head, justify="left" if head == "task" else "right")
    for name, log in logs.items():
        found = plan(log, VALUE_USD)
        row, (low, high) = found.best, found.best_range
        gain = f"{1000 * row.gain:+.4f} [{1000 * row.gain_range.low:+.4f}, {1000 * row.gain_range.high:+.4f}]"
        table.add_row(name, str(row.k), f"{low} to {high}", f"{1000 * row.usd:.4f}", gain)
    return table


def _said(found: Vote | FilterVote) -> str:
    counts = ", ".join(f"{answer} {count}" for answer, count in found.counts.items())
    return f"“{found.answer}” ({counts})"


def _tell_asked(
    logs: Mapping[str, Log], taken: Sequence[tuple[str, Vote, FilterVote]], asked: Asked, console: Console
) -> None:
    needed = sum(map(len, logs.values())) + sum(plain.n_calls + judged.n_calls for _, plain, judged in taken)
    lives = asked.by_process()
    told = ", ".join(f"{count:,} by process {process}" for process, count in lives.items())
    console.print(f"\n{needed:,} calls were needed; the engine was given {lives.total():,}: {told}.", highlight=False)
    why = "They were in the engine when a process died; what was answered was kept." if len(lives) > 1 else ""
    console.print(f"Asked twice: {lives.total() - needed}. {why}", highlight=False)


def _draw(logs: Mapping[str, Log], votes: Mapping[str, Curve], filtered: Mapping[str, Curve], folder: Path) -> None:
    figure = Figure(figsize=(12, 7.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    *all_axes, last = figure.subplots(2, 3, sharex=True, sharey=True).flat
    for axes, (name, each) in zip(all_axes, votes.items(), strict=True):
        if name in filtered:
            _line(axes, filtered[name], FILTERED, "s", "Filter-Vote, judged by a rule")
        _line(axes, each, VOTE, "o", "Vote")
        law = fit_scaling(logs[name])
        ks = range(1, each.ks[-1] + 1, 2)
        axes.plot(ks, law.predict(ks), color=FITTED, lw=1, ls="--", label="the scaling law, fitted to Vote", zorder=3)
        k, (low, high) = each.best_k()
        axes.plot([k], [each[k].accuracy], marker="D", ms=11, mfc="none", mec=CHOSEN, mew=2, ls="", zorder=5,
                  label="the fewest calls within 1 s.e. of the best")  # fmt: skip
        axes.set_title(TASKS[name].title, loc="left", fontsize=10)
        axes.text(0.98, 0.03, f"K = {k}, in [{low}, {high}] when questions are resampled", transform=axes.transAxes,
                  ha="right", fontsize=8, color=CHOSEN)  # fmt: skip
        axes.grid(visible=True, axis="y", color="#DDDDDD", lw=0.7)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in all_axes[2:]:
        axes.set_xlabel("calls of the model for a question")
        axes.xaxis.set_tick_params(labelbottom=True)
    for axes in (all_axes[0], all_axes[3]):
        axes.set_ylabel("accuracy")
    items = next(iter(votes.values())).items
    last.axis("off")
    last.legend(*all_axes[0].get_legend_handles_labels(), loc="upper left", frameon=False, fontsize=10)
    model = f"SmolLM2-135M-Instruct, temperature 0.8,\n{items} questions a task. Bands: 95 %, over questions."
    last.text(0.02, 0.42, model, transform=last.transAxes, fontsize=9, va="top")
    figure.suptitle("What more calls get right", x=0.01, ha="left", fontsize=14)
    with mpl.rc_context({"svg.hashsalt": "exoflow", "svg.fonttype": "none"}):  # the same picture is the same file
        figure.savefig(folder / "votes.png")
        figure.savefig(folder / "votes.svg", metadata={"Date": None})


def _line(axes: Axes, each: Curve, color: str, marker: str, label: str) -> None:
    """By samples: a rule that judges calls nobody."""
    low, high = [point.low for point in each.points], [point.high for point in each.points]
    axes.fill_between(each.ks, low, high, color=color, alpha=0.13, lw=0)
    axes.plot(each.ks, [p.accuracy for p in each.points], color=color, marker=marker, ms=3.5, lw=1.6, label=label)
