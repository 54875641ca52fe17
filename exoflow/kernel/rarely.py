"""Fields that few objects ever set."""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")


class _HasRare(Protocol):
    rare: dict[str, Any] | None


class Rarely(Generic[T]):
    """A field of a class with the slot ``rare``: an object that never sets it pays nothing for it, not even a slot."""

    def __init__(self, default: T) -> None:
        self._default = default
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: _HasRare, owner: type) -> T:
        rare = instance.rare
        if rare is None:
            return self._default
        found: T = rare.get(self._name, self._default)
        return found

    def __set__(self, instance: _HasRare, value: T) -> None:
        rare = instance.rare
        if rare is None:
            if value is self._default:
                return
            rare = instance.rare = {}
        rare[self._name] = value
