"""A description of a model that could not be called is refused where it is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from exoflow import flow
from exoflow.llm import LLM, FairScheduler

URL = "http://localhost:1/v1"


@pytest.mark.parametrize(
    ("endpoint", "options", "message"),
    [
        (URL, {"prices": 5}, r"prices=5: give Prices\("),
        (URL, {"scheduler": "vtc"}, r"scheduler='vtc': give a FairScheduler\("),
        (URL, {"scheduler": FairScheduler}, r"scheduler=<class .*FairScheduler'>: give a FairScheduler\("),
        (URL, {"model": 5}, "model=5 must be text"),
        (URL, {"api_key_env": None}, "api_key_env=None must be the name of an environment variable"),
        (URL, {"temperature": float("nan")}, "temperature=nan must be a finite number"),
        (URL, {"top_p": float("inf")}, "top_p=inf must be a finite number"),
        (URL, {"headers": "X-Team: a"}, "headers= must be a mapping"),
        (URL, {"headers": {"X-Team": 5}}, "'X-Team' in the headers must be text"),
        (URL, {"headers": {"X-Team": "a\nb"}}, "'X-Team' holds a line break"),
        (URL, {"api_key": 5}, "api_key= must be text"),
        (URL, {"api_key": "sk-secret\n"}, r"'api_key' holds a line break .*strip\(\)"),
        ("http:///v1", {}, "names no host"),
        ("http://localhost:1/v1?version=2", {}, r"without what begins with \?"),
        ("http://me:secret@localhost:1/v1", {}, "an address is recorded, so it has no password"),
    ],
)
def test_what_could_not_be_called_is_refused_and_no_secret_is_shown(
    endpoint: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message) as told:
        LLM(endpoint, **{"model": "m", **options})
    assert "secret" not in str(told.value)


def test_only_a_function_can_be_told_of_a_text() -> None:
    with pytest.raises(TypeError, match="on_text=5 must be a function"):
        LLM(URL, model="m").options(on_text=5)  # type: ignore[arg-type]  # that is what is tested


@pytest.mark.parametrize("asks", [LLM.submit, LLM.batch])
def test_a_dataclass_that_no_other_process_finds_is_refused_in_a_flow(asks: Callable[..., Any]) -> None:
    @dataclasses.dataclass
    class City:
        name: str

    @flow
    def of_a_city() -> None:
        asks(LLM(URL, model="m"), ["Which?"], response_format=City)

    with pytest.raises(TypeError, match=r"<locals>.City: .* define it at the top of a module"):
        of_a_city.options(store="memory://").run()


def test_a_text_is_no_list_of_questions() -> None:
    llm = LLM(URL, model="m")

    @flow
    def letters() -> None:
        llm.map("What is it?")

    with pytest.raises(TypeError, match="would ask each letter: give a list of texts"):
        letters.options(store="memory://").run()
