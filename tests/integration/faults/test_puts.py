"""What a task puts shares an object of the store with others: killed between its parts, damaged, and collected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Place = Any

PROGRAM = """
    import os, signal
    import exoflow
    from exoflow import flow, task

    SIZE = 100_000

    def write(word):
        with open("bodies", "a") as file:
            file.write(f'["{word}"]\\n')

    @task
    def parts(number):
        write(f"parts {number}")
        choice = os.urandom(8)  # of the attempt, and in each of its parts
        return [exoflow.put((choice + bytes([part]) * 8) * (SIZE // 16)) for part in range(3)]

    @task
    def joined(pieces, part):
        write("joined")
        assert all(piece == (piece[:8] + bytes([part]) * 8) * (SIZE // 16) for piece in pieces)
        return tuple(piece[:8] for piece in pieces)

    @task(effect="idempotent")
    def stop(pieces):
        if os.environ.get("STOP") and not os.path.exists("stopped"):
            open("stopped", "w")
            os.kill(os.getpid(), signal.SIGKILL)

    @flow
    def shuffle():
        made = [ref.result() for ref in [parts.submit(number) for number in range(2)]]
        stop(made[0])
        stop(made[1])
        choices = [joined.submit([of_one[part] for of_one in made], part) for part in range(3)]
        return len(set(exoflow.gather(choices).result()))

    print(shuffle.options(run_id="it", store="store").run())
"""

ONE_CHOICE = "1\n"
"""Of each map: every part is of the same attempt."""


def objects(here: Place) -> list[Path]:
    return sorted(path for path in (here.store / "values").rglob("*") if path.is_file())


def test_what_a_task_put_lies_in_one_object(place: Callable[..., Place]) -> None:
    here = place("here", PROGRAM)
    life = here.live()
    assert (life.code, life.out) == (0, ONE_CHOICE), life.err
    assert len(objects(here)) == 2
    assert all(path.stat().st_size > 300_000 for path in objects(here))


@pytest.mark.parametrize("point", ["before_write", "before_fsync", "before_link", "before_dir_fsync", "after"])
@pytest.mark.parametrize("which", [1, 2, 3])
def test_a_run_killed_while_parts_are_saved_goes_on_and_mixes_no_attempts(
    place: Callable[..., Place], point: str, which: int
) -> None:
    here = place("here", PROGRAM)
    life = here.live(fault=f"store.create.{point}:{which}:kill")
    assert life.killed
    life = here.live()
    assert (life.code, life.out) == (0, ONE_CHOICE), life.err


def test_saved_parts_are_read_again_and_not_made_again(place: Callable[..., Place]) -> None:
    here = place("here", PROGRAM)
    assert here.live(STOP="1").killed
    life = here.live()
    assert (life.code, life.out) == (0, ONE_CHOICE), life.err
    assert sorted(here.bodies()) == ["joined"] * 3 + ["parts 0", "parts 1"]


@pytest.mark.parametrize("damage", ["flipped", "cut", "deleted"])
def test_damage_of_one_part_is_found(place: Callable[..., Place], damage: str) -> None:
    here = place("here", PROGRAM)
    assert here.live(STOP="1").killed
    path = objects(here)[0]
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[150_000] ^= 1
        path.write_bytes(data)
    elif damage == "cut":
        path.write_bytes(data[:150_000])
    else:
        path.unlink()
    life = here.live()
    assert life.code == 1
    assert "exoflow.errors.Corrupt: the result of parts#" in life.err
    assert len(here.bodies()) == 2 + here.bodies().count("joined")  # an effect stands on it: it is not made again


def test_a_damaged_part_that_nobody_outside_has_seen_is_made_again_with_its_sisters(
    place: Callable[..., Place],
) -> None:
    here = place("here", PROGRAM.replace('@task(effect="idempotent")', "@task"))
    assert here.live(STOP="1").killed
    for path in objects(here):
        data = bytearray(path.read_bytes())
        data[150_000] ^= 1
        path.write_bytes(data)
    life = here.live()
    assert (life.code, life.out) == (0, ONE_CHOICE), life.err
    assert sum(word.startswith("parts") for word in here.bodies()) == 4  # the others were not saved yet
