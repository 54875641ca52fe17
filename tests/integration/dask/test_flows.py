"""Flows on Dask that lose workers, their whole cluster, or themselves. Bodies are counted outside."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
from distributed import Client, LocalCluster, get_worker

import exoflow
from exoflow import flow, task
from exoflow.errors import ExecutorError, TaskFailed
from exoflow.testing.executors import LARGE, lines, wait_for_line, waits


@pytest.fixture(scope="module")
def dask_client() -> Iterator[Client]:
    """This process's client: what ``executor="dask"`` finds."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster) as client:
        yield client


def entered(log: str, name: str) -> None:
    with open(log, "a") as file:
        file.write(f"{name}\n")


def dies_once(log: str) -> None:
    """End the worker's process the first time."""
    if not os.path.exists(f"{log}.died"):
        Path(f"{log}.died").touch()
        os.kill(os.getpid(), signal.SIGKILL)


def counts(log: Path) -> str:
    return " ".join(f"{name}{count}" for name, count in sorted(Counter(lines(log)).items()))


def chain(dying: str, options: dict[str, dict[str, Any]], log: str, size: int = 1) -> Any:
    """A→B→C, in which one of them takes its worker with it."""

    def make(name: str) -> Callable[[bytes], bytes]:
        def body(given: bytes) -> bytes:
            entered(log, name)
            if name == dying:
                dies_once(log)
            return given[:1] + name.encode() * (size if name == "B" else 1)

        return body

    a, b, c = (task(name=name, **options.get(name, {}))(make(name)) for name in "ABC")

    @flow(name="chain")
    def run() -> object:
        made = b.submit(a.submit(b"x"))
        return bytes(c.submit(made).result())

    return run


SYNC = {name: {"checkpoint": "sync"} for name in "ABC"}
NEVER = {"A": {"checkpoint": "never"}, "B": {"checkpoint": "never"}, "C": {"checkpoint": "sync"}}


@pytest.mark.parametrize(
    ("_row", "dying", "options", "size", "expected"),
    [
        ("13", "B", SYNC, 1, "A1 B2 C1"),
        ("18", "C", NEVER, 1, "A1 B1 C2"),
        ("20", "C", NEVER, LARGE, "A1 B2 C2"),
    ],
)
def test_only_what_a_dead_worker_took_with_it_is_run_again(
    dask_client: Client, tmp_path: Path, _row: str, dying: str, options: dict[str, Any], size: int, expected: str
) -> None:
    log = tmp_path / "log"
    run = chain(dying, options, str(log), size).options(store=tmp_path / "store", executor="dask")
    assert run.run() == b"xC"
    assert counts(log) == expected


