"""``exoflow serve`` in processes of its own: killed, doubled, stopped, and left by its clients."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

PROGRAM = """
import asyncio, os, time
from exoflow import DidNotHappen, Happened, flow, task


def write(path, text):
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, text.encode() + b"\\n")
    os.close(fd)


def was_charged(key, order):
    there = os.path.exists("charges") and order in open("charges").read().split()
    return Happened(f"receipt for {order}") if there else DidNotHappen()


@task
def choose(order):
    return os.urandom(4).hex()


@task(effect="irrevocable", on_doubt=was_charged)
def charge(order):
    write("charges", order)
    return f"receipt for {order}"


@task
def pass_gate(name):
    write("begun", name)
    while not os.path.exists(f"gate-{name}"):
        time.sleep(0.01)
    return name


@task
async def pass_gate_later(name):
    write("begun", name)
    while not os.path.exists(f"gate-{name}"):
        await asyncio.sleep(0.01)
    return name


@flow
def buy(order: str) -> list[str]:
    return [choose(order), charge(order)]


@flow
def wait(name: str) -> str:
    return pass_gate(name)


@flow
async def wait_later(name: str) -> str:
    return await pass_gate_later(name)
"""

EXOFLOW = [sys.executable, "-c", "from exoflow.cli import main; main()"]


class Gateway:
    """A process that serves the program."""

    def __init__(self, folder: Path, name: str, *options: str, tokens: str = "") -> None:
        self.errors = folder / f"{name}.err"
        command = [*EXOFLOW, "serve", "program.py", "--port", "0", "--store", "store"]
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [*command, *options], cwd=folder, stderr=errors, env={**os.environ, "EXOFLOW_TOKENS": tokens}
            )
        self.url = self._url()

    def _url(self) -> str:
        while True:
            words = self.errors.read_text().split()
            found = [word.rstrip(",") for word in words if word.startswith("http://")]
            if found and "\n" in self.errors.read_text():
                return found[0]
            assert self.process.poll() is None, self.errors.read_text()
            time.sleep(0.01)

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port)

    def stop(self, number: int = signal.SIGKILL) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


Serve = Callable[..., Gateway]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    (tmp_path / "program.py").write_text(PROGRAM)
    started: list[Gateway] = []

    def begun(*options: str, tokens: str = "") -> Gateway:
        started.append(Gateway(tmp_path, f"gateway-{len(started)}", *options, tokens=tokens))
        return started[-1]

    yield begun
    for gateway in started:
        if gateway.process.poll() is None:
            gateway.stop()


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def until(condition: Callable[[], object]) -> None:
    """The test's own timeout is the limit."""
    while not condition():
        time.sleep(0.01)


async def until_async(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110  # it is another process's doing
        await asyncio.sleep(0.01)


def status(gateway: Gateway, location: str) -> dict[str, Any]:
    found = httpx.get(gateway.url + location, timeout=60).json()
    assert isinstance(found, dict)
    return found


# -- kill -9 ---------------------------------------------------------------------------------------------------------


async def order(client: httpx.AsyncClient, urls: list[str], number: int, accepted: dict[str, str]) -> None:
    """Ask until there is an answer, as a client with a key may."""
    body = {"order": f"order-{number}"}
    headers = {"Idempotency-Key": f"key-{number}"} | ({"Prefer": "respond-async"} if number % 2 else {})
    while True:
        try:
            answer = await client.post(f"{random.choice(urls)}/flows/buy", json=body, headers=headers)
        except httpx.HTTPError:
            await asyncio.sleep(0.02)
            continue
        if answer.status_code in (200, 202):
            accepted[f"order-{number}"] = answer.headers["run-id"]
            return
        assert answer.status_code in (429, 503), answer.text
        await asyncio.sleep(0.02)


@pytest.mark.big
async def test_every_accepted_order_ends_and_none_twice_though_gateways_are_killed(
    serve: Serve, tmp_path: Path
) -> None:
    gateways = [serve(), serve()]
    urls = [gateway.url for gateway in gateways]
    accepted: dict[str, str] = {}
    asked = list(range(150))
    async with httpx.AsyncClient(timeout=60) as client:
        asking = [asyncio.create_task(order(client, urls, number, accepted)) for number in asked]
        for turn in range(4):
            goal = len(accepted) + len(asked) // 6
            await until_async(lambda goal=goal: len(accepted) >= min(goal, len(asked)))
            gateways[turn % 2].stop()
            gateways[turn % 2] = await asyncio.to_thread(serve)
            urls[turn % 2] = gateways[turn % 2].url
        await asyncio.gather(*asking)
        for name, run_id in accepted.items():
            while (found := (await client.get(f"{urls[0]}/runs/{run_id}")).json())["status"] != "done":
                assert found["status"] in ("running", "broken_off"), found
                await asyncio.sleep(0.02)
            assert found["result"][1] == f"receipt for {name}"
    counts = Counter(lines(tmp_path / "charges"))
    assert counts == {f"order-{number}": 1 for number in asked}


@pytest.mark.parametrize("flow", ["wait", "wait_later"])
def test_what_a_killed_gateway_leaves_the_other_one_adopts(serve: Serve, tmp_path: Path, flow: str) -> None:
    first, second = serve(), serve()
    later = {"Prefer": "respond-async"}
    answer = httpx.post(f"{first.url}/flows/{flow}", json={"name": "a"}, headers=later)
    assert answer.status_code == 202
    until(lambda: lines(tmp_path / "begun") == ["a"])
    assert status(second, answer.headers["location"])["status"] == "running"
    first.stop()
    until(lambda: lines(tmp_path / "begun") == ["a", "a"])
    (tmp_path / "gate-a").touch()
    until(lambda: status(second, answer.headers["location"])["status"] == "done")


def test_a_gateway_adopts_what_its_predecessor_left_when_it_starts(serve: Serve, tmp_path: Path) -> None:
    first = serve("--max-running", "1")
    asked = [
        httpx.post(f"{first.url}/flows/wait", json={"name": name}, headers={"Prefer": "respond-async"})
        for name in ("a", "b", "c")
    ]
    assert [answer.status_code for answer in asked] == [202, 202, 202], "two of them wait for their turn"
    first.stop()
    for name in ("a", "b", "c"):
        (tmp_path / f"gate-{name}").touch()
    second = serve("--max-running", "1")
    for answer, name in zip(asked, ("a", "b", "c"), strict=True):
        until(lambda answer=answer: status(second, answer.headers["location"])["status"] == "done")
        assert status(second, answer.headers["location"])["result"] == name


# -- the same key ----------------------------------------------------------------------------------------------------


async def test_fifty_requests_with_one_key_at_two_gateways_are_one_run(serve: Serve, tmp_path: Path) -> None:
    urls = [serve().url, serve().url]
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=60, limits=limits) as client:
        asked = [
            client.post(f"{urls[n % 2]}/flows/buy", json={"order": "one"}, headers={"Idempotency-Key": "k"})
            for n in range(50)
        ]
        answers = await asyncio.gather(*asked)
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, answers[0].text)}
    assert lines(tmp_path / "charges") == ["one"]


