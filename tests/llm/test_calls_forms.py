"""Structured output: what is asked of an endpoint for a form, and what is made of the answer."""

from __future__ import annotations

import dataclasses
import enum
import pickle
from typing import Any

import msgspec
import pydantic
import pytest

from exoflow.errors import WrongForm
from exoflow.llm.calls import Answer, TokenLogprob, ToolCall
from exoflow.llm.calls.forms import response_format_of
from exoflow.llm.calls.prices import Prices, usd
from exoflow.llm.engine.request import Usage


class Kind(enum.Enum):
    GOOD = "good"
    BAD = "bad"


@dataclasses.dataclass
class Point:
    x: int
    y: int


@dataclasses.dataclass
class Verdict:
    kind: Kind
    places: list[Point]


class Row(msgspec.Struct):
    name: str
    size: float


class Model(pydantic.BaseModel):
    name: str
    size: int = pydantic.Field(ge=0)


@dataclasses.dataclass
class Loose:
    name: str = ""


SCHEMA = {"type": "object", "properties": {"size": {"type": "integer"}}, "required": ["size"]}


def answer(text: str, form: object, **more: Any) -> Answer:
    return Answer(text, form=form, **more)


@pytest.mark.parametrize(
    ("form", "text", "made"),
    [
        (Verdict, '{"kind": "bad", "places": [{"x": 1, "y": 2}]}', Verdict(Kind.BAD, [Point(1, 2)])),
        (Row, '{"name": "a", "size": 2}', Row("a", 2.0)),
        (Model, '{"name": "a", "size": 2}', Model(name="a", size=2)),
        (SCHEMA, '{"size": 3}', {"size": 3}),
        ({"type": "json_object"}, '{"any": [1]}', {"any": [1]}),
        ({"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}, '{"size": 3}', {"size": 3}),
        ({"type": "text"}, "any", None),
        (None, "any", None),
    ],
    ids=str,
)
def test_an_answer_becomes_what_was_asked_for(form: object, text: str, made: object) -> None:
    assert answer(text, form).parsed == made


@pytest.mark.parametrize(
    ("form", "text", "message"),
    [
        (Verdict, "no JSON at all", "no JSON"),
        (Verdict, '{"kind": "ugly", "places": []}', r"\$\.kind"),
        (Verdict, '{"kind": "bad", "places": [{"x": "one", "y": 2}]}', r"\$\.places\[0\]\.x"),
        (Row, '{"name": "a"}', "size"),
        (Model, '{"name": "a", "size": -1}', "size"),
        (SCHEMA, '{"size": "big"}', r"\$\.size: 'big'"),
        (SCHEMA, "[]", "object"),
        ({"type": "json_object"}, "[1]", "expected object"),
    ],
    ids=str,
)
def test_an_answer_that_is_not_is_told_with_its_place(form: object, text: str, message: str) -> None:
    with pytest.raises(WrongForm, match=message) as wrong:
        _ = answer(text, form).parsed
    assert wrong.value.text == text


def test_why_an_answer_is_not_of_its_form_is_told() -> None:
    with pytest.raises(WrongForm, match="max_tokens cut it off"):
        _ = answer('{"size": ', SCHEMA, finish_reason="length").parsed
    with pytest.raises(WrongForm, match="I will not"):
        _ = answer("", SCHEMA, refusal="I will not").parsed


def test_what_is_asked_of_an_endpoint() -> None:
    found: Any = response_format_of(Verdict)
    assert found["type"] == "json_schema"
    asked = found["json_schema"]
    assert (asked["name"], asked["strict"]) == ("Verdict", True)
    assert asked["schema"]["type"] == "object"
    assert asked["schema"]["additionalProperties"] is False
    assert asked["schema"]["$defs"]["Point"]["additionalProperties"] is False
    assert not response_format_of(Loose)["json_schema"]["strict"]  # type: ignore[index]
    assert response_format_of(SCHEMA)["json_schema"]["schema"]["properties"] == SCHEMA["properties"]  # type: ignore[index]
    assert response_format_of({"type": "json_object"}) == {"type": "json_object"}
    assert response_format_of(Model)["json_schema"]["schema"]["required"] == ["name", "size"]  # type: ignore[index]


def test_an_answer_survives_pickling() -> None:
    one = Answer(
        "text",
        (ToolCall("1", "f", "{}"),),
        "stop",
        Usage(3, 4, 2),
        17,
        (TokenLogprob("a", -0.5, (("b", -1.0),)),),
        0.25,
        maybe_rebilled=True,
        is_estimated=True,
        refusal="no",
        model="m",
        form=Point,
    )
    assert pickle.loads(pickle.dumps(one)) == one


def test_prices_are_exact() -> None:
    assert Prices(0.15, 0.6).nano_usd(Usage(1_000_000, 1_000_000)) == 750_000_000
    assert Prices("0.1", 0.3).nano_usd(Usage(1, 1)) == 400
    assert Prices(0.0375, 0).nano_usd(Usage(1, 0)) == 38  # a part counts as a whole
    assert Prices(0.0375, 0).nano_usd(Usage(2, 0)) == 75
    assert Prices(2, 8, 0.5).nano_usd(Usage(10, 1, 4)) == 6 * 2000 + 4 * 500 + 8000
    assert str(usd(1)) == "1E-9"
    assert usd(1_500_000_000) == 1.5


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"type": "nonsense"}, r"response_format is no JSON Schema: \$.type: 'nonsense'"),
        ({"properties": {"a": {"type": 5}}}, r"no JSON Schema: \$.properties.a.type"),
        ({"type": "object", "default": object()}, "is no JSON Schema: Object of type object"),
        ({"type": "json_schema"}, "json_schema is a dict"),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": 5}}, "json_schema is a dict"),
        ({"type": "json_schema", "json_schema": {"schema": {"type": "objekt"}}}, "no JSON Schema"),
    ],
)
def test_a_schema_that_is_none_is_refused_before_an_answer_is_paid_for(form: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        response_format_of(form)