def test_an_attempt_that_may_not_be_lost_fails_its_run_and_is_resumed(dask_client: Client, tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = {**SYNC, "B": {"checkpoint": "sync", "losses": 0}}
    run = chain("B", options, str(log)).options(store=tmp_path / "store", executor="dask", run_id="r").start()
    with pytest.raises(TaskFailed, match=r"its worker tcp://.* died"):
        run.result()
    assert counts(log) == "A1 B1"
    assert exoflow.resume("r", store=tmp_path / "store", executor="dask") == b"xC"
    assert counts(log) == "A1 B2 C1"


def test_a_client_that_runs_already_is_used_and_left_as_it_was(dask_client: Client, tmp_path: Path) -> None:
    from exoflow.executors import open_executor

    def scheduler() -> str:
        return str(get_worker().scheduler.address)

    executor = open_executor("dask")

    @flow(executor=executor)
    def where() -> str:
        return str(task(scheduler)())

    assert where.options(store=tmp_path).run() == dask_client.scheduler.address
    executor.close()
    assert dask_client.submit(sum, [1, 2]).result() == 3


def test_what_no_worker_ever_has_is_an_error_that_says_so(tmp_path: Path) -> None:
    from exoflow.executors.dask import DaskExecutor

    executor = DaskExecutor(workers=1)

    @task(resources={"GPU": 2})
    def trains() -> None: ...

    @flow(executor=executor)
    def needs() -> None:
        trains()

    run = needs.options(store=tmp_path).start()
    with pytest.raises(ExecutorError, match="no worker of the cluster on this machine has GPU: 2, num_cpus: 1"):
        run.result()
    executor.close()


def test_resources_are_those_of_the_workers(tmp_path: Path) -> None:
    from exoflow.executors.dask import DaskExecutor

    with (
        LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=":0", resources={"GPU": 1}) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        executor = DaskExecutor(client)
        log = tmp_path / "log"

        @task(resources={"num_gpus": 1})
        def trains(n: int) -> int:
            place = Path(f"{log}.{os.getpid()}")
            place.touch(exist_ok=False)  # it is alone on its worker
            place.unlink()
            return n

        @flow(executor=executor)
        def many() -> list[int]:
            return [ref.result() for ref in [trains.submit(n) for n in range(20)]]

        assert many.options(store=tmp_path / "store").run() == list(range(20))
        executor.close()


PROGRAM = """
    import os, sys, time
    import exoflow
    from exoflow import flow, task

    log, gate = sys.argv[1:3]

    def note(name):
        with open(log, "a") as file:
            file.write(f"{name} {os.getpid()}\\n")

    @task(checkpoint="sync")
    def first():
        note("first")
        return os.urandom(100_000)

    @task
    def second(value):
        note("second")
        while not os.path.exists(gate):
            time.sleep(0.01)
        return len(value)

    @flow
    def both():
        return second(first.submit())

    if __name__ == "__main__":
        options = {"store": sys.argv[3], "executor": "dask:2"}
        if sys.argv[4] == "run":
            both.options(run_id="r", **options).run()
        else:
            print(exoflow.resume("r", **options))
"""


def test_a_killed_driver_leaves_nothing_behind_and_is_resumed(tmp_path: Path) -> None:
    program, log, gate = tmp_path / "program.py", tmp_path / "log", tmp_path / "gate"
    program.write_text(textwrap.dedent(PROGRAM))
    command = [sys.executable, str(program), str(log), str(gate), str(tmp_path / "store")]
    with subprocess.Popen([*command, "run"]) as driver:
        while len(lines(log)) < 2:
            assert driver.poll() is None
        family = psutil.Process(driver.pid).children(recursive=True)
        driver.kill()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
    gate.touch()
    resumed = subprocess.run([*command, "resume"], capture_output=True, text=True, check=True)
    assert resumed.stdout == "100000\n"
    assert [line.split()[0] for line in lines(log)] == ["first", "second", "second"]


def test_a_run_whose_cluster_has_died_goes_on_with_another(dask_client: Client, tmp_path: Path) -> None:
    log, gate = tmp_path / "log", tmp_path / "gate"

    @task(checkpoint="sync")
    def first() -> bytes:
        entered(str(log), "first")
        return os.urandom(LARGE)

    @task
    def second(value: bytes) -> int:
        waits(f"{log}.started", str(gate))
        return len(value)

    @flow(name="both")
    def both() -> int:
        return second(first.submit())

    scheduler_file = tmp_path / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_spec", "--spec"]
    spec = '{"cls": "dask.distributed.Scheduler", "opts": {"port": 0, "dashboard": false, "scheduler_file": "%s"}}'
    with subprocess.Popen([*command, spec % scheduler_file], stderr=subprocess.DEVNULL) as scheduler:
        while not scheduler_file.exists() or not scheduler_file.read_text().endswith("}"):
            assert scheduler.poll() is None
        with Client(scheduler_file=str(scheduler_file), set_as_default=False) as other:
            address = other.scheduler.address
        spec = '{"cls": "dask.distributed.Worker", "opts": {"nthreads": 1}}'
        with subprocess.Popen([*command, spec, address], stderr=subprocess.DEVNULL) as worker:
            run = both.options(store=tmp_path / "store", executor=address, run_id="r").start()
            wait_for_line(Path(f"{log}.started"))
            worker.kill()
            scheduler.kill()
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(ExecutorError, match=r"cannot conn.* it is gone: .*exoflow.resume"),
    ):
        run.result()
    gate.touch()
    assert exoflow.resume("r", store=tmp_path / "store", executor="dask") == LARGE
    assert lines(log) == ["first"]


@pytest.mark.big
def test_a_body_that_does_not_let_itself_be_stopped_costs_its_worker(tmp_path: Path) -> None:
    from exoflow.executors.dask import DaskExecutor

    executor = DaskExecutor(workers=1)

    @task(timeout=0.5, losses=0)
    def stubborn() -> None:
        entered(str(tmp_path / "pid"), str(os.getpid()))
        while True:
            try:
                threading.Event().wait(0.1)
            except BaseException:  # noqa: BLE001 -- it is stubborn
                continue

    @flow(executor=executor)
    def one() -> None:
        stubborn()

    run = one.options(store=tmp_path / "store").start()
    with pytest.raises(TimeoutError, match=r"timed out after 0.5 s; its worker was killed"):
        run.result()
    with pytest.raises(ProcessLookupError):
        os.kill(int(lines(tmp_path / "pid")[0]), 0)
    executor.close()
