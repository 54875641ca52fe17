"""``LLM`` against an endpoint that fails in every way that endpoints have."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import pytest

from exoflow import Backoff
from exoflow.errors import CallFailed, CallRefused, RateLimited, Unanswered
from exoflow.llm import LLM, Prices, Usage
from exoflow.llm.calls.calling import _warn_unread
from exoflow.llm.calls.failures import retry_after_s
from exoflow.testing import Asked, FakeEndpoint, Reply

AT_ONCE = Backoff(initial_s=0.0, jitter=0.0)
Script = list[str | Reply]


class Scripted:
    """One reply after another; the last one for ever."""

    def __init__(self) -> None:
        self.script: Script = ["yes"]

    def __call__(self, asked: Asked) -> str | Reply:
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]


@pytest.fixture(scope="module")
def scripted() -> Iterator[tuple[FakeEndpoint, Scripted]]:
    script = Scripted()
    with FakeEndpoint(script) as endpoint:
        yield endpoint, script


@pytest.fixture
def replies(scripted: tuple[FakeEndpoint, Scripted]) -> Callable[..., LLM]:
    """An LLM whose endpoint replies so, and nothing was asked of it."""
    endpoint, script = scripted
    endpoint.forget()

    def of(*replies: str | Reply, **options: Any) -> LLM:
        script.script = list(replies)
        return LLM(endpoint.url, model="fake", **({"backoff": AT_ONCE} | options))

    return of


@pytest.fixture
def endpoint(scripted: tuple[FakeEndpoint, Scripted]) -> FakeEndpoint:
    return scripted[0]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_what_may_pass_is_tried_again(replies: Callable[..., LLM], endpoint: FakeEndpoint, status: int) -> None:
    answer = replies(Reply(status=status), Reply(status=status), "yes")("?")
    assert answer.text == "yes"
    assert not answer.maybe_rebilled
    assert len(endpoint.asked) == 3
    assert len({asked.key for asked in endpoint.asked}) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 301])
def test_what_stays_wrong_is_told_at_once(replies: Callable[..., LLM], endpoint: FakeEndpoint, status: int) -> None:
    with pytest.raises(CallRefused, match=str(status)) as failed:
        replies(Reply("no such thing", status=status))("?")
    assert failed.value.status == status
    assert failed.value.tries == len(endpoint.asked) == 1
    if status != 301:
        assert "no such thing" in failed.value.body


def test_an_error_says_what_to_do(replies: Callable[..., LLM]) -> None:
    with pytest.raises(CallRefused, match="api_key"):
        replies(Reply(status=401))("?")
    with pytest.raises(RateLimited, match="rpm="):
        replies(Reply(status=429), retries=1)("?")


def test_a_quota_that_is_used_up_is_not_waited_for(replies: Callable[..., LLM], endpoint: FakeEndpoint) -> None:
    body = '{"error": {"message": "no money", "code": "insufficient_quota"}}'
    with pytest.raises(CallRefused, match="no money"):
        replies(Reply(status=429, raw=body))("?")
    assert len(endpoint.asked) == 1


def test_retries_end(replies: Callable[..., LLM], endpoint: FakeEndpoint) -> None:
    with pytest.raises(Unanswered, match="3 times") as failed:
        replies(Reply(status=500), retries=2)("?")
    assert failed.value.tries == len(endpoint.asked) == 3
    assert not failed.value.maybe_billed


def test_errors_survive_pickling() -> None:
    from exoflow.llm.calls.failures import Failed

    error = Failed("answered 429", status=429, body="slow down").error("http://x", 3, maybe_billed=True)
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, RateLimited)
    assert (again.status, again.body, again.tries, again.maybe_billed) == (429, "slow down", 3, True)


@pytest.mark.parametrize("lost", [Reply("one two three", cut_after=1), Reply(cut_after=-1)])
def test_a_connection_that_is_lost_is_tried_again_and_flagged(
    replies: Callable[..., LLM], endpoint: FakeEndpoint, lost: Reply
) -> None:
    answer = replies(lost, "yes")("?")
    assert (answer.text, answer.maybe_rebilled) == ("yes", True)
    assert len(endpoint.asked) == 2
    with pytest.raises(Unanswered) as failed:
        replies(lost, retries=1)("?")
    assert failed.value.maybe_billed


def test_an_endpoint_that_hangs_is_given_up(replies: Callable[..., LLM]) -> None:
    answer = replies(Reply(hangs=True), "yes", timeout_s=0.3)("?")
    assert (answer.text, answer.maybe_rebilled) == ("yes", True)


def test_an_endpoint_that_is_not_there_is_told() -> None:
    with FakeEndpoint() as endpoint:
        url = endpoint.url
    with pytest.raises(Unanswered, match="not reached") as failed:
        LLM(url, model="fake", backoff=AT_ONCE, retries=1)("?")
    assert not failed.value.maybe_billed


@pytest.mark.parametrize(
    "raw",
    [
        "<html>", "", "null", "[]", "{}", '{"choices": []}', '{"choices": [{}]}', '{"choices": "many"}',
        '{"error": {"message": "overloaded", "code": 503}}', '{"error": "it went wrong"}',
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_tried_again(replies: Callable[..., LLM], raw: str) -> None:
    assert replies(Reply(raw=raw), "yes")("?").text == "yes"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ('"content": "yes"', "yes"),
        ('"content": "yes", "tool_calls": "many", "refusal": 5', "yes"),
        ('"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "ye"}, "s"]', "yes"),
        ('"content": 7, "refusal": "no"', ""),
        ('"content": []', ""),
        ('"content": [{"type": "thinking", "thinking": "it was cut off here"}]', ""),
    ],
)
def test_what_can_be_read_of_an_answer_that_was_paid_for_is_kept(
    replies: Callable[..., LLM], endpoint: FakeEndpoint, message: str, text: str
) -> None:
    odd = '"logprobs": {"content": [{"logprob": "much"}]}, "finish_reason": 3'
    raw = f'{{"choices": [{{"message": {{{message}}}, {odd}}}], "usage": "much", "model": 5}}'
    answer = replies(Reply(raw=raw))("?", logprobs=True)
    assert (answer.text, answer.logprobs, answer.finish_reason, answer.model) == (text, None, "stop", "")
    assert answer.is_estimated
    assert len(endpoint.asked) == 1


def test_a_letter_that_is_broken_costs_nobody_the_answer(replies: Callable[..., LLM], endpoint: FakeEndpoint) -> None:
    raw = '{"choices": [{"message": {"content": "so \udcff"}}]}'
    assert replies(Reply(raw=raw))("?").text.startswith("so ")
    assert len(endpoint.asked) == 1


def test_arguments_that_are_no_text_are_kept_as_json(replies: Callable[..., LLM]) -> None:
    raw = '{"choices": [{"message": {"tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}, 5]}}]}'
    [call] = replies(Reply(raw=raw))("?").tool_calls
    assert (call.name, call.arguments) == ("add", '{"a": 1}')


def test_what_could_not_be_read_is_told_once(replies: Callable[..., LLM], caplog: pytest.LogCaptureFixture) -> None:
    _warn_unread.cache_clear()
    odd = Reply(
        raw='{"choices": [{"message": {"content": "x"}, "logprobs": {"tokens": ["x"], "token_logprobs": [{}]}}]}'
    )
    llm = replies(odd, odd)
    assert [llm("?").text, llm("?").text] == ["x", "x"]
    [told] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "logprobs of an answer cannot be read" in told.message


@pytest.mark.parametrize("content", ["5", '{"text": "x"}', '[{"text": {"value": "x"}}]'])
def test_an_answer_in_another_form_is_not_paid_for_again(
    replies: Callable[..., LLM], endpoint: FakeEndpoint, content: str
) -> None:
    with pytest.raises(CallRefused, match=r"content.*another form") as failed:
        replies(Reply(raw=f'{{"choices": [{{"message": {{"content": {content}}}}}]}}'))("?")
    assert failed.value.maybe_billed
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize(
    "after", ["", "data: {broken", 'data: {"error": "it went wrong"}', "data: null\n\ndata: [DONE]"]
)
def test_what_comes_behind_a_whole_stream_costs_nobody_the_answer(
    replies: Callable[..., LLM], endpoint: FakeEndpoint, after: str
) -> None:
    piece = 'data: {"choices": [{"delta": {"content": "so it is"}, "finish_reason": "stop"}]}'
    heard: list[str] = []
    answer = replies(Reply(raw=f"{piece}\n\n{after}\n\n")).options(on_text=heard.append)("?")
    assert (answer.text, answer.is_estimated, heard) == ("so it is", True, ["so it is"])
    assert len(endpoint.asked) == 1


def test_an_error_behind_a_200_keeps_its_status(replies: Callable[..., LLM], endpoint: FakeEndpoint) -> None:
    with pytest.raises(CallRefused, match="wrong model"):
        replies(Reply(raw='{"error": {"message": "wrong model", "code": 404}}'))("?")
    assert len(endpoint.asked) == 1


def test_retry_after_is_understood_in_both_forms() -> None:
    assert retry_after_s({"Retry-After": "2.5"}) == 2.5
    assert retry_after_s({"Retry-After": formatdate(1000, usegmt=True)}, now=990) == 10
    assert retry_after_s({"Retry-After": formatdate(1000, usegmt=True)}, now=2000) == 0
    assert retry_after_s({"retry-after-ms": "20", "Retry-After": "1"}) == 0.02
    for nonsense in ("soon", "nan", ""):
        assert retry_after_s({"Retry-After": nonsense}) is None
    assert retry_after_s({}) is None


def test_retry_after_is_waited_for_by_all_calls(replies: Callable[..., LLM], endpoint: FakeEndpoint) -> None:
    llm = replies(Reply(status=429, headers={"Retry-After": "0.4"}), "yes", api_key_env="A_PACE_OF_ITS_OWN")

    async def both() -> list[float]:
        begun = time.monotonic()

        async def one() -> float:
            await llm("?")
            return time.monotonic() - begun

        first = asyncio.create_task(one())
        await asyncio.to_thread(_until, lambda: len(endpoint.asked) == 1 and endpoint.in_flight == 0)
        return [await first, await asyncio.create_task(one())]

    assert min(asyncio.run(both())) >= 0.4


def test_retry_after_holds_all_models_of_a_key_whatever_their_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "sk-1")

    def waits(**options: Any) -> bool:
        llm = LLM("http://localhost:1/held", model="m", **options)
        return llm.how.pace.take(1) > 0

    LLM("http://localhost:1/held", model="m", rpm=600, api_key="sk-1").how.pace.hold(60)
    assert waits(api_key="sk-1") and waits(api_key="sk-1", rpm=600) and waits(api_key_env="A_KEY", tpm=1000)
    assert not waits(api_key="sk-2")


@pytest.mark.parametrize(("status", "kind"), [(429, RateLimited), (503, Unanswered)])
def test_who_would_have_to_wait_for_hours_is_told_so(
    replies: Callable[..., LLM], endpoint: FakeEndpoint, status: int, kind: type[CallFailed]
) -> None:
    with pytest.raises(kind, match=r"for 24\.0 hours \(Retry-After\).*run it again then"):
        replies(Reply(status=status, headers={"Retry-After": "86400"}))("?")
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"prompt_tokens": -5, "completion_tokens": 2},
        {"prompt_tokens": 5, "completion_tokens": -2},
        {"prompt_tokens": 5, "completion_tokens": 10**18},
        {"prompt_tokens": 10**12, "completion_tokens": 2},
        {"prompt_tokens": "many", "completion_tokens": "few"},
        {"prompt_tokens": True, "completion_tokens": 1.5},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 50}},
    ],
)
def test_usage_that_lies_is_estimated_and_flagged(replies: Callable[..., LLM], usage: dict[str, object] | None) -> None:
    prices = Prices(1, 1)
    answer = replies(Reply("a few words", usage=usage), prices=prices)("What is this, please?")
    assert answer.is_estimated
    assert 1 <= answer.usage.prompt_tokens <= 40
    assert 1 <= answer.usage.completion_tokens <= 10
    assert answer.nano_usd == prices.nano_usd(answer.usage)


def test_usage_that_can_be_true_is_believed(replies: Callable[..., LLM]) -> None:
    told = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
    answer = replies(Reply("a few words", usage=told), prices=Prices(1, "2.5", 0.1))("What?")
    assert not answer.is_estimated
    assert answer.usage == Usage(7, 3, 4)
    assert answer.nano_usd == 3 * 1000 + 4 * 100 + 3 * 2500
    assert str(answer.cost) == "0.000010900"


def test_an_answer_longer_than_max_tokens_is_a_lie(replies: Callable[..., LLM]) -> None:
    told = {"prompt_tokens": 7, "completion_tokens": 300}
    answer = replies(Reply("a few words", usage=told), max_tokens=10)("What?")
    assert answer.is_estimated
    assert answer.usage.completion_tokens <= 10


def test_tools_logprobs_and_refusals_come_through(replies: Callable[..., LLM], endpoint: FakeEndpoint) -> None:
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
    calls = [{"name": "add", "arguments": '{"a": 1}'}]
    answer = replies(Reply(tool_calls=calls, finish_reason="tool_calls"))("?", tools=tools, tool_choice="auto")
    [call] = answer.tool_calls
    assert (call.name, call.arguments, answer.finish_reason) == ("add", '{"a": 1}', "tool_calls")
    assert endpoint.asked[0].body["tools"] == tools

    answer = replies(Reply("so it is", logprobs=[-0.5, -0.25, -1.0]))("?", logprobs=True)
    assert answer.logprobs is not None
    assert [(each.token, each.logprob) for each in answer.logprobs] == [("so", -0.5), (" it", -0.25), (" is", -1.0)]
    answer = replies(Reply("so it", logprobs=[-0.5, -0.25]))(prompt="?", logprobs=1)
    assert answer.logprobs is not None
    assert [each.logprob for each in answer.logprobs] == [-0.5, -0.25]


def test_plain_prompts_are_completions(replies: Callable[..., LLM], endpoint: FakeEndpoint) -> None:
    assert replies("yes", max_tokens=3)(prompt="2 + 2 =").text == "yes"
    assert endpoint.asked[0].body == {"model": "fake", "prompt": "2 + 2 =", "max_tokens": 3}


def test_what_is_sent_for_a_call(replies: Callable[..., LLM], endpoint: FakeEndpoint) -> None:
    llm = replies("yes", max_tokens=3, temperature=0.5, headers={"X-Title": "test"}, api_key="sk-secret")
    llm([{"role": "system", "content": "Be short."}, {"role": "user", "content": "?"}], temperature=0.1)
    [asked] = endpoint.asked
    assert asked.body == {
        "model": "fake", "max_tokens": 3, "temperature": 0.1,
        "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "?"}],
    }  # fmt: skip
    assert asked.headers["Authorization"] == "Bearer sk-secret"
    assert asked.headers["X-Title"] == "test"
    llm("?", max_completion_tokens=9)
    assert "max_tokens" not in endpoint.asked[1].body


def test_a_key_is_shown_nowhere_and_pickled_nowhere(
    replies: Callable[..., LLM], endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = replies("yes", api_key="sk-secret", headers={"api-key": "sk-azure"})
    data = pickle.dumps(llm)
    assert b"sk-" not in data
    assert "sk-" not in repr(llm) + repr(vars(llm))
    pickle.loads(data)("?")
    assert endpoint.asked[0].headers["Authorization"] == "Bearer sk-secret"
    monkeypatch.setenv("A_KEY", "sk-from-environment")
    replies("yes", api_key_env="A_KEY")("?")
    assert endpoint.asked[1].headers["Authorization"] == "Bearer sk-from-environment"


def test_a_description_that_was_pickled_never_sends_the_headers_of_another_one(
    replies: Callable[..., LLM], endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pickled() -> list[bytes]:
        return [pickle.dumps(replies("yes", headers={"X-Org": org})) for org in "ab"]

    first, second = pickled()
    pickle.loads(first)("?")
    pickle.loads(second)("?")
    assert [asked.headers["X-Org"] for asked in endpoint.asked] == ["a", "b"]

    monkeypatch.setattr("exoflow.llm.calls.how._secrets", {})  # as in another process, whose program says the same
    pickled()
    with pytest.raises(CallRefused, match=r"has given 2 for this endpoint. Describe only the right one"):
        pickle.loads(first)("?")
    assert len(endpoint.asked) == 2


def test_streams_give_pieces_and_the_answer(replies: Callable[..., LLM]) -> None:
    stream = replies("so it is", prices=Prices(1, 1)).stream("What is?")
    with pytest.raises(RuntimeError, match="to its end"):
        _ = stream.answer
    assert list(stream) == ["so", " it", " is"]
    assert stream.answer.text == "so it is"
    assert stream.answer.usage == Usage(2, 3)
    assert stream.answer.nano_usd == 5000
    with pytest.raises(RuntimeError, match="read once"):
        list(stream)


def test_an_endpoint_that_does_not_stream_is_asked_once_and_its_answer_is_one_piece(
    replies: Callable[..., LLM], endpoint: FakeEndpoint
) -> None:
    said = '{"choices": [{"message": {"content": "so it is"}, "finish_reason": "stop"}]}'
    stream = replies(Reply(raw=said)).stream("What is?")
    assert list(stream) == ["so it is"]
    assert stream.answer.text == "so it is"
    heard: list[str] = []
    assert replies(Reply(raw=said)).options(on_text=heard.append)("What is?").text == "so it is"
    assert heard == ["so it is"]
    assert len(endpoint.asked) == 2


def test_streams_on_an_event_loop(replies: Callable[..., LLM]) -> None:
    llm = replies("so it is")

    async def read() -> list[str]:
        with pytest.raises(RuntimeError, match="async for"):
            list(llm.stream("?"))
        return [piece async for piece in llm.stream(prompt="?")]

    assert asyncio.run(read()) == ["so", " it", " is"]


def test_a_stream_that_breaks_off_is_an_error_and_not_told_twice(
    replies: Callable[..., LLM], endpoint: FakeEndpoint
) -> None:
    pieces: list[str] = []
    with pytest.raises(Unanswered) as failed:
        pieces.extend(replies(Reply("so it is", cut_after=2), "no").stream("?"))
    assert pieces == ["so", " it"][: len(pieces)]
    assert failed.value.maybe_billed
    assert len(endpoint.asked) == 1
    stream = replies(Reply(status=500), "so it is").stream("?")  # nothing was told yet
    assert "".join(stream) == "so it is"


def test_who_stops_reading_a_stream_ends_the_call(replies: Callable[..., LLM], endpoint: FakeEndpoint) -> None:
    for piece in replies("word " * 10_000).stream("?"):
        assert piece == "word"
        break
    _until(lambda: endpoint.in_flight == 0)


def test_a_listener_hears_the_answer_grow(replies: Callable[..., LLM]) -> None:
    heard: list[str] = []
    llm = replies(Reply("so it is", cut_after=2), "no it is not").options(on_text=heard.append)
    answer = llm("?")
    assert answer.text == "no it is not"
    assert answer.maybe_rebilled
    assert heard[-4:] == ["no", "no it", "no it is", "no it is not"]


def test_a_listener_that_fails_costs_nobody_the_answer(
    replies: Callable[..., LLM], endpoint: FakeEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    def listens(so_far: str) -> None:
        raise KeyError(so_far)

    assert replies("so it is").options(on_text=listens)("?").text == "so it is"
    assert len(endpoint.asked) == 1
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "what is told of an answer as it comes has failed, and is told no more"
    ]


def test_streamed_tool_calls_are_put_together(replies: Callable[..., LLM]) -> None:
    calls = [{"name": "add", "arguments": '{"a": 1, "b": 2}'}, {"name": "sub", "arguments": "{}"}]
    stream = replies(Reply(tool_calls=calls, finish_reason="tool_calls")).stream("?")
    assert list(stream) == []
    assert [(call.id, call.name, call.arguments) for call in stream.answer.tool_calls] == [
        ("call_0", "add", '{"a": 1, "b": 2}'),
        ("call_1", "sub", "{}"),
    ]


def test_calls_wait_for_room_in_the_endpoints_minute(replies: Callable[..., LLM], endpoint: FakeEndpoint) -> None:
    llm = replies("yes", rpm=3)

    async def several() -> int:
        calls = [asyncio.ensure_future(llm("?")) for _ in range(5)]
        await asyncio.to_thread(_until, lambda: sum(call.done() for call in calls) == 3)
        _, waiting = await asyncio.wait(calls, timeout=0.1)
        for call in waiting:
            call.cancel()
        return 5 - len(waiting)

    assert asyncio.run(several()) == 3
    assert len(endpoint.asked) == 3


def test_no_more_calls_are_in_flight_than_may_be(replies: Callable[..., LLM], endpoint: FakeEndpoint) -> None:
    llm = replies(Reply("yes", delay_s=0.02), max_in_flight=3)

    async def many() -> None:
        await asyncio.gather(*(llm("?") for _ in range(12)))

    asyncio.run(many())
    assert endpoint.most_in_flight == 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda llm: llm(), "messages"),
        (lambda llm: llm("?", prompt="?"), "not both"),
        (lambda llm: llm([]), "asks nothing"),
        (lambda llm: llm({"role": "user"}), "list"),
        (lambda llm: llm([{"content": "?"}]), "role"),
        (lambda llm: llm("?", n=3), "llm.map"),
        (lambda llm: llm("?", stream=True), "llm.stream"),
        (lambda llm: llm("?", temprature=1), "temperature"),
        (lambda llm: llm("?", max_tokens=0), "at least 1"),
        (lambda llm: llm("?", max_tokens="9"), "whole number"),
        (lambda llm: llm("?", response_format=3), "JSON Schema"),
        (lambda llm: llm("?", logit_bias={object(): 1}), "JSON"),
        (lambda llm: llm.options(labels={"a": 1}), "text"),
        (lambda llm: llm.submit("?"), "outside a flow"),
        (lambda llm: llm.map(["?"]), "llm.map.* outside a flow"),
        (lambda llm: LLM("localhost/v1", model="m"), "http://"),
        (lambda llm: LLM("http://x/v1"), "model="),
        (lambda llm: LLM("http://x/v1/chat/completions", model="m"), "base address"),
        (lambda llm: LLM("http://x/v1", model="m", rpm=0), "rpm"),
        (lambda llm: LLM("http://x/v1", model="m", retries=-1), "retries"),
        (lambda llm: LLM(3, model="m"), "EngineSpec"),
        (lambda llm: Prices(-1, 2), "negative"),
        (lambda llm: Prices("cheap", 2), "price"),
    ],
)
def test_mistakes_are_told_before_anything_is_asked(
    replies: Callable[..., LLM], endpoint: FakeEndpoint, wrong: Callable[[Any], object], message: str
) -> None:
    with pytest.raises((TypeError, ValueError, RuntimeError), match=message):
        wrong(replies("yes"))
    assert endpoint.asked == []


def test_the_errors_are_one_family() -> None:
    assert issubclass(CallRefused, CallFailed)
    assert issubclass(RateLimited, CallFailed)
    assert issubclass(Unanswered, CallFailed)


def _until(true: Callable[[], bool]) -> None:
    while not true():
        time.sleep(0.01)
