"""``LLM`` in flows: each call is recorded, and what was recorded is never asked again."""

from __future__ import annotations

import asyncio
import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import exoflow
from exoflow import Backoff, flow, gather, task
from exoflow.errors import CallRefused, NondeterministicFlow, RunError, Unanswered, WrongForm
from exoflow.llm import LLM, Answer, Prices, Usage
from exoflow.llm.fair.asks import Ask
from exoflow.testing import Asked, FakeEndpoint, Reply

AT_ONCE = Backoff(initial_s=0.0, jitter=0.0)


@dataclasses.dataclass
class City:
    name: str
    people: int


def answers(asked: Asked) -> str | Reply:
    if asked.prompt.startswith("fails"):
        return Reply(status=500)
    if asked.prompt.startswith("wrong"):
        return Reply("no", status=400)
    if asked.prompt.startswith("city"):
        return '{"name": "Bern", "people": 134000}'
    return f"{asked.prompt}, the {asked.nth}th time"


@pytest.fixture
def llm(endpoint: FakeEndpoint) -> LLM:
    return LLM(endpoint.url, model="fake", prices=Prices(1, 2), max_tokens=20, backoff=AT_ONCE, retries=1)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Any]:
    def run(of: Any, *args: Any, id: str = "r", **options: Any) -> Any:
        found = of.options(run_id=id, store=tmp_path / "store", **options).run(*args)
        return asyncio.run(found) if asyncio.iscoroutine(found) else found

    return run


@flow
def three(llm: LLM) -> list[str]:
    first = llm("one")
    rest = llm.map(["two", "three"])
    return [first.text, *(each.text for each in rest.result())]


@flow
async def three_async(llm: LLM) -> list[str]:
    first = await llm("one")
    rest = await asyncio.gather(llm("two"), llm("three"))
    return [first.text, *(each.text for each in rest)]


@pytest.mark.parametrize("of", [three, three_async], ids=["sync", "async"])
def test_a_call_is_recorded_and_never_made_again(
    of: Any, llm: LLM, endpoint: FakeEndpoint, run: Callable[..., Any]
) -> None:
    first = run(of, llm)
    assert first == [f"{word}, the 0th time" for word in ("one", "two", "three")]
    assert len(endpoint.billed()) == 3
    assert set(endpoint.billed().values()) == {1}
    assert run(of, llm) == first
    assert len(endpoint.asked) == 3


def test_the_key_of_a_call_is_its_runs_and_its_own(llm: LLM, endpoint: FakeEndpoint, run: Callable[..., Any]) -> None:
    @flow
    def keyed() -> None:
        llm.options(key="sample-0")("?")
        llm("?")

    run(keyed, id="a run")
    assert [asked.key for asked in endpoint.asked] == ["a run/llm[sample-0]", "a run/llm#0"]


def test_a_key_is_taken_once(llm: LLM, run: Callable[..., Any]) -> None:
    @flow
    def keyed() -> None:
        llm.options(key="a")("?")
        llm.options(key="a")("?")

    with pytest.raises(RunError, match="already taken"):
        run(keyed)


def test_a_map_under_one_key_is_refused(llm: LLM, run: Callable[..., Any]) -> None:
    @flow
    def keyed() -> None:
        llm.options(key="a").map(["?", "!"]).result()

    with pytest.raises(ValueError, match="a key is one call's"):
        run(keyed)


def test_an_edited_prompt_is_an_explicit_error(llm: LLM, run: Callable[..., Any], tmp_path: Path) -> None:
    words = ["one", "two"]

    @flow
    def asks() -> str:
        text = llm([{"role": "user", "content": words[0]}]).text
        return text + llm("fails").text

    with pytest.raises(Unanswered):
        run(asks)
    words[0] = "an edited one"
    with pytest.raises(
        NondeterministicFlow, match=r"llm#0 .*messages\[0\]\['content'\] was 'one', and is 'an edited one' now"
    ):
        asks.options(store=tmp_path / "store").resume("r")


def test_other_parameters_are_another_call(llm: LLM, run: Callable[..., Any], tmp_path: Path) -> None:
    heat = [0.1]

    @flow
    def asks() -> str:
        text = llm("one", temperature=heat[0]).text
        return text + llm("fails").text

    with pytest.raises(Unanswered):
        run(asks)
    heat[0] = 0.9
    with pytest.raises(NondeterministicFlow, match="temperature"):
        asks.options(store=tmp_path / "store").resume("r")


