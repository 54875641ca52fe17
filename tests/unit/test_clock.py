"""Timers of the real clock, while the wall clock is set."""

from __future__ import annotations

import logging
import threading

import pytest

from exoflow.driver.clock import SystemClock, Timers


class Wall:
    """A wall clock on which somebody sets the time."""

    def __init__(self) -> None:
        self.time = 1_000_000.0
        self.looks = threading.Semaphore(0)

    def __call__(self) -> float:
        self.looks.release()
        return self.time


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def clock(wall: Wall) -> SystemClock:
    return SystemClock(wall, check_s=0.001)


def looked(wall: Wall) -> None:
    """Until the clock has looked at the time again, and acted on what it saw."""
    while wall.looks.acquire(blocking=False):
        pass
    for _ in range(6):
        wall.looks.acquire()


def test_no_timer_rings_before_the_wall_clock_says_so(wall: Wall, clock: SystemClock) -> None:
    rung: list[float] = []
    done = threading.Event()
    clock.call_at(wall.time + 10, lambda: (rung.append(wall.time), done.set())[0])
    looked(wall)
    assert rung == []
    wall.time += 9.9
    looked(wall)
    assert rung == []
    wall.time += 0.1
    done.wait()
    assert rung == [1_000_010.0]


def test_a_clock_set_back_wakes_nobody_early_and_one_set_forward_loses_nobody(wall: Wall, clock: SystemClock) -> None:
    rung: list[int] = []
    done = threading.Event()
    clock.call_at(wall.time + 10, lambda: rung.append(1))
    clock.call_at(wall.time + 20, lambda: (rung.append(2), done.set())[0])
    wall.time -= 3600
    looked(wall)
    assert rung == []
    wall.time += 3600 + 7200
    done.wait()
    assert rung == [1, 2]


def test_a_timer_that_is_due_before_all_others_wakes_the_clock(wall: Wall) -> None:
    clock = SystemClock(wall, check_s=3600.0)
    done = threading.Event()
    clock.call_at(wall.time + 5000, lambda: None)
    clock.call_at(wall.time - 1, done.set)
    done.wait()


def test_a_forgotten_timer_does_not_ring(wall: Wall, clock: SystemClock) -> None:
    rung: list[int] = []
    done = threading.Event()
    forget = clock.call_at(wall.time + 1, lambda: rung.append(1))
    clock.call_at(wall.time + 2, done.set)
    forget()
    forget()
    wall.time += 5
    done.wait()
    assert rung == []
    forget()


def test_a_callback_that_fails_ends_no_other(wall: Wall, clock: SystemClock, caplog: pytest.LogCaptureFixture) -> None:
    done = threading.Event()

    def failing() -> None:
        raise ValueError("a fault in here")

    with caplog.at_level(logging.ERROR):
        clock.call_at(wall.time, failing)
        clock.call_at(wall.time, done.set)
        done.wait()
    assert "a fault in here" in caplog.text


def test_a_hundred_thousand_forgotten_timers_leave_nothing_behind() -> None:
    timers = Timers()
    kept = timers.add(5.0, lambda: None)
    for n in range(100_000):
        timers.forget(timers.add(1e9 + n, lambda: None))
    assert len(timers) < 200
    assert timers.next_s() == 5.0
    timers.forget(kept)
    assert timers.next_s() is None


def test_ten_thousand_timers_ring_in_the_order_of_time_then_of_their_making() -> None:
    timers, rung = Timers(), []
    for n in range(10_000):
        timers.add(float(n * 7919 % 100), lambda n=n: rung.append(n))  # type: ignore[misc]
    while (callback := timers.due(1e9)) is not None:
        callback()
    assert rung == sorted(range(10_000), key=lambda n: (n * 7919 % 100, n))
