"""Which actors a flow's source may mean, and what may stand behind their states."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

from exoflow.actors import ActorType, Cast
from exoflow.cli.source import Taint
from exoflow.driver.spec import Chain


def cast_of(found: object) -> tuple[type, Cast] | None:
    """What an actor's class knows of itself."""
    made = found.__dict__.get("__exoflow_actor__") if isinstance(found, ActorType) else None
    return None if made is None else (found, made)  # type: ignore[return-value]  # an ActorType is a class


def method_of(cls: type, made: Cast, name: str, chain: Chain) -> object:
    """A task of an actor, as a flow has it."""
    task: Any = inspect.getattr_static(cls, name)
    return task.bound(None, replace(made.methods[name], actor=chain))


class Actors:
    """The actors of a survey, each by the number of the site that creates it."""

    def __init__(self) -> None:
        self._classes: dict[int, tuple[type, Cast]] = {}
        self._creators: dict[Chain, Taint] = {}
        self._states: dict[int, Taint] = {}

    def created(self, number: int, cls: type, made: Cast, behind: Taint) -> None:
        self._classes[number] = cls, made
        self._states[number] = self._states.get(number, frozenset()) | behind

    def has_method(self, name: str) -> bool:
        """Whether any actor has a task of that name."""
        return any(name in made.methods for _, made in self._classes.values())

    def method(self, owner: Taint, name: str) -> object:
        """The task of that name of an actor that may stand behind the owner, if there is one."""
        creators = frozenset(n for n in owner if n in self._classes and name in self._classes[n][1].methods)
        if not creators:
            return None
        cls, made = self._classes[min(creators)]
        chain = Chain(made.snapshot_every)
        self._creators[chain] = creators
        return method_of(cls, made, name, chain)

    def state(self, chain: Chain) -> Taint:
        """What may stand behind the state that the next call takes: the call before is part of its lineage."""
        return frozenset().union(*(self._states[n] for n in self._creators[chain]))

    def changed(self, chain: Chain, behind: Taint) -> None:
        """A call has left another state."""
        for n in self._creators[chain]:
            self._states[n] |= behind
