"""The command line as a person uses it: real processes, real stores, what they print and how they exit."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exoflow.cli.app import app
from exoflow.driver.runtime import Runtime
from exoflow.settings import store_of

JOBS = """
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import exoflow
from exoflow import flow, task


@dataclass
class Report:
    day: str
    total: int


@task(deterministic=True)
def read(day: str, part: int) -> int:
    return part


@task
def score(number: int) -> int:
    return number * 10


@task
def guarded(number: int) -> int:
    if Path("bad").exists():
        raise ValueError("the file bad is here")
    return number


@task(effect="irrevocable")
def charge(number: int) -> int:
    if "DIE" in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def release(key: str, number: int) -> None:
    Path("released").write_text(key)


@task(rollback=release)
def reserve(number: int) -> int:
    return number


@task
def wait(number: int) -> int:
    Path("waiting").touch()
    if "WAIT" in os.environ:
        time.sleep(60)
    return number


@flow
def daily(day: str, parts: int = 5) -> Report:
    scores = score.map([read.submit(day, part) for part in range(parts)]).result()
    return Report(day, guarded(sum(scores)))


@flow
def pay(number: int) -> int:
    return charge(score(number))


@flow
def slow(number: int) -> int:
    return wait(reserve(score(number)))


@exoflow.actor(snapshot_every=3)
class Tally:
    def __init__(self) -> None:
        self.total = 0

    @task
    def add(self, number: int) -> int:
        self.total += number
        return self.total


@flow
def tallied(count: int) -> int:
    tally = Tally()
    for number in range(count):
        tally.add.submit(number)
    return guarded(tally.add(0))


@flow
def patient() -> str:
    return exoflow.wait_for("approved", timeout=3600, type=str)


@flow
async def hello(name: str) -> str:
    return f"hello {name}"
