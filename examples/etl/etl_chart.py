"""One picture of when, with whom and in what weather flights are late. Draws into memory, the same bytes every time."""

from __future__ import annotations

import calendar
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

INK, GREY, FAINT, BLUE = "#22303c", "#66717b", "#dfe3e6", "#2f6690"
HEAT = LinearSegmentedColormap.from_list("late", ["#f4f1ea", "#e9c9a8", "#cf7d5a", "#8f2d2c"])
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": GREY,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}
CLEAR = {"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none"}
CLOCK = {6: "6 am", 9: "9 am", 12: "noon", 15: "3 pm", 18: "6 pm", 21: "9 pm"}
FOOTNOTE = (
    "Shaded: 95 % intervals, from resampling the days of the year. Cancelled and diverted flights do not count. "
    "Airlines with under 100 flights are left out. American and\n"
    "Envoy report fleet numbers, so their planes have no age here. "
    "Source: Bureau of Transportation Statistics, NOAA and FAA, as packaged in {source}."
)


def draw_delays(
    reports: Mapping[str, pd.DataFrame], months: Sequence[pd.DataFrame], airlines: pd.DataFrame, source: str
) -> bytes:
    """A PNG of seven panels, each with the share of flights that arrive at least 15 minutes late.

    Args:
        reports: by ``arr_delay_by_VIEW``: a row a group: ``flights``, ``late_percent``, its ``_low`` and ``_high``.
        months: the report by hour, for each month.
        airlines: the name of each carrier.
        source: what the footnote credits.
    """
    hours = reports["arr_delay_by_hour"]
    flights = int(hours["flights"].sum())
    average = float(np.average(hours["late_percent"], weights=hours["flights"]))
    bottom = [
        ("rain", "Any rain doubles it", "rain in the hour, inches"),
        ("visibility", "Poor visibility does too", "visibility, miles"),
        ("wind", "Wind adds to it bit by bit", "wind, miles per hour"),
        ("age", "Old planes are not to blame", "age of the plane, years"),
    ]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(14, 10.8), dpi=130, facecolor="white")
        grid = figure.add_gridspec(
            3, 12, height_ratios=[2, 2.7, 2], hspace=0.4, wspace=0.55, left=0.05, right=0.965, top=0.865, bottom=0.115
        )
        draw_hours(figure.add_subplot(grid[0, :7]), hours)
        draw_months(figure.add_subplot(grid[1, :7]), months)
        draw_carriers(figure.add_subplot(grid[:2, 8:12]), reports["arr_delay_by_carrier"], airlines)
        for column, (view, title, label) in enumerate(bottom):
            axes = figure.add_subplot(grid[2, 3 * column : 3 * column + 3])
            draw_bins(axes, reports[f"arr_delay_by_{view}"], view, average)
            axes.set_xlabel(label, labelpad=6)
            headline(axes, title)
            if column == 0:
                write(axes, f"all flights {average:.1f} %", (3.45, average), (0, -12), ha="right", color=GREY)
            else:
                axes.tick_params(labelleft=False)
        write_words(figure, flights, source)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def write_words(figure: Figure, flights: int, source: str) -> None:
    title = "One flight in four from New York comes in late: when, with whom, in what weather"
    what = f"Share that arrives 15 minutes late or more, of {flights:,} flights of 2013 from JFK, LaGuardia and Newark"
    figure.text(0.05, 0.957, title, fontsize=19, fontweight="bold")
    figure.text(0.05, 0.926, what, fontsize=12, color=GREY)
    figure.text(0.05, 0.022, FOOTNOTE.format(source=source), fontsize=8.5, color=GREY, linespacing=1.5)


def headline(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=11, fontweight="bold", color=INK, y=1.0, pad=10)


def write(axes: Axes, text: str, place: tuple[float, float], shift: tuple[float, float], **style: Any) -> None:
    """Text at a place of the data, shifted by points."""
    axes.annotate(text, place, shift, textcoords="offset points", **{"fontsize": 8.5, **style})


def percent(value: float, _: float = 0) -> str:
    return f"{value:.0f} %"


