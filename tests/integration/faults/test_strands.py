"""Branches side by side, killed and gone on with: what was durable stays, whoever comes first in the replay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Place = Any

BRANCHES = """
import asyncio, os, random, sys

import exoflow
from exoflow import flow, task


@task
async def choose(seconds):
    await asyncio.sleep(seconds)
    with open("choices", "a") as file:
        file.write("x\\n")
    return random.random()


def act(number):
    with open("effects", "a") as file:
        file.write(f"{exoflow.idempotency_key()} {number}\\n")
    if sys.argv[2] == "die":
        os.kill(os.getpid(), 9)


@task(effect="idempotent")
def publish(number):
    act(number)


@task(effect="irrevocable", on_doubt="retry")
def charge(number):
    act(number)


@flow
async def branches(kind):
    seen = []

    async def left():
        for _ in range(3):
            seen.append(await (choose(0.01) if kind != "submit" else choose.submit(0.01)))

    async def right():
        seen.append(await choose(0.2))
        await {"charge": charge}.get(kind, publish).submit(sum(seen))

    await asyncio.gather(left(), right())
    return sum(seen)


if __name__ == "__main__":
    print(asyncio.run(branches.options(run_id="branches", store="store").run(sys.argv[1])))
"""


@pytest.mark.parametrize("kind", ["publish", "charge", "submit"])
def test_choices_of_several_strands_stay_and_an_effect_is_repeated_with_the_same_inputs(
    place: Callable[..., Place], kind: str
) -> None:
    here = place(kind, BRANCHES)
    assert here.live(kind, "die").killed
    again = here.live(kind, "live")
    assert again.code == 0, again.err
    assert (here.folder / "choices").read_text() == "x\n" * 4, "no choice was made again"
    first, second = (here.folder / "effects").read_text().splitlines()
    assert first == second
    assert here.live(kind, "live").out == again.out