def test_another_price_scheduler_or_key_is_no_other_call(
    llm: LLM, endpoint: FakeEndpoint, run: Callable[..., Any]
) -> None:
    first = run(three, llm)
    other = LLM(endpoint.url, model="fake", max_tokens=20, prices=Prices(7, 7), rpm=9, api_key="sk-2", retries=9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(three, other) == first
    assert len(endpoint.asked) == 3


def test_a_run_that_goes_on_goes_on_with_the_price_that_it_is_given_now(
    endpoint: FakeEndpoint, run: Callable[..., Any]
) -> None:
    dies = [True]

    @flow
    def asks(llm: LLM) -> list[int]:
        first = llm("one").nano_usd
        if dies[0]:
            raise KeyboardInterrupt
        return [first, llm("two").nano_usd]

    def at(usd: int) -> LLM:
        return LLM(endpoint.url, model="fake", max_tokens=20, prices=Prices(usd, usd))

    with pytest.raises(KeyboardInterrupt):
        run(asks, at(1))
    dies[0] = False
    first, second = run(asks, at(1000))
    assert 0 < first * 100 < second


def test_another_model_is_another_run(llm: LLM, endpoint: FakeEndpoint, run: Callable[..., Any]) -> None:
    run(three, llm)
    with pytest.raises(exoflow.errors.RunMismatch, match="model"):
        run(three, LLM(endpoint.url, model="other"))


def test_a_call_that_failed_is_made_again_by_a_resume(
    llm: LLM, endpoint: FakeEndpoint, run: Callable[..., Any], tmp_path: Path
) -> None:
    @flow
    def asks() -> str:
        return llm("one").text + llm("fails").text

    with pytest.raises(Unanswered, match="2 times"):
        run(asks)
    assert len(endpoint.asked) == 3
    with pytest.raises(Unanswered):
        asks.options(store=tmp_path / "store").resume("r")
    assert [asked.prompt for asked in endpoint.asked] == ["one", *["fails"] * 4]


def test_a_body_may_catch_what_a_call_raises(llm: LLM, run: Callable[..., Any]) -> None:
    @flow
    def asks() -> str:
        try:
            return llm("wrong").text
        except CallRefused as error:
            return f"{error.status} {error.tries} {error.body}"

    assert run(asks) == "400 1 no"
    assert run(asks) == "400 1 no"


def test_one_failure_among_many_leaves_the_others(llm: LLM, run: Callable[..., Any]) -> None:
    @flow
    def asks() -> list[object]:
        return [*gather(llm.map(["one", "wrong", "two"]), return_exceptions=True).result()]

    first, failed, last = run(asks)
    assert isinstance(first, Answer)
    assert isinstance(failed, CallRefused)
    assert isinstance(last, Answer)


def test_what_a_task_made_may_stand_in_a_prompt(llm: LLM, endpoint: FakeEndpoint, run: Callable[..., Any]) -> None:
    @task(deterministic=True)
    def word() -> str:
        return "fish"

    @task(deterministic=True)
    def chat() -> list[dict[str, str]]:
        return [{"role": "user", "content": "fowl"}]

    @flow
    def asks() -> list[str]:
        refs = [
            llm.submit([{"role": "user", "content": word.submit().arg}]),
            llm.submit(chat.submit()),
            llm.submit(prompt=word.submit()),
        ]
        return [ref.result().text.partition(",")[0] for ref in refs]

    assert run(asks) == ["fish", "fowl", "fish"]


def test_structured_output_is_recorded_and_parsed(llm: LLM, run: Callable[..., Any]) -> None:
    @flow
    def asks() -> City:
        city = llm("city?", response_format=City).parsed
        assert isinstance(city, City)
        return city

    assert run(asks) == City("Bern", 134000)
    assert run(asks) == City("Bern", 134000)


def test_an_answer_of_the_wrong_form_is_recorded_all_the_same(
    llm: LLM, endpoint: FakeEndpoint, run: Callable[..., Any]
) -> None:
    @flow
    def asks() -> object:
        return llm("one", response_format=City).parsed

    for _ in range(2):
        with pytest.raises(WrongForm, match="no JSON"):
            run(asks)
    assert len(endpoint.asked) == 1


def test_a_listener_is_told_in_a_flow(llm: LLM, run: Callable[..., Any]) -> None:
    heard: list[str] = []

    @flow
    def asks() -> str:
        return llm.options(on_text=heard.append)("one").text

    assert run(asks) == "one, the 0th time"
    assert heard == ["one,", "one, the", "one, the 0th", "one, the 0th time"]
    run(asks)
    assert len(heard) == 4


def test_streaming_in_a_flow_is_refused(llm: LLM, run: Callable[..., Any]) -> None:
    @flow
    def asks() -> None:
        llm.stream("?")

    with pytest.raises(RuntimeError, match="on_text"):
        run(asks)


def test_a_mistake_is_told_where_it_is_made(llm: LLM, endpoint: FakeEndpoint, run: Callable[..., Any]) -> None:
    @flow
    def asks() -> str:
        with pytest.raises(TypeError, match="temperature"):
            llm("?", temprature=1)
        with pytest.raises(TypeError, match="role"):
            llm.submit([{"content": "?"}])
        with pytest.raises(TypeError, match="a list of chats"):
            llm.map()
        return llm("one").text

    assert run(asks) == "one, the 0th time"
    assert len(endpoint.asked) == 1


def test_a_result_that_is_not_awaited_in_an_async_flow_is_a_coroutine(llm: LLM, run: Callable[..., Any]) -> None:
    @flow
    async def asks() -> str:
        ref = llm.submit("one")
        with pytest.raises(RuntimeError, match=r"await ref"):
            ref.result()
        return (await ref).text + (await llm(prompt="two")).text

    assert run(asks) == "one, the 0th timetwo, the 0th time"


def test_in_a_task_and_outside_of_a_flow_it_simply_calls(
    llm: LLM, endpoint: FakeEndpoint, run: Callable[..., Any]
) -> None:
    @task
    def asks_twice() -> list[str]:
        return [llm("one").text, llm("one").text]

    @task
    async def asks_async() -> str:
        return (await llm("two")).text

    @flow
    def asks() -> list[str]:
        return [*asks_twice(), asks_async.submit().result()]

    assert run(asks) == ["one, the 0th time", "one, the 1th time", "two, the 0th time"]
    assert len(endpoint.billed()) == 3
    assert llm("three").text == "three, the 0th time"


class Told:
    """A scheduler that grants everything, and remembers."""

    name = "told"

    def __init__(self) -> None:
        self.asks: list[Ask] = []
        self.ends: list[object] = []
        self.refuses: Exception | None = None

    async def admit(self, ask: Ask) -> Told:
        self.asks.append(ask)
        if self.refuses is not None:
            raise self.refuses
        return self

    def charge(self, tokens: int) -> None: ...

    def settle(self, usage: Usage, nano_usd: int, *, keeps_slot: bool) -> None:
        self.ends.append((usage, nano_usd))

    def release(self) -> None:
        self.ends.append("released")


def test_a_scheduler_is_asked_and_settled_once_a_call(endpoint: FakeEndpoint, run: Callable[..., Any]) -> None:
    told = Told()
    llm = LLM(
        endpoint.url,
        model="fake",
        scheduler=told,
        prices=Prices(1, 2),
        max_tokens=20,
        retries=0,  # type: ignore[arg-type]
    )

    @flow
    def child() -> None:
        llm.options(labels={"user": "ann"})("two")

    @flow
    def asks() -> None:
        llm("one")
        child()
        with pytest.raises(Unanswered):
            llm("fails")

    run(asks, labels={"tenant": "acme", "user": "bob"})
    one, two, fails = told.asks
    assert (one.run, one.call, dict(one.labels)) == ("r", "llm#0", {"tenant": "acme", "user": "bob"})
    assert dict(two.labels) == {"tenant": "acme", "user": "ann"}
    assert one.job == fails.job != two.job
    assert one.max_output_tokens == 20
    assert one.nano_usd is not None
    assert 20 * 2000 < one.nano_usd < 20 * 2000 + 100 * 1000
    assert told.ends[:4] == [(Usage(1, 4), 9000), "released", (Usage(1, 4), 9000), "released"]
    run(asks, labels={"tenant": "acme", "user": "bob"})
    assert len(told.asks) == 3


def test_an_llm_is_an_argument_and_keys_are_not_stored(
    endpoint: FakeEndpoint, run: Callable[..., Any], tmp_path: Path
) -> None:
    llm = LLM(endpoint.url, model="fake", api_key="sk-not-to-be-found", retries=0)
    run(three, llm)
    assert {asked.headers["Authorization"] for asked in endpoint.asked} == {"Bearer sk-not-to-be-found"}
    for file in (tmp_path / "store").rglob("*"):
        assert not file.is_file() or b"sk-not-to-be-found" not in file.read_bytes()
