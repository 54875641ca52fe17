"""Answers that follow a JSON schema or a regular expression."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import openai
import pytest
from llm_served import BASE, Served

from exoflow.errors import LLMError
from exoflow.llm import Engine, SamplingParams
from exoflow.llm.engine.grammar import Grammar, Grammars
from exoflow.llm.engine.request import WrongRequest

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["cat", "dog"]},
        "age": {"type": "integer", "minimum": 0, "maximum": 30},
        "names": {"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 3},
    },
    "required": ["kind", "age", "names"],
    "additionalProperties": False,
}


def is_right(text: str) -> bool:
    found = json.loads(text)
    assert set(found) == {"kind", "age", "names"}
    assert found["kind"] in ("cat", "dog")
    assert 0 <= found["age"] <= 30
    return len(found["names"]) <= 3 and all(len(name) <= 5 for name in found["names"])


def test_each_of_many_answers_follows_the_schema_and_ends_with_it(open_engine: Callable[..., Engine]) -> None:
    params = SamplingParams(max_tokens=200, n=6, seed=5, json_schema=SCHEMA)
    outputs = open_engine().generate(["A pet:", "Another:"], params, ["r8", None])
    assert all(output.finish_reason == "stop" and is_right(output.text) for output in outputs)
    assert len({output.text for output in outputs}) > 3


@pytest.mark.parametrize("ignore_eos", [False, True])
@pytest.mark.parametrize("temperature", [0, 1])
def test_an_answer_matches_the_expression_as_a_whole(
    open_engine: Callable[..., Engine], temperature: float, ignore_eos: bool
) -> None:
    expression = "[a-d]{3,6}(-[0-9]{2})?é?"
    params = SamplingParams(
        max_tokens=50, n=4, seed=2, temperature=temperature, regex=expression, ignore_eos=ignore_eos
    )
    for output in open_engine().generate(["x"], params):
        assert output.finish_reason == "stop"
        assert re.fullmatch(expression, output.text)


def test_a_mixed_batch_constrains_only_those_who_asked(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine()
    free = SamplingParams(max_tokens=30, temperature=0, ignore_eos=True)
    (alone,) = engine.generate(["x"], free, "r8")
    bound = [engine.submit("x", SamplingParams(max_tokens=30, seed=seed, regex="[0-9]{30}"), "r8") for seed in range(4)]
    (beside,) = engine.submit("x", free, "r8").outputs()
    assert beside.token_ids == alone.token_ids
    for generation in bound:
        assert re.fullmatch("[0-9]{30}", generation.outputs()[0].text)


def test_a_preemption_does_not_change_what_follows_the_schema(open_engine: Callable[..., Engine]) -> None:
    params = SamplingParams(max_tokens=80, n=6, seed=9, json_schema=SCHEMA, logprobs=0)
    roomy = open_engine().generate(["A pet:"], params)
    small = open_engine(pages=24, prefix_cache=False)
    cramped = small.generate(["A pet:"], params)
    assert small.stats().preemptions > 0
    assert [output.text for output in cramped] == [output.text for output in roomy]


def test_an_answer_that_is_too_long_for_its_limit_is_cut(open_engine: Callable[..., Engine]) -> None:
    (output,) = open_engine().generate(["x"], SamplingParams(max_tokens=5, json_schema=SCHEMA))
    assert output.finish_reason == "length"
    assert output.text.startswith("{")


def test_a_grammar_that_fails_on_its_way_fails_its_answer_and_no_other(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine()
    engine._intake.grammars = Grammars(engine.model.tokenizer, 300, states_max=300)
    generation = engine.submit("x", SamplingParams(max_tokens=400, n=2, seed=1, regex="[ab]*a[ab]{1000}"), "r8")
    with pytest.raises(WrongRequest, match=r"the grammar failed: .*too many states"):
        generation.outputs()
    (other,) = engine.generate(["x"], SamplingParams(max_tokens=40, seed=1, regex="[0-9]{40}"), "r8")
    assert re.fullmatch("[0-9]{40}", other.text)
    assert engine.stats().running == {}


class Broken(Grammars):
    """Fails in the second token of whoever has an expression."""

    def begin(self, params: SamplingParams) -> list[Grammar | None]:
        grammars = super().begin(params)
        for grammar in grammars:
            if grammar is not None:
                grammar._matcher = Fails(grammar._matcher)  # type: ignore[assignment]
        return grammars


class Fails:
    """A matcher that gives one token only."""

    def __init__(self, matcher: Any) -> None:
        self._matcher, self._asked = matcher, 0

    def compute_logit_bias(self) -> bytes:
        self._asked += 1
        if self._asked > 1:
            raise OSError("it broke")
        return bytes(self._matcher.compute_logit_bias())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._matcher, name)


def test_whose_token_cannot_be_chosen_fails_alone(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine()
    engine._intake.grammars = Broken(engine.model.tokenizer, 300)
    params = SamplingParams(max_tokens=30, seed=1, ignore_eos=True)
    (alone,) = engine.generate(["x"], params, "r8")
    others = [engine.submit("x", params, "r8") for _ in range(2)]
    broken = engine.submit("y", SamplingParams(max_tokens=40, n=2, seed=1, regex="[0-9]{40}"), "r8")
    with pytest.raises(LLMError, match="a token could not be chosen: OSError: it broke"):
        broken.outputs()
    for other in others:
        assert other.outputs()[0].token_ids == alone.token_ids
    assert engine.error is None
    assert engine.stats().running == {}


@pytest.mark.parametrize(
    "params",
    [
        {"regex": "[a"}, {"regex": "(?=x)y"}, {"json_schema": {"type": "nonsense"}}, {"json_schema": "{"},
        {"json_schema": {"not": {"type": "string"}}}, {"json_schema": {"$ref": "http://127.0.0.1:9/x"}},
        {"json_schema": {"type": "string", "pattern": "("}}, {"json_schema": {"enum": []}},
        {"json_schema": {"$ref": "#"}}, {"regex": ""},
    ],
)  # fmt: skip
def test_what_is_no_grammar_or_not_supported_is_refused_by_name(served: Served, params: dict[str, Any]) -> None:
    with pytest.raises(WrongRequest, match=rf"^{next(iter(params))}: [^<>]*$"):
        served.engine.submit("x", SamplingParams(**params))


async def test_the_server_takes_openais_and_vllms_words_for_it(served: Served) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "pet", "strict": True, "schema": SCHEMA}}
    async with served.openai() as client:
        chat = await client.chat.completions.create(
            model="r8", messages=[{"role": "user", "content": "A pet?"}], response_format=form, max_tokens=200, seed=1
        )
        body = {"structured_outputs": {"regex": "(yes|no)"}}
        done = await client.completions.create(model=BASE, prompt="Is it?", extra_body=body)
        wrong: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}
        with pytest.raises(openai.BadRequestError, match="json_schema"):
            await client.chat.completions.create(
                model=BASE, messages=[{"role": "user", "content": "x"}], response_format=wrong
            )
    assert is_right(chat.choices[0].message.content or "")
    assert done.choices[0].text in ("yes", "no")
