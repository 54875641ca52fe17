"""Programs that start a Ray of their own: what reaches the user, and what becomes of a run when parts are killed."""

import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter

import psutil
import pytest

from exoflow.testing.executors import WAIT_S, is_gone, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.big]

BESIDE = """
    class Own:
        def __init__(self, number):
            self.number = number

    def fails():
        raise LookupError("no such row")
"""

PROGRAM = """
    import os, sys, time
    from pathlib import Path
    import beside
    import exoflow
    from exoflow import flow, task

    FOLDER = Path(sys.argv[1])

    class Here(beside.Own):
        pass

    def note(name):
        with open(FOLDER / "log", "a") as file:
            file.write(f"{name} {os.getpid()}\\n")

    @task
    def owns(number):
        print("printed by a task", flush=True)
        return [beside.Own(number), Here(number)]

    @task
    def fails():
        beside.fails()

    @flow(executor="ray:2")
    def look():
        own, here = owns(5)
        print(type(own) is beside.Own, type(here) is Here, own.number + here.number, flush=True)
        fails()

    @task
    def first():
        note("first")
        return os.urandom(300_000)

    @task
    def second(value):
        note("second")
        while not (FOLDER / "gate").exists():
            time.sleep(0.01)
        return len(value)

    @exoflow.actor(snapshot_every=5)
    class Counter:
        def __init__(self):
            note("New")
            self.count = 0

        @task(deterministic=True, checkpoint="sync")
        def add(self, name):
            note(name)
            while name == "G" and not (FOLDER / "gate").exists():
                time.sleep(0.01)
            self.count += 1
            return self.count

    @flow(executor="ray:2")
    def chain():
        size = second.submit(first.submit())
        counter = Counter()
        counted = [counter.add.submit(name) for name in "ABCDEFGHIJ"]
        return size.result(), counted[-1].result()

    if __name__ == "__main__":
        if sys.argv[2] == "chain":
            print(chain.options(store=FOLDER / "store", run_id="r").run())
        else:
            print(exoflow.resume("r", store=FOLDER / "store", executor="ray:2"))
            look.options(store=FOLDER / "store").run()
"""


@pytest.fixture
def start(tmp_path):
    (tmp_path / "beside.py").write_text(textwrap.dedent(BESIDE))
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    paths = [path for path in sys.path if path and os.path.isdir(path)]
    settings = {"PYTHONPATH": os.pathsep.join(paths), "RAY_TMPDIR": "/tmp", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    started = []

    def start(mode):
        process = subprocess.Popen(
            [sys.executable, tmp_path / "program.py", tmp_path, mode],
            env={**os.environ, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ():
            child.kill()
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def notes(folder):
    """Name and process of each body that has begun."""
    log = folder / "log"
    return [(name, int(pid)) for name, pid in map(str.split, log.read_text().splitlines())] if log.exists() else []


def counts(folder):
    return Counter(name for name, _ in notes(folder))


def wait_for_both(folder, count):
    """The processes in which the two bodies that wait have begun, so many times."""
    wait_until(lambda: all(counts(folder)[name] == count for name in ("second", "G")), "the bodies did not begin")
    return [pid for name, pid in notes(folder) if name in ("second", "G")]


def check_what_was_run_again(folder):
    """Row 65 of the scenarios; whether the task's choice was saved by then is a race."""
    again = counts(folder)
    assert again["second"] == 2
    assert {name: again[name] for name in (*"ABCDEFGHIJ", "New")} == dict.fromkeys("ABCDEHIJ", 1) | {
        "F": 2,
        "G": 2,
        "New": 2,
    }


def ray_of(process):
    """The processes of Ray that belong to a program, by name."""
    found = {}
    for child in psutil.Process(process.pid).children(recursive=True):
        found.setdefault(child.name(), []).append(child)
    return found


def test_a_killed_program_is_resumed_on_another_cluster_and_prints_errors_and_types_reach_it(start, tmp_path):
    program = start("chain")
    running = wait_for_both(tmp_path, 1)
    program.send_signal(signal.SIGKILL)
    program.wait()
    for pid in running:
        wait_until(lambda pid=pid: is_gone(pid), "a body outlived its program")
    (tmp_path / "gate").touch()
    out, err = start("resume").communicate(timeout=2 * WAIT_S)
    assert "(300000, 10)" in out, err
    check_what_was_run_again(tmp_path)
    assert "True True 10" in out
    assert "printed by a task" in out + err
    assert "LookupError: no such row" in err
    assert "in fails" in err
    assert "beside.py" in err


def test_a_run_goes_on_when_the_cluster_that_it_has_started_dies(start, tmp_path):
    program = start("chain")
    running = wait_for_both(tmp_path, 1)
    for name in ("raylet", "gcs_server"):
        for process in ray_of(program)[name]:
            process.kill()
    wait_for_both(tmp_path, 2)
    assert all(map(is_gone, running))
    (tmp_path / "gate").touch()
    out, err = program.communicate(timeout=2 * WAIT_S)
    assert "(300000, 10)" in out, err
    assert "the Ray cluster is gone" in err
    check_what_was_run_again(tmp_path)