"""


class Said:
    def __init__(self, out: str, err: str) -> None:
        self.out = out
        self.err = err

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def line(self) -> str:
        """The one line on stderr."""
        assert "Traceback" not in self.err, self.err
        [line] = self.err.strip().splitlines()
        return line


class Shell:
    """``exoflow`` in a folder that holds jobs.py: in this process, or in one of its own where that is to die."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys
        (folder / "jobs.py").write_text(JOBS)

    def __call__(self, *args: str, rc: int = 0) -> Said:
        with pytest.raises(SystemExit) as caught:
            app(list(args), prog_name="exoflow")
        said = Said(*self._capsys.readouterr())
        assert caught.value.code == rc, f"exit code {caught.value.code}\n{said.out}\n{said.err}"
        return said

    def start(self, *args: str, **env: str) -> subprocess.Popen[str]:
        paths = [path for path in sys.path if path and os.path.isdir(f"{path}/exoflow")]
        return subprocess.Popen(
            [sys.executable, "-P", "-c", "from exoflow.cli import main; main()", *args],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def exoflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("EXOFLOW_STORE", raising=False)
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = set(sys.modules)
    yield Shell(tmp_path, capsys)
    for name in [*sys.modules]:
        if name not in before and not name.startswith(("exoflow", "rich")):
            del sys.modules[name]  # another test's jobs.py is another file
    for store in [tmp_path / ".exoflow", tmp_path / "kept"]:
        Runtime.of(store_of(store)).close()


def test_run_prints_the_result_on_stdout_and_everything_else_on_stderr(exoflow: Shell) -> None:
    said = exoflow("run", "jobs.py:daily", "--arg", "day=2026", "--id", "mine")
    assert said.json == {"day": "2026", "total": 100}
    assert "run mine" in said.err
    assert "done · 11 calls" in said.err
    assert exoflow("run", "jobs:hello", "--arg", "name=Ada").out == "hello Ada\n"


def test_run_with_json_prints_one_document(exoflow: Shell) -> None:
    said = exoflow("run", "jobs.py:daily", "--arg", "day=x", "--id", "mine", "--json")
    outcome = said.json
    assert (outcome["id"], outcome["status"], outcome["calls"]) == ("mine", "done", 11)
    assert outcome["result"] == {"day": "x", "total": 100}
    assert said.err == ""


def test_the_same_id_again_gives_the_stored_result_and_other_inputs_are_refused(exoflow: Shell) -> None:
    exoflow("run", "jobs.py:daily", "--arg", "day=x", "--id", "mine")
    again = exoflow("run", "jobs.py:daily", "--arg", "day=x", "--id", "mine")
    assert again.json["total"] == 100
    assert "done before" in again.err
    assert "the argument day was 'x'" in exoflow("run", "jobs.py:daily", "--arg", "day=y", "--id", "mine", rc=1).line


def test_a_failed_run_shows_the_tasks_own_traceback_and_the_command_that_goes_on(exoflow: Shell) -> None:
    (exoflow.folder / "bad").touch()
    said = exoflow("run", "jobs.py:daily", "--arg", "day=x", "--id", "my run", "--store", "kept", rc=1)
    assert said.out == ""
    assert 'raise ValueError("the file bad is here")' in said.err
    assert "exoflow/" not in said.err.replace("exoflow resume", "")
    assert "failed my run: ValueError: the file bad is here" in said.err
    assert "exoflow resume 'my run' --store kept" in said.err
    (exoflow.folder / "bad").unlink()
    resumed = exoflow("resume", "my run", "--store", "kept")
    assert resumed.json["total"] == 100
    assert "5 of them loaded" in resumed.err  # and what was read for them is not needed again


def test_a_failed_run_with_json_says_so_on_stdout(exoflow: Shell) -> None:
    (exoflow.folder / "bad").touch()
    outcome = exoflow("run", "jobs.py:daily", "--arg", "day=x", "--json", rc=1).json
    assert (outcome["status"], outcome["error"]) == ("failed", "ValueError: the file bad is here")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["run", "job.py:daily"], "there is no file job.py; did you mean jobs.py?"),
        (["run", "jobs.py:dayly"], "did you mean daily?"),
        (["run", "jobs.py:nothing"], "it has daily, pay, slow, tallied, patient and hello"),
        (["run", "jobs.py:read"], "read is not a flow"),
        (["run", "jobs.py"], "jobs.py has 6 flows"),
        (["run", "broken.py:x"], "broken.py, line 3"),
        (["run", "wrong.py:x"], "No module named 'nowhere'"),
        (["run", "empty.py:x"], "has no flow: a function with @flow"),
        (["run", "jobs.py:daily"], "--arg day: it is missing (str)"),
        (["run", "jobs.py:daily", "--arg", "day=1", "--arg", "parts=x"], "--arg parts: 'x' is no int"),
        (["run", "jobs.py:daily", "--arg", "day=1", "--executor", "abacus"], "there is no executor 'abacus'"),
        (["explain", "jobs.py:dayly"], "did you mean daily?"),
    ],
)
def test_a_wrong_target_or_argument_gets_one_line_and_exit_code_2(exoflow: Shell, args: list[str], words: str) -> None:
    (exoflow.folder / "broken.py").write_text("import os\n\ndef (")
    (exoflow.folder / "wrong.py").write_text("import nowhere")
    (exoflow.folder / "empty.py").write_text("")
    assert words in exoflow(*args, rc=2).line
    assert not (exoflow.folder / ".exoflow").exists()


def test_debug_shows_where_an_error_comes_from(exoflow: Shell) -> None:
    assert "Traceback" in exoflow("run", "job.py:daily", "--debug", rc=2).err


@pytest.mark.parametrize("command", ["show", "resume", "cancel", "explain"])
def test_an_unknown_id_is_answered_with_the_nearest_and_exit_code_3(exoflow: Shell, command: str) -> None:
    exoflow("run", "jobs.py:hello", "--arg", "name=x", "--id", "nightly")
    assert exoflow(command, "nihgtly", rc=3).line.endswith("did you mean 'nightly'?")


