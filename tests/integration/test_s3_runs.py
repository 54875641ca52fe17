"""Whole runs in a bucket: killed, stopped, taken over, counted."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import s3_proxy as planted

import exoflow
from exoflow.driver import runtime
from exoflow.errors import Corrupt, RunIsLive
from exoflow.journal import Journal, Kind
from exoflow.protocols import Store
from exoflow.storage import S3Store, open_store
from exoflow.web.elsewhere import Elsewhere

PROGRAM = """
import os, sys, time
import exoflow
from exoflow import flow, task
from exoflow.journal import journal, takeover

journal.BEAT_S = takeover.BEAT_S = 1.0  # a test can wait for three of these
SEEN, GATE = sys.argv[2], sys.argv[3]

def enter(name):
    with open(SEEN, "a") as file:
        file.write(f"{name} {os.getpid()}\\n")

@task
def choose():
    enter("choose")
    return os.urandom(8).hex()

@task(effect="idempotent")
def publish(choice):
    enter(f"publish {exoflow.idempotency_key()} {choice}")
    while not os.path.exists(GATE):
        time.sleep(0.02)
    enter(f"published {choice}")
    return choice

@task
def large(choice):
    enter("large")
    return choice.encode() * 10_000

@flow
def run():
    choice = publish(choose())
    return choice, len(large(choice))

try:
    if sys.argv[1] == "run":
        print(run.options(run_id="mine")())
    else:
        print(exoflow.resume("mine", takeover=sys.argv[1] == "take"))
except BaseException as error:
    print(type(error).__name__)
