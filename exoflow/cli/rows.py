"""The calls of a run as rows of a tree: one for each call, or for many that have nothing to tell apart."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from exoflow.catalogue import CallSeen, Description
from exoflow.catalogue.description import path_of, task_of

_MANY = 4
"""So many calls of a task, and no fewer, become one row."""
_NUMBERS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the tree; ``calls`` is empty for a child flow that has no record yet."""

    branch: str
    """The lines of the tree to its left."""
    label: str
    calls: tuple[CallSeen, ...]
    below: str = ""
    """The path of what a child flow has called."""


def rows(description: Description, *, every: bool = False) -> list[Row]:
    """The tree, from the top. ``every``: a row for each call, however many there are."""
    return _Tree(description, every).found


class _Tree:
    """Grows row by row, from the run's own calls down into its child flows."""

    def __init__(self, description: Description, every: bool) -> None:
        self.found: list[Row] = []
        self._every = every
        self._shown = names(description.calls)
        self._calls: dict[str, list[CallSeen]] = defaultdict(list)
        for call in description.calls:
            self._calls[call.path].append(call)
        self._running: dict[str, list[str]] = defaultdict(list)
        """Child flows without a record, by the path that they are in."""
        for path in list(self._calls):
            self._add_owners(path)
        self._grow("", "")

    def _add_owners(self, path: str) -> None:
        while path:
            owner, path = path[:-1], path_of(path[:-1])
            if owner not in self._shown and owner not in self._running[path]:
                self._running[path].append(owner)

    def _grow(self, path: str, indent: str) -> None:
        alike = Counter(call.task for call in self._calls.get(path, ()))
        groups = [
            (group[0].id, _label(group, self._shown, alike[group[0].task]), group) for group in self._groups(path)
        ]
        groups += [(owner, owner[len(path) :], []) for owner in self._running.get(path, ())]
        for n, (owner, label, group) in enumerate(groups, 1):
            last = n == len(groups)
            below = f"{owner}/"
            self.found.append(Row(indent + ("└─ " if last else "├─ "), label, tuple(group), below))
            if len(group) <= 1 and (below in self._calls or below in self._running):
                self._grow(below, indent + ("   " if last else "│  "))

    def _groups(self, path: str) -> list[list[CallSeen]]:
        return _groups(self._calls.get(path, ()), self._every)


def _groups(calls: Iterable[CallSeen], every: bool) -> list[list[CallSeen]]:
    """Tasks in the order of their first start. What became of a call decides which of its task's others it joins."""
    by_task: dict[str, list[CallSeen]] = defaultdict(list)
    for call in calls:
        by_task[call.task].append(call)
    found: list[list[CallSeen]] = []
    for group in by_task.values():
        alike: dict[tuple[object, ...], list[CallSeen]] = defaultdict(list)
        for call in sorted(group, key=_natural):
            alike[_story(call, every)].append(call)
        for members in alike.values():
            if len(members) < _MANY:
                found.extend([call] for call in members)
            else:
                found.append(members)
    return found


def _story(call: CallSeen, every: bool) -> tuple[object, ...]:
    last = call.last
    if every or call.error or call.in_doubt or call.child_flow or call.undoings or last is None:
        return (call.id,)
    return (last.saved, last.epoch, call.loaded, call.effect, call.actor, last.executor, call.runs, call.again)


def _natural(call: CallSeen) -> list[int]:
    return [int(digits) for digits in _NUMBERS.findall(call.id)]


def names(calls: Sequence[CallSeen]) -> dict[str, str]:
    """How each call is shown: by its task's name where that says it all."""
    alike = Counter((call.path, call.task) for call in calls)
    return {call.id: call.task if alike[call.path, call.task] == 1 else own_part(call.id) for call in calls}


def own_part(id: str) -> str:
    """An id without the path of its flow."""
    return id[len(path_of(id)) :]


def _label(group: Sequence[CallSeen], shown: dict[str, str], of_task: int) -> str:
    """A call's name, ``read × 12`` for all calls of a task, ``read#3…9`` for some in a row."""
    if len(group) == 1:
        return shown[group[0].id]
    first, last = own_part(group[0].id), own_part(group[-1].id)
    row = [f"{group[0].task}#{n}" for n in range(_number(first), _number(first) + len(group))]
    if len(group) < of_task and [own_part(call.id) for call in group] == row:
        return f"{first}…{_number(last)}"
    return f"{group[0].task} × {len(group):,}"


def _number(part: str) -> int:
    digits = part.rpartition("#")[2]
    return int(digits) if digits.isdecimal() else 0


def sources(calls: Sequence[CallSeen], shown: dict[str, str]) -> list[str]:
    """What the calls waited for: single calls by name, many of one task as a number."""
    ids = dict.fromkeys(id.partition("!")[0] for call in calls for id in call.inputs)
    by_task: dict[str, list[str]] = defaultdict(list)
    for id in ids:
        by_task[task_of(id)].append(id)
    return [
        f"{task} × {len(members):,}" if len(members) >= _MANY else shown.get(id, own_part(id))
        for task, members in by_task.items()
        for id in (members[:1] if len(members) >= _MANY else members)
    ]
