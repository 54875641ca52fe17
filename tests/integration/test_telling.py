"""Processes that tell a run of another process something, and are killed while they do; and the commands for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import exoflow
from exoflow import DidNotHappen, Happened
from exoflow.cli import telling
from exoflow.cli.app import app
from exoflow.errors import Corrupt

DESK = """
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import exoflow
from exoflow import flow, task
from exoflow.driver import bells

bells.LOOK_S = float(os.environ.get("LOOK_S", "60"))


@dataclass
class Receipt:
    amount: int


@flow
def collect(count: int) -> list[object]:
    got = []
    for n in range(count):
        got.append(exoflow.wait_for("x"))
        if os.environ.get("DIE_AFTER") == str(n + 1):
            os.kill(os.getpid(), signal.SIGKILL)
    return got


@task(effect="irrevocable")
def charge(amount: int) -> Receipt:
    with Path("charged").open("a") as file:
        file.write("charged ")
    if "DIE" in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
    return Receipt(amount)


@flow
def pay(amount: int) -> int:
    return charge(amount).amount


@task
def block() -> None:
    Path("blocked").touch()
    while not Path("unblock").exists():
        time.sleep(0.01)


@flow
def busy() -> None:
    block()


if __name__ == "__main__":
    name, run_id, *arguments = sys.argv[1:]
    found = globals()[name].options(run_id=run_id)
    print(found.run(*map(int, arguments)), flush=True)