"""


class Stage:
    """Processes of one run, and the file outside the store in which they say what they do."""

    def __init__(self, folder: Path, url: str) -> None:
        self.program, self.seen_file, self.gate = folder / "program.py", folder / "seen", folder / "gate"
        self.program.write_text(PROGRAM)
        self.environment = {**os.environ, "EXOFLOW_STORE": url}
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, what: str) -> "subprocess.Popen[str]":
        command = [sys.executable, str(self.program), what, str(self.seen_file), str(self.gate)]
        process = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        return process

    def finish(self, process: "subprocess.Popen[str]") -> str:
        return process.communicate(timeout=100)[0].strip()

    def seen(self) -> list[str]:
        return self.seen_file.read_text().splitlines() if self.seen_file.exists() else []

    def counts(self) -> Counter[str]:
        return Counter(line.split()[0] for line in self.seen())

    def until(self, word: str, times: int = 1) -> None:
        while self.counts()[word] < times:
            assert self.processes[-1].poll() is None, self.processes[-1].communicate()[0]
            time.sleep(0.02)

    def open_gate(self) -> None:
        self.gate.touch()


@pytest.fixture
def stage(tmp_path: Path, s3_url: str) -> Iterator[Stage]:
    stage = Stage(tmp_path, s3_url)
    yield stage
    for process in stage.processes:
        process.kill()
        process.communicate()


def test_a_killed_run_is_gone_on_with_by_one_of_two_that_come_at_once(stage: Stage) -> None:
    first = stage.start("run")
    stage.until("publish")
    first.kill()
    first.wait()
    stage.open_gate()
    both = [stage.start("resume"), stage.start("resume")]  # they listen for three beats
    said = sorted(stage.finish(process) for process in both)
    result = next(each for each in said if each.startswith("("))
    assert set(said) <= {result, "RunIsLive"}
    assert stage.counts() == {"choose": 1, "publish": 2, "published": 1, "large": 1}
    assert stage.finish(stage.start("run")) == result
    assert stage.counts()["large"] == 1


def test_an_owner_that_is_stopped_and_wakes_behind_a_takeover_changes_nothing(stage: Stage) -> None:
    """Row 84: its effect has the key of the second attempt; what it would save is refused, and so is its next write."""
    first = stage.start("run")
    stage.until("publish")
    first.send_signal(signal.SIGSTOP)
    second = stage.start("take")
    stage.until("publish", 2)
    stage.open_gate()
    result = stage.finish(second)
    first.send_signal(signal.SIGCONT)
    assert stage.finish(first) == "Fenced"
    counts = stage.counts()
    assert counts.pop("large") <= 2  # pure: it may begin before anybody hears that it was fenced
    assert counts == {"choose": 1, "publish": 2, "published": 2}
    effects = {tuple(line.split()[1:3]) for line in stage.seen() if line.startswith("publish ")}
    assert len(effects) == 1, "one key, one choice"
    assert stage.finish(stage.start("run")) == result


def test_a_run_that_lives_elsewhere_is_not_taken(stage: Stage) -> None:
    first = stage.start("run")
    stage.until("publish")
    assert stage.finish(stage.start("resume")) == "RunIsLive"
    stage.open_gate()
    assert stage.finish(first).startswith("(")
    assert stage.counts() == {"choose": 1, "publish": 1, "published": 1, "large": 1}


# -- what it costs -----------------------------------------------------------------------------------------------------


@pytest.fixture
def proxy(s3_environment: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    proxy = planted.Proxy(s3_environment)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    yield proxy
    for place in [place for place in runtime._runtimes if isinstance(place, tuple)]:
        runtime._runtimes.pop(place).close()  # while its server is there
    proxy.close()


@exoflow.task
def step(n: int) -> int:
    return n + 1


@exoflow.flow
def chain(n: int) -> int:
    for _ in range(n):
        n = step(n)
    return n


@exoflow.task
def heavy() -> bytes:
    return os.urandom(100_000)


@exoflow.flow
def weighs() -> int:
    return len(heavy())


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.02)


def slots(store: S3Store) -> int:
    return len(store.list(f"journals/{runtime.Runtime.of(store).journal.name}"))


def journal_with(store: Store, calls: list[str]) -> tuple[Journal, int]:
    """A journal in whose run these calls were saved, each in a batch of its own."""
    journal = Journal(store, linger_s=None)
    run = journal.claim("mine").run
    for record in [(Kind.START, run, "mine", 1), *((Kind.SAVED, run, call) for call in calls)]:
        journal.wait(journal.append(record))
    return journal, run


def test_requests_are_batches_and_large_values_and_two_a_run(s3_url: str, proxy: Any) -> None:
    store = S3Store(s3_url)
    proxy.latency_s = 0.01
    for n in range(3):
        assert chain.options(store=store, run_id=f"c{n}")(20) == 40
    threads = [threading.Thread(target=chain.options(store=store), args=(5,)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    weighs.options(store=store)()
    counts = Counter(proxy.counts)
    batches, sources = slots(store), len(store.list("code"))
    values, chosen, probes = len(store.list("values")), 3, 2
    assert counts["PUT"] <= batches + values + sources + chosen + probes
    assert counts["LIST"] == 0
    assert counts["GET"] + counts["HEAD"] <= 2 * 14 + 10, (counts, proxy.keys)  # and the bells
    assert batches <= 3 * 5 + 10 * 5 + 5


def test_a_takeover_is_a_few_requests_and_its_slots(s3_url: str, proxy: Any) -> None:
    store = S3Store(s3_url)
    old, run = journal_with(store, [f"m{n}" for n in range(20)])
    new = Journal(store, linger_s=None)
    new.open()
    proxy.counts.clear()
    adopted = new.adopt("mine", takeover=True)
    assert [record[2] for record in adopted.records[1:]] == [f"m{n}" for n in range(20)]
    assert proxy.counts["PUT"] == 3, "seal, claim, adopted"
    asked = proxy.counts["GET"] + proxy.counts["HEAD"]
    assert asked <= 22 + 26, (proxy.counts, "its slots, one request each, and what does not grow with them")
    assert proxy.counts["LIST"] == 0
    with pytest.raises(exoflow.errors.Fenced):
        old.wait(old.append((Kind.SAVED, run, "late")))


async def test_who_waits_for_runs_of_another_process_reads_its_journal_once(
    s3_url: str, proxy: Any, quick_beats: None
) -> None:
    owner = Journal(S3Store(s3_url))
    claimed = [owner.claim(f"r{n}") for n in range(10)]
    for n, each in enumerate(claimed):
        owner.wait(owner.append((Kind.START, each.run, f"r{n}", 1)))
        owner.wait(owner.append((Kind.SAVED, each.run, "a")))
    old = [f"/bucket/{s3_url[12:]}/journals/{owner.name}/{number}" for number in range(20)]
    proxy.keys.clear()
    proxy.counts.clear()
    elsewhere = Elsewhere(runtime.Runtime.of(S3Store(s3_url)), asyncio.Event())
    waits = [asyncio.create_task(elsewhere.wait(f"r{n % 10}", None)) for n in range(30)]
    next_slots = [f"/bucket/{s3_url[12:]}/journals/{owner.name}/{number}" for number in range(20, 40)]
    await asyncio.to_thread(until, lambda: sum(proxy.keys["GET", key] for key in next_slots) > 50)  # a while
    assert not any(task.done() for task in waits)
    for each in claimed:
        owner.append((Kind.ENDED, each.run, "over"))
    await asyncio.gather(*waits)
    owner.close()
    assert [proxy.keys["GET", key] + proxy.keys["HEAD", key] for key in old] == [1] * 20
    await asyncio.gather(*elsewhere._readers)  # they end when nobody waits


def test_an_answer_that_is_lost_costs_a_run_nothing(s3_url: str, proxy: Any) -> None:
    store = S3Store(s3_url)
    chain.options(store=store)(1)
    proxy.fault(3, lambda exchange: exchange.kind == "PUT" and "/journals/" in exchange.key, planted.lost_answer)
    assert chain.options(store=store, run_id="mine")(30) == 60
    found = Journal(store).find("mine")
    assert found.state == "ended"
    assert found.damaged == ()


def test_a_damaged_object_is_said_as_for_files(s3_url: str) -> None:
    store = open_store(s3_url)
    journal, run = journal_with(store, ["a", "b"])
    name = f"journals/{journal.name}/2"
    whole = bytes(store.read(name))
    journal.wait(journal.append((Kind.SAVED, run, "c")))
    store.delete(name)
    store.create(name, whole[:-4])
    found = Journal(store).find("mine", listens=False)
    assert len(found.damaged) == 1
    owner = next(each for each in store.list("owners"))
    store.delete(owner)
    store.create(owner, b"rubbish")
    with pytest.raises(Corrupt):
        Journal(store).find("mine", listens=False)


def test_a_live_run_is_said_to_be_live(s3_url: str, quick_beats: None) -> None:
    store = open_store(s3_url)
    owner = Journal(store)
    claimed = owner.claim("mine")
    owner.wait(owner.append((Kind.START, claimed.run, "mine", 1)))
    with pytest.raises(RunIsLive):
        Journal(store).adopt("mine")
    owner.close()
