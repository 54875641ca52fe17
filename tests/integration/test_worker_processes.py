"""Processes that are killed: workers, and the one that they work for."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from multiprocessing.connection import wait
from pathlib import Path

import psutil
import pytest

from exoflow import flow, task
from exoflow.codec import decode, encode, make_reference
from exoflow.errors import CodecError, ExecutorError
from exoflow.executors import open_executor
from exoflow.executors.processes import ProcessExecutor, spool as spool_module
from exoflow.executors.processes.child import Worker
from exoflow.executors.processes.spool import Spool, read_spool, write_spool
from exoflow.model import CallId, Held
from exoflow.protocols import Computed, Raised, Vanished
from exoflow.testing.executors import (
    LARGE,
    WAIT_S,
    Bench,
    array,
    is_gone,
    large,
    returned,
    wait_for_line,
    wait_until,
    waits,
)

PROGRAM = """
    import sys, threading
    from exoflow.executors import open_executor
    from exoflow.protocols import Attempt
    from exoflow.testing.executors import large, waits

    def start(executor, number, function, *args):
        done = threading.Event()
        attempt = Attempt("run", f"c{number}", number, 1, "k", function.__name__, function, args, {}, {})
        executor.start(attempt, lambda outcome: (print(outcome, flush=True), done.set()))
        return done

    def own(number):
        return Own(number)

    class Own:
        def __init__(self, number):
            self.number = number

    if __name__ == "__main__":
        executor = open_executor("processes:2")
        start(executor, 1, large, 7).wait()
        print(*executor._spool.folders, flush=True)
        if sys.argv[1] == "own":
            from exoflow.codec import decode, from_bytes
            import queue
            q = queue.Queue()
            executor.start(Attempt("run", "c3", 3, 1, "k", "own", own, (5,), {}, {}), q.put)
            value = decode(from_bytes(q.get().value))
            print(isinstance(value, Own), value.number)
            executor.close()
        else:
            start(executor, 2, waits, sys.argv[1], sys.argv[2]).wait()
