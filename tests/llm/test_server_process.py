"""``exoflow llm serve`` as a process: it starts, drains, is killed and starts again."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import httpx
import pytest
from llm_zoo import Zoo

from exoflow.errors import LLMError
from exoflow.http.server import Server
from exoflow.llm import Engine

COMMAND = [sys.executable, "-c", "from exoflow.cli import main; main()", "llm"]
BODY = {"model": "r8", "prompt": "The quick", "max_tokens": 20, "temperature": 0, "ignore_eos": True}


class Process:
    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen([*COMMAND, "serve", *arguments], stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self.url = ""

    def is_up(self) -> str:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(r"http://\S+", line):
                self.url = found[0]
                return line
        raise AssertionError("".join(self.lines))

    def ended(self) -> tuple[int, str]:
        _, rest = self.process.communicate()
        return self.process.returncode, rest


@pytest.fixture
def start(zoo: Zoo) -> Iterator[Callable[[int], Process]]:
    started: list[Process] = []

    def one(port: int) -> Process:
        folder = str(zoo.path.parent)
        process = Process(
            str(zoo.path), "--adapters", folder, "--port", str(port), "--served-model-name", "tiny",
            "--pages", "300", "--block", "8", "--threads", "1",
        )  # fmt: skip
        started.append(process)
        return process

    yield one
    for process in started:
        with process.process:
            process.process.kill()


def test_a_server_that_is_killed_starts_again_and_a_stop_lets_answers_end(
    zoo: Zoo, start: Callable[[int], Process]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    first = start(port)
    said = first.is_up()
    assert f"serving tiny (float32 on cpu; 300 pages of 8 tokens, 2.5 MB) with 8 adapters of {zoo.path.parent}" in said
    with httpx.Client(base_url=first.url, timeout=60) as client:
        before = client.post("/v1/completions", json=BODY).json()["choices"][0]["text"]
    first.process.kill()
    first.ended()

    second = start(port)
    second.is_up()
    with httpx.Client(base_url=second.url, timeout=60) as client:
        assert client.post("/v1/completions", json=BODY).json()["choices"][0]["text"] == before
        body = BODY | {"stream": True, "max_tokens": 300}
        with client.stream("POST", "/v1/completions", json=body) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: {")
            second.process.send_signal(signal.SIGTERM)
            told = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert told[-1]["choices"][0]["finish_reason"] == "length"
    code, rest = second.ended()
    assert code == 0, rest
    assert "stopping: answers have 30 s to end" in rest
    assert "Traceback" not in rest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{model}", "--adapters", "none"], "--adapters none: there is no such directory"),
        (["{model}", "--adapters", "{zoo}/r8"], "is one adapter; give the directory that it lies in"),
        (["{model}", "--adapters", "{zoo}", "--served-model-name", "r8"], "give that another by --served-model-name"),
        (["{model}", "--adapter", "x={zoo}/none"], "is no adapter: it has no adapter_config.json"),
        (["{model}", "--host", "0.0.0.0"], "Say who may: --api-keys FILE"),
        (["{model}", "--api-keys", "none"], "--api-keys none cannot be read"),
        (["{model}", "--policy", "fair"], "policy='fair': there are"),
        (["{model}", "--fair", "--policy", "fcfs"], "--policy fcfs serves who came first, and --fair in turns"),
        (["{model}", "--weight", "acme=2"], "give --fair, too"),
        (["{model}", "--fair", "--weight", "acme=2"], "--weight acme: no API key has this name"),
        (["{model}", "--max-body", "big"], "--max-body big: write a number of bytes"),
        (["{model}", "--block", "0"], "block=0: it must be at least 1"),
        (["{zoo}/r8"], "r8 is no model: it has no config.json"),
        (["{model}", "--device", "abacus"], "device='abacus': give cpu"),
        (["{model}", "--dtype", "float8"], "dtype='float8': there are float32"),
        (["{model}", "--pages", "1000000000000"], "pages=1000000000000 and block=16 need more memory than can be had"),
        (["{model}", "--block", "100000000000000000000"], "need more memory than can be had"),
        (["{model}", "--threads", "100000000"], "threads=100000000: it can be 1 to 1024"),
        (["{model}", "--max-rank", "10000000000"], "max_rank=10000000000: it can be 1 to 65536"),
        (["{model}", "--max-batch", "1000000000"], "max_batch=1000000000: it can be 1 to 65536"),
        (["{zoo}/none.gguf"], "there is no file"),
        (["{model}", "--host", "300.1.1.1", "--no-auth"], "Try another --host"),
        (["{model}", "--adapter", "x"], "'x' is not NAME=PATH"),
    ],
)
def test_wrong_arguments_are_one_clear_line(
    zoo: Zoo, capfd: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    from typer.testing import CliRunner

    from exoflow.cli.app import app

    given = [each.format(model=zoo.path, zoo=zoo.path.parent) for each in arguments]
    result = CliRunner().invoke(app, ["llm", "serve", *given])
    told = result.stderr + capfd.readouterr().err
    assert result.exit_code == 2
    assert message in told
    assert "Traceback" not in told


def test_wrong_arguments_are_told_before_torch_is_imported(zoo: Zoo) -> None:
    commands = [
        ["nowhere.gguf"],
        [str(zoo.path), "--dtype", "float8"],
        [str(zoo.path), "--host", "300.1.1.1", "--no-auth"],
    ]
    program = f"""
import sys
from typer.testing import CliRunner
from exoflow.cli.app import app
print([CliRunner().invoke(app, ["llm", "serve", *words]).exit_code for words in {commands}], "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[2, 2, 2] False\n"


def test_ctrl_c_before_a_command_has_begun_is_no_traceback() -> None:
    program = """
import sys, typer
from exoflow.cli import main
def interrupted(*_):
    raise KeyboardInterrupt
if sys.argv.pop() == "imports":
    sys.modules.pop("exoflow.cli.app", None)
    sys.meta_path.insert(0, type("Finder", (), {"find_spec": interrupted}))
else:
    typer.main.get_command = interrupted
main()
"""
    for when in ("imports", "options"):
        command = [sys.executable, "-c", program, "--help", when]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_pool_that_holds_less_than_the_model_can_read_is_told(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from typer.testing import CliRunner

    from exoflow.cli.app import app

    async def stop_at_once(server: Server, sockets: list[socket.socket]) -> None:
        with server.capture_signals():
            for each in sockets:
                each.close()

    monkeypatch.setattr(Server, "serve", stop_at_once)
    result = CliRunner().invoke(app, ["llm", "serve", str(zoo.path), "--port", "0", "--pages", "3"])
    told = result.stderr + capfd.readouterr().err
    assert result.exit_code == 0, told
    assert "can have 48 tokens, of the model's 512: see --pages" in told


def test_an_engine_is_warm_before_it_is_served(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from typer.testing import CliRunner

    from exoflow.cli.app import app

    def too_little(engine: Engine) -> None:
        raise LLMError("no room for its graphs")

    monkeypatch.setattr(Engine, "warm_up", too_little)
    result = CliRunner().invoke(app, ["llm", "serve", str(zoo.path), "--port", "0", "--pages", "100"])
    told = result.stdout + result.stderr + capfd.readouterr().err
    assert result.exit_code == 1
    assert "no room for its graphs" in told
    assert "serving" not in told
