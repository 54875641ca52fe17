"""The executors of a run."""

from __future__ import annotations

from collections.abc import Callable

from exoflow.protocols import Executor

Executors = Callable[[str], Executor]


class Opened(dict[str, Executor]):
    """The executors of a run by name, opened when they are first used."""

    def __init__(self, executors: Executors, default: Executor) -> None:
        self.executors = executors
        self.default = default
        self[default.name] = default

    def __missing__(self, name: str) -> Executor:
        found = self[name] = self.executors(name)
        self.setdefault(found.name, found)
        return found

    def __contains__(self, name: object) -> bool:
        return name == "local" or super().__contains__(name)
