"""The same work as flows of ours; each with tasks as they come, and with deterministic ones."""

from __future__ import annotations

from typing import Any

import engine_bodies as bodies

import exoflow
from exoflow import flow, task


@task
def noop(i: int) -> int:
    return bodies.noop(i)


@task(deterministic=True)
def noop_again(i: int) -> int:
    return bodies.noop(i)


@task
def nap(i: int) -> int:
    return bodies.nap(i)


@task(deterministic=True)
def nap_again(i: int) -> int:
    return bodies.nap(i)


@task
def make(size: int) -> Any:
    return bodies.make(size)


@task(deterministic=True)
def make_again(size: int) -> Any:
    return bodies.make(size)


@task
def total(array: Any) -> float:
    return bodies.total(array)


@task
def make_parts(number: int, count: int, size: int) -> list[Any]:
    return [exoflow.put(part) for part in bodies.make_parts(number, count, size)]


@task(deterministic=True)
def make_parts_again(number: int, count: int, size: int) -> list[Any]:
    return [exoflow.put(part) for part in bodies.make_parts(number, count, size)]


@task
def total_of(parts: list[Any]) -> float:
    return bodies.total_of(parts)


@task
def add_all(numbers: list[int]) -> int:
    return sum(numbers)


NOOP, NAP = {False: noop, True: noop_again}, {False: nap, True: nap_again}
MAKE, MAKE_PARTS = {False: make, True: make_again}, {False: make_parts, True: make_parts_again}
"""By whether it is deterministic."""


@flow
def fan(deterministic: bool, napping: bool, count: int) -> int:
    return len((NAP if napping else NOOP)[deterministic].map(range(count)).result())


@flow
def chain(deterministic: bool, count: int) -> int:
    last = 0
    for i in range(count):
        last = NOOP[deterministic](i)
    return last


@flow
def reduce(deterministic: bool, count: int) -> int:
    return add_all(NOOP[deterministic].map(range(count)))


@flow
def between(deterministic: bool, size: int) -> float:
    return total(MAKE[deterministic].submit(size))


@flow
def waves(deterministic: bool, count: int, size: int, at_once: int) -> float:
    found = 0.0
    for first in range(0, count, at_once):
        wave = [total.submit(MAKE[deterministic].submit(size)) for _ in range(first, min(count, first + at_once))]
        found += sum(exoflow.gather(wave).result())
    return found


@flow
def shuffle(deterministic: bool, count: int, size: int) -> float:
    made = [MAKE_PARTS[deterministic].submit(number, count, size) for number in range(count)]
    parts = [ref.result() for ref in made]  # of Refs: the arrays stay where they are
    totals = [total_of.submit([of_one[i] for of_one in parts]) for i in range(count)]
    return sum(exoflow.gather(totals).result())
