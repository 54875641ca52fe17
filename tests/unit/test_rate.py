"""What is known of how fast a store takes values, and what a deterministic result is judged by."""

import time
from pathlib import Path

import pytest

from exoflow import flow, task
from exoflow.driver.rate import FASTEST, SLOWEST, Rate
from exoflow.driver.runtime import Runtime
from exoflow.kernel.state import SECONDS_PER_BYTE
from exoflow.protocols import Buffer
from exoflow.storage import LocalStore

MB = 1_000_000


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def write(rate: Rate, clock: Clock, size: int, seconds: float) -> None:
    began_s = rate.now_s()
    clock.now_s += seconds
    rate.wrote(size, began_s)


def test_a_store_that_nobody_has_written_to_has_the_assumed_rate(clock: Clock) -> None:
    assert Rate(clock).seconds_per_byte() == pytest.approx(SECONDS_PER_BYTE)


@pytest.mark.parametrize("mb_per_s", [20, 1000])
def test_what_was_written_says_how_fast_it_is(clock: Clock, mb_per_s: float) -> None:
    rate = Rate(clock)
    for _ in range(10):
        write(rate, clock, 100 * MB, 100 / mb_per_s)
    assert 1 / rate.seconds_per_byte() == pytest.approx(mb_per_s * MB, rel=0.15)


def test_writes_that_overlap_share_their_time(clock: Clock) -> None:
    alone, together = Rate(clock), Rate(clock)
    write(alone, clock, 400 * MB, 4.0)
    began_s = clock.now_s
    for _ in range(4):
        clock.now_s += 1.0
        together.wrote(100 * MB, began_s)
    assert together.seconds_per_byte() == pytest.approx(alone.seconds_per_byte(), rel=0.01)


def test_a_slow_moment_is_forgotten(clock: Clock) -> None:
    rate = Rate(clock)
    write(rate, clock, 100 * MB, 50.0)
    assert rate.seconds_per_byte() > 50 * SECONDS_PER_BYTE
    clock.now_s += 3600
    assert rate.seconds_per_byte() == pytest.approx(SECONDS_PER_BYTE)


def test_small_objects_say_nothing_of_large_ones(clock: Clock) -> None:
    rate = Rate(clock)
    write(rate, clock, 100_000, 5.0)
    assert rate.seconds_per_byte() == pytest.approx(SECONDS_PER_BYTE)


def test_the_rate_has_bounds(clock: Clock) -> None:
    slow, fast = Rate(clock), Rate(clock)
    write(slow, clock, 2 * MB, 1e6)
    write(fast, clock, 10**15, 0.0)
    assert (slow.seconds_per_byte(), fast.seconds_per_byte()) == (SLOWEST, FASTEST)


class TimedStore(LocalStore):
    """A value takes as long to write as it says, by another clock than this machine's."""

    def __init__(self, path: Path, clock: Clock, seconds: float) -> None:
        super().__init__(str(path))
        self._clock = clock
        self._seconds = seconds

    def create(self, name: str, *parts: Buffer) -> bool:
        if name.startswith("values/"):
            self._clock.now_s += self._seconds
        return super().create(name, *parts)


@task
def chosen() -> bytes:
    return bytes(20 * MB)


@task(effect="idempotent")
def told(value: bytes) -> int:
    return len(value)


@task(deterministic=True)
def computed() -> bytes:
    time.sleep(0.2)  # by the assumed rate it is worth 40 MB
    return bytes(20 * MB)


@flow
def both() -> int:
    return told(chosen.submit()) + len(computed())  # the first is saved when the second is judged


@pytest.mark.parametrize(("seconds", "saved"), [(0.0, 2), (1000.0, 1)])
def test_a_deterministic_result_is_judged_by_what_the_store_has_taken_lately(
    tmp_path: Path, clock: Clock, seconds: float, saved: int
) -> None:
    store = TimedStore(tmp_path, clock, seconds)
    Runtime.of(store).rate = Rate(clock)
    assert both.options(store=store, executor="local", run_id="it").run() == 40 * MB
    assert len(store.list("values")) == saved
