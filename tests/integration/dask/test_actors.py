"""Actors whose worker, or whose whole cluster, is killed. Bodies are counted outside."""

import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client

import exoflow
from exoflow import flow, task
from exoflow.attempts.actors import Creation, Method
from exoflow.codec import make_reference
from exoflow.errors import ExecutorError
from exoflow.executors.dask import DaskExecutor
from exoflow.model import CallId, Stored
from exoflow.protocols import ActorPart, Computed, Vanished
from exoflow.storage import MemoryStore
from exoflow.testing.executors import (
    LARGE,
    LOST_STATE,
    TALLY,
    Bench,
    Tally,
    from_snapshot,
    large,
    lines,
    wait_for_line,
    waits,
    with_state,
)

ROW_65 = {"New": 2, "1": 1, "2": 1, "3": 1, "4": 1, "5": 1, "6": 2, "7": 2, "8": 1, "9": 1, "10": 1}

PROGRAM = """
    import os, sys, time
    import exoflow
    from exoflow import flow, task

    log, gate = {log!r}, {gate!r}

    def note(name):
        with open(log, "a") as file:
            file.write("%s %s\\n" % (name, os.getpid()))

    @exoflow.actor(snapshot_every=5)
    class Counter:
        def __init__(self):
            note("New")
            self.n = 0

        @task(deterministic=True, checkpoint="sync")
        def inc(self, number):
            note(number)
            while number == 7 and not os.path.exists(gate):
                time.sleep(0.01)
            self.n += 1
            return self.n

    @flow
    def counts():
        counter = Counter()
        for number in range(1, 11):
            last = counter.inc(number)
        return last

    if __name__ == "__main__":
        what, executor = sys.argv[1:]
        run = counts.options(store={store!r}, executor=executor, run_id="r")
        print(run.run() if what == "run" else exoflow.resume("r", store={store!r}, executor=executor))
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    program = tmp_path / "program.py"
    paths = {name: str(tmp_path / name) for name in ("log", "gate", "store")}
    program.write_text(textwrap.dedent(PROGRAM).format(**paths))
    return [sys.executable, str(program)]


def at_seven(log: Path, driver: "subprocess.Popen[Any]") -> int:
    """The process that counts to seven."""
    while not (found := [line.split()[1] for line in lines(log) if line.startswith("7 ")]):
        assert driver.poll() is None
        time.sleep(0.01)
    return int(found[0])


def counted(log: Path) -> dict[str, int]:
    return Counter(line.split()[0] for line in lines(log))


def test_65_a_killed_worker_costs_what_came_behind_the_fifth(
    command: list[str], client: Client, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with subprocess.Popen([*command, "run", client.scheduler.address], stdout=subprocess.PIPE, text=True) as driver:
        pid = at_seven(log, driver)
        os.kill(pid, signal.SIGKILL)
        (tmp_path / "gate").touch()
        assert driver.communicate()[0] == "10\n"
    assert counted(log) == ROW_65
    places = [line.split()[1] for line in lines(log)]
    assert len(set(places)) == 2
    assert places[:8] == [str(pid)] * 8


@pytest.mark.big
def test_65_when_all_is_killed_it_goes_on_from_the_fifth_on_another_cluster(
    command: list[str], client: Client, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with subprocess.Popen([*command, "run", "dask:2"]) as driver:
        at_seven(log, driver)
        family = psutil.Process(driver.pid).children(recursive=True)
        driver.kill()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
    (tmp_path / "gate").touch()
    resumed = subprocess.run([*command, "resume", client.scheduler.address], capture_output=True, text=True, check=True)
    assert resumed.stdout == "10\n"
    assert counted(log) == ROW_65


@pytest.fixture
def bench(client: Client) -> Iterator[Bench]:
    executor = DaskExecutor(client)
    yield Bench(executor)
    executor.close()


def is_free(started: Path) -> bool:
    """Whether the body that has left its line there has ended."""
    with open(started, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


class Holds:
    """An actor that looks at what it is given."""

    def __init__(self, given: bytes) -> None:
        self.first = bytes(given[:1])
        self.process = os.getpid()

    @task
    def looks_at(self, given: bytes) -> tuple[bytes, int, int]:
        return self.first + bytes(given[:1]), len(given), self.process

    @task
    def sleeps(self, seconds: int) -> int:
        for _ in range(10 * seconds):
            time.sleep(0.1)
        return seconds


def test_new_actors_go_where_there_are_fewest_and_get_what_lies_elsewhere(bench: Bench) -> None:
    value = bench.compute(large, ord("x"))
    ref = make_reference(CallId("a"))
    made = [
        bench.act(Creation(Holds), ref, inputs={CallId("a"): value}, actor=ActorPart(TALLY))[1].state for _ in range(4)
    ]
    seen = [bench.act(Method(Holds, "looks_at"), b"y" * LARGE, actor=with_state(state), inputs={})[0] for state in made]
    assert {(first, size) for first, size, _ in seen} == {(b"xy", LARGE)}
    assert sorted(Counter(process for _, _, process in seen).values()) == [2, 2]


def test_a_cancelled_body_has_ended_and_its_state_is_lost(bench: Bench, tmp_path: Path) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"
    _, made = bench.act(Creation(Tally), 0, actor=ActorPart(TALLY))
    attempt = bench.start(Method(Tally, "add_when"), 1, str(started), str(gate), actor=with_state(made.state))
    wait_for_line(started)
    bench.executor.cancel(attempt.version, attempt.run_id)
    outcome = bench.outcome()
    assert isinstance(outcome, Vanished)
    assert outcome.reason == "cancelled"
    assert is_free(started)
    outcome = bench.run(Method(Tally, "add"), 1, actor=with_state(made.state))
    assert isinstance(outcome, Vanished)
    assert outcome.lost == LOST_STATE


def test_a_body_that_timed_out_takes_its_state_along(bench: Bench, tmp_path: Path) -> None:
    _, made = bench.act(Creation(Tally), 0, actor=ActorPart(TALLY))
    outcome = bench.run(
        Method(Tally, "add_when"),
        1,
        str(tmp_path / "started"),
        str(tmp_path / "gate"),
        actor=with_state(made.state),
        timeout_s=0.2,
    )
    assert outcome == Vanished("timed out after 0.2 s", outcome.seconds)
    outcome = bench.run(Method(Tally, "add"), 1, actor=with_state(made.state))
    assert isinstance(outcome, Vanished)
    assert outcome.lost == LOST_STATE


def test_actors_run_while_every_thread_of_the_workers_is_busy(bench: Bench, tmp_path: Path) -> None:
    for _ in range(2):
        bench.start(waits, str(tmp_path / "started"), str(tmp_path / "gate"))
    while len(lines(tmp_path / "started")) < 2:
        time.sleep(0.01)
    _, made = bench.act(Creation(Tally), 3, actor=ActorPart(TALLY))
    assert bench.act(Method(Tally, "add"), 4, actor=with_state(made.state))[0][0] == 7
    (tmp_path / "gate").touch()
    assert all(isinstance(bench.outcome(), Computed) for _ in range(2))


def test_a_snapshot_reaches_a_store_that_workers_cannot_reach(client: Client) -> None:
    executor = DaskExecutor(client, store=MemoryStore())
    bench = Bench(executor)
    _, made = bench.act(Creation(Tally), 3, actor=ActorPart(TALLY, snapshot_to="values/at once"))
    assert made.snapshot is None
    saved = bench.save(made.state, "values/later")
    assert isinstance(saved, Stored)
    executor.release(made.state)
    assert bench.act(Method(Tally, "add"), 1, actor=from_snapshot(saved))[0][0] == 4
    executor.close()


def test_an_actor_for_which_no_worker_has_the_resources_is_an_error_that_says_so(tmp_path: Path) -> None:
    executor = DaskExecutor(workers=1)

    @exoflow.actor(resources={"GPU": 2})
    class Trainer:
        @task
        def step(self) -> int:
            return 1

    @flow(executor=executor)
    def needs() -> int:
        return Trainer().step()

    run = needs.options(store=tmp_path).start()
    with pytest.raises(ExecutorError, match="no worker of the cluster on this machine has GPU: 2"):
        run.result()
    executor.close()


class Leaves:
    """An actor that leaves a line when it is freed."""

    def __init__(self, log: str) -> None:
        self.log = log

    @task
    def stays(self, started: str, gate: str) -> str:
        return waits(started, gate)

    def __del__(self) -> None:
        with open(self.log, "a") as file:
            file.write("freed\n")


@pytest.mark.big
def test_what_a_killed_driver_leaves_on_a_cluster_is_stopped_and_freed(client: Client, tmp_path: Path) -> None:
    log, started, gate = (str(tmp_path / name) for name in ("log", "started", "gate"))
    driver = multiprocessing.get_context("spawn").Process(
        target=drives, args=(client.scheduler.address, log, started, gate)
    )
    driver.start()
    wait_for_line(tmp_path / "started")
    driver.kill()
    driver.join()
    wait_for_line(tmp_path / "log")
    while not is_free(tmp_path / "started"):  # the other's worker looks at another time
        time.sleep(0.01)


@pytest.mark.big
def test_a_body_that_takes_longer_than_the_workers_look_for_its_executor_runs_on(bench: Bench) -> None:
    _, made = bench.act(Creation(Holds), b"x", actor=ActorPart(TALLY))
    assert bench.act(Method(Holds, "sleeps"), 11, actor=with_state(made.state))[0] == 11


def drives(address: str, log: str, started: str, gate: str) -> None:
    bench = Bench(DaskExecutor(address))
    _, _idle = bench.act(Creation(Leaves), log, actor=ActorPart(TALLY))
    _, made = bench.act(Creation(Leaves), os.devnull, actor=ActorPart(TALLY))
    bench.run(Method(Leaves, "stays"), started, gate, actor=with_state(made.state))
