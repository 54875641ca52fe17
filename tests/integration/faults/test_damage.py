"""Bytes that are flipped, cut off or gone: what nobody outside has seen is made again, and an effect never is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Place = Any

PROGRAM = """
    import os, signal, sys
    import exoflow
    from exoflow import flow, task

    def write(word):
        with open("bodies", "a") as file:
            file.write(f'["{word}"]\\n')

    @task(checkpoint="sync")
    def small():
        write("small")
        return "the small result"

    @task(ANNOTATIONS)
    def large():
        write("large")
        return b"large" * 50_000

    @task(effect="irrevocable")
    def charge(amount):
        write("charge")
        return f"charged for {amount}"

    @task
    def measure(data):
        write("measure")
        return len(data)

    @task
    def stop():
        if not os.path.exists("stopped"):
            open("stopped", "w")
            os.kill(os.getpid(), signal.SIGKILL)

    @flow
    def pure():
        text = small()
        ref = large.submit()
        ref.result()
        stop()
        return [text, measure(ref)]

    @flow
    def paid():
        receipt = charge(small())
        stop()
        return receipt

    flow = {"pure": pure, "paid": paid}[sys.argv[1]]
    print(flow.options(run_id="it", store="store").run())
"""


def flip(path: Path, where: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[data.rindex(where) + len(where) // 2] ^= 1
    path.write_bytes(data)


def killed(here: Place, flow: str) -> None:
    assert here.live(flow).killed


def slot(here: Place) -> Path:
    (found,) = [path for path in (here.store / "journals").glob("*/0") if path.stat().st_size]
    return Path(found)


def test_a_flipped_byte_in_a_pure_result_makes_it_again(place: Callable[..., Place]) -> None:
    here = place("here", PROGRAM.replace("ANNOTATIONS", 'checkpoint="sync"'))
    killed(here, "pure")
    flip(slot(here), b"the small result")
    life = here.live("pure")
    assert (life.code, life.out) == (0, "['the small result', 250000]\n"), life.err
    assert here.bodies().count("small") == 2


def test_a_flipped_byte_in_an_irrevocable_completion_is_corrupt_and_nothing_runs_again(
    place: Callable[..., Place],
) -> None:
    here = place("here", PROGRAM.replace("ANNOTATIONS", ""))
    killed(here, "paid")
    flip(slot(here), b"charged for the small result")
    for _ in range(2):
        life = here.live("paid")
        assert life.code == 1
        assert "exoflow.errors.Corrupt: " in life.err and "charge#0" in life.err, life.err
        assert "Nothing was run again" in life.err
    assert here.bodies() == ["small", "charge"]


def test_a_flipped_byte_in_what_a_charge_stands_on_never_charges_again(place: Callable[..., Place]) -> None:
    here = place("here", PROGRAM.replace("ANNOTATIONS", ""))
    killed(here, "paid")
    data = slot(here).read_bytes()
    at = data.index(b"the small result")
    slot(here).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    for _ in range(2):
        life = here.live("paid")
        assert life.code == 1
        assert "exoflow.errors.Corrupt: " in life.err and "small#0" in life.err, life.err
    assert here.bodies() == ["small", "charge"]


@pytest.mark.parametrize("bytes_kept", [0, 1, 7, 40, 200])
def test_a_torn_end_of_the_newest_batch_is_absent(place: Callable[..., Place], bytes_kept: int) -> None:
    here = place("here", PROGRAM.replace("ANNOTATIONS", ""))
    killed(here, "paid")
    data = slot(here).read_bytes()
    charged = data.rindex(b"charged for the small result")
    slot(here).write_bytes(data[: charged + 28 + bytes_kept])  # the crc, and what came behind it, are cut
    life = here.live("paid")
    if bytes_kept == 200:
        assert (life.code, life.out) == (0, "charged for the small result\n"), life.err
    else:
        assert (
            "exoflow.errors.InDoubt: the effect of charge#0 may or may not have happened (key it/charge#0)" in life.err
        )
    assert here.bodies() == ["small", "charge"]


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped": lambda path: flip(path, b"large" * 100),
    "deleted": lambda path: path.unlink(),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:1000]),
    "half": lambda path: path.write_bytes(path.read_bytes()[:125_000]),
    "empty": lambda path: path.write_bytes(b""),
    "other": lambda path: path.write_bytes(b"not a value at all, and never was"),
}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("annotations", ["deterministic=True, checkpoint='sync'", "checkpoint='sync'"])
def test_a_damaged_value_of_a_pure_task_is_told_and_made_again(
    place: Callable[..., Place], annotations: str, how: str
) -> None:
    here = place("here", PROGRAM.replace("ANNOTATIONS", annotations))
    killed(here, "pure")
    (value,) = [path for path in (here.store / "values").rglob("*") if path.is_file()]
    DAMAGE[how](value)
    life = here.live("pure")
    assert life.code == 1
    assert life.error.startswith("exoflow.errors.Corrupt: the result of large#0 cannot be read: "), life.err
    assert value.name in life.error and "`exoflow resume it` runs large#0 again" in life.error
    life = here.live("pure")
    assert (life.code, life.out) == (0, "['the small result', 250000]\n"), life.err
    assert here.bodies() == ["small", "large", "large", "measure"]


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_value_of_an_effect_is_told_and_the_effect_is_not_repeated(
    place: Callable[..., Place], how: str
) -> None:
    here = place("here", PROGRAM.replace("ANNOTATIONS", "effect='irrevocable'"))
    killed(here, "pure")
    (value,) = [path for path in (here.store / "values").rglob("*") if path.is_file()]
    whole = value.read_bytes()
    DAMAGE[how](value)
    for _ in range(2):
        life = here.live("pure")
        assert life.code == 1
        assert "exoflow.errors.Corrupt: the result of large#0 cannot be read: " in life.err, life.err
        assert "put the object back from a copy" in life.error
    value.write_bytes(whole)
    life = here.live("pure")
    assert (life.code, life.out) == (0, "['the small result', 250000]\n"), life.err
    assert here.bodies() == ["small", "large", "measure"]


def test_a_damaged_start_is_told(place: Callable[..., Place]) -> None:
    here = place("here", PROGRAM.replace("ANNOTATIONS", ""))
    killed(here, "paid")
    data = slot(here).read_bytes()
    at = data.index(b"program.paid")
    slot(here).write_bytes(data[:at] + b"x" + data[at + 1 :])
    life = here.live("paid")
    assert life.code == 1
    assert "Corrupt" in life.error and "Start" in life.error and " it" in life.error, life.err
    assert here.bodies() == ["small", "charge"]
