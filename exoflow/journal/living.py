"""The journals of this process."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

from exoflow.protocols import Store


class Living(Protocol):
    """What can be asked of a journal of this process."""

    name: str
    store: Store

    def can_write(self) -> bool: ...

    def after_fork(self) -> None: ...


living: weakref.WeakSet[Living] = weakref.WeakSet()


def lives_here(store: Store, name: str) -> bool:
    """Whether this process has a journal of that name that can write: all there is to ask where nobody shares."""
    return any(each.name == name and each.store is store and each.can_write() for each in list(living))


def _forget_parents() -> None:
    for journal in list(living):
        journal.after_fork()


os.register_at_fork(after_in_child=_forget_parents)