"""


class Desk:
    """A folder with a program in it and processes that run it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / ".exoflow"
        self._processes: list[subprocess.Popen[str]] = []
        (folder / "desk.py").write_text(DESK)

    def start(self, *command: str, **env: str) -> subprocess.Popen[str]:
        paths = [path for path in sys.path if path and os.path.isdir(f"{path}/exoflow")]
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        return process

    def run(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        """A run, once others can see it."""
        process = self.start("desk.py", *arguments, **env)
        self.until(lambda: exists(arguments[1]), process)
        return process

    def send(self, *arguments: str, **env: str) -> int:
        process = self.start("-P", "-c", "from exoflow.cli import main; main()", "send", *arguments, **env)
        process.communicate()
        return process.returncode

    def until(self, holds: Callable[[], bool], process: subprocess.Popen[str]) -> None:
        while not holds():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.chdir(tmp_path)
    exoflow.configure(store=str(tmp_path / ".exoflow"))
    desk = Desk(tmp_path)
    yield desk
    desk.close()


def exists(run_id: str) -> bool:
    try:
        exoflow.get(run_id)
    except exoflow.RunNotFound:
        return False
    return True


def ended(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out.strip()


def killed(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


# -- events ------------------------------------------------------------------------------------------------------------


def test_a_run_gets_what_another_process_sends(desk: Desk) -> None:
    run = desk.run("collect", "d", "3")
    exoflow.send("d", "x", {"n": 1})
    assert desk.send("d", "x", '["two"]') == 0
    exoflow.send("d", "x")
    assert ended(run) == "[{'n': 1}, ['two'], None]"


def test_79_what_is_sent_while_no_process_lives_is_there_for_the_next(desk: Desk) -> None:
    killed(desk.run("collect", "d", "2"))
    exoflow.send("d", "x", 1)
    killed(desk.run("collect", "d", "2"))
    exoflow.send("d", "x", 2)
    assert ended(desk.start("desk.py", "collect", "d", "2")) == "[1, 2]"


@pytest.mark.parametrize("after", ["1", "2"])
def test_79_an_event_whose_taking_was_not_recorded_is_taken_again(desk: Desk, after: str) -> None:
    run = desk.run("collect", "d", "2", DIE_AFTER=after)
    for n in (1, 2):
        exoflow.send("d", "x", n)
    run.communicate()
    assert run.returncode == -signal.SIGKILL
    assert ended(desk.start("desk.py", "collect", "d", "2")) == "[1, 2]"


def test_79_a_sender_that_is_killed_before_it_is_durable_sends_it_again(desk: Desk) -> None:
    run = desk.run("collect", "d", "2")
    assert desk.send("d", "x", "1", "--id", "first", EXOFLOW_FAULT="inbox.post.before:1") == -signal.SIGKILL
    assert list(desk.store.glob("inbox/*/*")) == []
    assert desk.send("d", "x", "1", "--id", "first") == 0
    assert desk.send("d", "x", "2") == 0
    assert ended(run) == "[1, 2]"


def test_79_a_sender_that_is_killed_when_it_is_durable_sends_it_again_and_it_is_taken_once(desk: Desk) -> None:
    run = desk.run("collect", "d", "2")
    assert desk.send("d", "x", "1", "--id", "first", EXOFLOW_FAULT="inbox.post.after:1") == -signal.SIGKILL
    assert list(desk.store.glob("bells/*/*")) == []
    assert desk.send("d", "x", "1", "--id", "first") == 0
    assert desk.send("d", "x", "2") == 0
    assert ended(run) == "[1, 2]"


def test_a_sender_that_is_killed_before_it_rings_is_heard_all_the_same(desk: Desk) -> None:
    run = desk.run("collect", "d", "1", LOOK_S="0.05")
    assert desk.send("d", "x", "1", EXOFLOW_FAULT="inbox.post.after:1") == -signal.SIGKILL
    assert ended(run) == "[1]"


def test_nothing_is_lost_or_doubled_while_owners_are_killed_and_messages_come_in(desk: Desk) -> None:
    count = 40

    def sending() -> None:
        for n in range(count):
            exoflow.send("d", "x", n, id=f"number {n}")
            if n % 7 == 0:
                exoflow.send("d", "x", n, id=f"number {n}")

    run = desk.run("collect", "d", str(count))
    sender = threading.Thread(target=sending)
    sender.start()
    for after in (5, 11, 23, 31):
        killed(run)
        run = desk.run("collect", "d", str(count), DIE_AFTER=str(after))
        run.communicate()
    sender.join()
    assert ended(desk.start("desk.py", "collect", "d", str(count))) == str(list(range(count)))


# -- cancel ------------------------------------------------------------------------------------------------------------


def test_a_waiting_run_of_another_process_is_cancelled(desk: Desk) -> None:
    run = desk.run("collect", "d", "1")
    exoflow.cancel("d")
    _, err = run.communicate()
    assert "RunCancelled" in err
    assert exoflow.get("d").status == "cancelled"


def test_a_cancel_is_carried_out_by_whoever_goes_on_with_the_run(desk: Desk) -> None:
    killed(desk.run("collect", "d", "1"))
    exoflow.cancel("d")
    run = desk.start("desk.py", "collect", "d", "1")
    assert "RunCancelled" in run.communicate()[1]


# -- doubt -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def doubt(desk: Desk) -> Desk:
    """A run that was killed in an irrevocable effect."""
    run = desk.start("desk.py", "pay", "p", "7", DIE="1")
    run.communicate()
    assert run.returncode == -signal.SIGKILL
    return desk


def resumed(desk: Desk) -> tuple[int, str, str]:
    run = desk.start("desk.py", "pay", "p", "7")
    out, err = run.communicate()
    return run.returncode, out.strip(), err


def charges(desk: Desk) -> int:
    return (desk.folder / "charged").read_text().split().count("charged")


def test_what_happened_is_not_done_again(doubt: Desk) -> None:
    assert "InDoubt" in resumed(doubt)[2]
    exoflow.resolve("p", "charge#0", Happened({"amount": 9}))
    assert resumed(doubt)[:2] == (0, "9")
    assert charges(doubt) == 1


def test_what_did_not_happen_is_done(doubt: Desk) -> None:
    exoflow.resolve("p", "charge#0", DidNotHappen())
    assert resumed(doubt)[:2] == (0, "7")
    assert charges(doubt) == 2


def test_the_last_word_counts(doubt: Desk) -> None:
    exoflow.resolve("p", "charge#0", DidNotHappen())
    exoflow.resolve("p", "charge#0", Happened({"amount": 1}))
    exoflow.resolve("p", "charge#0", Happened({"amount": 2}))
    assert resumed(doubt)[:2] == (0, "2")
    assert charges(doubt) == 1


def test_a_value_that_the_call_cannot_have_returned_leaves_it_in_doubt(doubt: Desk) -> None:
    exoflow.resolve("p", "charge#0", Happened({"amount": "much"}))
    code, _, err = resumed(doubt)
    assert code != 0
    assert "Resolve it again" in err
    exoflow.resolve("p", "charge#0", Happened({"amount": 3}))
    assert resumed(doubt)[:2] == (0, "3")
    assert charges(doubt) == 1


def test_a_call_that_is_not_in_doubt_is_named_with_those_that_are(doubt: Desk) -> None:
    with pytest.raises(exoflow.RunError, match=r"these are: charge#0"):
        exoflow.resolve("p", "charge#1", DidNotHappen())
    exoflow.resolve("p", "charge#0", DidNotHappen())
    resumed(doubt)
    with pytest.raises(exoflow.RunError, match="has ended"):
        exoflow.resolve("p", "charge#0", DidNotHappen())


def test_nothing_is_resolved_in_a_live_run(desk: Desk) -> None:
    desk.run("busy", "b")
    with pytest.raises(exoflow.RunIsLive, match="under way"):
        exoflow.resolve("b", "block#0", DidNotHappen())


def test_a_damaged_answer_is_corrupt_and_nothing_is_run(doubt: Desk) -> None:
    exoflow.resolve("p", "charge#0", DidNotHappen())
    place = next(doubt.store.glob("inbox/*/1"))
    good = place.read_bytes()
    place.chmod(0o600)
    place.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    code, _, err = resumed(doubt)
    assert code != 0
    assert Corrupt.__name__ in err
    assert place.parent.name in err
    assert charges(doubt) == 1
    place.write_bytes(good)
    assert resumed(doubt)[:2] == (0, "7")


# -- the commands ------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            app(list(arguments), prog_name="exoflow")
        code: Any = caught.value.code
        return code, *capsys.readouterr()

    return call


def test_send_says_what_it_sent(desk: Desk, command: Callable[..., tuple[int, str, str]]) -> None:
    run = desk.run("collect", "d", "2")
    assert command("send", "d", "x", '"text"') == (0, "", "sent x to d\n")
    code, out, _ = command("send", "d", "x", "--json")
    assert (code, json.loads(out)) == (0, {"id": "d", "event": "x"})
    assert ended(run) == "['text', None]"
    assert command("send", "d", "x")[0] == 1
    assert command("send", "e", "x")[0] == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("send", "d", "x", "text"), "is written with its quotes"),
        (("send", "d"), "Missing argument 'EVENT'"),
        (("send", "d", ""), "must not be empty"),
        (("resolve", "d", "charge#0"), "say one of"),
        (("resolve", "d", "charge#0", "--did-not", "--happened", "1"), "say one of"),
        (("resolve", "d", "charge#0", "--happened", "{"), "is no JSON"),
        (("cancel",), "Missing argument"),
    ],
)
def test_wrong_usage_is_exit_code_2(
    desk: Desk, command: Callable[..., tuple[int, str, str]], arguments: tuple[str, ...], says: str
) -> None:
    code, _, err = command(*arguments)
    assert code == 2
    assert says in " ".join(err.split())


