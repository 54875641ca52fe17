import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from exoflow.journal import Journal, Kind
from exoflow.storage import LocalStore

WRITER = """
import sys
from collections import Counter
from exoflow import hooks
from exoflow.journal import Journal, Kind
from exoflow.storage import LocalStore

reached = Counter()
if sys.argv[2] == "count":
    hooks._armed = lambda point: reached.update([point])
journal = Journal(LocalStore(sys.argv[1]), slot_max_bytes=900, linger_s=None)
claimed = journal.claim("mine") if sys.argv[3] == "start" else journal.adopt("mine")
if sys.argv[3] == "start":
    journal.append((Kind.START, claimed.run, "mine", claimed.epoch))
for n in range(12):
    journal.append((Kind.SAVED, claimed.run, f"{sys.argv[3]}{n}", b"x" * 50))
    if n % 3 == 2:
        journal.wait(journal.append((Kind.NOTE, claimed.run, f"until {n}")))
        print(f"{sys.argv[3]}{n}", flush=True)
journal.close()
for point, times in reached.items():
    print("point", point, times)
"""


def write(root: Path, what: str, fault: str | None) -> tuple[int, list[str]]:
    environment = {**os.environ, "EXOFLOW_FAULT": fault} if fault else dict(os.environ)
    command = [sys.executable, "-c", WRITER, str(root), "kill" if fault else "count", what]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, done.stdout.split("\n")[:-1]


def points(root: Path, what: str) -> list[str]:
    """The first, the middle and the last time that each fault point is reached."""
    counted = Counter({line.split()[1]: int(line.split()[2]) for line in write(root, what, None)[1] if "point" in line})
    return [f"{name}:{n}" for name, times in counted.items() for n in sorted({1, (times + 1) // 2, times})]


def acknowledged(what: str, lines: list[str]) -> list[str]:
    last = max((int(line.removeprefix(what)) for line in lines if line.startswith(what)), default=-1)
    return [f"{what}{n}" for n in range(last + 1)]


def recorded(root: Path) -> list[str]:
    found = Journal(LocalStore(str(root))).find("mine")
    assert found.damaged == ()
    return [str(record[2]) for record in found.records if record[0] == Kind.SAVED]


@pytest.mark.slow
@pytest.mark.parametrize("what", [pytest.param("start", marks=pytest.mark.big), "adopt"])
def test_nothing_acknowledged_is_lost_wherever_the_process_is_killed(tmp_path: Path, what: str) -> None:
    if what == "adopt":
        write(tmp_path / "started", "start", None)

    def prepare(name: str) -> Path:
        if what == "adopt":
            shutil.copytree(tmp_path / "started", tmp_path / name)
        return tmp_path / name

    before = [f"start{n}" for n in range(12)] if what == "adopt" else []
    for fault in points(prepare("whole"), what):
        root = prepare(fault.replace(":", "-"))
        code, lines = write(root, what, fault)
        assert code == -signal.SIGKILL, f"{fault} was not reached"
        promised = before + acknowledged(what, lines)
        got = recorded(root) if promised else []
        assert got[: len(promised)] == promised, fault
        journal = Journal(LocalStore(str(root)))
        if promised:
            adopted = journal.adopt("mine")
            assert [record[2] for record in adopted.records if record[0] == Kind.SAVED] == got, fault
        else:
            assert journal.claim("mine").ours or journal.adopt("mine").records, fault
        journal.close()