def test_a_request_waits_for_the_run_of_another_gateway(serve: Serve, tmp_path: Path) -> None:
    first, second = serve(), serve()
    named = {"Idempotency-Key": "k"}
    asked = httpx.post(f"{first.url}/flows/wait", json={"name": "a"}, headers={**named, "Prefer": "respond-async"})
    assert asked.status_code == 202
    early = httpx.post(f"{second.url}/flows/wait", json={"name": "a"}, headers={**named, "Prefer": "wait=0"})
    assert (early.status_code, early.headers["location"]) == (202, asked.headers["location"])
    other = httpx.post(f"{second.url}/flows/wait", json={"name": "b"}, headers=named)
    assert other.status_code == 422
    until(lambda: lines(tmp_path / "begun") == ["a"])
    (tmp_path / "gate-a").touch()
    answer = httpx.post(f"{second.url}/flows/wait", json={"name": "a"}, headers=named, timeout=60)
    assert (answer.status_code, answer.json()) == (200, "a")
    assert lines(tmp_path / "begun") == ["a"]


# -- clients ---------------------------------------------------------------------------------------------------------


def test_a_client_that_hangs_up_does_not_stop_the_run(serve: Serve, tmp_path: Path) -> None:
    gateway = serve()
    body = b'{"name": "a"}'
    with socket.create_connection(gateway.address) as connection:
        connection.sendall(
            b"POST /flows/wait HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: k\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        until(lambda: lines(tmp_path / "begun") == ["a"])
    (tmp_path / "gate-a").touch()
    answer = httpx.post(f"{gateway.url}/flows/wait", json={"name": "a"}, headers={"Idempotency-Key": "k"}, timeout=60)
    assert (answer.status_code, answer.json()) == (200, "a")
    assert lines(tmp_path / "begun") == ["a"]


def test_a_hundred_megabytes_are_refused_before_they_are_sent(serve: Serve) -> None:
    gateway = serve()
    size, sent = 100_000_000, 0
    with socket.create_connection(gateway.address) as connection:
        head = "POST /flows/wait HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {size}\r\n\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")
    with socket.create_connection(gateway.address) as connection:
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        part = b"%x\r\n%b\r\n" % (100_000, b" " * 100_000)
        try:
            while sent < size:
                connection.sendall(part)
                sent += 100_000
        except OSError:
            pass  # it has hung up
    assert sent < size // 2
    assert httpx.get(f"{gateway.url}/health").status_code == 200