@pytest.mark.parametrize("name", ["send", "resolve", "cancel"])
def test_help_shows_an_example(desk: Desk, command: Callable[..., tuple[int, str, str]], name: str) -> None:
    code, out, _ = command(name, "--help")
    assert code == 0
    assert f"exoflow {name} " in out


def test_resolve_says_how_to_go_on(doubt: Desk, command: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = command("resolve", "p", "charge#0", "--happened", '{"amount": 4}')
    assert code == 0
    assert "exoflow resume p" in err
    code, out, _ = command("resolve", "p", "charge#0", "--did-not", "--json")
    assert (code, json.loads(out)) == (0, {"id": "p", "call": "charge#0", "happened": False})
    assert command("resolve", "p", "charge#7", "--did-not")[0] == 1
    assert command("resolve", "q", "charge#0", "--did-not")[0] == 3


def test_cancel_of_a_waiting_run_waits_until_it_is_done(
    desk: Desk, command: Callable[..., tuple[int, str, str]]
) -> None:
    desk.run("collect", "d", "1")
    code, out, _ = command("cancel", "d", "--json")
    assert (code, json.loads(out)) == (0, {"id": "d", "status": "cancelled"})


def test_cancel_of_a_busy_run_is_durable_and_says_when_it_is_carried_out(
    desk: Desk, command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "PATIENCE_S", 0.2)
    run = desk.run("busy", "b")
    desk.until((desk.folder / "blocked").exists, run)
    code, _, err = command("cancel", "b")
    assert code == 0
    assert "The cancel is durable" in err
    (desk.folder / "unblock").touch()
    assert "RunCancelled" in run.communicate()[1]
