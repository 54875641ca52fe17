"""Objects that are numbered one after another in a folder: slots, claims, messages, bells.

In a bucket nobody lists to find them. A listing costs ten times what a look at one object costs, and is what a service
throttles first. Numbers have no gaps there: who creates one has seen the one before. gc leaves claims and bells that
somebody may count, and says of a journal that it has taken where its last slot is (``ends``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from exoflow.protocols import SlotStore, Store

_AT_ONCE = 16


def in_bucket(store: Store) -> bool:
    """Whether each request to the store is a journey, and others may be at work there that hold no locks."""
    return store.shared and not isinstance(store, SlotStore)


def numbers(store: Store, folder: str, first: int) -> list[int]:
    """The numbers that are taken, in order."""
    if in_bucket(store):
        return list(range(first, newest(store, folder, first) + 1))
    return sorted(int(name.rpartition("/")[2]) for name in store.list(folder))


def newest(store: Store, folder: str, first: int, known: int | None = None) -> int:
    """The highest number that is taken, ``first - 1`` where none is. In a bucket; ``known`` is one that is taken.

    Looks twice as far ahead each time, then halves the rest: 2 log n requests.
    """
    found = first - 1 if known is None else known
    step = 1
    while store.exists(f"{folder}/{found + step}"):
        found += step
        step *= 2
    while step > 1:
        step //= 2
        if store.exists(f"{folder}/{found + step}"):
            found += step
    return found


def read_each(store: Store, names: Iterable[str]) -> Iterator[memoryview]:
    """The objects, in order; from a bucket some at a time.

    Raises:
        FileNotFoundError: one is not there.
    """
    names = list(names)
    if len(names) < 2 or not in_bucket(store):
        yield from map(store.read, names)
        return
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="exoflow-read") as pool:
        yield from pool.map(store.read, names)


def read_on(store: Store, folder: str, first: int) -> Iterator[tuple[int, memoryview]]:
    """Number and content of each object from ``first`` on, to where there is none. In a bucket."""
    number = first
    while True:
        try:
            data = store.read(f"{folder}/{number}")
        except FileNotFoundError:
            return
        yield number, data
        number += 1
