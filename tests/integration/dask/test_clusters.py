"""Clusters that are not there, that go, that give workers up, and that have none until somebody asks."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster

from exoflow import flow, task
from exoflow.errors import ExecutorError
from exoflow.executors.dask import DaskExecutor
from exoflow.protocols import Computed, Vanished
from exoflow.testing.executors import WAIT_S, Bench, lines, wait_for_line, waits

GIVES_UP = {"distributed.deploy.lost-worker-timeout": "0 s"}


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


@task
def dies_twice(log: str) -> int:
    with open(log, "a") as file:
        file.write(f"{os.getpid()}\n")
    if len(lines(Path(log))) < 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def test_a_worker_that_dask_gave_up_is_started_again_in_a_cluster_of_our_own(tmp_path: Path) -> None:
    executor = DaskExecutor(workers=1)

    @flow(executor=executor)
    def one() -> int:
        return dies_twice(str(tmp_path / "log"))

    with dask.config.set(GIVES_UP):
        assert one.options(store=tmp_path / "store").run() == int(lines(tmp_path / "log")[2])
        executor.close()


@pytest.mark.big
def test_where_dask_gave_up_the_last_worker_it_is_said_and_another_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        dask.config.set(GIVES_UP),
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        executor = DaskExecutor(client)

        @flow(executor=executor)
        def one() -> int:
            return dies_twice(str(tmp_path / "log"))

        run = one.options(store=tmp_path / "store").start()
        for deaths in (1, 2):
            until(lambda n=deaths: caplog.text.count("none now: start one (cluster.scale(n))") >= n, "it was not said")  # type: ignore[misc]
            assert caplog.text.count("died: 1 attempts were lost with it") == deaths
            cluster.scale(1)
        assert run.result() == int(lines(tmp_path / "log")[2])
        executor.close()


def test_an_address_at_which_nobody_listens_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    @flow(executor="tcp://127.0.0.1:9")
    def one() -> int:
        return dies_twice(str(tmp_path / "log"))

    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        run = one.options(store=tmp_path / "store").start()
        with pytest.raises(
            ExecutorError, match=r"scheduler at tcp://127.0.0.1:9: ConnectionRefused.* `dask scheduler`"
        ):
            run.result()


OPTIONS = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": ":0"}


@task
def stays(started: str, gate: str) -> str:
    return waits(started, gate)


@pytest.mark.big
def test_a_run_whose_program_leaves_its_cluster_stops_and_says_how_to_go_on(tmp_path: Path) -> None:
    started = tmp_path / "started"
    executor = DaskExecutor()

    @flow(executor=executor)
    def two() -> list[str]:
        return stays.map([str(started)] * 2, [str(tmp_path / "gate")] * 2).result()

    with LocalCluster(**OPTIONS) as cluster, Client(cluster):
        run = two.options(store=tmp_path / "store").start()
        os.kill(int(wait_for_line(started)), signal.SIGSTOP)  # it takes nothing more
    with pytest.raises(ExecutorError, match=r"is gone in mid-run: connect to another one, .* exoflow.resume"):
        run.result()
    executor.close()


def test_a_client_that_was_closed_is_an_error_that_says_so(tmp_path: Path) -> None:
    with LocalCluster(n_workers=0, dashboard_address=":0") as cluster, Client(cluster, set_as_default=False) as client:
        executor = DaskExecutor(client)

    @flow(executor=executor)
    def one() -> int:
        return dies_twice(str(tmp_path / "log"))

    run = one.options(store=tmp_path / "store").start()
    with pytest.raises(ExecutorError, match="scheduler of this program's client: ConnectionError: it was closed"):
        run.result()
    executor.close()


@pytest.mark.big
def test_what_has_not_begun_when_its_cluster_goes_runs_on_the_next_one(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    executor = DaskExecutor()
    bench = Bench(executor)
    old = LocalCluster(**OPTIONS)
    with Client(old):
        bench.start(waits, str(tmp_path / "first"), str(gate))
        wait_for_line(tmp_path / "first")
        bench.start(waits, str(tmp_path / "second"), str(gate))
        with LocalCluster(**OPTIONS) as new, Client(new) as client:
            os.kill(int(lines(tmp_path / "first")[0]), signal.SIGSTOP)  # it is not replaced, and takes nothing more
            old.close()
            assert isinstance(bench.outcome(), Vanished)
            wait_for_line(tmp_path / "second")
            gate.touch()
            assert isinstance(bench.outcome(), Computed)
            assert lines(tmp_path / "second") == [str(pid) for pid in client.run(os.getpid).values()]
            assert len(lines(tmp_path / "first")) == 1
            executor.close()


def test_a_cluster_that_scales_to_nothing_starts_workers_for_what_waits(tmp_path: Path) -> None:
    with (
        LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        cluster.adapt(minimum=0, maximum=2, interval="100 ms", target_duration="1 ms")
        bench = Bench(DaskExecutor(client))
        gate = tmp_path / "gate"
        for _ in range(4):
            bench.start(waits, str(tmp_path / "log"), str(gate))
        until(lambda: len(set(lines(tmp_path / "log"))) == 2, "there are no two workers")
        gate.touch()
        assert all(isinstance(bench.outcome(), Computed) for _ in range(4))
        bench.executor.close()


PROGRAM = """
    import os, signal, sys
    from exoflow import flow, task

    @task
    def dies_twice(log):
        with open(log, "a") as file:
            file.write("begun\\n")
        if os.path.getsize(log) < 18:
            os.kill(os.getpid(), signal.SIGKILL)

    @flow(executor="dask:1")
    def one(log):
        dies_twice(log)

    if __name__ == "__main__":
        one.options(store=sys.argv[1]).run(sys.argv[2])
"""


@pytest.mark.big
def test_each_death_of_a_worker_of_our_own_cluster_is_told_in_one_line(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    command = [sys.executable, str(program), str(tmp_path / "store"), str(tmp_path / "log")]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    said = [line for line in ran.stderr.splitlines() if "attempts wait for" not in line]  # on a slow machine
    assert len(said) == 2, ran.stderr
    assert all("died: 1 attempts were lost with it" in line for line in said)
