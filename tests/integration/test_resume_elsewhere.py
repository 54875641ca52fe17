"""A run goes on in another process, which finds its code by name, module or file; and Ctrl-C leaves it able to."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os
import signal
import sys
from dataclasses import dataclass

import exoflow
import neighbour
from exoflow import flow, task


@dataclass
class Order:
    number: int


@task
def load(number: int) -> Order:
    print("load", flush=True)
    return Order(number)


@task
def ship(order: Order) -> str:
    assert isinstance(order, Order)
    if "CRASH" in os.environ:
        os.kill(os.getpid(), getattr(signal, os.environ["CRASH"]))
    print("ship", flush=True)
    return neighbour.WORD + str(order.number)


@flow
def delivery(number: int) -> str:
    return ship(load.options(checkpoint="sync")(number))


if __name__ == "__main__":
    print(delivery.options(run_id="d").run(7))
"""

RESUME = "import exoflow; print(exoflow.resume('d'))"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(PROGRAM)
    (tmp_path / "neighbour.py").write_text("WORD = 'order '\n")
    return tmp_path


def python(
    *arguments: str, cwd: Path, path: Path | None = None, crash: str | None = None, warn: str = "error"
) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EXOFLOW_")}
    here = [str(path)] if path is not None else []
    environment["PYTHONPATH"] = os.pathsep.join([*here, *filter(None, [os.environ.get("PYTHONPATH")])])
    if crash is not None:
        environment["CRASH"] = crash
    return subprocess.run(
        [sys.executable, "-W", warn, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def broken_off(folder: Path, *how: str) -> None:
    done = python(*(how or ("shop.py",)), cwd=folder, crash="SIGKILL")
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "load\n"), done.stderr


def test_a_script_is_found_again_by_its_file(folder: Path) -> None:
    broken_off(folder)
    program = "import sys; sys.path[:] = [each for each in sys.path if each]\n" + RESUME
    done = python("-c", program, cwd=folder)
    assert done.stdout == "ship\norder 7\n", done.stderr


def test_the_script_itself_goes_on_where_it_was(folder: Path) -> None:
    broken_off(folder)
    assert python("shop.py", cwd=folder).stdout == "ship\norder 7\n"
    assert python("shop.py", cwd=folder).stdout == "order 7\n"


def test_a_script_is_found_again_where_it_was_imported(folder: Path) -> None:
    broken_off(folder)
    done = python("-c", f"import shop; {RESUME}", cwd=folder)
    assert done.stdout == "ship\norder 7\n", done.stderr


def test_a_module_is_found_again_by_its_name(folder: Path) -> None:
    broken_off(folder, "-c", "import shop; shop.delivery.options(run_id='d').run(7)")
    done = python("-c", RESUME, cwd=folder)
    assert done.stdout == "ship\norder 7\n", done.stderr


def test_a_module_run_with_m_is_found_again_by_its_name(folder: Path) -> None:
    broken_off(folder, "-m", "shop")
    done = python("-c", RESUME, cwd=folder)
    assert done.stdout == "ship\norder 7\n", done.stderr


def test_another_working_directory_is_warned_of(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    broken_off(folder)
    program = f"import exoflow; print(exoflow.resume('d', store={str(folder / '.exoflow')!r}))"
    done = python("-c", program, cwd=tmp_path_factory.mktemp("other"), warn="default")
    assert done.stdout == "ship\norder 7\n", done.stderr
    assert f"the run d began in {folder}" in done.stderr


def test_code_that_is_gone_is_told_with_its_place(folder: Path) -> None:
    broken_off(folder)
    (folder / "shop.py").unlink()
    done = python("-c", RESUME, cwd=folder)
    assert "RunError: the code of shop.delivery is not in this process" in done.stderr
    assert str(folder / "shop.py") in done.stderr


def test_the_result_of_a_run_needs_no_code(folder: Path) -> None:
    assert python("shop.py", cwd=folder).stdout == "load\nship\norder 7\n"
    (folder / "shop.py").unlink()
    assert python("-c", RESUME, cwd=folder).stdout == "order 7\n"


def test_code_that_was_in_no_file_is_told_so(folder: Path) -> None:
    program = "from exoflow import flow\n@flow\ndef typed_in(): 1 / 0\ntyped_in.options(run_id='d').run()"
    python("-c", program, cwd=folder)
    done = python("-c", RESUME, cwd=folder)
    told = "the code of typed_in is not in this process, and was in no file (`python -c`, or typed in). Import it"
    assert told in done.stderr


def test_ctrl_c_in_a_task_stops_the_run_in_good_order(folder: Path) -> None:
    done = python("shop.py", cwd=folder, crash="SIGINT")
    assert done.stderr.splitlines()[-1] == "KeyboardInterrupt: the run was stopped; go on with it by: exoflow resume d"
    assert done.returncode == -signal.SIGINT
    assert python("-c", RESUME, cwd=folder).stdout == "ship\norder 7\n"


WAITING = """
import sys
import threading
import exoflow
from exoflow import flow, task

@task
def slow() -> None:
    print("begun", flush=True)
    if len(sys.argv) == 1:
        while True:
            threading.Event().wait(0.1)

@flow
def waits() -> None:
    slow.submit().result()

if __name__ == "__main__":
    try:
        waits.options(run_id="w").run()
    except KeyboardInterrupt as error:
        run = exoflow.get("w")
        print(run.status, str(error))
        sys.argv.append("go on")
        print(exoflow.resume("w"), run.status)
"""


def test_ctrl_c_while_the_flow_waits_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "waiting.py").write_text(WAITING)
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "waiting.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process:
        try:
            assert process.stdout.readline() == "begun\n"
            process.send_signal(signal.SIGINT)
            told, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert told == "broken_off the run was stopped; go on with it by: exoflow resume w\nbegun\nNone done\n"
    assert process.returncode == 0


STUBBORN = """
import threading
from exoflow import flow, task

@task
def stubborn() -> None:
    try:
        print("begun", flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        print("no", flush=True)
        threading.Event().wait()

@flow
def waits() -> None:
    stubborn()

waits.options(run_id="w").run()
"""


def test_a_second_ctrl_c_ends_a_body_that_does_not_stop(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", STUBBORN],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process:
        try:
            for told in ("begun\n", "no\n"):
                assert process.stdout.readline() == told
                process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert errors.splitlines()[-1] == "KeyboardInterrupt: the run was stopped; go on with it by: exoflow resume w"
