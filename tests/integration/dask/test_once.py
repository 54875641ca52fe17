"""V11: whatever Dask would do by itself, no attempt begins twice, and what is lost is reported as lost."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client

from exoflow.codec import decode, make_reference
from exoflow.executors.dask import DaskExecutor
from exoflow.model import CallId, Held
from exoflow.protocols import Computed, Vanished
from exoflow.testing.executors import LARGE, WAIT_S, Bench, lines, returned, wait_for_line, waits

A = CallId("a")


@pytest.fixture
def bench(client: Client) -> Iterator[Bench]:
    executor = DaskExecutor(client)
    yield Bench(executor)
    executor.close()


def chosen(log: str) -> bytes:
    """Another value each time."""
    _note(log)
    return os.urandom(LARGE)


def counted(log: str, *_: object) -> int:
    _note(log)
    return os.getpid()


def counted_after(log: str, seconds: float) -> int:
    _note(log)
    time.sleep(seconds)
    return os.getpid()


def waits_with(value: bytes, started: str, gate: str) -> int:
    waits(started, gate)
    return len(value)


def _note(log: str) -> None:
    with open(log, "a") as file:
        file.write(f"{os.getpid()}\n")


def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def workers(client: Client) -> dict[str, int]:
    """The process of each worker, by address."""
    return dict(client.run(os.getpid))


def both_workers_work(bench: Bench, folder: Path) -> None:
    gate = folder / "both"
    for _ in range(2):
        bench.start(waits, str(folder / "workers"), str(gate))
    until(lambda: len(set(lines(folder / "workers"))) == 2, "there are no two workers")
    gate.touch()
    assert all(isinstance(bench.outcome(), Computed) for _ in range(2))


def test_an_attempt_whose_worker_is_killed_is_reported_and_not_run_again(
    bench: Bench, client: Client, tmp_path: Path
) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"
    bench.start(waits, str(started), str(gate))
    pid = int(wait_for_line(started))
    address = next(address for address, each in workers(client).items() if each == pid)
    os.kill(pid, signal.SIGKILL)
    outcome = bench.outcome()
    assert outcome == Vanished(f"its worker {address} (process {pid}) died")
    both_workers_work(bench, tmp_path)  # also the new one, where Dask would run it again
    assert lines(started) == [str(pid)]
    assert bench.reports.empty()


def test_a_lost_value_is_not_made_again_and_its_consumers_are_told(bench: Bench, tmp_path: Path) -> None:
    made, gate = tmp_path / "made", tmp_path / "gate"
    held = bench.compute(chosen, str(made))
    assert isinstance(held, Held)
    ref = make_reference(A)
    bench.start(waits_with, ref, str(tmp_path / "first"), str(gate), inputs={A: held})  # there, where the value is
    wait_for_line(tmp_path / "first")
    bench.start(waits, str(tmp_path / "other"), str(gate))  # keeps the other worker busy
    wait_for_line(tmp_path / "other")
    bench.start(waits_with, ref, str(tmp_path / "second"), str(gate), inputs={A: held})  # waits for a place
    os.kill(int(lines(made)[0]), signal.SIGKILL)
    for _ in range(2):
        outcome = bench.outcome()
        assert isinstance(outcome, Vanished)
        assert outcome.lost == (A,)
    with pytest.raises(KeyError):
        bench.executor.fetch(held)
    gate.touch()
    assert isinstance(bench.outcome(), Computed)
    both_workers_work(bench, tmp_path)
    assert bench.has_nothing_more()
    assert len(lines(made)) == 1
    assert lines(tmp_path / "second") == []


def test_a_value_that_another_worker_has_too_outlives_the_one_that_made_it(bench: Bench, tmp_path: Path) -> None:
    made, gate = tmp_path / "made", tmp_path / "gate"
    held = bench.compute(chosen, str(made))
    assert isinstance(held, Held)
    ref = make_reference(A)
    bench.start(waits_with, ref, str(tmp_path / "first"), str(gate), inputs={A: held})
    wait_for_line(tmp_path / "first")
    bench.start(waits_with, ref, str(tmp_path / "second"), str(gate), inputs={A: held})
    wait_for_line(tmp_path / "second")
    before = decode(bench.executor.fetch(held))  # type: ignore[arg-type]  # it is one
    os.kill(int(lines(made)[0]), signal.SIGKILL)
    assert isinstance(bench.outcome(), Vanished)
    gate.touch()
    assert isinstance(bench.outcome(), Computed)
    assert decode(bench.executor.fetch(held)) == before  # type: ignore[arg-type]  # it is one
    assert len(lines(made)) == 1


@pytest.mark.big
def test_a_worker_that_retires_hands_on_its_values_and_what_it_ran_is_lost_once(
    bench: Bench, client: Client, tmp_path: Path
) -> None:
    made, started, gate = tmp_path / "made", tmp_path / "started", tmp_path / "gate"
    held = bench.compute(chosen, str(made))
    before = decode(bench.executor.fetch(held))  # type: ignore[arg-type]  # it is one
    bench.start(waits_with, make_reference(A), str(started), str(gate), inputs={A: held})
    pid = int(wait_for_line(started))
    assert pid == int(lines(made)[0])
    address = next(address for address, each in workers(client).items() if each == pid)
    retiring = threading.Thread(target=client.retire_workers, args=([address],))
    retiring.start()
    until(lambda: address not in client.run_on_scheduler(addresses), "it has not retired")
    assert bench.reports.empty(), "it was reported before it had ended"
    gate.touch()
    outcome = bench.outcome()
    assert outcome == Vanished(f"its worker {address} (process {pid}) left the cluster")
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    retiring.join()
    assert decode(bench.executor.fetch(held)) == before  # type: ignore[arg-type]  # it is one
    assert bench.has_nothing_more()
    assert (lines(made), lines(started)) == ([str(pid)], [str(pid)])


def addresses(dask_scheduler: Any) -> list[str]:
    return list(dask_scheduler.workers)


@pytest.mark.big
def test_under_imbalance_what_has_not_begun_moves_and_nothing_begins_twice(bench: Bench, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for _ in range(20):  # so that it is taken for a short task, of which a worker gets many at once
        bench.compute(counted_after, str(tmp_path / "before"), 0.0)
    for n in range(40):
        bench.start(counted_after, str(log), 3.0 if n < 1 else 0.01, batchable=True)
    outcomes = [bench.outcome() for _ in range(40)]
    assert {type(outcome) for outcome in outcomes} == {Computed}, outcomes
    assert len(lines(log)) == 40
    assert min(map(lines(log).count, set(lines(log)))) < 20, "the slow one's worker has done as much as the other"
    assert bench.has_nothing_more()


def counted_behind(log: str, gate: str) -> int:
    _note(log)
    while gate and not os.path.exists(gate):
        time.sleep(0.01)
    return os.getpid()


def test_what_lay_unbegun_on_a_worker_that_died_is_started_elsewhere_and_no_loss_is_told(
    bench: Bench, tmp_path: Path
) -> None:
    first, behind, gate = tmp_path / "first", tmp_path / "behind", tmp_path / "gate"
    for _ in range(20):  # so that it is taken for a short task, of which a worker gets many at once
        bench.compute(counted_behind, str(tmp_path / "before"), "")
    for _ in range(2):
        bench.start(counted_behind, str(first), str(gate), batchable=True)
    until(lambda: len(set(lines(first))) == 2, "there are no two workers")
    for _ in range(20):
        bench.start(counted_behind, str(behind), "", batchable=True)
    until(lambda: bench_has_sent(bench, 22), "not all were sent")
    os.kill(int(lines(first)[0]), signal.SIGKILL)
    assert isinstance(bench.outcome(), Vanished)
    gate.touch()
    outcomes = [bench.outcome() for _ in range(21)]
    assert {type(outcome) for outcome in outcomes} == {Computed}, outcomes
    assert len(lines(behind)) == 20
    assert bench.has_nothing_more()


def bench_has_sent(bench: Bench, count: int) -> bool:
    executor = bench.executor
    assert isinstance(executor, DaskExecutor)
    return sum(entry.future is not None for entry in executor._live.values()) == count


@contextlib.contextmanager
def cluster_of_fixed_ports(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and one worker whose nanny starts it anew under the same address."""
    file = tmp_path / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard"]
    processes = [subprocess.Popen([*command, "--scheduler-file", str(file)], stderr=subprocess.DEVNULL)]
    try:
        until(file.exists, "no scheduler")
        until(lambda: file.read_text().endswith("}"), "no scheduler")
        with Client(scheduler_file=str(file), set_as_default=False) as client:
            import socket

            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            command = [sys.executable, "-m", "distributed.cli.dask_worker", client.scheduler.address, "--nthreads", "1"]
            options = ["--worker-port", str(port), "--no-dashboard", "--local-directory", str(tmp_path)]
            processes.append(subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL))
            client.wait_for_workers(1)
            yield client.scheduler.address, processes
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()