"""


@pytest.fixture
def start(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    paths = [path for path in sys.path if path and os.path.isdir(path)]
    started = []

    def start(*args):
        process = subprocess.Popen(
            [sys.executable, program, *args],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline().startswith("Computed")
        return process, [Path(folder) for folder in process.stdout.readline().split()]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_workers_and_spool_go_with_a_killed_parent(start, tmp_path):
    process, folders = start(str(tmp_path / "started"), str(tmp_path / "gate"))
    busy = int(wait_for_line(tmp_path / "started"))
    workers = [
        child.pid
        for child in psutil.Process(process.pid).children()
        if "exoflow.executors.processes.worker" in str(child.cmdline())
    ]
    assert busy in workers
    assert any(list(folder.iterdir()) for folder in folders)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for pid in workers:
        wait_until(lambda pid=pid: is_gone(pid), f"worker {pid} outlived its parent")
    for folder in folders:
        wait_until(lambda folder=folder: not folder.exists(), f"{folder} outlived its process")


def test_classes_of_a_script_pass_between_it_and_its_workers(start):
    process, _ = start("own")
    assert process.communicate()[0].splitlines() == ["True 5"]


def test_what_a_killed_process_left_is_swept_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(spool_module, "_SHARED_MEMORY", str(tmp_path / "none"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    home = tmp_path / f"exoflow-{os.getuid()}"
    first = Spool()
    left = home / "1234-left"
    left.mkdir()
    (left / "lock").touch()
    (left / "value").write_bytes(b"x")
    second = Spool()
    assert not left.exists()
    assert Path(first.folders[0]).exists()
    second.close()
    first.close()
    assert list(home.iterdir()) == []


def test_a_folder_that_others_can_write_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(spool_module, "_SHARED_MEMORY", str(tmp_path / "none"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    home = tmp_path / f"exoflow-{os.getuid()}"
    home.mkdir()
    home.chmod(0o777)
    spool = Spool()
    assert list(home.iterdir()) == []
    assert Path(spool.folders[0]).parent.parent == tmp_path
    spool.close()


def test_a_full_folder_gives_way_to_the_next(tmp_path, monkeypatch):
    full, free = tmp_path / "full", tmp_path / "free"
    full.mkdir()
    free.mkdir()
    write = os.write

    def write_unless_full(file, data):
        if os.readlink(f"/proc/self/fd/{file}").startswith(str(full)):
            raise OSError(errno.ENOSPC, "full")
        return write(file, data)

    monkeypatch.setattr(os, "write", write_unless_full)
    path = write_spool([str(full), str(free)], encode([b"x" * LARGE]))
    assert Path(path).parent == free
    assert list(full.iterdir()) == []
    assert decode(read_spool(path)) == [b"x" * LARGE]


@pytest.fixture
def bench():
    executor = open_executor("processes:1")
    yield Bench(executor)
    executor.close()


def test_what_a_body_has_started_ends_with_its_worker(bench, tmp_path):
    child = tmp_path / "child"

    def body():
        process = subprocess.Popen(["sleep", "1000"])
        child.write_text(str(process.pid))
        os.kill(os.getpid(), signal.SIGKILL)

    assert isinstance(bench.run(body), Vanished)
    pid = int(child.read_text())
    wait_until(lambda: is_gone(pid), "the child of a killed body runs on")


def test_a_worker_that_dies_idle_costs_no_attempt(bench):
    pid = bench.result(os.getpid)
    ended = os.pidfd_open(pid)  # a zombie may still have threads that end
    os.kill(pid, signal.SIGKILL)
    assert wait([ended], WAIT_S)
    os.close(ended)
    other = bench.result(os.getpid)
    assert other != pid


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_stops_the_flow_reaches_no_worker(bench, number):
    pid = bench.result(os.getpid)
    os.kill(pid, number)
    assert bench.result(os.getpid) == pid
    assert os.getpgid(pid) == pid


def test_a_cancelled_worker_has_ended_when_it_is_reported(bench, tmp_path):
    attempt = bench.start(waits, str(tmp_path / "started"), str(tmp_path / "gate"))
    pid = int(wait_for_line(tmp_path / "started"))
    bench.executor.cancel(attempt.version, attempt.run_id)
    assert bench.outcome().reason == "cancelled"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_no_worker_is_started_for_what_waits_still_when_the_executor_is_closed(bench, tmp_path, monkeypatch):
    bench.start(waits, str(tmp_path / "started"), str(tmp_path / "gate"))
    wait_for_line(tmp_path / "started")
    for _ in range(5):
        bench.start(len, "")
    begun = []
    begin = Worker.__init__
    monkeypatch.setattr(Worker, "__init__", lambda worker, *args: (begun.append(worker), begin(worker, *args))[1])
    bench.executor.close()
    assert begun == []


def test_large_arguments_and_results_do_not_pass_through_the_socket(bench, monkeypatch):
    sent = []
    send = Worker.send
    monkeypatch.setattr(Worker, "send", lambda worker, message: (sent.append(len(message)), send(worker, message)))
    held = bench.compute(array, LARGE)
    assert isinstance(held, Held)
    ref = make_reference(CallId("a"))
    assert bench.result(lambda values, more: len(values) + len(more), ref, b"x" * LARGE, inputs={CallId("a"): held})
    assert max(sent) < 10_000


def test_spool_files_of_arguments_are_gone_after_the_attempt(bench):
    assert bench.result(len, b"x" * LARGE) == LARGE
    folders = bench.executor._spool.folders
    wait_until(lambda: all(os.listdir(folder) == ["lock"] for folder in folders), "a spool file was left")


def spool_files(executor):
    """The oldest first."""
    files = [file for folder in executor._spool.folders for file in Path(folder).iterdir() if file.name != "lock"]
    return sorted(files, key=lambda file: file.stat().st_mtime_ns)


@pytest.mark.parametrize("error", [None, ValueError("no"), SystemExit(1)])
def test_no_spool_file_is_left_of_a_run(tmp_path, error):
    executor = ProcessExecutor(1)
    kept = task(checkpoint="never")(large)

    @flow(executor=executor)
    def trial():
        assert len(kept.submit(7).result()) == LARGE
        assert len(spool_files(executor)) == 1
        if error is not None:
            raise error
        return kept(8)

    run = trial.options(store=tmp_path).start()
    if error is None:
        assert run.result() == large(8)
    else:
        with pytest.raises(type(error)):
            run.result()
    assert spool_files(executor) == []
    executor.close()


def test_no_spool_file_is_left_of_an_attempt_that_ends_after_its_run_was_stopped(tmp_path):
    executor = ProcessExecutor(1)
    kept = task(checkpoint="never")(large)

    @task
    def gated(given, started, gate):
        waits(started, gate)
        return bytes(given)

    @flow(executor=executor)
    def trial():
        given = kept.submit(7)
        given.result()
        gated.submit(given, str(tmp_path / "started"), str(tmp_path / "gate"))
        wait_for_line(tmp_path / "started")
        raise SystemExit(1)

    run = trial.options(store=tmp_path / "store").start()
    with pytest.raises(SystemExit):
        run.result()
    assert len(spool_files(executor)) == 1, "what the attempt was given has to stay until it has ended"
    (tmp_path / "gate").touch()
    wait_until(lambda: not spool_files(executor), "a spool file was left")
    executor.close()


def test_no_spool_file_is_left_of_a_value_that_was_made_again(tmp_path):
    executor = ProcessExecutor(1)
    kept = task(checkpoint="never")(large)

    @task(checkpoint="never")
    def changed(value):
        return value[1:]

    @task
    def measured(value):
        return len(value)

    lost = []

    @flow(executor=executor)
    def trial():
        chosen = kept.submit(7)
        derived = changed.submit(chosen)
        assert measured(derived) == LARGE - 1
        if not lost:
            lost.append(spool_files(executor)[0])
            os.unlink(lost[0])
        assert measured(chosen) == LARGE  # a new choice: the body begins anew, and what stood on the old one is gone
        assert measured(derived) == LARGE - 1
        return len(spool_files(executor))

    assert trial.options(store=tmp_path).run() == 2
    executor.close()


def test_a_mapped_value_outlives_its_release(bench):
    held = bench.compute(large, 1)
    encoded = bench.executor.fetch(held)
    bench.executor.release(held)
    assert decode(encoded) == bytes([1]) * LARGE


def test_arguments_that_cannot_be_sent_are_an_error_of_the_attempt(bench):
    outcome = bench.run(returned, (x for x in ()))
    assert isinstance(outcome, Raised)
    assert isinstance(bench.run(returned, 1), Computed)


def test_a_function_that_does_not_load_is_an_error_of_the_attempt(bench):
    class Unloadable:
        def __reduce__(self):
            return eval, ("1 / 0",)

        def __call__(self): ...

    error, _ = bench.error(Unloadable.__call__.__get__(Unloadable()))
    assert isinstance(error, ZeroDivisionError | CodecError)


def test_a_value_of_another_executor_is_fetched_from_there():
    encoded = encode([b"x" * LARGE])
    executor = ProcessExecutor(1, elsewhere=lambda held, name: encoded)
    bench = Bench(executor)
    inputs = {CallId("a"): Held("ray", "handle", LARGE)}
    assert bench.result(lambda values: len(values[0]), make_reference(CallId("a")), inputs=inputs) == LARGE
    executor.close()


def test_a_value_that_nobody_can_fetch_is_lost(bench):
    outcome = bench.run(returned, make_reference(CallId("a")), inputs={CallId("a"): Held("ray", "handle", LARGE)})
    assert outcome == Vanished("its input a is lost", lost=(CallId("a"),))


@pytest.mark.parametrize(
    ("point", "stored"), [("worker.pre", False), ("worker.returned", False), ("worker.value_written", True)]
)
def test_a_worker_can_be_killed_at_each_point(tmp_path, monkeypatch, point, stored):
    from exoflow.storage import LocalStore

    monkeypatch.setenv("EXOFLOW_FAULT", f"{point}:1")
    store = LocalStore(str(tmp_path / "store"))
    executor = ProcessExecutor(1, store=store)
    outcome = Bench(executor).run(large, 1, save_to="values/j/1")
    assert isinstance(outcome, Vanished)
    assert store.exists("values/j/1") is stored
    executor.close()


def test_a_spec_that_does_not_exist_is_told_with_what_does():
    for spec in ("rai", "local:0", "processes:x", "dask:", "ray:-1", "http://scheduler:8786", "tcp://"):
        with pytest.raises(ExecutorError, match=r"'local' \(threads\), 'processes', 'ray' or 'dask'"):
            open_executor(spec)
    executor = open_executor("local:3")
    assert open_executor(executor) is executor
    executor.close()
