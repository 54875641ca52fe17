"""Clients that go away, ask for too much, or send what is no request."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from llm_served import BASE, Served, tokens
from llm_zoo import Zoo

from exoflow.llm import Engine
from exoflow.llm.engine.queues import Fcfs
from exoflow.llm.engine.request import Request

TEXT = "The quick brown fox"
LONG: dict[str, Any] = {"max_tokens": 300, "temperature": 0, "extra_body": {"ignore_eos": True}}
LONG_BODY = {"model": BASE, "prompt": TEXT, "max_tokens": 300, "ignore_eos": True}


async def refused(
    served: Served, path: str, body: bytes | dict[str, Any], **headers: str
) -> tuple[int, dict[str, Any]]:
    """The status, and the error, which has OpenAI's form."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with served.http() as http:
        answer = await http.post(path, content=content, headers={"Content-Type": "application/json"} | headers)
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return answer.status_code, error


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what it asks for happens in another thread
        await asyncio.sleep(0)


# -- those who go away ----------------------------------------------------------------------------------------------


async def test_a_client_that_leaves_a_stream_gives_its_pages_back(served: Served) -> None:
    async with served.openai() as client:
        stream = await client.completions.create(model="r8", prompt=TEXT, stream=True, n=4, **LONG)
        await anext(stream)
        await stream.close()
    await served.is_idle()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_before_its_answer_gives_its_pages_back(
    open_server: Callable[..., Served], stream: bool
) -> None:
    server = open_server(max_batch=1)
    server.gate.close_after(10)
    async with server.openai() as client:
        first = asyncio.create_task(client.completions.create(model=BASE, prompt=TEXT, **LONG))
        await until(lambda: len(server.service.under_way.generations) == 1)
        asking = asyncio.create_task(client.completions.create(model=BASE, prompt="x", stream=stream, **LONG))
        await until(lambda: len(server.service.under_way.generations) == 2)
        asking.cancel()
        await asyncio.wait([asking])
        await until(
            lambda: len(server.service.under_way.generations) == 1
        )  # the second is gone, while the first goes on
        server.gate.open()
        assert (await first).choices
    await server.is_idle()


async def test_a_reader_that_is_slow_stops_nobody(served: Served) -> None:
    """It reads nothing at all of a long answer in many pieces; others are answered meanwhile."""
    host, port = served.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1)
    body = json.dumps(LONG_BODY | {"stream": True, "n": 8, "logprobs": 20}).encode()
    writer.write(
        f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )
    await writer.drain()
    assert await reader.read(1)
    async with served.openai() as client:
        answers = await asyncio.gather(
            *(client.completions.create(model="r8", prompt=TEXT, max_tokens=5, temperature=0) for _ in range(10))
        )
    assert len({answer.choices[0].text for answer in answers}) == 1
    writer.close()
    await served.is_idle()


# -- too much --------------------------------------------------------------------------------------------------------


@pytest.mark.big
async def test_five_hundred_clients_at_once_are_all_answered(served: Served) -> None:
    limits = httpx.Limits(max_connections=500)
    body = {"prompt": TEXT, "max_tokens": 2, "temperature": 0}
    async with httpx.AsyncClient(base_url=served.url, limits=limits, timeout=100) as http:
        models = [(BASE, "r8", "mlp", "r1")[number % 4] for number in range(500)]
        answers = await asyncio.gather(
            *(http.post("/v1/completions", json=body | {"model": model}) for model in models)
        )
    texts = {(model, answer.json()["choices"][0]["text"]) for model, answer in zip(models, answers, strict=True)}
    assert len(texts) == 4
    await served.is_idle()


async def test_who_comes_when_all_places_are_taken_is_told_when_to_come_again(
    open_server: Callable[..., Served],
) -> None:
    server = open_server(max_batch=2, max_waiting=2, token_budget=64)
    server.gate.close_after(0)
    async with server.openai() as client:
        asking = [
            asyncio.create_task(client.completions.create(model=BASE, prompt=TEXT, max_tokens=1)) for _ in range(20)
        ]
        await until(lambda: sum(task.done() for task in asking) >= 16)  # the engine stands: nobody was answered
        server.gate.open()
        answers = await asyncio.gather(*asking, return_exceptions=True)
    refusals = [answer for answer in answers if isinstance(answer, openai.RateLimitError)]
    assert all(int(refusal.response.headers["Retry-After"]) > 0 for refusal in refusals)
    assert {refusal.code for refusal in refusals} == {"overloaded"}
    answered = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert len(answered) == 4
    assert len(answered) + len(refusals) == 20
    assert len({refusal.message for refusal in refusals}) == 1
    await server.is_idle()
    assert (await refused(server, "/v1/completions", LONG_BODY | {"n": 5}))[0] == 400  # it could never be answered


