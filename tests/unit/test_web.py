"""Every answer of the gateway."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

import exoflow
from exoflow import flow, task
from exoflow.http.tokens import Tokens, read_tokens
from exoflow.model import Status
from exoflow.storage import open_store
from exoflow.web.app import Service, application
from exoflow.web.gateway import Gateway
from exoflow.web.naming import location_of, run_id_of

JSON = {"Content-Type": "application/json"}


@dataclass
class Order:
    item: str
    count: int = 1


gates: dict[str, threading.Event] = {}
calls: list[str] = []


@task
def look_up(item: str) -> int:
    calls.append(item)
    return len(item)


@task
async def look_up_later(item: str) -> int:
    calls.append(item)
    return len(item)


@task
def pass_gate(name: str) -> str:
    calls.append(name)
    assert gates[name].wait(60)
    return name


@flow
def buy(order: Order) -> int:
    """Buy a thing.

    Or two.
    """
    return look_up(order.item) * order.count


@flow
async def buy_later(order: Order) -> int:
    return await look_up_later(order.item) * order.count


@flow
def wait(name: str) -> str:
    return pass_gate(name)


@flow
def fail() -> None:
    raise LookupError("no luck")


@flow
def odd() -> object:
    return object()


@task(effect="irrevocable")
def charge() -> None:
    raise OSError("the line is dead")


@flow
def doubt() -> None:
    charge()


@flow
def hear(name: str) -> list[int]:
    first = exoflow.event("go", list[int]).result()
    return first + exoflow.event("go", list[int]).result()


@flow
async def hear_later(name: str) -> list[int]:
    return await exoflow.event("go", list[int])


FLOWS: Any = {each.name.rpartition(".")[2]: each for each in (buy, buy_later, wait, fail, odd, doubt, hear, hear_later)}
SECRETS = {"alice": "secret-of-alice", "bob": "secret-of-bob"}

Ask = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture(autouse=True)
def memory(request: pytest.FixtureRequest) -> None:
    exoflow.configure(store=f"memory://{request.node.name}")
    calls.clear()
    gates.clear()


def made(request: pytest.FixtureRequest, tokens: Tokens | None = None, **options: Any) -> Service:
    limits = {name: options.pop(name) for name in ("max_running", "max_queue", "fair") if name in options}
    gateway = Gateway(open_store(f"memory://{request.node.name}"), FLOWS, **limits)
    return Service(gateway, tokens, **options)


def client_of(service: Service, token: str | None = None) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {SECRETS[token]}"} if token else {}
    transport = httpx.ASGITransport(application(service))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers)


@pytest.fixture
async def client(request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(made(request)) as client:
        yield client


async def until_called(name: str) -> None:
    while name not in calls:  # noqa: ASYNC110  # it is another thread's doing
        await asyncio.sleep(0.001)


async def until_status(client: httpx.AsyncClient, location: str, status: str) -> dict[str, Any]:
    while (found := (await client.get(location)).json())["status"] != status:
        assert found["status"] in ("running", "waiting", "broken_off", "in_doubt"), found
    assert isinstance(found, dict)
    return found


def keyed(key: str, **more: str) -> dict[str, str]:
    return {"Idempotency-Key": key, **more}


def problem(answer: httpx.Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert found["status"] == answer.status_code and found["type"] == "about:blank" and found["title"]
    assert isinstance(found, dict)
    return found


# -- flows -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["buy", "buy_later"])
async def test_a_flow_is_called_with_json_and_answers_with_json(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.post(f"/flows/{name}", json={"order": {"item": "abc", "count": 2}})
    assert (answer.status_code, answer.json()) == (200, 6)
    shown = (await client.get(location_of(answer.headers["run-id"]))).json()
    assert (shown["status"], shown["result"]) == ("done", 6)


async def test_the_same_key_again_gives_the_stored_result(client: httpx.AsyncClient) -> None:
    first = await client.post("/flows/buy", json={"order": {"item": "a"}}, headers=keyed("k"))
    same = await client.post("/flows/buy", json={"order": {"item": "a"}}, headers=keyed("k"))
    spelled = await client.post("/flows/buy", content=b'{"order": {"item": "a", "count": 1 }}',
                                headers=keyed("k", **JSON))  # fmt: skip
    assert first.json() == same.json() == spelled.json() == 1
    assert first.headers["run-id"] == same.headers["run-id"] == spelled.headers["run-id"]
    assert calls == ["a"]


async def test_the_same_key_with_another_body_is_refused(client: httpx.AsyncClient) -> None:
    await client.post("/flows/buy", json={"order": {"item": "a"}}, headers=keyed("k"))
    answer = await client.post("/flows/buy", json={"order": {"item": "b"}}, headers=keyed("k"))
    assert answer.status_code == 422
    assert "'k' was given before with other arguments" in problem(answer)["detail"]
    assert "order.item was 'a', and is 'b' now" in problem(answer)["detail"]
    true = await client.post("/flows/buy", json={"order": {"item": "a", "count": True}}, headers=keyed("k"))
    assert true.status_code == 422


async def test_the_same_key_of_another_flow_is_another_run(client: httpx.AsyncClient) -> None:
    one = await client.post("/flows/buy", json={"order": {"item": "a"}}, headers=keyed("k"))
    other = await client.post("/flows/buy_later", json={"order": {"item": "bb"}}, headers=keyed("k"))
    assert (one.json(), other.json()) == (1, 2)


async def test_fifty_requests_with_one_key_are_one_run(client: httpx.AsyncClient) -> None:
    asked = [client.post("/flows/buy", json={"order": {"item": "abc"}}, headers=keyed("k")) for _ in range(50)]
    answers = await asyncio.gather(*asked)
    assert {(answer.status_code, answer.text, answer.headers["run-id"]) for answer in answers} == {
        (200, "3", run_id_of("", buy.name, "k"))
    }
    assert calls == ["abc"]


async def test_a_live_run_is_joined(client: httpx.AsyncClient) -> None:
    gates["here"] = threading.Event()
    first = asyncio.create_task(client.post("/flows/wait", json={"name": "here"}, headers=keyed("k")))
    await until_called("here")
    second = asyncio.create_task(client.post("/flows/wait", json={"name": "here"}, headers=keyed("k")))
    other = await client.post("/flows/wait", json={"name": "there"}, headers=keyed("k"))
    assert other.status_code == 422
    gates["here"].set()
    assert [(await each).json() for each in (first, second)] == ["here", "here"]
    assert calls == ["here"]


async def test_respond_async_answers_when_the_run_durably_exists(client: httpx.AsyncClient) -> None:
    gates["a"] = threading.Event()
    answer = await client.post("/flows/wait", json={"name": "a"}, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "respond-async"
    location = answer.headers["location"]
    shown = (await client.get(location)).json()
    assert shown["status"] == "running" and "result" not in shown
    gates["a"].set()
    assert (await until_status(client, location, "done"))["result"] == "a"


async def test_wait_says_how_long(client: httpx.AsyncClient) -> None:
    gates["a"] = threading.Event()
    answer = await client.post("/flows/wait", json={"name": "a"}, headers=keyed("k", Prefer="respond-async, wait=0"))
    assert answer.status_code == 202
    assert answer.headers["location"] == "/runs/:tests.unit.test_web.wait:k" or "wait" in answer.headers["location"]
    gates["a"].set()
    answer = await client.post("/flows/wait", json={"name": "a"}, headers=keyed("k", Prefer="wait=60"))
    assert (answer.status_code, answer.json()) == (200, "a")
    answer = await client.post("/flows/wait", json={"name": "a"}, headers=keyed("k", Prefer="wait=soon, x"))
    assert (answer.status_code, answer.json()) == (200, "a")


async def test_a_client_that_goes_away_does_not_stop_the_run(client: httpx.AsyncClient) -> None:
    gates["a"] = threading.Event()
    asked = asyncio.create_task(client.post("/flows/wait", json={"name": "a"}, headers=keyed("k")))
    await until_called("a")
    asked.cancel()
    await asyncio.wait([asked])
    gates["a"].set()
    answer = await client.post("/flows/wait", json={"name": "a"}, headers=keyed("k"))
    assert (answer.status_code, answer.json(), calls) == (200, "a", ["a"])


# -- what goes wrong -------------------------------------------------------------------------------------------------


async def test_a_failed_run_is_a_problem_without_a_traceback(
    client: httpx.AsyncClient, request: pytest.FixtureRequest
) -> None:
    answer = await client.post("/flows/fail", headers=keyed("k"))
    found = problem(answer)
    assert (answer.status_code, found["error"], found["detail"]) == (500, "LookupError", "no luck")
    assert "traceback" not in found
    again = await client.post("/flows/fail", headers=keyed("k"))
    assert (again.status_code, again.json()["detail"]) == (500, "no luck")
    shown = (await client.get(location_of(found["run"]))).json()
    assert (shown["status"], shown["problem"]["error"]) == ("failed", "LookupError")
    async with client_of(made(request, debug=True)) as debugging:
        assert "LookupError: no luck" in (await debugging.post("/flows/fail", headers=keyed("k"))).json()["traceback"]


async def test_a_run_in_doubt_asks_for_an_operator(client: httpx.AsyncClient) -> None:
    answer = await client.post("/flows/doubt")
    found = problem(answer)
    assert (answer.status_code, found["error"]) == (409, "InDoubt")
    assert "an operator has to say what happened" in found["detail"]
    assert (await client.get(location_of(found["run"]))).json()["status"] == "in_doubt"


async def test_a_cancelled_run_is_gone(client: httpx.AsyncClient) -> None:
    gates["a"] = threading.Event()
    asked = asyncio.create_task(client.post("/flows/wait", json={"name": "a"}, headers=keyed("k")))
    await until_called("a")
    location = location_of(run_id_of("", wait.name, "k"))
    assert (await client.post(f"{location}/cancel")).status_code == 202
    gates["a"].set()
    assert (await asked).status_code == 410
    assert (await client.get(location)).json()["status"] == "cancelled"
    assert (await client.post("/flows/wait", json={"name": "a"}, headers=keyed("k"))).status_code == 410
    assert (await client.post(f"{location}/cancel")).status_code == 202


async def test_a_run_that_is_done_cannot_be_cancelled(client: httpx.AsyncClient) -> None:
    answer = await client.post("/flows/buy", json={"order": {"item": "a"}})
    cancelled = await client.post(f"{location_of(answer.headers['run-id'])}/cancel")
    assert cancelled.status_code == 409 and "is done" in problem(cancelled)["detail"]


async def test_a_result_that_json_cannot_say_is_told(client: httpx.AsyncClient) -> None:
    answer = await client.post("/flows/odd")
    assert answer.status_code == 500 and "cannot be said in JSON: $: " in problem(answer)["detail"]


@pytest.mark.parametrize(
    ("path", "content", "headers", "status", "words"),
    [
        ("/flows/bye", b"{}", JSON, 404, "did you mean buy?"),
        ("/flows/xyz", b"{}", JSON, 404, "there are buy, buy_later"),
        ("/flows/buy", b"{", JSON, 400, "no JSON"),
        ("/flows/buy", b"[" * 200_000, JSON, 400, "no JSON"),
        ("/flows/buy", b"{}", {"Content-Type": "text/plain"}, 415, "send JSON"),
        ("/flows/buy", b"{}", {}, 415, "of no type"),
        ("/flows/buy", b"[]", JSON, 422, "has to be an object"),
        ("/flows/buy", b"", {}, 422, "$.order: it is missing (Order)"),
        ("/flows/buy", b'{"order": {"item": 3}}', JSON, 422, "$.order.item: expected str, got int"),
        ("/flows/buy", b'{"order": {"itme": "a"}}', JSON, 422, "$.order: object missing required field item"),
        ("/flows/buy", b'{"oder": {}}', JSON, 422, "did you mean order?"),
        ("/flows/fail", b"", {"Idempotency-Key": "x" * 256}, 400, "Idempotency-Key"),
        ("/flows/fail", b"", {"Idempotency-Key": ""}, 400, "Idempotency-Key"),
    ],
)
async def test_a_wrong_request_is_told_what_is_wrong(
    client: httpx.AsyncClient, path: str, content: bytes, headers: dict[str, str], status: int, words: str
) -> None:
    answer = await client.post(path, content=content, headers=headers)
    assert answer.status_code == status
    assert words in problem(answer)["detail"]


@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/flows/buy", 405), ("/runs/none", 404),
                                              ("/runs/none/events", 404)])  # fmt: skip
async def test_what_there_is_not_is_a_problem_too(client: httpx.AsyncClient, path: str, status: int) -> None:
    answer = await client.get(path)
    assert answer.status_code == status
    problem(answer)


async def test_a_large_body_is_refused_before_it_is_read(request: pytest.FixtureRequest) -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield b" " * 100

    async with client_of(made(request, max_body=1000)) as client:
        declared = await client.post("/flows/buy", content=b" " * 1001, headers=JSON)
        streamed = await client.post("/flows/buy", content=body(), headers=JSON)
    for answer in (declared, streamed):
        assert answer.status_code == 413 and "1,000 bytes" in problem(answer)["detail"]
        assert answer.headers["connection"] == "close"
    assert sent < 1000


# -- limits ----------------------------------------------------------------------------------------------------------


async def test_beyond_the_limits_clients_are_told_to_come_again(request: pytest.FixtureRequest) -> None:
    gates.update(a=threading.Event(), b=threading.Event(), c=threading.Event())
    later = {"Prefer": "respond-async"}
    async with client_of(made(request, max_running=1, max_queue=1)) as client:
        first = await client.post("/flows/wait", json={"name": "a"}, headers=later)
        second = await client.post("/flows/wait", json={"name": "b"}, headers=keyed("b", **later))
        third = await client.post("/flows/wait", json={"name": "c"}, headers=later)
        named = await client.post("/flows/wait", json={"name": "c"}, headers=keyed("c"))
        assert [answer.status_code for answer in (first, second, third, named)] == [202, 202, 429, 429]
        assert third.headers["retry-after"] == "1"
        assert problem(third)["detail"]
        joined = await client.post("/flows/wait", json={"name": "b"}, headers=keyed("b", **later))
        assert joined.status_code == 202, "a run that there is already needs no room"
        await until_called("a")
        assert calls == ["a"], "the second waits for its turn"
        assert (await client.get(second.headers["location"])).json()["status"] == "running", "and durably exists"
        gates["b"].set()
        gates["a"].set()
        answer = await client.post("/flows/wait", json={"name": "b"}, headers=keyed("b"))
        assert (answer.status_code, answer.json()) == (200, "b")


@pytest.mark.parametrize("fair", [False, True])
async def test_tokens_take_turns_if_the_gateway_is_to_be_fair(request: pytest.FixtureRequest, fair: bool) -> None:
    service = made(request, Tokens(SECRETS), max_running=1, fair=fair)
    asked = [("alice", "a0"), ("alice", "a1"), ("alice", "a2"), ("alice", "a3"), ("bob", "b0"), ("bob", "b1")]
    gates.update((name, threading.Event()) for _, name in asked)
    async with client_of(service, "alice") as alice, client_of(service, "bob") as bob:
        for who, name in asked:
            client = alice if who == "alice" else bob
            await client.post("/flows/wait", json={"name": name}, headers={"Prefer": "respond-async"})
        for place in range(len(asked)):
            while len(calls) <= place:  # noqa: ASYNC110  # it is another thread's doing
                await asyncio.sleep(0.001)
            gates[calls[place]].set()
        await service.gateway.drain(60)
    in_turn = ["a0", "a1", "b0", "a2", "b1", "a3"]
    assert calls == (in_turn if fair else [name for _, name in asked])


async def test_a_flow_that_waits_for_an_event_takes_no_place(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exoflow.web.gateway.COUNT_S", 0.0)
    later = {"Prefer": "respond-async"}
    service = made(request, max_running=2, max_queue=0)
    async with client_of(service) as client:
        for n in range(5):
            answer = await client.post("/flows/hear_later", json={"name": "x"}, headers=keyed(f"{n}", **later))
            assert answer.status_code == 202
            execution = service.gateway.runtime.executions[answer.json()["id"]]
            while execution.standing() is not Status.WAITING:  # noqa: ASYNC110 -- it does so on this loop
                await asyncio.sleep(0)
        await asyncio.wait_for(service.gateway.drain(60), 30)  # and is not waited for


async def test_a_gateway_that_stops_begins_nothing_and_lets_go_of_what_waits(request: pytest.FixtureRequest) -> None:
    gates.update(a=threading.Event(), b=threading.Event())
    service = made(request, max_running=1)
    async with client_of(service) as client:
        running = asyncio.create_task(client.post("/flows/wait", json={"name": "a"}))
        await until_called("a")
        queued = await client.post("/flows/wait", json={"name": "b"}, headers=keyed("b", Prefer="respond-async"))
        waiting = asyncio.create_task(client.post("/flows/wait", json={"name": "b"}, headers=keyed("b")))
        draining = asyncio.create_task(service.gateway.drain(60))
        assert (await waiting).status_code == 503
        assert (await client.post("/flows/fail")).status_code == 503
        assert (await client.get("/health")).status_code == 503
        gates["a"].set()
        assert (await running).json() == "a", "what runs may end"
        await draining
        assert (await client.get(queued.headers["location"])).json()["status"] == "broken_off"


async def test_what_does_not_end_in_time_is_stopped(request: pytest.FixtureRequest) -> None:
    gates["a"] = threading.Event()
    service = made(request)
    async with client_of(service) as client:
        running = asyncio.create_task(client.post("/flows/wait", json={"name": "a"}))
        await until_called("a")
        await service.gateway.drain(0)
        answer = await running
        assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
        assert "nothing that it recorded is lost" in problem(answer)["detail"]
    gates["a"].set()


# -- tokens ----------------------------------------------------------------------------------------------------------


async def test_without_a_known_token_nothing_is_told(request: pytest.FixtureRequest) -> None:
    async with client_of(made(request, Tokens(SECRETS))) as client:
        for method, path in [
            ("POST", "/flows/fail"), ("POST", "/flows/none"), ("GET", "/runs"), ("GET", "/runs/x"),
            ("GET", "/runs/x/events"), ("POST", "/runs/x/cancel"), ("GET", "/openapi.json"),
        ]:  # fmt: skip
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret-of-alice"}):
                answer = await client.request(method, path, headers=headers)
                assert answer.status_code == 401, path
                assert answer.headers["www-authenticate"].startswith("Bearer")
                problem(answer)
        assert (await client.get("/health")).status_code == 200
        assert "buy" not in (await client.get("/")).text


async def test_runs_of_other_tokens_are_not_there(request: pytest.FixtureRequest) -> None:
    service = made(request, Tokens(SECRETS))
    async with client_of(service, "alice") as alice, client_of(service, "bob") as bob:
        mine = await alice.post("/flows/buy", json={"order": {"item": "a"}}, headers=keyed("k"))
        his = await bob.post("/flows/buy", json={"order": {"item": "bb"}}, headers=keyed("k"))
        unnamed = await alice.post("/flows/buy", json={"order": {"item": "ccc"}})
        assert (mine.json(), his.json(), unnamed.json()) == (1, 2, 3)
        for answer in (mine, unnamed):
            location = location_of(answer.headers["run-id"])
            assert (await alice.get(location)).status_code == 200
            for there in (await bob.get(location), await bob.get(f"{location}/events"),
                          await bob.post(f"{location}/cancel")):  # fmt: skip
                assert there.status_code == 404
        listed = {run["id"] for run in (await alice.get("/runs")).json()}
        assert listed == {mine.headers["run-id"], unnamed.headers["run-id"]}


async def test_a_page_of_another_site_may_not_ask_where_no_token_is_needed(client: httpx.AsyncClient) -> None:
    body = {"order": {"item": "a"}}
    assert (await client.post("/flows/buy", json=body, headers={"Origin": "http://evil"})).status_code == 403
    assert (await client.post("/flows/buy", json=body, headers={"Origin": "http://localhost"})).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "["])
async def test_without_tokens_a_name_that_anybody_can_give_to_this_machine_is_not_its(
    client: httpx.AsyncClient, host: str
) -> None:
    headers = {"Host": host, "Origin": f"http://{host}"}
    for method, path in [("POST", "/flows/buy"), ("POST", "/runs/x/cancel"), ("GET", "/runs"), ("GET", "/runs/x")]:
        answer = await client.request(method, path, headers=headers)
        assert answer.status_code == 403, path
        assert "this is localhost: serve with tokens" in problem(answer)["detail"]
    assert "buy" not in (await client.get("/", headers=headers)).text
    assert (await client.get("/health", headers=headers)).status_code == 200


@pytest.mark.parametrize("host", ["localhost:3000", "127.0.0.1", "[::1]:8000", "10.0.0.7:80"])
async def test_without_tokens_this_machine_is_asked_by_its_names(client: httpx.AsyncClient, host: str) -> None:
    assert (await client.get("/runs", headers={"Host": host, "Origin": f"http://{host}"})).status_code == 200
    assert "buy" in (await client.get("/", headers={"Host": host})).text


async def test_behind_something_that_asks_who_it_is_every_name_is_good(request: pytest.FixtureRequest) -> None:
    async with client_of(made(request, any_host=True)) as client:
        assert (await client.get("/runs", headers={"Host": "flows.example"})).status_code == 200


async def test_with_tokens_every_name_is_good(request: pytest.FixtureRequest) -> None:
    async with client_of(made(request, Tokens(SECRETS)), "alice") as client:
        assert (await client.get("/runs", headers={"Host": "flows.example"})).status_code == 200


def test_tokens_are_lines_of_names_and_secrets() -> None:
    assert read_tokens("# who\n\nalice: s1\nbob:s:2\n", "f") == {"alice": "s1", "bob": "s:2"}
    twice = ("alice: s\nalice: t", "alice: s\nbob: s")
    for text in ("alice", "alice:", ": s", "a b: s", "alice: sec ret", "a: é", *twice):
        with pytest.raises(ValueError, match=r"^f, line \d") as caught:
            read_tokens(text, "f")
        assert "sec" not in str(caught.value).replace("SECRET", "").replace("secret", "")


def test_no_two_combinations_give_one_id() -> None:
    parts = ["", "a", "a:", ":a", "%3A", "a%3Ab", "a:b", "/", "x-abcdefghijkl-1", "x%2Dabcdefghijkl-1"]
    ids = [run_id_of(token, flow, key) for token in parts for flow in parts for key in parts]
    assert len(set(ids)) == len(ids)
    assert all("/" not in run_id for run_id in ids)


async def test_a_key_may_look_like_an_id_that_exoflow_makes(client: httpx.AsyncClient) -> None:
    answer = await client.post("/flows/buy", json={"order": {"item": "a"}}, headers=keyed("x-abcdefghijkl-1"))
    assert answer.status_code == 200
    assert (await client.get(location_of(answer.headers["run-id"]))).json()["status"] == "done"


# -- runs ------------------------------------------------------------------------------------------------------------


def events_of(text: str) -> list[tuple[str, str, dict[str, Any]]]:
    found = []
    for block in filter(None, text.split("\n\n")):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        found.append((fields["id"], fields["event"], json.loads(fields["data"])))
    return found


async def test_events_tell_what_is_durable_and_end_with_the_run(client: httpx.AsyncClient) -> None:
    answer = await client.post("/flows/buy", json={"order": {"item": "a"}})
    path = f"{location_of(answer.headers['run-id'])}/events"
    followed = await client.get(path)
    assert followed.headers["content-type"].startswith("text/event-stream")
    events = events_of(followed.text)
    assert [what for _, what, _ in events] == ["started", "done", "done"]
    assert events[1][2]["call"] == "look_up#0" and "call" not in events[2][2]
    rest = await client.get(path, headers={"Last-Event-ID": events[0][0]})
    assert events_of(rest.text) == events[1:]
    assert (await client.get(path, headers={"Last-Event-ID": events[-1][0]})).text == ""
    assert (await client.get(path, headers={"Last-Event-ID": "x"})).status_code == 400


async def test_an_event_is_sent_once_under_its_key(client: httpx.AsyncClient) -> None:
    asked = await client.post("/flows/hear", json={"name": "a"}, headers={"Prefer": "respond-async"})
    path = f"{asked.headers['location']}/events/go"
    for _ in range(2):
        assert (await client.post(path, json=[1], headers=keyed("first"))).status_code == 202
    assert (await client.post(path, json=[2], headers=keyed("second"))).status_code == 202
    found = await until_status(client, asked.headers["location"], "done")
    assert found["result"] == [1, 2]
    late = await client.post(path, json=[3])
    assert late.status_code == 409 and "has ended" in problem(late)["detail"]
    assert (await client.post("/runs/none/events/go", json=[3])).status_code == 404


async def test_an_event_of_the_wrong_type_is_refused_while_the_flow_waits_for_it(client: httpx.AsyncClient) -> None:
    asked = await client.post("/flows/hear_later", json={"name": "a"}, headers={"Prefer": "respond-async"})
    location = asked.headers["location"]
    await until_status(client, location, "waiting")
    wrong = await client.post(f"{location}/events/go", json=["x"])
    assert wrong.status_code == 422 and "$[0]: expected int, got str" in problem(wrong)["detail"]
    assert (await client.post(f"{location}/events/go", json=[1])).status_code == 202


async def test_a_run_in_doubt_goes_on_when_an_operator_has_said_what_happened(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exoflow.web.gateway.LOOK_S", 0.001)
    service = made(request)
    adopting = asyncio.create_task(service.gateway.adopt_forever())
    async with client_of(service) as client:
        found = problem(await client.post("/flows/doubt"))
        await asyncio.to_thread(exoflow.resolve, found["run"], "charge#0", exoflow.Happened(None))
        await until_status(client, location_of(found["run"]), "done")
    service.gateway.stopping.set()
    await adopting


async def test_runs_are_listed_with_filters(client: httpx.AsyncClient) -> None:
    await client.post("/flows/buy", json={"order": {"item": "a"}})
    await client.post("/flows/fail")
    assert [run["status"] for run in (await client.get("/runs")).json()] == ["failed", "done"]
    assert [run["status"] for run in (await client.get("/runs?flow=buy")).json()] == ["done"]
    assert [run["status"] for run in (await client.get("/runs?status=failed")).json()] == ["failed"]
    assert len((await client.get("/runs?limit=1")).json()) == 1
    for query in ("status=odd", "limit=0", "limit=x", "limit=100000"):
        assert (await client.get(f"/runs?{query}")).status_code == 422


# -- the document ----------------------------------------------------------------------------------------------------


async def test_the_openapi_document_holds_together(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1.")
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    assert len({operation["operationId"] for _, _, operation in operations}) == len(operations)
    for path, _, operation in operations:
        declared = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"}
        assert declared == {part[1:-1] for part in path.split("/") if part.startswith("{")}
        assert operation["responses"] and all(answer["description"] for answer in operation["responses"].values())
    for reference in references(document):
        found = document
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
    bought = document["paths"]["/flows/buy"]["post"]
    assert bought["summary"] == "Buy a thing." and bought["description"].endswith("Or two.")
    assert bought["requestBody"]["content"]["application/json"]["schema"] == {
        "type": "object", "properties": {"order": {"$ref": "#/components/schemas/Order"}}, "required": ["order"],
        "additionalProperties": False,
    }  # fmt: skip


async def test_the_openapi_document_is_valid(request: pytest.FixtureRequest) -> None:
    validator = pytest.importorskip("openapi_spec_validator")
    async with client_of(made(request, Tokens(SECRETS)), "alice") as client:
        validator.validate((await client.get("/openapi.json")).json())


def references(value: object) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [each for inner in value.values() for each in references(inner)]
    return [each for inner in value for each in references(inner)] if isinstance(value, list) else []
