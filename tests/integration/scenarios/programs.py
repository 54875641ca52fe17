"""Flows that are more than a graph."""

from collections.abc import Callable
from typing import Any

import exoflow

Tasks = dict[str, Any]


def reads_first(tasks: Tasks) -> Callable[[], object]:
    """69: reads P, then calls X and Y."""

    def body() -> object:
        p = tasks["P"]()
        return tasks["Y"].submit(tasks["X"].submit(p)).result()

    return body


def branches(tasks: Tasks) -> Callable[[], object]:
    """70: which way it goes is P's choice."""

    def body() -> object:
        p = tasks["P"]()
        return tasks["X"](p, "left" if ":1" in p else "right")

    return body


def catches(tasks: Tasks) -> Callable[[], object]:
    """76: D is called with T's error."""

    def body() -> object:
        try:
            return tasks["T"]()
        except ValueError as error:
            return tasks["D"](str(error))

    return body


def sleeps(tasks: Tasks) -> Callable[[], object]:
    """81."""

    def body() -> object:
        exoflow.sleep(0.3)
        return tasks["A"]()

    return body




PROGRAMS: dict[str, Callable[[Tasks], Callable[[], object]]] = {
    "reads first": reads_first,
    "branches": branches,
    "catches": catches,
    "sleeps": sleeps,
}
