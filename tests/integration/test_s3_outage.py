"""The service is away for a while, or for good, while runs go on: real processes, counters outside of the store."""

import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from s3_program import BEGINNING

from exoflow.journal import Journal
from exoflow.storage import S3Store

PROGRAM = (
    BEGINNING
    + """
from exoflow.storage import S3Store

@flow
async def works(name: str) -> str:
    choice = await choose.submit(name)
    return await act.submit(name, await wait.submit(name, choice))

if __name__ == "__main__":
    quick = {"retries": {"mode": "standard", "total_max_attempts": 3}}  # else it is patient for a minute
    exoflow.configure(store=S3Store(os.environ["EXOFLOW_STORE"], config_kwargs=quick))
    try:
        if sys.argv[1] == "run":
            print(work.options(run_id="a")("a"))
        elif sys.argv[1] == "async":
            print(asyncio.run(works.options(run_id="a")("a")))
        else:
            print(exoflow.resume("a"))
    except BaseException as error:
        print(f"{type(error).__name__}: {error}")
"""
)

EXOFLOW = """
from exoflow.journal import journal, takeover
journal.BEAT_S = takeover.BEAT_S = 1.0
from exoflow.cli import main
main()
"""


class Service:
    """The way to the S3 server, which can be cut: connections are refused then, as when it is stopped."""

    def __init__(self, folder: Path, upstream: str) -> None:
        self.folder, self.upstream = folder, upstream
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.processes: list[subprocess.Popen[str]] = []
        (folder / "program.py").write_text(PROGRAM)
        self.begin()

    def begin(self) -> None:
        relay = Path(__file__).parents[1] / "s3" / "relay.py"
        command = [sys.executable, str(relay), str(self.port), self.upstream]
        self.relay = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.relay.stdout is not None
        assert self.relay.stdout.readline() == "ready\n"

    def end(self) -> None:
        self.relay.kill()
        self.relay.communicate()

    def start(self, *words: str) -> "subprocess.Popen[str]":
        pipe = subprocess.PIPE
        process = subprocess.Popen([sys.executable, *words], cwd=self.folder, stdout=pipe, stderr=pipe, text=True)
        self.processes.append(process)
        return process

    def run(self, what: str) -> "subprocess.Popen[str]":
        return self.start("program.py", what)

    def seen(self) -> Counter[str]:
        file = self.folder / "seen"
        return Counter(file.read_text().split()) if file.exists() else Counter()

    def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            time.sleep(0.05)

    def open_gate(self, name: str) -> None:
        (self.folder / f"gate-{name}").touch()


@pytest.fixture
def service(tmp_path: Path, s3_url: str, s3_environment: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    service = Service(tmp_path, s3_environment)
    monkeypatch.setenv("AWS_ENDPOINT_URL", service.endpoint)
    monkeypatch.setenv("EXOFLOW_STORE", s3_url)
    yield service
    service.end()
    for process in service.processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("what", ["run", "async"])
def test_a_run_outlives_a_service_that_is_away_for_a_moment(service: Service, what: str) -> None:
    run = service.run(what)
    service.until(lambda: service.seen()["wait-a"])
    service.end()
    service.open_gate("a")
    service.until(lambda: run.poll() is None)
    service.begin()
    said, told = run.communicate(timeout=100)
    assert len(said.strip()) == 16, (said, told)
    assert service.seen() == {"choose-a": 1, "wait-a": 1, "act-a": 1}


@pytest.mark.big
@pytest.mark.parametrize("what", ["run", "async"])
def test_a_run_that_lost_its_service_says_so_and_is_resumed_when_that_is_back(service: Service, what: str) -> None:
    run = service.run(what)
    service.until(lambda: service.seen()["wait-a"])
    service.end()
    service.open_gate("a")
    said, told = run.communicate(timeout=110)
    assert said.startswith("StorageError: "), (said, told)
    assert "the endpoint cannot be reached: look into the network and AWS_ENDPOINT_URL" in said
    assert "Traceback" not in told
    assert service.seen()["act-a"] == 0, "its intent is not durable"
    service.begin()
    resumed = service.run("resume")
    said, told = resumed.communicate(timeout=100)
    assert len(said.strip()) == 16, (said, told)
    assert service.seen() == {"choose-a": 1, "wait-a": 2, "act-a": 1}


@pytest.mark.big
def test_a_gateway_whose_service_was_away_goes_on_with_its_runs_by_itself(service: Service, s3_url: str) -> None:
    gateway = service.start("-c", EXOFLOW, "serve", "program.py", "--port", "0")
    assert gateway.stderr is not None
    line = next(line for line in gateway.stderr if "http://" in line)
    url = next(word.rstrip(",") for word in line.split() if word.startswith("http://"))
    later = {"Prefer": "respond-async", "Idempotency-Key": "k"}
    asked = httpx.post(f"{url}/flows/work", json={"name": "a"}, headers=later, timeout=60)
    assert asked.status_code == 202
    service.until(lambda: service.seen()["wait-a"])
    service.end()
    service.open_gate("a")
    refused = httpx.post(f"{url}/flows/work", json={"name": "b"}, timeout=110)
    assert refused.status_code == 503
    assert "AWS_ENDPOINT_URL" in refused.text
    service.begin()
    service.open_gate("b")
    told = httpx.post(f"{url}/flows/work", json={"name": "a"}, headers={"Idempotency-Key": "k"}, timeout=100)
    assert (told.status_code, len(told.json())) == (200, 16), told.text
    told = httpx.post(f"{url}/flows/work", json={"name": "b"}, headers={"Idempotency-Key": "b"}, timeout=100)
    assert told.status_code == 200
    assert service.seen()["act-a"] == 1
    gateway.send_signal(signal.SIGTERM)
    gateway.communicate(timeout=60)
    assert Journal(S3Store(s3_url)).find(asked.headers["run-id"]).state == "ended"
