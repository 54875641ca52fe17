"""What an engine and a request may be told, and what is refused where it is written."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from exoflow.llm import SamplingParams


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
