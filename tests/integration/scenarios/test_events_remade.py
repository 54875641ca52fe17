"""An event in another place than in the life before: the choice on which it stood was lost, and is made otherwise."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, signal, sys, time
import exoflow
from exoflow import event, flow, send, task

epoch = int(sys.argv[1])
exoflow.configure(store="store")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@task(checkpoint="never")
def choice():
    return epoch


@task(checkpoint="sync")
def saved(x):
    return x


@task(effect="irrevocable")
def charge(x):
    return f"charged {x}"


@flow
def inside():
    return event("x").result()


@flow
def main():
    chosen = choice()
    if chosen == 1:
        saved(event("x").result())
        die()
    other = event("x")
    first = inside()
    charge(first)
    if epoch == 2:
        die()
    try:
        second = other.result(timeout=0.5)
    except TimeoutError:
        second = None
    return [first, second]


if epoch == 1:
    main.options(run_id="r").start()
    send("r", "x", "sent once")
    time.sleep(60)
else:
    print(exoflow.resume("r"))
"""


def live(folder: Path, epoch: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "program.py", str(epoch)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=30, cwd=folder)


def test_a_message_taken_on_a_lost_choice_is_there_for_another_call_and_is_taken_once(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    for epoch in (1, 2):
        life = live(tmp_path, epoch)
        assert life.returncode == -signal.SIGKILL, life.stderr
    life = live(tmp_path, 3)
    assert life.stdout == "['sent once', None]\n", life.stderr


def test_what_a_child_flow_took_that_is_not_called_again_is_not_lost(tmp_path: Path) -> None:
    program = PROGRAM.replace('saved(event("x").result())', "saved(inside())")
    program = program.replace("first = inside()", "first = other.result(timeout=20)")
    (tmp_path / "program.py").write_text(program)
    for epoch in (1, 2):
        life = live(tmp_path, epoch)
        assert life.returncode == -signal.SIGKILL, life.stderr
    life = live(tmp_path, 3)
    assert life.stdout == "['sent once', 'sent once']\n", life.stderr  # the same Ref, read twice


def test_a_child_flow_that_waits_already_gets_what_is_there_again_later(tmp_path: Path) -> None:
    program = PROGRAM.replace(
        "    chosen = choice()\n", "    made, other = choice.submit(), waiter.submit()\n    chosen = made.result()\n"
    )
    program = program.replace(
        '    other = event("x")\n    first = inside()\n', "    print(other.result())\n    sys.exit()\n"
    )
    program = program.replace(
        "@flow\ndef main",
        """@task
def pause():
    time.sleep(1)


@flow
def waiter():
    pause()
    return event("x").result()


@flow
def main""",
    )
    program = program.replace("    return epoch", "    time.sleep(epoch - 1)\n    return epoch")
    program = program.replace('saved(event("x").result())', "saved(inside())\n        time.sleep(2)")
    (tmp_path / "program.py").write_text(program)
    life = live(tmp_path, 1)
    assert life.returncode == -signal.SIGKILL, life.stderr
    assert live(tmp_path, 2).stdout == "sent once\n"
