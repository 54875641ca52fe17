"""Curves as pictures: figures of matplotlib, which can be shown, changed or written as PNG and SVG."""

from __future__ import annotations

from os import PathLike, fspath
from typing import TYPE_CHECKING, Literal

from exoflow.extras import needed
from exoflow.llm.planning.resampling import Choosing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from exoflow.llm.planning.curves import Curve, Point
    from exoflow.llm.planning.scaling import Scaling

# Okabe and Ito's, which people with any colour vision tell apart; shapes tell the same.
BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#6E6E6E"

FORMATS = (".png", ".svg")


def draw_curve(curve: Curve, x: Literal["calls", "usd"], path: str | PathLike[str] | None, rule: Choosing) -> Figure:
    if x not in ("calls", "usd"):
        raise ValueError(f"x is 'calls' or 'usd', not {x!r}")
    figure, axes = _canvas()
    scale = 1.0 if x == "calls" else 1000.0
    at = [scale * (point.calls if x == "calls" else point.usd) for point in curve.points]
    axes.fill_between(
        at,
        [p.low for p in curve.points],
        [p.high for p in curve.points],
        color=BLUE,
        alpha=0.18,
        lw=0,
        label="95 % interval",
    )
    axes.plot(at, [p.accuracy for p in curve.points], color=BLUE, marker="o", ms=4, lw=1.8, label=_name(curve))
    k, (low, high) = curve.best_k(rule)
    _mark(
        axes,
        scale * (curve[k].calls if x == "calls" else curve[k].usd),
        curve[k].accuracy,
        _told(curve[k], rule, low, high),
    )
    axes.locator_params(axis="x", integer=x == "calls")
    axes.set_xlabel("calls for a question" if x == "calls" else "US dollars for 1,000 questions")
    axes.set_title(f"What more calls get right: {curve.items:,} questions", loc="left", fontsize=12)
    _caution(figure, curve.cautions)
    _finish(axes)
    return _written(figure, path)


def draw_scaling(scaling: Scaling, path: str | PathLike[str] | None, rule: Choosing) -> Figure:
    figure, axes = _canvas()
    ks = list(range(1, 2 * len(scaling.task.mean), 2))
    low, high = scaling.task.interval()
    axes.fill_between(ks, low, high, color=BLUE, alpha=0.18, lw=0, label="95 % interval, of the questions alone")
    known = ks.index(scaling.ks[-1]) + 1
    axes.plot(ks[:known], scaling.task.mean[:known], color=BLUE, lw=1.8, label="the model, where it was fitted")
    axes.plot(ks[known - 1 :], scaling.task.mean[known - 1 :], color=BLUE, lw=1.8, ls="--", label="the model, beyond")
    axes.plot(scaling.ks, scaling.measured, color=GREY, ls="", marker="s", ms=5, label="estimated from the log")
    k, (first, last) = scaling.best_k(rule)
    _mark(axes, k, scaling.predict(k), f"k = {k}, {_RULES[rule]}\nk in [{first}, {last}] when questions are resampled")
    axes.set_xlabel("k, the samples of a vote")
    axes.set_title("What votes beyond the log would get right", loc="left", fontsize=12)
    _caution(figure, scaling.cautions)
    _finish(axes)
    return _written(figure, path)


_RULES = {"max": "the highest accuracy", "1se": "the least within one standard error of the best"}


def _told(point: Point, rule: Choosing, low: int, high: int) -> str:
    return (
        f"k = {point.k}, {_RULES[rule]}\n{point.accuracy:.3f}, {point.gain:+.3f} against k = 1\n"
        f"k in [{low}, {high}] when questions are resampled"
    )


def _name(curve: Curve) -> str:
    return {
        "vote": "vote",
        "filter_vote": "vote of those that pass the judge",
        "first_passing": "the first that passes the judge",
    }[curve.rule]


def _canvas() -> tuple[Figure, Axes]:
    with needed("a plot", "plan"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _mark(axes: Axes, x: float, y: float, text: str) -> None:
    axes.plot([x], [y], marker="D", ms=10, mfc="none", mec=VERMILION, mew=2, ls="", label=text, zorder=5)
    axes.axvline(x, color=VERMILION, lw=0.9, ls=":", zorder=0)


def _caution(figure: Figure, cautions: tuple[str, ...]) -> None:
    figure.suptitle("\n".join(cautions), x=0.01, ha="left", fontsize=9, color=VERMILION)


def _finish(axes: Axes) -> None:
    axes.set_ylabel("accuracy")
    axes.grid(visible=True, axis="y", color="#DDDDDD", lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.figure.legend(frameon=False, fontsize=9, loc="outside lower left", ncols=2)


def _written(figure: Figure, path: str | PathLike[str] | None) -> Figure:
    if path is None:
        return figure
    import matplotlib as mpl

    name = fspath(path)
    if not name.endswith(FORMATS):
        raise ValueError(f"a plot is written as .png or .svg, not {name!r}")
    with mpl.rc_context({"svg.hashsalt": "exoflow", "svg.fonttype": "none"}):  # the same picture is the same file
        figure.savefig(name, metadata={"Date": None} if name.endswith(".svg") else None)
    return figure
