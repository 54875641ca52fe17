"""Several processes, signals and forks: one owner at a time, and a stop in good order."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

Place = Any

WAITING = """
    import os, sys, time
    import exoflow
    from exoflow import flow, task

    def write(word):
        with open("bodies", "a") as file:
            file.write(f'["{word}"]\\n')

    @task(checkpoint="sync")
    def one(n):
        write(f"one {n}")
        return n

    @task
    def wait(n):
        write("wait")
        open("waiting", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.01)
        return n

    @task
    def stubborn(n):
        write("stubborn")
        open("waiting", "w").close()
        while not os.path.exists("go"):
            try:
                time.sleep(0.01)
            except BaseException:
                open("interrupted", "w").close()
        return n

    @flow
    def f(kind="wait"):
        first = one(1)
        second = {"wait": wait, "stubborn": stubborn, "submitted": wait.submit}[kind](2)
        if kind == "submitted":
            second = second.result()
        return [first, second]

    what, *rest = sys.argv[1:]
    if what == "resume":
        print(exoflow.resume("it", store="store"))
    else:
        print(f.options(run_id="it", store="store").run(*rest))
"""


def until(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait for a file that the process makes."""
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


@contextmanager
def waiting(here: Place, *argv: str) -> Iterator[subprocess.Popen[str]]:
    """A process that is in the middle of its run."""
    command = [sys.executable, str(here.program), *argv]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=here.folder, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            until(here.folder / "waiting", process)
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("how", ["run", "resume"])
def test_a_run_that_another_process_has_is_live_and_its_process_is_named(place: Callable[..., Place], how: str) -> None:
    here = place("here", WAITING)
    with waiting(here, "run") as owner:
        life = here.live(how)
        assert life.code == 1
        assert "exoflow.errors.RunIsLive: " in life.err and f"process {owner.pid}" in life.err, life.err
        (here.folder / "go").touch()
        out, err = owner.communicate()
    assert (owner.returncode, out) == (0, "[1, 2]\n"), err
    assert here.live(how).out == "[1, 2]\n"
    assert here.bodies() == ["one 1", "wait"]


