"""Batches: many calls in one file, each answered once, and the batch found again after a crash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from exoflow import Backoff, flow
from exoflow.errors import CallFailed, CallRefused, Unanswered
from exoflow.llm import LLM, Answer, Prices
from exoflow.testing import Asked, FakeEndpoint, Reply


def answers(asked: Asked) -> str | Reply:
    if asked.prompt == "wrong":
        return Reply("too long", status=400)
    if asked.prompt == "late":
        return Reply(hangs=True)
    return f"{asked.prompt}!"


@pytest.fixture(scope="module")
def server() -> Iterator[FakeEndpoint]:
    with FakeEndpoint(answers, delay_s=0.05) as endpoint:
        yield endpoint


@pytest.fixture
def llm(server: FakeEndpoint) -> LLM:
    server.forget()
    return LLM(server.url, model="fake", prices=Prices(1, 1), backoff=Backoff(initial_s=0.0))


def test_all_are_answered_in_their_order(llm: LLM, server: FakeEndpoint, run: Callable[..., Any]) -> None:
    @flow
    def asks() -> list[Answer]:
        found = llm.batch([f"question {number}" for number in range(20)], poll_s=0.01, max_tokens=9).result()
        return [answer for answer in found if isinstance(answer, Answer)]

    first = run(asks)
    assert [answer.text for answer in first] == [f"question {number}!" for number in range(20)]
    assert {answer.nano_usd for answer in first} == {4000}
    assert [asked.key for asked in server.asked] == [f"r/batch#0/{number}" for number in range(20)]
    assert server.asked[0].body["max_tokens"] == 9
    assert run(asks) == first
    assert len(server.asked) == 20


def test_what_fails_stands_in_its_place(llm: LLM, run: Callable[..., Any]) -> None:
    @flow
    async def asks() -> list[object]:
        return [*await llm.batch(prompt=["one", "wrong", "late", "two"], poll_s=0.01)]

    one, wrong, late, two = run(asks)
    assert (one.text, two.text) == ("one!", "two!")
    assert isinstance(wrong, CallRefused)
    assert (wrong.status, wrong.body) == (400, "too long")
    assert isinstance(late, Unanswered)
    assert "expired" in str(late)


def test_a_batch_without_results_is_an_error(llm: LLM, run: Callable[..., Any]) -> None:
    @flow
    def asks() -> object:
        return llm.batch(["late"], poll_s=0.01).result()

    with pytest.raises(CallRefused, match="no results, it is expired"):
        run(asks)


def test_mistakes_are_told(llm: LLM, run: Callable[..., Any]) -> None:
    with pytest.raises(RuntimeError, match="outside a flow"):
        llm.batch(["one"])

    @flow
    def asks() -> None:
        with pytest.raises(ValueError, match="1 to 50,000"):
            llm.batch([])
        with pytest.raises(TypeError, match="not both"):
            llm.batch()
        with pytest.raises(TypeError, match="scheduler"):
            LLM(llm.endpoint, model="m", scheduler=object()).batch(["one"])  # type: ignore[arg-type]

    run(asks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"messages": "Hello"}, "'Hello'.* would ask each letter: give a list of texts"),
        ({"prompt": "Hello"}, "'Hello'.* would ask each letter: give a list of texts"),
        ({"messages": ["one"], "poll_s": "1"}, "poll_s='1' must be a number"),
        ({"messages": ["one"], "poll_s": None}, "poll_s=None must be a number"),
        ({"messages": ["one"], "window": 24}, "window=24 must be text"),
    ],
)
def test_a_mistake_is_told_before_a_batch_is_made(
    llm: LLM, server: FakeEndpoint, run: Callable[..., Any], arguments: dict[str, Any], message: str
) -> None:
    @flow
    def asks() -> None:
        llm.batch(arguments.pop("messages", None), **arguments).result()

    with pytest.raises(TypeError, match=message):
        run(asks)
    assert server.asked == []


class Sloppy:
    """An endpoint whose batches are done at once; what it says of them is as it is given."""

    def __init__(self, results: Callable[[str], str] = lambda mark: "", **said: object) -> None:
        self._said = {"file": {"id": "f"}, "batch": {"id": "b"}, "state": {"output_file_id": "o"}} | said
        self._results = results
        self._mark = ""

    def server(self) -> TestServer:
        app = web.Application()
        app.router.add_post("/v1/files", self._take)
        app.router.add_post("/v1/batches", self._make)
        app.router.add_get("/v1/batches/{id}", self._look)
        app.router.add_get("/v1/files/{id}/content", self._content)
        return TestServer(app)

    async def _take(self, request: web.Request) -> web.Response:
        await request.read()
        return web.json_response(self._said["file"])

    async def _look(self, request: web.Request) -> web.Response:
        return web.json_response(self._said["state"])

    async def _make(self, request: web.Request) -> web.Response:
        self._mark = (await request.json())["metadata"]["exoflow_call"]
        return web.json_response(self._said["batch"])

    async def _content(self, request: web.Request) -> web.Response:
        return web.Response(body=self._results(self._mark).encode("utf-8", "surrogateescape"))


async def found_by(sloppy: Sloppy) -> list[Answer | CallFailed]:
    async with sloppy.server() as server:
        llm = LLM(str(server.make_url("/v1")), model="fake", retries=0)

        @flow
        async def asks() -> list[Answer | CallFailed]:
            return await llm.batch(["one", "two"], poll_s=0)

        return await asks.options(store="memory://").run()


def line(mark: str, number: int, **other: object) -> str:
    body = {"choices": [{"message": {"content": "yes"}}]}
    return json.dumps({"custom_id": f"{mark}/{number}", "response": {"status_code": 200, "body": body}} | other)


@pytest.mark.parametrize(
    "second",
    [
        lambda mark: line(mark, 1)[:40],
        lambda mark: "\udcff\udcfe",
        lambda mark: "[" * 100_000,
        lambda mark: line(mark, 1, response=["x"]),
        lambda mark: line(mark, 1, response="x"),
        lambda mark: line(mark, 1, response={"status_code": 200, "body": None}),
        lambda mark: line(mark, 1, response=None, error={"message": "too late"}),
    ],
    ids=["cut off", "no text", "too deep", "a list", "a text", "no body", "an error"],
)
async def test_a_result_that_cannot_be_read_takes_no_other_with_it(second: Callable[[str], str]) -> None:
    good, bad = await found_by(Sloppy(lambda mark: f"{line(mark, 0)}\n{second(mark)}"))
    assert isinstance(good, Answer)
    assert isinstance(bad, Unanswered)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"file": {"object": "file"}}, "/files gave an answer that names no id"),
        ({"file": [1]}, "/files gave an answer that cannot be read"),
        ({"batch": {"status": "validating"}}, "/batches gave an answer that names no id"),
        ({"state": {"status": "failed", "errors": ["a line is wrong"]}}, "it is failed: .*a line is wrong"),
        ({"state": {"status": "failed", "errors": {"data": [{"message": "bad"}, 5]}}}, "it is failed: bad"),
    ],
)
async def test_a_service_of_another_form_is_told_of_in_words(said: dict[str, object], message: str) -> None:
    with pytest.raises(CallFailed, match=message):
        await found_by(Sloppy(**said))  # type: ignore[arg-type]  # its results are not said


PROGRAM = """
    import json, os
    from exoflow import flow
    from exoflow.llm import LLM

    llm = LLM(os.environ["URL"], model="fake")

    @flow
    def asks():
        return [answer.text for answer in llm.batch(["one", "two", "three"], poll_s=0.01).result()]

    if __name__ == "__main__":
        print(json.dumps(asks.options(run_id="r", store="store").run()))
