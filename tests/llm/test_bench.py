"""``exoflow llm bench``: to an engine here, and to a server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import typer
from llm_zoo import Zoo
from typer.testing import CliRunner

from exoflow.cli.benching import bench
from exoflow.llm.bench.driving import Served
from exoflow.llm.bench.figures import figures_of
from exoflow.llm.bench.workload import Call

FEW = ["--rate", "40", "--duration", "0.5", "--lengths", "3:9"]


def run(*words: str) -> tuple[int, str, str]:
    app = typer.Typer()
    app.command("bench")(bench)
    done = CliRunner().invoke(app, list(words))
    return done.exit_code, done.stdout, done.stderr


def test_figures_count_from_the_arrival_and_failed_calls_have_no_first_token() -> None:
    call = Call(at_s=1.0, adapter=0, prompt_tokens=10, output_tokens=5)
    late = Call(at_s=2.0, adapter=0, prompt_tokens=10, output_tokens=5)
    served = [Served(call, 3.0, 5.0, 5), Served(late, 9.0, 9.0, 5), Served(late, None, 1.0, 0, "LLMError: no")]
    figures = figures_of(served, slo_s=6.0)
    assert (figures.requests, figures.failed) == (3, 1)
    assert figures.seconds == 10.0
    assert figures.requests_per_s == 0.2
    assert figures.output_tokens_per_s == 1.0
    assert figures.total_tokens_per_s == 3.0
    assert figures.first_token_p50_s == 6.0
    assert figures.slo_attainment == pytest.approx(1 / 3)
    assert figures.user_satisfaction == pytest.approx((1 - 0.25) / 3)


def test_a_run_without_any_token_has_figures_too() -> None:
    call = Call(at_s=0.0, adapter=0, prompt_tokens=1, output_tokens=1)
    figures = figures_of([Served(call, None, 0.0, 0, "OSError: refused")])
    assert figures.first_token_p99_s is None
    assert figures.slo_attainment == 0


def test_an_engine_here_is_measured_with_random_adapters_of_mixed_ranks(zoo: Zoo) -> None:
    code, out, _ = run(
        str(zoo.path), *FEW, "--adapters", "4", "--ranks", "4,16", "--pages", "400", "--threads", "1", "--json"
    )
    assert code == 0
    found = json.loads(out)
    assert found["model"] == str(zoo.path)
    assert found["workload"] == {
        "rate": 40, "duration_s": 0.5, "lengths": "3:9", "alpha": 1, "cv": 1, "seed": 42, "adapters": 4,
        "ranks": "4,16", "models": None, "folder": None,
    }  # fmt: skip
    assert (found["requests"], found["failed"]) == (20, 0)
    assert found["first_token_p99_s"] >= found["first_token_p50_s"] > 0
    assert found["output_tokens_per_s"] > 0


def test_the_base_alone_is_shown_as_a_table(zoo: Zoo) -> None:
    code, out, _ = run(str(zoo.path), *FEW, "--adapters", "0", "--pages", "400", "--threads", "1")
    assert code == 0
    assert "user satisfaction" in out
    assert "20 (0 failed)" in out
    assert f"{zoo.path}, no adapters" in out
    assert "40 requests/s for 0.5 s, 3:9 tokens" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--lengths", "9"], "8:512"),
        (["--lengths", "9:3"], "--lengths 9:3: they must rise"),
        (["--lengths", "0:3"], "--lengths 0:3: they must rise"),
        (["--rate", "0"], "--rate 0: it must be positive"),
        (["--rate", "nan"], "--rate nan: it must be positive"),
        (["--duration", "inf"], "--duration inf: it must be positive"),
        (["--cv", "-1"], "--cv -1: it must be positive"),
        (["--slo", "nan"], "--slo nan: it must be positive"),
        (["--models", "a"], "--models is of a server"),
        (["--dtype", "float8"], "dtype='float8': there are float32"),
        (["--ranks", "x"], "8,16,64"),
        (["--policy", "fair"], "fcfs"),
        (["--max-batch", "0"], "at least 1"),
    ],
)
def test_wrong_options_are_refused_with_what_to_write(zoo: Zoo, words: list[str], told: str) -> None:
    code, _, err = run(str(zoo.path), "--pages", "400", *words)
    assert code == 2
    assert told in err


class Speaking(BaseHTTPRequestHandler):
    """Speaks as much of OpenAI's protocol as is asked for."""

    asked: list[dict[str, object]]

    def do_GET(self) -> None:
        models = [{"id": "base"}, {"id": "pirate", "parent": "base"}, {"id": "poet", "parent": "base"}]
        self._answer(json.dumps({"data": models}).encode())

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(asked)
        if self.headers["Authorization"] != "Bearer secret":
            self.send_error(401)
            return
        events = [{"choices": [{"text": text}]} for text in ("a", "", "b")]
        events.append({"choices": [], "usage": {"completion_tokens": 3}})
        lines = [f"data: {json.dumps(event)}\n\n" for event in events]
        self._answer("".join([*lines, "data: [DONE]\n\n"]).encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict[str, object]]]]:
    asked: list[dict[str, object]] = []
    speaking = ThreadingHTTPServer(("127.0.0.1", 0), type("Mine", (Speaking,), {"asked": asked}))
    thread = threading.Thread(target=speaking.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{speaking.server_port}/v1", asked
    speaking.shutdown()
    thread.join()
    speaking.server_close()


def test_a_server_is_asked_for_its_adapters_by_their_names(
    server: tuple[str, list[dict[str, object]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aiohttp")
    monkeypatch.setenv("EXOFLOW_API_KEY", "secret")
    url, asked = server
    code, out, _ = run(url, *FEW, "--adapters", "2", "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["model"], found["workload"]["adapters"], found["workload"]["ranks"]) == (url, 2, None)
    assert (found["requests"], found["failed"]) == (20, 0)
    assert found["output_tokens_per_s"] * found["seconds"] == pytest.approx(60)
    assert {each["model"] for each in asked} == {"pirate", "poet"}
    code, _, err = run(url, *FEW, "--adapters", "3")
    assert code == 2
    assert "lists 2" in err


def test_calls_that_are_refused_are_failed_ones(
    server: tuple[str, list[dict[str, object]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aiohttp")
    monkeypatch.setenv("EXOFLOW_API_KEY", "wrong")
    code, _, err = run(server[0], *FEW, "--models", "pirate")
    assert code == 1
    assert "401" in err
    assert "set $EXOFLOW_API_KEY" in err


def test_what_is_of_an_engine_here_is_refused_for_a_server() -> None:
    for words in (["--ranks", "8"], ["--pages", "40"], ["--prefix-cache"], ["--folder", "a"]):
        code, _, err = run("http://127.0.0.1:1/v1", *words)
        assert code == 2
        assert f"{words[0]} is of an engine here" in err
