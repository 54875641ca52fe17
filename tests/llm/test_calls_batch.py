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

from exoflow import Backoff, flow
from exoflow.errors import CallRefused, Unanswered
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