async def test_what_cannot_be_in_time_is_503(open_server: Callable[..., Served]) -> None:
    server = open_server(max_batch=1, policy="deadline", slo_s=1e-9)
    for stream in (False, True):
        status, error = await refused(server, "/v1/completions", LONG_BODY | {"stream": stream})
        assert (status, error["code"]) == (503, "deadline")
    await server.is_idle()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"max_tokens": 100_000}, "context_length_exceeded"),
        ({"prompt": "x" * 600}, "context_length_exceeded"),
        ({"n": 257}, None),
        ({"n": 100, "prompt": ["a", "b", "c"]}, None),
        ({"prompt": []}, None),
        ({"prompt": ""}, None),
        ({"prompt": [300]}, None),
        ({"prompt": [-1]}, None),
        ({"prompt": [2**40]}, None),
        ({"prompt": [[1], "a"], "n": 1, "max_tokens": 0}, None),
        ({"prompt": [1, "a"]}, None),
        ({"max_tokens": 0}, None),
        ({"max_tokens": True}, None),
        ({"temperature": -1}, None),
        ({"temperature": 1e400}, None),
        ({"top_p": 0}, None),
        ({"top_k": -2}, None),
        ({"stop": ""}, None),
        ({"stop": ["x"] * 17}, None),
        ({"logprobs": 21}, None),
        ({"seed": "a"}, None),
        ({"echo": True}, None),
        ({"best_of": 3}, None),
        ({"logit_bias": {"5": 1}}, None),
        ({"presence_penalty": 0.5}, None),
        ({"no_such_field": 1}, None),
        ({"model": None}, None),
        ({"stream_options": 5}, None),
        ({"stream_options": {"include_obfuscation": True}}, None),
    ],
)
async def test_what_cannot_be_answered_is_400_and_says_why(served: Served, change: dict[str, Any], code: str) -> None:
    body = {"model": BASE, "prompt": TEXT, "max_tokens": 5} | change
    status, error = await refused(served, "/v1/completions", body)
    assert status == 400
    assert error["type"] == "invalid_request_error"
    assert error["code"] == code


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"structured_outputs": {"json": {}, "regex": "a"}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}}, "response_format"),
    ],
)
async def test_a_refusal_names_the_field(served: Served, change: dict[str, Any], param: str) -> None:
    body = {"model": BASE, "messages": [{"role": "user", "content": "x"}]} | change
    status, error = await refused(served, "/v1/chat/completions", body)
    assert (status, error["param"]) == (400, param)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"model": "\xff"}', b'{"a":' * 50_000, b"[" * 100_000, b'"x"',
        b'{"model": "tiny", "prompt": "\\ud800"}', b'{"model": "tiny"}', b"{}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["completions", "chat/completions", "load_lora_adapter", "unload_lora_adapter"])
async def test_a_body_that_is_no_request_is_400(served: Served, path: str, body: bytes) -> None:
    assert (await refused(served, f"/v1/{path}", body))[0] == 400


@pytest.mark.parametrize(
    "messages",
    [
        [], "hi", [{}], [{"role": "user", "content": 5}], [{"role": "user", "content": [{"type": "image_url"}]}],
        [{"content": "x"}], [{"role": "user", "content": "x" * 600}], [{"role": "user", "no_such_field": []}],
    ],
)  # fmt: skip
async def test_messages_that_are_none_are_400(served: Served, messages: Any) -> None:
    assert (await refused(served, "/v1/chat/completions", {"model": BASE, "messages": messages}))[0] == 400


@pytest.mark.parametrize(
    "more", [{"tool_calls": [{}]}, {"function_call": {"name": "f"}}, {"refusal": "No."}, {"audio": {"id": "a"}}]
)
async def test_a_message_of_more_than_text_is_refused_by_the_fields_name(served: Served, more: dict[str, Any]) -> None:
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", **more}]
    status, error = await refused(served, "/v1/chat/completions", {"model": BASE, "messages": messages})
    assert (status, error["param"]) == (400, f"messages[1].{next(iter(more))}")


async def test_a_text_that_no_context_can_hold_is_refused_before_its_tokens_are_made(
    open_server: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = open_server()
    tokenizer, text = server.engine.model.tokenizer, "x" * 1_000_000

    def encode(text: str) -> list[int]:
        raise AssertionError(f"{len(text)} characters were read")

    monkeypatch.setattr(tokenizer, "encode", encode)
    monkeypatch.setattr(tokenizer, "chat", encode)
    for path, prompt in (
        ("/v1/completions", {"prompt": ["a", text]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": text}]}),
    ):
        status, error = await refused(server, path, {"model": BASE, "max_tokens": 5} | prompt)
        assert (status, error["code"]) == (400, "context_length_exceeded")


async def test_who_asks_what_is_short_does_not_wait_for_long_texts_of_others(
    open_server: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = open_server()
    done, encode = threading.Event(), server.engine.model.tokenizer.encode

    def slow(text: str) -> list[int]:
        done.wait()
        return encode(text)

    monkeypatch.setattr(server.engine.model.tokenizer, "encode", slow)
    async with server.http() as http:
        asking = [
            asyncio.create_task(http.post("/v1/completions", json={**LONG_BODY, "max_tokens": 1})) for _ in range(50)
        ]
        await until(lambda: server.service.under_way.answers == 50)
        try:
            assert (await http.get("/metrics")).status_code == 200  # it needs a thread, too
        finally:
            done.set()
        await asyncio.gather(*asking)
    await server.is_idle()


async def test_a_body_that_is_too_long_is_413_and_is_not_read(open_server: Callable[..., Served]) -> None:
    server = open_server(max_body=1000)
    assert (await refused(server, "/v1/completions", b"x" * 50_000))[0] == 413

    async def endless() -> Any:
        while True:
            yield b" " * 1000

    async with server.http() as http:
        try:
            answer = await http.post("/v1/completions", content=endless())
            assert answer.status_code == 413
        except httpx.TransportError:
            pass  # the server has closed before all was sent
    async with server.openai() as client:
        assert (await client.completions.create(model=BASE, prompt=TEXT, max_tokens=1)).choices


async def test_other_paths_and_methods_are_errors_of_the_same_form(served: Served) -> None:
    assert (await refused(served, "/v1/embeddings", {}))[0] == 404
    assert (await refused(served, "/v1/models", {}))[0] == 405
    async with served.http() as http:
        assert "GET" in (await http.post("/v1/models")).headers["Allow"]


async def test_who_leaves_while_sending_is_counted_as_gone(open_server: Callable[..., Served]) -> None:
    server = open_server()
    host, port = server.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf")
    await writer.drain()
    writer.close()
    async with server.http() as http:
        while "exoflow_llm_refusals_total" not in (metrics := (await http.get("/metrics")).text):
            pass
    assert 'exoflow_llm_refusals_total{status="499"} 1.0' in metrics


async def test_a_mistake_of_the_servers_says_that_it_closes(
    open_server: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = open_server()
    monkeypatch.setattr(server.library, "names", None)
    async with server.http() as http:
        answer = await http.get("/v1/models")
    assert (answer.status_code, answer.headers["Connection"]) == (500, "close")


# -- who may ask -----------------------------------------------------------------------------------------------------


async def test_only_those_with_a_key_may_ask(open_server: Callable[..., Served]) -> None:
    server = open_server(tokens=tokens(anna="secret-1", berta="secret-2"))
    for key in ("wrong", "secret", "secret-12"):
        status, error = await refused(server, "/v1/completions", LONG_BODY, Authorization=f"Bearer {key}")
        assert (status, error["code"]) == (401, "invalid_api_key")
    assert (await refused(server, "/v1/load_lora_adapter", {}))[0] == 401
    for key in ("secret-1", "secret-2"):
        async with server.openai(key) as client:
            assert (await client.completions.create(model=BASE, prompt=TEXT, max_tokens=1)).choices
    async with server.http() as http:
        assert (await http.get("/v1/models")).status_code == 401
        assert (await http.get("/health")).status_code == 200


async def test_without_keys_a_page_of_another_site_may_not_ask(served: Served) -> None:
    assert (await refused(served, "/v1/completions", LONG_BODY, Origin="http://evil.example"))[0] == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil", "["])
async def test_without_keys_a_name_that_anybody_can_give_to_this_machine_is_not_its(served: Served, host: str) -> None:
    headers = {"Host": host, "Origin": f"http://{host}"}
    assert (await refused(served, "/v1/completions", LONG_BODY, **headers))[0] == 403


@pytest.mark.parametrize(
    "host", ["localhost:3000", "127.0.0.1", "[::1]:8000", "10.0.0.7:80", "LOCALHOST", "a.localhost"]
)
async def test_without_keys_this_machine_is_asked_by_its_names(served: Served, host: str) -> None:
    async with served.http() as http:
        headers = {"Host": host, "Origin": f"http://{host}"}
        assert (await http.get("/v1/models", headers=headers)).status_code == 200


async def test_behind_something_that_asks_who_it_is_every_name_is_good(open_server: Callable[..., Served]) -> None:
    server = open_server(any_host=True)
    async with server.http() as http:
        assert (await http.get("/v1/models", headers={"Host": "models.example"})).status_code == 200


# -- text ------------------------------------------------------------------------------------------------------------


async def test_a_stop_string_over_several_tokens_is_left_out_whole_or_in_pieces(served: Served) -> None:
    async with served.openai() as client:
        ask = client.completions.create
        free = (await ask(model=BASE, prompt=TEXT, max_tokens=40, temperature=0)).choices[0].text
        stop = free[10:13]
        cut = await ask(model=BASE, prompt=TEXT, max_tokens=40, temperature=0, stop=[stop])
        stream = await ask(model=BASE, prompt=TEXT, max_tokens=40, temperature=0, stop=[stop], stream=True)
        streamed = "".join([piece.choices[0].text async for piece in stream])
    assert cut.choices[0].text == streamed == free[: free.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


async def test_letters_of_all_scripts_come_and_go_as_they_are(served: Served) -> None:
    text = "naïve 日本語 🧬 \u200d \x00 <eos> <bos>"
    async with served.openai() as client:
        answer = await client.completions.create(model="r8", prompt=text, max_tokens=30, temperature=1, seed=1)
        stream = await client.completions.create(
            model="r8", prompt=text, max_tokens=30, temperature=1, seed=1, stream=True
        )
        streamed = "".join([piece.choices[0].text async for piece in stream])
    assert answer.choices[0].text == streamed


async def test_a_model_without_a_chat_template_says_so(zoo: Zoo, tmp_path: Path) -> None:
    shutil.copytree(zoo.path, tmp_path / "model", ignore=shutil.ignore_patterns("chat_template*"))
    with Engine(tmp_path / "model", pages=50) as engine, Served(engine) as server:
        messages = [{"role": "user", "content": "x"}]
        status, error = await refused(server, "/v1/chat/completions", {"model": BASE, "messages": messages})
    assert status == 400
    assert "chat template" in error["message"]


# -- its end ---------------------------------------------------------------------------------------------------------


async def test_what_has_not_ended_in_its_time_of_grace_is_aborted_and_told_so(
    open_server: Callable[..., Served],
) -> None:
    server = open_server()
    server.gate.close_after(10)
    async with server.openai() as client:
        stream = await client.completions.create(model=BASE, prompt=TEXT, stream=True, **LONG)
        await anext(stream)
        await server.service.drain(0)
        server.gate.open()
        rest = [piece async for piece in stream]
    assert rest[-1].choices[0].finish_reason == "abort"
    for path in ("/v1/completions", "/v1/chat/completions"):
        status, error = await refused(server, path, LONG_BODY)
        assert (status, error["code"]) == (503, "stopping")
    async with server.http() as http:
        assert (await http.get("/health")).status_code == 503


async def _read(stream: Any) -> None:
    async for _ in stream:
        pass


class Failing(Fcfs):
    """A queue with a mistake in it, that is seen after some steps."""

    steps = 20

    def peek(self, now_s: float) -> Request | None:
        self.steps -= 1
        if self.steps < 0:
            raise ZeroDivisionError(f"secret of {super().peek(now_s)}")
        return super().peek(now_s)


async def test_an_engine_that_stops_is_told_to_all_and_shows_nobodys_prompt(zoo: Zoo) -> None:
    with Engine(zoo.path, queue=Failing(), pages=100) as engine, Served(engine) as server:
        async with server.openai() as client:
            stream = await client.completions.create(model=BASE, prompt=TEXT, stream=True, **LONG)
            with pytest.raises(openai.APIError, match="the engine has stopped"):
                await _read(stream)
        for path in ("/v1/completions", "/v1/completions"):
            status, error = await refused(server, path, LONG_BODY)
            assert status == 500
            assert "secret" not in error["message"]
        async with server.http() as http:
            assert (await http.get("/health")).status_code == 503
