"""What the tasks on an engine do: the same functions for the bare engine and for us."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

NAP_S = 0.01


def noop(i: int) -> int:
    return i


def nap(i: int) -> int:
    time.sleep(NAP_S)
    return i


def make(size: int) -> Any:
    """``size`` bytes of float64, made fast, so that the passing on weighs more."""
    return np.arange(size // 8, dtype=np.float64)


def total(array: Any) -> float:
    return float(array.sum())


def make_parts(number: int, count: int, size: int) -> list[Any]:
    """``count`` arrays of ``size`` bytes each."""
    return [np.full(size // 8, number * count + part, dtype=np.float64) for part in range(count)]


def total_of(parts: list[Any]) -> float:
    return float(sum(part.sum() for part in parts))


def total_of_all(*parts: Any) -> float:
    return total_of(list(parts))


def add_all(*numbers: int) -> int:
    return sum(numbers)
