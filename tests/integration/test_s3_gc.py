"""``gc`` of a bucket beside processes that were killed, or stopped, while they had nothing to do."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from exoflow.journal import Journal
from exoflow.journal.gc import collect
from exoflow.storage import S3Store

PROGRAM = """
import os, signal, sys, time
import exoflow
from exoflow import flow, hooks, task
from exoflow.journal import journal, takeover

BEAT_S, REST_S, SEEN, POINT = float(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4]
journal.BEAT_S = takeover.BEAT_S = BEAT_S
journal.REST_S = REST_S

def enter(name):
    with open(SEEN, "a") as file:
        file.write(f"{name}\\n")

@task(effect="idempotent")
def act(name):
    enter(name)
    return name

@flow
def run(name):
    return act(name)

def stop(point):
    global POINT
    if point == POINT:
        POINT = ""
        os.kill(os.getpid(), signal.SIGSTOP)

def attempt(name):
    try:
        return run.options(run_id=name)(name)
    except exoflow.errors.Fenced:
        return "fenced"

print(run.options(run_id="first")("first"), flush=True)
sys.stdin.readline()
with hooks.armed(stop):
    print(attempt("second"), flush=True)
print(attempt("second"), attempt("third"), flush=True)
sys.stdin.readline()
"""


class Owner:
    """A process that has had one run, and has others when it is told to."""

    def __init__(self, folder: Path, url: str, *, rest_s: float = 300.0, point: str = "") -> None:
        self.seen_file = folder / "seen"
        words = [sys.executable, "-c", PROGRAM, "1.0", str(rest_s), str(self.seen_file), point]
        pipe = subprocess.PIPE
        environment = {**os.environ, "EXOFLOW_STORE": url}
        self.process = subprocess.Popen(words, env=environment, stdin=pipe, stdout=pipe, text=True)
        assert self.hear() == "first"

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def until_stopped(self) -> None:
        _, status = os.waitpid(self.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)

    def seen(self) -> Counter[str]:
        return Counter(self.seen_file.read_text().split())

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def owners() -> Iterator[list[Owner]]:
    owners: list[Owner] = []
    yield owners
    for owner in owners:
        owner.end()


def gone(store: S3Store) -> bool:
    """Whether gc takes the first run; journals are left with their Seals then."""
    return "first" in collect(store, lambda run: False).dropped


@pytest.mark.big
def test_what_a_process_leaves_that_was_killed_when_it_was_idle_goes(
    tmp_path: Path, s3_url: str, owners: list[Owner], quick_beats: None
) -> None:
    owner, store = Owner(tmp_path, s3_url), S3Store(s3_url)
    owners.append(owner)
    assert not gone(store), "it lives, and says so"
    owner.process.kill()
    owner.process.wait()
    while not gone(store):  # it was heard a moment ago, and counts as alive for one beat
        pass
    assert len(store.list("journals")) == 1, "the Seal"
    assert not gone(store)


@pytest.mark.parametrize(
    "point",
    [
        "",
        pytest.param("journal.claim.before", marks=pytest.mark.big),
        pytest.param("journal.claim.after", marks=pytest.mark.big),
        pytest.param("store.create.before_link", marks=pytest.mark.big),
    ],
)
@pytest.mark.big
def test_an_idle_owner_that_wakes_behind_a_gc_begins_in_another_journal(
    tmp_path: Path, s3_url: str, owners: list[Owner], quick_beats: None, point: str
) -> None:
    owner, store = Owner(tmp_path, s3_url, point=point), S3Store(s3_url)
    owners.append(owner)
    if point:
        owner.tell()
    else:
        owner.process.send_signal(signal.SIGSTOP)
    owner.until_stopped()
    while not gone(store):
        pass
    owner.process.send_signal(signal.SIGCONT)
    if not point:
        owner.tell()
    assert owner.hear() in ("fenced", "second")  # its next beat may have told it first
    assert owner.hear() == "second third"
    assert owner.seen() == {"first": 1, "second": 1, "third": 1}
    for run_id in ("second", "third"):
        assert Journal(store).find(run_id).state == "ended"


@pytest.mark.big
def test_a_process_that_is_idle_for_long_ends_its_journal_and_begins_another(
    tmp_path: Path, s3_url: str, owners: list[Owner], quick_beats: None
) -> None:
    owner, store = Owner(tmp_path, s3_url, rest_s=2.0), S3Store(s3_url)
    owners.append(owner)
    while not gone(store):
        assert owner.process.poll() is None
        time.sleep(0.1)
    assert len(store.list("journals")) == 1
    owner.tell()
    assert owner.hear() == "second"
    assert owner.hear() == "second third"
    assert len({name.split("/")[1] for name in store.list("journals")}) == 2
    assert not gone(store), "the second one lives"
