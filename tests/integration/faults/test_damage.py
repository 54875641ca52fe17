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
    assert (life.code, life.out) == (0, "['small', 250000]\n".replace("small", "the small result")), life.err
    assert "the result of large#0 cannot be read: " in life.err and value.name in life.err
    assert "counts as absent, and is made again" in life.err
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


MORE = """
    import asyncio, os, signal, sys
    import exoflow
    from exoflow import flow, task

    def write(word):
        with open("bodies", "a") as file:
            file.write(f'["{word}"]\\n')

    @task(checkpoint="sync")
    def large(n):
        write("large")
        return bytes([n]) * 250_000

    @task(checkpoint="sync")
    async def alarge(n):
        write("large")
        return bytes([n]) * 250_000

    @task
    def measure(data):
        write("measure")
        return len(data)

    @task(effect="irrevocable")
    def charge(amount):
        write("charge")
        return amount

    @task(effect="irrevocable", on_doubt="stop")
    def charge_and_die(amount):
        write("charge")
        die("second")
        return amount

    def unreserve(key, data):
        write("unreserve")

    @task(rollback=unreserve, checkpoint="sync")
    def reserve(data):
        write("reserve")
        return len(data)

    @task
    def stop():
        die("first")

    def die(word):
        if not os.path.exists(word):
            open(word, "w")
            os.kill(os.getpid(), signal.SIGKILL)

    @flow
    def by_reference():
        ref = large.submit(7)
        ref.result()
        stop()
        return [measure(ref), measure.submit(ref).result()]

    @flow
    async def on_a_loop():
        a, b = await asyncio.gather(alarge(1), alarge(2))
        await stop.submit()
        return await measure.submit(a) + await measure.submit(b)

    @flow
    def inner(n):
        ref = large.submit(n)
        ref.result()
        return [ref]

    @flow
    def of_a_child():
        ref, = inner(3)
        stop()
        return measure(ref)

    @flow
    def reserved():
        ref = large.submit(5)
        count = reserve(ref)
        stop()
        return count + measure(ref)

    @flow
    def paid_after():
        ref = large.submit(5)
        receipt = charge(measure(ref))
        stop()
        return [receipt, measure(ref)]

    @flow
    def paid_beside():
        receipt = charge(1)
        data = large(5)
        stop()
        return [receipt, len(data)]

    @flow
    def in_doubt_later():
        data = large(5)
        stop()
        return charge_and_die(len(data))

    flow = globals()[sys.argv[1]]
    result = flow.options(run_id="it", store="store").run()
    print(asyncio.run(result) if asyncio.iscoroutine(result) else result)
"""


def values(here: Place) -> list[Path]:
    """Those of results: the arguments of an undo, which nothing can make again, lie beside them."""
    found = (path for path in (here.store / "values").rglob("*") if path.is_file())
    return sorted(path for path in found if path.suffix != ".undo")


@pytest.mark.parametrize(
    ("flow", "out", "bodies"),
    [
        ("by_reference", "[250000, 250000]", ["large", "large", "measure", "measure"]),
        ("on_a_loop", "500000", ["large", "large", "large", "large", "measure", "measure"]),
        ("of_a_child", "250000", ["large", "large", "measure"]),
        ("reserved", "500000", ["large", "reserve", "unreserve", "large", "reserve", "measure"]),
        ("paid_beside", "[1, 250000]", ["charge", "large", "large"]),
    ],
)
def test_one_resume_makes_a_damaged_choice_again_and_all_that_was_derived_from_it(
    place: Callable[..., Place], flow: str, out: str, bodies: list[str]
) -> None:
    here = place("here", MORE)
    killed(here, flow)
    for value in values(here):
        value.write_bytes(value.read_bytes()[:-1] + b"!")
    life = here.live(flow)
    assert (life.code, life.out) == (0, out + "\n"), life.err
    assert here.bodies() == bodies
    life = here.live(flow)
    assert (life.code, life.out) == (0, out + "\n"), life.err
    assert here.bodies() == bodies


def test_a_damaged_choice_behind_an_effect_is_not_made_again_and_can_be_put_back(place: Callable[..., Place]) -> None:
    here = place("here", MORE)
    killed(here, "paid_after")
    (value,) = values(here)
    whole = value.read_bytes()
    flip(value, b"\5" * 1000)
    for _ in range(2):
        life = here.live("paid_after")
        assert life.code == 1
        assert life.error.startswith("exoflow.errors.Corrupt: the result of large#0 cannot be read: "), life.err
        assert "charge#0 may have had an effect" in life.error
    assert here.bodies() == ["large", "measure", "charge"]
    value.write_bytes(whole)
    life = here.live("paid_after")
    assert (life.code, life.out) == (0, "[250000, 250000]\n"), life.err
    assert here.bodies() == ["large", "measure", "charge", "measure"]


def test_damage_that_was_mended_casts_no_doubt_on_what_comes_later(place: Callable[..., Place]) -> None:
    here = place("here", MORE)
    killed(here, "in_doubt_later")
    (value,) = values(here)
    flip(value, b"\5" * 1000)
    killed(here, "in_doubt_later")  # it was made again, and then the effect began
    life = here.live("in_doubt_later")
    assert life.error.startswith("exoflow.errors.InDoubt: the effect of charge_and_die#0"), life.err
    assert here.bodies() == ["large", "large", "charge"]
