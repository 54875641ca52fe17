"""Whose run begins next, where tokens take turns."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exoflow.llm.fair.costs import Linear
from exoflow.llm.fair.vtc import VTC

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution


@dataclass(frozen=True, slots=True)
class _Run:
    """As ``fair.policy.Waiting``: each begins at a cost of 1."""

    execution: Execution
    number: int
    client: tuple[str, ...]
    arrival_s: float = 0.0
    input_tokens: int = 1
    max_output_tokens: int = 0
    priority: int = 0
    job: str = ""


class Turns:
    """In place of a deque: those who wait begin equally often, whoever asked for more, or first."""

    def __init__(self, whose: Callable[[Execution], str]) -> None:
        self._whose = whose
        self._policy: VTC[_Run] = VTC(Linear(1, 0))
        self._numbers = itertools.count()

    def append(self, execution: Execution) -> None:
        self._policy.add(_Run(execution, next(self._numbers), (self._whose(execution),)), 0.0)

    def popleft(self) -> Execution:
        run = self._policy.pop(0.0)
        self._policy.finish(run)
        return run.execution

    def __len__(self) -> int:
        return len(self._policy)

    def __iter__(self) -> Iterator[Execution]:
        return (run.execution for run in self._policy)