def draw_hours(axes: Axes, hours: pd.DataFrame) -> None:
    axes.fill_between(
        hours["hour"], hours["late_percent_low"], hours["late_percent_high"], color=BLUE, alpha=0.18, lw=0
    )
    axes.plot(hours["hour"], hours["late_percent"], color=BLUE, linewidth=2.2)
    for row in (hours.iloc[0], hours.iloc[int(hours["late_percent"].argmax())]):
        axes.plot(row["hour"], row["late_percent"], "o", color=BLUE, markersize=6)
        place = (row["hour"], row["late_percent"])
        write(axes, percent(place[1]), place, (0, 14), ha="center", color=BLUE, fontsize=9.5, fontweight="bold")
    axes.set(xlim=(4.5, 23.5), ylim=(0, 46), yticks=[0, 10, 20, 30, 40], xticks=list(CLOCK))
    axes.set_xticklabels(CLOCK.values())
    axes.yaxis.set_major_formatter(percent)
    axes.grid(axis="y")
    headline(axes, "Lateness builds up through the day")


def draw_months(axes: Axes, months: Sequence[pd.DataFrame]) -> None:
    hours = np.arange(5, 24)
    late = np.array([month.set_index("hour")["late_percent"].reindex(hours).to_numpy() for month in months])
    image = axes.imshow(late, cmap=HEAT, vmin=0, vmax=60, aspect="auto", extent=(4.5, 23.5, 11.5, -0.5))
    axes.set_yticks(range(12), [calendar.month_abbr[month] for month in range(1, 13)])
    axes.set_xticks(list(CLOCK), list(CLOCK.values()))
    axes.set_xticks(hours[1:] - 0.5, minor=True)
    axes.set_yticks(np.arange(11) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.4)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("planned departure", labelpad=6)
    legend = axes.inset_axes((0.765, 1.05, 0.18, 0.035))
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.colorbar(image, cax=legend, orientation="horizontal", ticks=[])
    legend.set_frame_on(False)
    legend.text(-1.5, 0.5, "0 %", ha="right", va="center", fontsize=8.5, color=GREY)
    legend.text(61.5, 0.5, "60 %", ha="left", va="center", fontsize=8.5, color=GREY)
    headline(axes, "Summer evenings are worst, autumn is calm")


def draw_carriers(axes: Axes, carriers: pd.DataFrame, airlines: pd.DataFrame) -> None:
    shown = carriers[carriers["flights"] >= 100].merge(airlines, on="carrier").sort_values("late_percent")
    names = (
        shown["name"]
        .str.replace(r" (Inc\.|Co\.|Corporation)$", "", regex=True)
        .str.replace(r" Air ?[Ll]ines$", "", regex=True)
    )
    where = np.arange(len(shown))
    axes.hlines(where, shown["late_percent_low"], shown["late_percent_high"], color=BLUE, alpha=0.35, linewidth=3)
    axes.scatter(shown["late_percent"], where, s=12 + shown["flights"] / 250, color=BLUE, zorder=3)
    for row, late, high in zip(where.tolist(), shown["late_percent"], shown["late_percent_high"], strict=True):
        write(axes, percent(late), (max(high, late + 1.2), row), (5, 0), va="center", color=GREY)
    axes.set_yticks(where, list(names), color=INK)
    axes.set(xlim=(0, 48), xticks=[0, 10, 20, 30, 40], ylim=(-0.6, len(shown) - 0.5))
    axes.xaxis.set_major_formatter(percent)
    axes.grid(axis="x")
    axes.spines["bottom"].set_visible(False)
    axes.set_xlabel("area of the dot: number of flights", labelpad=6)
    most, least = shown["late_percent"].iloc[-1], shown["late_percent"].iloc[0]
    headline(axes, f"{names.iloc[-1]} is late {most / least:.0f} times as often as {names.iloc[0]}")


def draw_bins(axes: Axes, bins: pd.DataFrame, view: str, average: float) -> None:
    where = np.arange(len(bins))
    axes.axhline(average, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.vlines(where, bins["late_percent_low"], bins["late_percent_high"], color=BLUE, alpha=0.35, linewidth=4)
    axes.plot(where, bins["late_percent"], "o-", color=BLUE, linewidth=1.3, markersize=5.5)
    for place, late, high in zip(where.tolist(), bins["late_percent"], bins["late_percent_high"], strict=True):
        write(axes, f"{late:.0f}", (place, high), (0, 5), ha="center", color=BLUE, bbox=CLEAR)
    axes.set_xticks(where, [str(name).replace("-", "\N{EN DASH}") for name in bins[view]], fontsize=8.5)
    axes.set(xlim=(-0.5, len(bins) - 0.5), ylim=(0, 72), yticks=[0, 20, 40, 60])
    axes.yaxis.set_major_formatter(percent)
    axes.grid(axis="y")
