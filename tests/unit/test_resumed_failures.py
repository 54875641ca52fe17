"""A failed run that is resumed tries again what had failed (V14), once: a new error is an error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import exoflow
from exoflow import flow, task

tries: list[str] = []
failing: set[str] = set()


@task(checkpoint="never")
def first() -> bytes:
    tries.append("first")
    if "first" in failing:
        raise LookupError("no service")
    return os.urandom(8)


@task
def second(value: bytes) -> int:
    tries.append("second")
    return len(value)


@task
def third(value: bytes) -> int:
    tries.append("third")
    if "third" in failing:
        raise KeyError("x")
    return len(value)


@flow
def trial() -> int:
    value = first.submit()
    return second(value) + third(value)


@flow
def chained() -> int:
    return second(third.submit(first.submit()))  # type: ignore[arg-type]  # a number will do


@pytest.fixture(autouse=True)
def nothing_yet() -> None:
    tries.clear()
    failing.clear()


def test_a_lost_choice_that_fails_when_it_is_made_again_fails_the_run(tmp_path: Path) -> None:
    failing.add("third")
    with pytest.raises(KeyError):
        trial.options(store=str(tmp_path), run_id="r").run()
    failing.add("first")
    tries.clear()
    with pytest.raises(LookupError):
        exoflow.resume("r", store=str(tmp_path))
    assert tries == ["first"]
    failing.clear()
    assert exoflow.resume("r", store=str(tmp_path)) == 16


def test_an_error_that_its_consumers_have_taken_over_is_tried_once(tmp_path: Path) -> None:
    failing.add("third")
    with pytest.raises(KeyError):
        chained.options(store=str(tmp_path), run_id="r").run()
    tries.clear()
    with pytest.raises(KeyError):
        exoflow.resume("r", store=str(tmp_path))
    assert tries.count("third") == 1
