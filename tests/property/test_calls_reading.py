"""Whatever an endpoint says, it is read or refused; and what it says of usage is believed only where it can be true."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from exoflow.llm.calls.failures import failed_with, retry_after_s
from exoflow.llm.calls.prices import Prices
from exoflow.llm.calls.question import Question
from exoflow.llm.calls.reading import Pieces, Unreadable, whole
from exoflow.llm.calls.usage import usage_of
from exoflow.llm.engine.request import Usage

numbers = st.integers() | st.floats(allow_nan=True) | st.just(10**400)
names = st.sampled_from(
    ["choices", "message", "delta", "content", "text", "tool_calls", "function", "name", "arguments", "index", "usage",
     "logprobs", "token", "logprob", "top_logprobs", "tokens", "token_logprobs", "finish_reason", "refusal", "error",
     "prompt_tokens", "completion_tokens", "prompt_tokens_details", "cached_tokens", "model", "code"]
)  # fmt: skip
anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
choices = st.fixed_dictionaries({"choices": st.lists(st.dictionaries(names, anything, max_size=5), max_size=2)})


@given(anything | choices)
def test_a_whole_answer_is_read_or_refused(data: Any) -> None:
    try:
        reading = whole(data)
    except Unreadable:
        return
    assert isinstance(reading.text, str)
    assert isinstance(reading.finish_reason, str)


@given(st.lists(anything | choices, max_size=5))
def test_pieces_are_read_or_refused(told: list[Any]) -> None:
    pieces = Pieces()
    try:
        said = "".join(pieces.add(data) for data in told)
        reading = pieces.reading()
    except Unreadable:
        return
    assert reading.text == said


@given(st.dictionaries(names, anything) | anything, st.text(max_size=50), st.text(max_size=50), st.none() | st.just(20))
def test_usage_can_be_true(told: Any, prompt: str, text: str, most: int | None) -> None:
    question = Question.of(None, prompt, {} if most is None else {"max_tokens": most})
    usage, _ = usage_of(told, question, text)
    assert 0 <= usage.cached_tokens <= usage.prompt_tokens <= 4 * 50 * 4 + 20_000
    assert 0 <= usage.completion_tokens <= (most or 10_000_000)
    assert Prices("0.07", 1, 0).nano_usd(usage) >= 0


@given(st.integers(100, 599), st.text(max_size=20) | anything.map(json.dumps), st.text(max_size=9))
def test_any_failure_is_told(status: int, body: str, retry_after: str) -> None:
    failed = failed_with(status, {"Retry-After": retry_after}, body)
    error = failed.error("http://x", 1, maybe_billed=False)
    assert error.status == status
    wait_s = retry_after_s({"Retry-After": retry_after})
    assert wait_s is None or wait_s >= 0


@given(st.decimals(0, 1000, places=4), st.decimals(0, 1000, places=4), st.integers(0, 10**9), st.integers(0, 10**9))
def test_money_is_exact_and_never_rounded_down(price_in: Any, price_out: Any, asked: int, answered: int) -> None:
    nano_usd = Prices(price_in, price_out).nano_usd(Usage(asked, answered))
    exact = (price_in * asked + price_out * answered) * 1000
    assert exact <= nano_usd < exact + 1


@pytest.mark.parametrize("price", [float("nan"), float("inf"), "", None, True, "-1", [1]])
def test_what_is_no_price_is_refused(price: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"price|negative"):
        Prices(price, 1)