"""


@pytest.mark.parametrize("dies", ["while it is handed in", "while it is awaited"])
def test_a_crash_finds_the_same_batch(tmp_path: Path, dies: str) -> None:
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    lives: list[subprocess.Popen[str]] = []

    def answer(asked: Asked) -> str:
        if dies == "while it is handed in" and len(lives) == 1:
            lives[0].kill()  # it has sent the batch, and does not hear of its id
        return f"{asked.prompt}!"

    def live(url: str) -> subprocess.Popen[str]:
        paths = [path for path in sys.path if path and os.path.isdir(path)]
        environment = os.environ | {"URL": url, "PYTHONPATH": os.pathsep.join(paths)}
        command, pipe = [sys.executable, "program.py"], subprocess.PIPE
        lives.append(subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe, text=True))
        return lives[-1]

    with FakeEndpoint(answer, delay_s=0.0 if dies == "while it is handed in" else 2.0) as endpoint:
        first = live(endpoint.url)
        if dies == "while it is awaited":
            while len(endpoint.asked) < 3:
                assert first.poll() is None
            first.kill()
        first.communicate(timeout=60)
        out, errors = live(endpoint.url).communicate(timeout=60)
        assert out, errors
        assert json.loads(out) == ["one!", "two!", "three!"]
        assert len(endpoint.asked) == 3


def test_openais_client_reads_the_fakes_batches(llm: LLM, server: FakeEndpoint) -> None:
    line = {
        "custom_id": "a",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "m", "messages": [{"role": "user", "content": "hello"}]},
    }
    with openai.OpenAI(base_url=server.url, api_key="sk-x") as client:
        file = client.files.create(file=("calls.jsonl", json.dumps(line).encode()), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"a": "b"}
        )
        while batch.status == "in_progress":
            batch = client.batches.retrieve(batch.id)
        assert batch.status == "completed"
        assert batch.output_file_id is not None
        [answered] = client.files.content(batch.output_file_id).text.splitlines()
        assert json.loads(answered)["response"]["body"]["choices"][0]["message"]["content"] == "hello!"
        assert batch.id in [each.id for each in client.batches.list()]
