"""Attempts that share a Ray task: what a dead worker, a cancel and a slow one among them do to the others."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

import exoflow
from exoflow import flow, task
from exoflow.executors.ray import RayExecutor, batching
from exoflow.protocols import Computed, Raised, Vanished
from exoflow.testing.executors import WAIT_S, Bench, failing, large, lines, wait_for_line, waits

pytestmark = pytest.mark.usefixtures("ray_cluster")

COUNT = 40
"""On two CPUs, the first 10 of them go together."""


class Together(Bench):
    """An executor that believes that what it is given is short, and gets it at once."""

    def start_all(self, function, arguments):
        self.executor._cluster.join("run", 0.0)
        self.executor._batches._look()
        gate = threading.Event()
        self.executor._threads.put(gate.wait)
        self.executor._batches._pace.took(function.__name__, 0.0)
        attempts = [self.start(function, *args, batchable=True) for args in arguments]
        gate.set()
        return attempts

    def outcomes(self, count):
        """By the place of the attempt; each was reported once."""
        reports = [self.reports.get(timeout=WAIT_S) for _ in range(count)]
        assert len({serial for serial, _ in reports}) == count
        return {serial - 1: outcome for serial, outcome in reports}


@pytest.fixture
def bench():
    executor = RayExecutor()
    yield Together(executor)
    executor.close()


def noted(number, log, *, kills=None):
    with open(log, "a") as file:
        file.write(f"{number}\n")
    if number == kills:
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def killed(number, log):
    return noted(number, log, kills=7)


def test_a_worker_that_is_killed_takes_its_own_batch_along_and_each_of_it_once(bench, tmp_path):
    bench.start_all(killed, [(number, str(tmp_path / "log")) for number in range(COUNT)])
    outcomes = bench.outcomes(COUNT)
    vanished = {place for place, outcome in outcomes.items() if isinstance(outcome, Vanished)}
    assert vanished == set(range(10))
    assert all("its worker died" in outcomes[place].reason for place in vanished)
    assert all(isinstance(outcomes[place], Computed) for place in range(10, COUNT))
    assert sorted(map(int, lines(tmp_path / "log"))) == [*range(8), *range(10, COUNT)]
    assert bench.has_nothing_more()


@task
def numbered(number, marks):
    Path(marks, f"{number} {exoflow.attempt()}").touch()
    if number == 7 and exoflow.attempt() < 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_what_a_batch_has_lost_runs_again_by_itself(tmp_path, monkeypatch):
    """Number 7 ends the workers of its first two tries: of the first alone the others know."""
    monkeypatch.setattr(batching.Pace, "of", lambda pace, name: 0.0)
    executor = RayExecutor()

    @flow(executor=executor)
    def trial(marks):
        return sum(numbered.map(range(COUNT), [marks] * COUNT).result())

    marks = tmp_path / "marks"
    marks.mkdir()
    assert trial.options(store=tmp_path / "store").run(str(marks)) == sum(range(COUNT))
    assert [path.name for path in marks.glob("* 3")] == ["7 3"]
    executor.close()


def test_an_error_is_its_own_attempts_alone(bench):
    bench.start_all(failing, [(str(number),) for number in range(COUNT)])
    assert all(isinstance(outcome, Raised) for outcome in bench.outcomes(COUNT).values())


def gated(number, log, gate):
    with open(log, "a") as file:
        file.write(f"{number}\n")
    while number == 0 and not os.path.exists(gate):
        time.sleep(0.01)


def test_one_that_is_cancelled_does_not_begin_once_that_is_reported(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(batching, "GRACE_S", WAIT_S)
    log, gate = tmp_path / "log", tmp_path / "gate"
    attempts = bench.start_all(gated, [(number, str(log), str(gate)) for number in range(COUNT)])
    wait_for_line(log)
    for number in (3, COUNT - 1):  # one is with the worker, the other has not been sent, or has been run
        bench.executor.cancel(attempts[number].version, attempts[number].run_id)
    gate.touch()
    begun, outcomes = {}, {}
    for _ in range(COUNT):
        serial, outcomes[serial - 1] = bench.reports.get(timeout=WAIT_S)
        begun[serial - 1] = lines(log).count(str(serial - 1))
    assert outcomes[3] == Vanished("cancelled", outcomes[3].seconds)
    assert all(lines(log).count(str(number)) == begun[number] for number in range(COUNT))
    assert all(begun[number] == 1 for number in range(COUNT) if number not in (3, COUNT - 1))
    assert bench.has_nothing_more()


@pytest.mark.big
def test_one_that_is_cancelled_and_does_not_end_is_killed_with_its_batch(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(batching, "GRACE_S", 0.0)
    started, gate = tmp_path / "started", tmp_path / "gate"
    attempts = bench.start_all(waits, [(str(started), str(gate))] * 8)
    wait_for_line(started)
    for attempt in attempts[::2]:
        bench.executor.cancel(attempt.version, attempt.run_id)
    outcomes = [bench.outcome() for _ in range(4)]
    gate.touch()
    outcomes += [bench.outcome() for _ in range(4)]
    assert sum(isinstance(outcome, Vanished) and outcome.reason == "cancelled" for outcome in outcomes) == 4
    assert bench.has_nothing_more()


def slow_first(number, log):
    noted(number, log)
    time.sleep(0.2 if number == 0 else 0.0)


def test_what_would_have_to_wait_for_a_slow_one_is_sent_again(bench, tmp_path):
    log = tmp_path / "log"
    bench.start_all(slow_first, [(number, str(log)) for number in range(COUNT)])
    assert all(isinstance(outcome, Computed) for outcome in bench.outcomes(COUNT).values())
    assert sorted(map(int, lines(log))) == list(range(COUNT))
    assert bench.has_nothing_more()


def test_large_values_are_not_made_in_batches(bench):
    """Each object of Ray's would live as long as the last value in it."""
    bench.start_all(large, [(number,) for number in range(COUNT)])
    refs = [outcome.value.handle.ref for outcome in bench.outcomes(COUNT).values()]
    assert len(set(refs)) == COUNT