def test_events_are_followed_while_they_happen_and_after_the_connection_broke(serve: Serve, tmp_path: Path) -> None:
    gateway = serve()
    asked = httpx.post(f"{gateway.url}/flows/wait", json={"name": "a"}, headers={"Prefer": "respond-async"})
    path = f"{gateway.url}{asked.headers['location']}/events"
    with httpx.stream("GET", path, timeout=60) as answer:
        found = iter(answer.iter_lines())
        assert [next(found) for _ in range(2)] == ["id: 1", "event: started"]
    (tmp_path / "gate-a").touch()
    with httpx.stream("GET", path, timeout=60, headers={"Last-Event-ID": "1"}) as answer:
        events = [line for line in answer.iter_lines() if line.startswith(("id", "event"))]
    assert events == ["id: 2", "event: done", "id: 3", "event: done"]


# -- stopping --------------------------------------------------------------------------------------------------------


async def test_sigterm_lets_flows_end_and_exits_with_0(serve: Serve, tmp_path: Path) -> None:
    gateway = serve("--grace", "60")
    async with httpx.AsyncClient(timeout=60) as client:
        asking = [
            asyncio.create_task(client.post(f"{gateway.url}/flows/{flow}", json={"name": flow}))
            for flow in ("wait", "wait_later")
        ]
        await until_async(lambda: len(lines(tmp_path / "begun")) == 2)
        gateway.process.send_signal(signal.SIGTERM)
        await until_async(lambda: "stopping" in gateway.errors.read_text())
        for flow in ("wait", "wait_later"):
            (tmp_path / f"gate-{flow}").touch()
        answers = await asyncio.gather(*asking)
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, "wait"), (200, "wait_later")]
    assert await asyncio.to_thread(gateway.process.wait, 60) == 0


async def test_what_has_not_ended_in_the_grace_is_stopped_and_gone_on_with(serve: Serve, tmp_path: Path) -> None:
    gateway = serve("--grace", "0")
    async with httpx.AsyncClient(timeout=60) as client:
        asking = [
            asyncio.create_task(
                client.post(f"{gateway.url}/flows/{flow}", json={"name": flow}, headers={"Idempotency-Key": "k"})
            )
            for flow in ("wait", "wait_later")
        ]
        await until_async(lambda: len(lines(tmp_path / "begun")) == 2)
        assert await asyncio.to_thread(gateway.stop, signal.SIGTERM) == 0
        assert {(await each).status_code for each in asking} == {503}
        again = await asyncio.to_thread(serve)
        for flow in ("wait", "wait_later"):
            (tmp_path / f"gate-{flow}").touch()
        for flow in ("wait", "wait_later"):
            answer = await client.post(
                f"{again.url}/flows/{flow}", json={"name": flow}, headers={"Idempotency-Key": "k"}
            )
            assert (answer.status_code, answer.json()) == (200, flow)
    assert "Traceback" not in gateway.errors.read_text() + again.errors.read_text()


def test_the_second_ctrl_c_ends_it_at_once(serve: Serve, tmp_path: Path) -> None:
    gateway = serve("--grace", "600")
    httpx.post(f"{gateway.url}/flows/wait", json={"name": "a"}, headers={"Prefer": "respond-async"})
    until(lambda: lines(tmp_path / "begun") == ["a"])
    gateway.process.send_signal(signal.SIGINT)
    until(lambda: "again to stop at once" in gateway.errors.read_text())
    assert gateway.stop(signal.SIGINT) == -signal.SIGINT


def test_ctrl_c_ends_an_idle_gateway(serve: Serve) -> None:
    gateway = serve()
    assert gateway.stop(signal.SIGINT) == 0
    assert "Traceback" not in gateway.errors.read_text()


# -- the command line ------------------------------------------------------------------------------------------------


def test_tokens_come_from_the_environment_and_from_a_file(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("alice: a-secret\n")
    for gateway in (serve(tokens="alice: a-secret"), serve("--tokens", "tokens", "--host", "0.0.0.0")):
        url = gateway.url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/runs").status_code == 401
        assert httpx.get(f"{url}/runs", headers={"Authorization": "Bearer a-secret"}).status_code == 200


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["program.py", "--host", "0.0.0.0"], "Say who may"),
        (["program.py", "--host", "example.org"], "Say who may"),
        (["program.py", "--tokens", "none"], "--tokens none cannot be read"),
        (["program.py", "--tokens", "program.py"], "line 2: write NAME: SECRET"),
        (["program.py", "--tokens", "empty.py"], "names nobody"),
        (["program.py", "--max-body", "many"], "--max-body many"),
        (["program.py", "--port", "70000"], "65535"),
        (["program.py", "--max-running", "0"], "max-running"),
        (["empty.py"], "has no flow"),
        (["none.py"], "there is no file none.py"),
        (["program.py", "--host", "192.0.2.1", "--no-auth"], "cannot be listened at"),
    ],
)
def test_a_wrong_command_line_gets_one_line_and_exit_code_2(tmp_path: Path, options: list[str], words: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "empty.py").touch()
    command = [*EXOFLOW, "serve", *options]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert words in done.stderr and "Traceback" not in done.stderr


def test_without_its_packages_serve_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    code = "import sys; sys.modules['uvicorn'] = None; from exoflow.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", "program.py"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "pip install 'exoflow[web]'" in done.stderr