def test_a_killed_run_is_shown_as_broken_off_and_resumed_where_it_began(
    exoflow: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    killed = started(exoflow, "slow")
    assert "live in process" in exoflow("resume", "slow", rc=4).line
    assert [run["status"] for run in exoflow("list", "--json").json] == ["running"]
    killed.kill()
    killed.communicate()
    assert [run["status"] for run in exoflow("list", "--status", "broken_off", "--json").json] == ["broken_off"]
    (exoflow.folder / "waiting").unlink()
    store = str(exoflow.folder / ".exoflow")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    said = exoflow("resume", "slow", "--store", store)
    assert said.out == "10\n"
    assert "where the run began" in said.err
    assert (exoflow.folder / "waiting").exists()
    calls = {call["task"]: call for call in exoflow("show", "slow", "--store", store, "--json").json["calls"]}
    assert (calls["score"]["loaded"], calls["reserve"]["loaded"], calls["wait"]["loaded"]) == (True, True, False)


def ended(process: subprocess.Popen[str], rc: int = 0) -> Said:
    with process:
        said = Said(*process.communicate(timeout=60))
    assert process.returncode == rc, f"exit code {process.returncode}\n{said.out}\n{said.err}"
    return said


def started(exoflow: Shell, run_id: str) -> subprocess.Popen[str]:
    """A run that waits in its last task; what it did before is durable."""
    process = exoflow.start("run", "jobs.py:slow", "--arg", "number=1", "--id", run_id, WAIT="1")
    seen = exoflow.folder / "waiting"
    while not seen.exists() or len(exoflow("show", run_id, "--json").json["calls"]) < 2:
        assert process.poll() is None, process.communicate()
    return process


def test_ctrl_c_stops_a_run_says_how_to_go_on_and_exits_with_130(exoflow: Shell) -> None:
    process = started(exoflow, "slow")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "exoflow resume slow" in err
    assert "Traceback" not in err
    assert exoflow("resume", "slow").out == "10\n"


def test_with_json_what_a_flow_and_its_workers_print_goes_to_stderr(exoflow: Shell) -> None:
    (exoflow.folder / "loud.py").write_text(
        "import os\nfrom exoflow import flow, task\nprint('imported')\n"
        "@task\ndef work() -> int:\n    print('worked', flush=True)\n    return 1\n"
        "@flow\ndef loud() -> int:\n    print('ran')\n    os.system('echo shouted')\n    return work()\n"
    )
    for executor in ("local", "processes:1"):
        said = ended(exoflow.start("run", "loud.py:loud", "--executor", executor, "--json"))
        assert said.json["result"] == 1
        assert {"imported", "ran", "shouted", "worked"} <= set(said.err.splitlines())
    assert exoflow("run", "loud.py:loud", "--json").json["result"] == 1


def test_what_is_no_store_and_no_call_of_the_run_is_wrong_usage(exoflow: Shell) -> None:
    assert "jobs.py is a file: a store is a folder" in exoflow("list", "--store", "jobs.py", rc=2).line
    assert "gs:// cannot be a store" in exoflow("list", "--store", "gs://bucket", rc=2).line
    assert "none, which does not exist yet" in exoflow("list", "--store", "none").line
    assert exoflow("show", "x", "--store", "none", rc=3).line.endswith("none: there are none")
    (exoflow.folder / "bad").touch()
    exoflow("run", "jobs.py:daily", "--arg", "day=x", "--id", "mine", "--store", "kept", rc=1)
    said = exoflow("resume", "mine", "--store", "kept", "--accept", "scor#0", rc=1)
    assert "no result of a call 'scor#0' that could be accepted; did you mean score#0?" in said.line
    assert "exoflow resume mine --store kept" in exoflow("show", "mine", "--store", "kept").err


def test_a_broken_off_run_can_be_cancelled_and_what_can_be_undone_is(exoflow: Shell) -> None:
    process = started(exoflow, "slow")
    process.kill()
    process.communicate()
    assert exoflow("cancel", "slow").line == "cancelled slow"
    assert "slow/reserve#0" in (exoflow.folder / "released").read_text()
    assert [run["status"] for run in exoflow("list", "--json").json] == ["cancelled"]
    assert "was cancelled" in exoflow("resume", "slow", rc=1).err
    assert "has ended already" in exoflow("cancel", "slow", rc=1).line


def test_an_effect_in_doubt_is_shown_and_resume_exits_with_5(exoflow: Shell) -> None:
    ended(exoflow.start("run", "jobs.py:pay", "--arg", "number=1", "--id", "pay", DIE="1"), rc=-signal.SIGKILL)
    shown = exoflow("show", "pay")
    assert "pay  in doubt" in shown.out
    assert "in doubt: its effect began, and nothing says that it ended" in shown.out
    assert "1 effect in doubt: charge#0" in shown.err
    assert "may or may not have happened" in exoflow("resume", "pay", rc=5).err


def test_show_says_what_ran_again_and_why_in_the_tree_and_in_json(exoflow: Shell) -> None:
    (exoflow.folder / "bad").touch()
    exoflow("run", "jobs.py:daily", "--arg", "day=x", "--id", "mine", rc=1)
    (exoflow.folder / "bad").unlink()
    exoflow("resume", "mine")
    tree = exoflow("show", "mine").out
    assert "├─ score × 5" in tree
    assert "loaded from process 1" in tree
    assert "after read × 5" in tree
    assert "ran again in process 2 because it had failed" in tree
    assert "11 calls" in tree
    assert "├─ score#4" in exoflow("show", "mine", "--all").out
    shown = exoflow("show", "mine", "--json").json
    [guarded] = [call for call in shown["calls"] if call["task"] == "guarded"]
    assert guarded["runs"] == 2
    assert [attempt["why"] for attempt in guarded["attempts"]] == [None, "failed before"]


def test_show_and_explain_say_which_worker_ran_a_call_and_in_which_snapshot_an_actor_is(exoflow: Shell) -> None:
    (exoflow.folder / "bad").touch()
    said = exoflow("run", "jobs.py:tallied", "--arg", "count=4", "--id", "t", "--executor", "processes:1", rc=1)
    assert "exoflow resume t --executor processes:1" in said.err
    shown = exoflow("show", "t", "--json").json
    calls = {call["id"]: call for call in shown["calls"]}
    adding = [calls[f"Tally.add#{n}"]["attempts"][-1] for n in range(5)]
    assert {attempt["executor"] for attempt in adding} == {"processes"}
    [worker] = {attempt["worker"] for attempt in adding}
    assert worker != calls["guarded#0"]["attempts"][-1]["worker"]
    assert all(calls[f"Tally.add#{n}"]["actor"] == "Tally#0" for n in range(5))
    assert shown["actors"] == [
        {"id": "Tally#0", "snapshots": ["Tally#0", "Tally.add#2"], "in_no_snapshot": ["Tally.add#3", "Tally.add#4"]}
    ]
    tree = exoflow("show", "t").out
    assert f"on worker {worker.partition('@')[0]}" in tree
    assert "2 snapshots, behind Tally and Tally.add#2" in tree
    assert "made again where the state is lost and needed: Tally.add#3 and Tally.add#4" in tree
    told = {each["call"]: each for each in exoflow("explain", "t", "--json").json}
    assert told["Tally#0"]["kind"] == "actor"
    assert told["Tally.add#1"]["state"] == "in the snapshot behind Tally.add#2"
    assert told["Tally.add#4"]["state"].startswith("in no snapshot: made again")


def test_a_run_of_another_process_that_only_waits_says_for_what(exoflow: Shell) -> None:
    process = exoflow.start("run", "jobs.py:patient", "--id", "p")
    while not (found := exoflow("list", "--status", "waiting", "--json").json):
        assert process.poll() is None, process.communicate()
    assert [each["event"] for each in found[0]["waits_for"]] == ["approved", None]
    assert exoflow("list", "--status", "running", "--json").json == []
    shown = exoflow("show", "p").out
    assert f"p  waiting in process {process.pid}" in shown
    assert "waits for the event 'approved' or 2" in shown
    assert "waiting for the event 'approved' or 1 more" in exoflow("list").out
    exoflow("send", "p", "approved", '"yes"')
    assert ended(process).out == "yes\n"
    assert "waits for" not in exoflow("show", "p").out


def test_an_executor_that_cannot_be_had_is_one_line_and_the_command_that_goes_on(
    exoflow: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    (exoflow.folder / "far.py").write_text(
        "from exoflow import flow, task\n@task(executor='dask')\ndef there() -> int:\n    return 1\n"
        "@flow\ndef far() -> int:\n    return there()\n"
    )
    for name in [name for name in sys.modules if name.startswith("exoflow.executors.dask")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "distributed", None)
    said = exoflow("run", "far.py", "--id", "far", rc=1)
    assert "Traceback" not in said.err
    assert "broken off far: ExecutorError: the executor 'dask' needs Dask: pip install 'exoflow[dask]'" in said.err
    assert "Go on with it: exoflow resume far" in said.err
    assert "pip install 'exoflow[dask]'" in exoflow("resume", "far", "--executor", "dask", rc=2).line


def test_a_module_is_not_taken_for_a_run_without_a_word(exoflow: Shell) -> None:
    assert "write jobs.py:FLOW" in exoflow("explain", "jobs", rc=2).line


def test_the_timeline_fits_the_terminal_and_has_a_bar_for_each_row(
    exoflow: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    exoflow("run", "jobs.py:daily", "--arg", "day=x", "--id", "mine")
    for width in (60, 100):
        monkeypatch.setenv("COLUMNS", str(width))
        lines = exoflow("show", "mine", "--timeline").out.splitlines()
        bars = [line for line in lines if line.startswith(("├─", "└─"))]
        assert len(bars) == 3
        assert all(any(mark in bar for mark in "╺━╸") for bar in bars)
        assert max(map(len, bars)) <= width


def test_list_can_be_narrowed_and_says_how_many_there_are(exoflow: Shell) -> None:
    for n in range(3):
        exoflow("run", "jobs.py:hello", "--arg", f"name={n}", "--id", f"run-{n}", "--label", f"n={n}")
    assert [run["id"] for run in exoflow("list", "--json").json] == ["run-2", "run-1", "run-0"]
    said = exoflow("list", "--limit", "1", "--flow", "hello")
    assert "run-2" in said.out and "run-1" not in said.out
    assert "1 of 3 runs" in said.err
    assert [run["id"] for run in exoflow("list", "--label", "n=1", "--json").json] == ["run-1"]
    assert "none of 3 runs" in exoflow("list", "--status", "failed").err


def test_gc_says_what_it_would_delete_and_deletes_only_without_dry_run(exoflow: Shell) -> None:
    ended(exoflow.start("run", "jobs.py:hello", "--arg", "name=x", "--id", "old"))
    assert "would delete  old" in exoflow("gc", "--keep-days", "0", "--dry-run").out
    assert [run["id"] for run in exoflow("list", "--json").json] == ["old"]
    assert exoflow("gc", "--json").json["dropped"] == []
    assert ended(exoflow.start("run", "jobs.py:hello", "--arg", "name=x", "--id", "old")).out == "hello x\n"
    assert "deleted  old" in exoflow("gc", "--keep-days", "0").out
    assert exoflow("list", "--json").json == []


def test_doctor_is_content_with_a_folder_and_says_what_is_wrong_with_a_bucket(exoflow: Shell) -> None:
    findings = {each["what"]: each for each in exoflow("doctor", "--json").json}
    assert all(each["good"] for each in findings.values())
    assert {"python", "store", "disk", "atomic create", "locks", "durable write"} <= findings.keys()
    assert all(name in findings["executors"]["found"] for name in ("local", "processes", "ray", "dask"))
    assert "s3" in findings["stores"]["found"]
    assert not list(exoflow.folder.glob(".exoflow*"))
    said = exoflow("doctor", "--store", "gs://bucket", rc=1)
    assert "✗ store" in said.out
    assert "its conditional create has to be run against the real thing first" in said.out
    (exoflow.folder / "file").touch()
    for url, why in {"file": "is a file: a store is a folder", "file/below": "is no directory"}.items():
        assert f"{exoflow.folder / 'file'} {why}" in exoflow("doctor", "--store", url, rc=1).out


@pytest.mark.parametrize("command", ["run", "resume", "list", "show", "explain", "cancel", "gc", "doctor"])
def test_every_command_has_examples_and_the_options_that_all_have(exoflow: Shell, command: str) -> None:
    said = exoflow(command, "--help").out
    assert f"exoflow {command} " in said or f"exoflow {command}\n" in said
    for option in ("--json", "--store", "--debug"):
        assert option in said


@pytest.mark.parametrize("command", ["show", "cancel", "gc", "serve"])
def test_help_has_one_empty_line_between_paragraphs_and_an_indent_for_examples_alone(
    exoflow: Shell, command: str
) -> None:
    lines = [line.rstrip() for line in exoflow(command, "--help").out.partition("╭─")[0].splitlines()]
    assert not any(a == b == "" for a, b in itertools.pairwise(lines))
    examples = lines.index(" Examples:")
    assert all(line.startswith("   exoflow ") for line in lines[examples + 1 :] if line)
    assert not any(line.startswith("  ") for line in lines[:examples])


def test_what_is_not_built_is_not_there(exoflow: Shell) -> None:
    for command in ("fork", "worker", "ui"):
        assert "No such command" in exoflow(command, rc=2).err


def test_a_reader_that_has_enough_is_no_error(exoflow: Shell) -> None:
    for n in range(3):
        exoflow("run", "jobs.py:hello", "--arg", f"name={n}")
    process = exoflow.start("list", "--json")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr.read() == ""
    process.stderr.close()