def test_a_worker_that_returns_under_its_address_does_not_get_its_attempt_again(tmp_path: Path) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"
    with cluster_of_fixed_ports(tmp_path) as (address, _), Client(address, set_as_default=False) as other:
        executor = DaskExecutor(address)
        bench = Bench(executor)
        bench.start(waits, str(started), str(gate))
        pid = int(wait_for_line(started))
        key = other.run_on_scheduler(wanted_by_others)
        os.kill(pid, signal.SIGKILL)
        assert isinstance(bench.outcome(), Vanished)
        until(lambda: other.run_on_scheduler(is_done, key), "Dask has not run it again")  # as it saw it
        assert bench.result(counted, str(tmp_path / "log")) != pid
        assert lines(started) == [str(pid)]
        executor.close()


def wanted_by_others(dask_scheduler: Any) -> str:
    """So that Dask does not forget it when we release it."""
    (key,) = (key for key in dask_scheduler.tasks if key.startswith("waits-"))
    dask_scheduler.client_desires_keys([key], "others")
    return str(key)


def is_done(key: str, dask_scheduler: Any) -> bool:
    return dask_scheduler.tasks[key].state == "memory"


@pytest.mark.big
def test_a_cluster_that_dies_is_told_and_another_goes_on(tmp_path: Path) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"
    with cluster_of_fixed_ports(tmp_path) as (address, processes):
        executor = DaskExecutor(address)
        bench = Bench(executor)
        held = bench.compute(chosen, str(tmp_path / "made"))
        bench.start(waits, str(started), str(gate))
        pid = int(wait_for_line(started))
        bench.start(returned, 1)  # waits for a place
        for process in processes:
            process.kill()
            process.wait()
        first, second = bench.outcome(), bench.outcome()
        assert "the connection to Dask's scheduler was lost" in str(first)
        assert "cannot connect to Dask" in str(second) or isinstance(second, Vanished)
        with pytest.raises(KeyError):
            bench.executor.fetch(held)
        executor.close()
        gate.touch()
        with contextlib.suppress(ProcessLookupError):  # it may have ended without its nanny and its scheduler
            os.kill(pid, signal.SIGKILL)
