"""Clusters that are not one thread a worker in processes of their own, and programs that run loops."""

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

from exoflow import flow, task
from exoflow.executors.dask import DaskExecutor
from exoflow.protocols import Vanished
from exoflow.testing.executors import WAIT_S, Bench, returned, wait_for_line, waits


def asleep(started: str, gate: str) -> None:
    """In one call into C, until the gate is there."""
    os.mkfifo(gate)
    with open(started, "w") as file:
        file.write(f"{os.getpid()}\n")
    with open(gate) as file:  # until somebody opens it for writing
        file.read()


@task
def thread() -> int:
    return threading.get_ident()


@task
async def slept() -> str:
    await asyncio.sleep(0)
    return "slept"


def test_bodies_run_in_all_threads_of_a_worker_and_stopping_one_leaves_the_others(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with (
        LocalCluster(n_workers=1, threads_per_worker=3, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        executor = DaskExecutor(client)
        bench = Bench(executor)
        attempts = [bench.start(waits, str(tmp_path / f"started{n}"), str(gate)) for n in range(3)]
        pids = {wait_for_line(tmp_path / f"started{n}") for n in range(3)}
        assert len(pids) == 1
        executor.cancel(attempts[1].version, attempts[1].run_id)
        serial, outcome = bench.reports.get()
        assert serial == 2
        assert isinstance(outcome, Vanished)
        assert outcome.reason == "cancelled"
        gate.touch()
        assert {bench.reports.get()[0] for _ in range(2)} == {1, 3}
        assert bench.result(returned, 1) == 1
        executor.close()


@pytest.mark.big
def test_a_body_in_c_code_on_a_cluster_of_others_is_reported_as_one_that_may_still_run(tmp_path: Path) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        executor = DaskExecutor(client)
        bench = Bench(executor)
        attempt = bench.start(asleep, str(started), str(gate))
        pid = int(wait_for_line(started))
        executor.cancel(attempt.version, attempt.run_id)
        outcome = bench.outcome()
        assert isinstance(outcome, Vanished)
        assert outcome.reason == "cancelled; its thread cannot be ended and may still run"
        os.kill(pid, 0)
        gate.write_text("")
        executor.close()


async def test_a_cluster_and_a_client_on_the_programs_own_loop(tmp_path: Path) -> None:
    async with (
        LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=":0", asynchronous=True) as cluster,
        Client(cluster, asynchronous=True, set_as_default=False) as client,
    ):
        executor = DaskExecutor(client)

        @flow(executor=executor)
        async def both() -> str:
            await thread.submit()
            return await slept()

        assert await both.options(store=tmp_path).start() == "slept"
        await asyncio.to_thread(executor.close)


def test_exoflow_does_not_import_dask() -> None:
    program = "import sys, exoflow; raise SystemExit('dask' in sys.modules or 'distributed' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_dask_the_error_names_what_to_install() -> None:
    program = """if True:
        import sys
        sys.modules["distributed"] = None
        from exoflow.errors import ExecutorError
        from exoflow.executors import open_executor
        try:
            open_executor("dask")
        except ExecutorError as error:
            raise SystemExit("pip install 'exoflow[dask]'" not in str(error))
        raise SystemExit(1)
    """
    subprocess.run([sys.executable, "-c", program], check=True)


def test_each_event_loop_of_a_program_may_have_a_cluster_of_its_own(tmp_path: Path) -> None:
    executor = DaskExecutor()

    @flow(executor=executor)
    async def one() -> str:
        return await slept()

    async def program() -> str:
        async with (
            LocalCluster(n_workers=1, processes=False, dashboard_address=":0", asynchronous=True) as cluster,
            Client(cluster, asynchronous=True),
        ):
            return await asyncio.wait_for(one.options(store=tmp_path / "store").run(), WAIT_S)

    for _ in range(2):
        assert asyncio.run(program()) == "slept"
    executor.close()
