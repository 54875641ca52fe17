"""What an engine and a request may be told, and what is refused where it is written."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest

from exoflow.llm import EngineConfig, EngineSpec, SamplingParams
from exoflow.llm.engine.prompts import one_for_each, params_of, prompts_of


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"max_tokens": 2.5}, r"max_tokens=2\.5: it is a whole number"),
        ({"max_tokens": None}, "max_tokens=None: it is a whole number"),
        ({"max_tokens": True}, "max_tokens=True: it is a whole number"),
        ({"top_k": 2.5}, "a whole number"),
        ({"seed": "x"}, "seed='x': it is a whole number"),
        ({"n": "2"}, "a whole number"),
        ({"logprobs": 1.5}, "a whole number"),
        ({"logprobs": True}, "a whole number"),
        ({"temperature": "1"}, "temperature='1': it is a number"),
        ({"temperature": None}, "a number"),
        ({"top_p": [1]}, "a number"),
        ({"stop": None}, "stop=None: it is a text, or a tuple of texts"),
        ({"stop": (1,)}, "a tuple of texts"),
        ({"stop": [b"a"]}, "a tuple of texts"),
        ({"stop": b"a"}, "a tuple of texts"),
        ({"ignore_eos": "no"}, "ignore_eos='no': it is True or False"),
        ({"ignore_eos": 1}, "True or False"),
        ({"regex": 5}, "regex=5: it is a text"),
        ({"json_schema": 5}, "json_schema=5: it is a schema"),
        ({"json_schema": []}, "it is a schema"),
    ],
)
def test_a_parameter_of_another_type_is_refused_by_its_name(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(TypeError, match=says):
        SamplingParams(**wrong)


def test_numbers_of_other_types_are_taken_as_what_they_are() -> None:
    numpy = pytest.importorskip("numpy")
    given = SamplingParams(max_tokens=numpy.int64(3), temperature=Fraction(1, 2), stop=["a"])  # type: ignore[arg-type]
    assert given == SamplingParams(max_tokens=3, temperature=0.5, stop=("a",))
    assert type(given.max_tokens) is int
    assert type(given.temperature) is float
    assert type(SamplingParams(temperature=1).temperature) is int  # as it was written


@pytest.mark.parametrize(
    "prompts", [[{"role": "user", "content": "hi"}], [[{"role": "user", "content": "hi"}]], {"role": "user"}]
)
def test_messages_are_told_where_they_are_answered(prompts: Any) -> None:
    with pytest.raises(TypeError, match=r"is a message, .* ask LLM\(engine\)"):
        EngineSpec("no such model").generate(prompts)


@pytest.mark.parametrize(
    "prompts", [3, None, b"ab", [None], [[None]], [1.5, 2.5], [[1.5]], ["a", 5], [[1, "a"]], [True], [[True]], [b"a"]]
)
def test_what_is_no_prompt_is_refused_before_anything_starts(prompts: Any) -> None:
    with pytest.raises(TypeError, match="is no prompt: give a text, or token ids"):
        EngineSpec("no such model").generate(prompts)


def test_texts_and_token_ids_are_prompts_one_or_several() -> None:
    numpy = pytest.importorskip("numpy")
    ids = numpy.arange(3)
    assert prompts_of("a") == ["a"]
    assert prompts_of([1, 2]) == [[1, 2]]
    assert prompts_of(["a", [1, 2], (3,)]) == ["a", [1, 2], (3,)]
    assert prompts_of(f"{number}" for number in range(2)) == ["0", "1"]
    assert prompts_of([]) == []
    assert prompts_of(ids)[0] is ids


def test_what_is_no_way_to_answer_is_refused_before_anything_starts() -> None:
    spec = EngineSpec("no such model", adapters={"a": "folder"})
    for params in (5, {"max_tokens": 3}, "a"):
        with pytest.raises(TypeError, match=r"give SamplingParams"):
            spec.generate("x", params)  # type: ignore[arg-type]
    for adapter in (5, [5], [b"a"]):
        with pytest.raises(TypeError, match=r"give a name, or one for each"):
            spec.generate("x", None, adapter)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 prompts and 2 adapters"):
        one_for_each(["a", None], 1)
    assert params_of(None) == SamplingParams()
    for adapters in (["a"], "a", {1: "a"}.keys()):
        with pytest.raises(TypeError, match="give a directory for each name"):
            EngineSpec("no such model", adapters=adapters)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ({"pages": 2.5}, TypeError, r"pages=2\.5: it is a whole number"),
        ({"pages": "3"}, TypeError, "pages='3': it is a whole number"),
        ({"pages": True}, TypeError, "a whole number"),
        ({"max_batch": None}, TypeError, "a whole number"),
        ({"pages": 0}, ValueError, "pages=0: it must be at least 1"),
        ({"threads": 10**6}, ValueError, "threads=1000000: it can be 1 to 1024"),
        ({"seed": "s"}, TypeError, "a whole number"),
        ({"slo_s": "6"}, TypeError, "a number"),
        ({"slo_s": math.nan}, ValueError, "slo_s=nan"),
        ({"cluster_s": math.nan}, ValueError, "cluster_s=nan"),
        ({"memory_fraction": math.nan}, ValueError, "memory_fraction=nan"),
        ({"prefix_cache": "no"}, TypeError, "prefix_cache='no': it is True or False"),
        ({"device": "meta"}, ValueError, "device='meta': give cpu"),
        ({"device": "mps"}, ValueError, "give cpu"),
        ({"device": 0}, TypeError, "device=0: it is a text"),
        ({"dtype": "float8"}, ValueError, "dtype='float8': there are float32"),
        ({"policy": "lifo"}, ValueError, "there are 'fcfs' and 'deadline'"),
        ({"group_by": (1,)}, ValueError, "names of labels"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_anything_starts(
    wrong: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        EngineConfig(**wrong)
    with pytest.raises(error, match=says):
        EngineSpec("no such model", **wrong)