def test_two_processes_that_resume_the_same_run_at_once_do_its_work_once(place: Callable[..., Place]) -> None:
    here = place("here", WAITING)
    with waiting(here, "run") as owner:
        owner.kill()
        owner.wait()
    (here.folder / "go").touch()
    command = [sys.executable, str(here.program), "resume"]
    both = [
        subprocess.Popen(command, cwd=here.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    ended = [(*each.communicate(), each.returncode) for each in both]
    assert 0 in {code for _, _, code in ended}, ended
    for out, err, code in ended:
        assert out == "[1, 2]\n" if code == 0 else "RunIsLive" in err, err
    assert here.bodies() == ["one 1", "wait", "wait"]


@pytest.mark.parametrize("kind", ["wait", "submitted"])
def test_ctrl_c_stops_a_run_in_good_order_and_says_how_to_go_on(place: Callable[..., Place], kind: str) -> None:
    here = place("here", WAITING)
    with waiting(here, "run", kind) as process:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == -signal.SIGINT, err
    assert "KeyboardInterrupt: the run was stopped; go on with it by: exoflow resume it" in err
    (here.folder / "go").touch()
    life = here.live("resume")
    assert life.out == "[1, 2]\n", life.err
    assert here.bodies() == ["one 1", "wait", "wait"]


def test_a_second_ctrl_c_ends_what_the_first_could_not(place: Callable[..., Place]) -> None:
    here = place("here", WAITING)
    with waiting(here, "run", "stubborn") as process:
        process.send_signal(signal.SIGINT)
        until(here.folder / "interrupted", process)
        (here.folder / "interrupted").unlink()
        process.send_signal(signal.SIGINT)
        until(here.folder / "interrupted", process)  # it swallows that, too: nothing but SIGKILL can end such a body
        process.kill()
        process.wait()
    (here.folder / "go").touch()
    life = here.live("resume")
    assert life.out == "[1, 2]\n", life.err


def test_sigterm_ends_the_process_and_the_run_goes_on(place: Callable[..., Place]) -> None:
    here = place("here", WAITING)
    with waiting(here, "run") as process:
        process.terminate()
        process.communicate()
    assert process.returncode == -signal.SIGTERM
    (here.folder / "go").touch()
    life = here.live("resume")
    assert life.out == "[1, 2]\n", life.err
    assert here.bodies() == ["one 1", "wait", "wait"]


FORKS = """
    import os, sys
    from exoflow import flow, task

    def forked():
        child = os.fork()
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if child else None

    @task
    def ends():
        code = forked()
        if code is None:
            os._exit(7)
        return code

    @task
    def returns():
        return forked()

    @task
    def raises():
        code = forked()
        if code is None:
            raise ValueError("in the child")
        return code

    @task
    def double(code):
        return 2 * code

    @flow
    def f(name):
        return double(globals()[name]())

    if __name__ == "__main__":
        print(f.options(run_id="it", store="store").run(sys.argv[1]))
"""


@pytest.mark.parametrize(("how", "out"), [("ends", "14\n"), ("returns", "2\n"), ("raises", "2\n")])
def test_a_task_may_fork_and_its_child_records_nothing_even_where_it_comes_back(
    place: Callable[..., Place], how: str, out: str
) -> None:
    here = place("here", FORKS)
    command = [sys.executable, str(here.program), how]
    done = subprocess.run(command, cwd=here.folder, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, out), done.stderr
    if how != "ends":
        assert "was forked from the journal's owner" in done.stderr
    assert here.live(how).out == out


WORKERS = """
    import os, signal, sys
    from exoflow import flow, task

    def write(word):
        with open("bodies", "a") as file:
            file.write(f'["{word}"]\\n')

    @task
    def exits(times):
        write("exits")
        if len(open("bodies").readlines()) <= times:
            os._exit(3)
        return "done"

    @task
    def eaten(times):
        write("eaten")
        if len(open("bodies").readlines()) <= times:
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does to a process that takes too much memory
        return "done"

    @task(losses=0)
    def never(times):
        write("never")
        os._exit(3)

    @flow
    def f(name, times):
        return globals()[name](times)

    if __name__ == "__main__":
        print(f.options(store="store", executor="processes:1").run(sys.argv[1], int(sys.argv[2])))
"""


@pytest.mark.parametrize("how", ["exits", "eaten"])
def test_a_worker_that_exits_or_is_killed_is_a_loss_and_the_call_is_made_again(
    place: Callable[..., Place], how: str
) -> None:
    here = place("here", WORKERS)
    life = here.spawn(argv=(how, "2"))
    assert (life.code, life.out) == (0, "done\n"), life.err
    assert here.bodies() == [how] * 3


@pytest.mark.parametrize(("how", "entered"), [("exits", 4), ("never", 1)])
def test_a_worker_that_dies_each_time_fails_the_call_with_what_became_of_it(
    place: Callable[..., Place], how: str, entered: int
) -> None:
    here = place("here", WORKERS)
    life = here.spawn(argv=(how, "99"))
    assert life.code == 1
    assert f"exoflow.errors.TaskFailed: {how}#0: " in life.err and "3" in life.error, life.err
    assert here.bodies() == [how] * entered


UNGUARDED = """
    from exoflow import flow, task

    @task
    def one(x):
        return x

    @flow
    def f():
        return one(1)

    print(f.options(store="store", executor="processes:1").run())
"""


def test_a_script_that_runs_its_flow_when_a_worker_imports_it_is_told_and_starts_no_more_workers(
    place: Callable[..., Place],
) -> None:
    here = place("here", UNGUARDED)
    life = here.spawn()
    assert life.code == 1
    assert "runs when its file is imported" in life.error and "if __name__ == '__main__':" in life.error, life.err
    assert len(list((here.store / "journals").iterdir())) == 1
