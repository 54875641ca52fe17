"""Medians, ratios and goals, out of the raw results."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from systems import LIMIT, OURS, PEERS, SYSTEMS
from workloads import WORKLOADS, Figure, Goal, Than, Workload

Results = dict[str, Any]
"""machine, quick, systems, results[workload][figure][system] = [{turn, samples}], errors, profiles."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A median, and between what it lies."""

    median: float
    least: float
    most: float


def entries(workload: str, figure: str, system: str, results: Results) -> list[dict[str, Any]]:
    """What a system gave, turn by turn."""
    found: list[dict[str, Any]] = results["results"].get(workload, {}).get(figure, {}).get(system, [])
    return [entry for entry in found if entry["samples"]]


def spread(workload: str, figure: str, system: str, results: Results) -> Spread | None:
    """The median of the turns' medians, the least and the most of all samples; None where there are none."""
    found = entries(workload, figure, system, results)
    if not found:
        return None
    samples = [sample for entry in found for sample in entry["samples"]]
    return Spread(statistics.median(statistics.median(entry["samples"]) for entry in found), min(samples), max(samples))


def of_turns(workload: str, figure: str, system: str, results: Results) -> dict[int, float]:
    """The median of each turn."""
    return {entry["turn"]: statistics.median(entry["samples"]) for entry in entries(workload, figure, system, results)}


def source(workload: Workload, figure: Figure, system: str) -> str:
    """The workload that a system's figure is taken from."""
    return figure.peers_from if figure.peers_from and system in PEERS else workload.name


def quotient(workload: Workload, figure: Figure, system: str, results: Results) -> Spread | None:
    """How many times better we are than the system, by medians of the same turn.

    None where one of the two has no figure, or the worse of the two is nothing at all.
    """
    ours = of_turns(workload.name, figure.name, OURS, results)
    values = []
    for turn, their in of_turns(source(workload, figure, system), figure.name, system, results).items():
        if turn in ours:
            over, under = (ours[turn], their) if figure.larger_is_better else (their, ours[turn])
            if under > 0:
                values.append(over / under)
    return Spread(statistics.median(values), min(values), max(values)) if values else None


def best_peer(workload: Workload, figure: Figure, results: Results) -> str | None:
    """The peer whose median is best."""
    found = {}
    for peer in PEERS:
        value = spread(source(workload, figure, peer), figure.name, peer, results)
        if value is not None:
            found[peer] = value.median
    return (max if figure.larger_is_better else min)(found, key=found.__getitem__) if found else None


def reached(goal: Goal, workload: Workload, figure: Figure, results: Results) -> bool | None:
    """Whether our median keeps the goal; None where it cannot be told."""
    if goal.than is Than.NOTHING:
        ours = spread(workload.name, figure.name, OURS, results)
        if ours is None:
            return None
        return ours.median >= goal.bound if figure.larger_is_better else ours.median <= goal.bound
    other = LIMIT if goal.than is Than.LIMIT else best_peer(workload, figure, results)
    ratio = quotient(workload, figure, other, results) if other else None
    if ratio is None:
        return None
    return 1 / ratio.median <= goal.bound if goal.than is Than.LIMIT else ratio.median >= goal.bound


def missed(workload: Workload, results: Results) -> list[tuple[Figure, Goal]]:
    """The goals of a workload that we do not reach."""
    return [
        (figure, goal)
        for figure in workload.figures
        for goal in figure.goals
        if reached(goal, workload, figure, results) is False
    ]


def goal_words(goal: Goal, figure: Figure) -> str:
    """A goal, to be read."""
    if goal.than is Than.LIMIT:
        return f"≤ {goal.bound:g}× the machine alone"
    if goal.than is Than.PEER:
        return f"≥ {goal.bound:g}× the best peer"
    return f"{'≥' if figure.larger_is_better else '≤'} {goal.bound:,g} {figure.unit}"


def number(value: float) -> str:
    """Three digits, thousands apart."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def present(workload: Workload, results: Results) -> list[str]:
    """The systems that gave a figure of the workload, the peers it borrows included."""
    names: Sequence[str] = [OURS, *PEERS, LIMIT]
    return [
        name
        for name in names
        if name in SYSTEMS
        and any(spread(source(workload, figure, name), figure.name, name, results) for figure in workload.figures)
    ]


def measured(results: Results) -> list[Workload]:
    """The workloads of which there are figures."""
    return [workload for name, workload in WORKLOADS.items() if name in results["results"]]
