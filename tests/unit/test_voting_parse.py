"""From an answer's text to what is voted for, and when two of these are the same."""

from __future__ import annotations

import enum
import pickle
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import pytest

from exoflow.llm.voting import canonical, choice, first_line, json_field, number, regex, verbatim, whole

GOOD: list[tuple[Callable[[str], object], str, object]] = [
    (choice("ABCD"), "B", "B"),
    (choice("ABCD"), " (c). ", "C"),
    (choice("ABCD"), "**d**", "D"),
    (choice("ABCD"), "A good guess is C.", "C"),
    (choice("ABCD"), "The answer is (B), and not A or D.", "B"),
    (choice("ABCD"), "Answer: D\nBecause A is wrong.", "D"),
    (choice("ABCD"), "the answer is b", "B"),
    (choice("ABCD"), "It is a dog. So: B", "B"),
    (choice("ABCD"), r"The final answer is $\boxed{C}$, not A", "C"),
    (choice("ABCD"), r"The answer is \(\text{C}\), not A", "C"),
    (choice("ABCD"), r"So it is \boxed{\textbf{(B)}}. A would be wrong.", "B"),
    (choice("abc"), r"The answer is \alpha and not c", "c"),
    (choice(["yes", "no"]), "Yes, of course.", "yes"),
    (choice(["yes", "no"]), "I say yes... no, NO", "no"),
    (choice(["new", "new york"]), "in New York", "new york"),
    (choice(["C++", "C"]), "I would take C++", "C++"),
    (number, "42", Decimal(42)),
    (number, "3 + 4 = 7.", Decimal(7)),
    (number, "It costs $1,234.50 in all", Decimal("1234.50")),
    (number, "-0.5", Decimal("-0.5")),
    (number, "−3 degrees", Decimal(-3)),
    (number, "about .25", Decimal("0.25")),
    (number, "6.02e23 of them", Decimal("6.02e23")),
    (number, "1,2,3", Decimal(3)),
    (number, "between 10-15", 15),
    (number, "x=-5", -5),
    (number, "COVID-19", 19),
    (number, "on 2024-11-29", 29),
    (number, "on 12/25/2024", 2024),
    (number, "so 1/2.", Fraction(1, 2)),
    (number, "-3 1/2", Fraction(-7, 2)),
    (number, r"$\boxed{-\frac{1}{3}}$", Fraction(-1, 3)),
    (number, r"2\frac{1}{3} cups", Fraction(7, 3)),
    (number, "1,000/2.5", Decimal("2.5")),
    (first_line, "\n  Paris \nis the capital", "Paris"),
    (whole, " two\nlines ", "two\nlines"),
    (regex(r"<answer>(.*?)</answer>"), "<answer>no</answer> or <answer> yes </answer>", "yes"),
    (regex(r"\d+"), "7 of 9", "9"),
    (json_field("answer"), '{"answer": 3}', 3),
    (json_field("answer"), '{"answer": 3.10}', Decimal("3.10")),
    (json_field("result.name"), 'Here:\n```json\n{"result": {"name": "x"}}\n```\nDone.', "x"),
    (json_field("answer"), 'I think {not} that {"answer": [1, {"a": 2}]} fits', [1, {"a": 2}]),
]


@pytest.mark.parametrize(("parse", "text", "answer"), GOOD, ids=[f"{i}" for i in range(len(GOOD))])
def test_what_stands_in_the_text_is_found(parse: Callable[[str], object], text: str, answer: object) -> None:
    assert parse(text) == answer


BAD: list[tuple[Callable[[str], object], str]] = [
    (choice("ABCD"), ""),
    (choice("ABCD"), "E"),
    (choice("ABCD"), "ABCD"),
    (choice(["yes", "no"]), "yesterday"),
    (number, "no idea"),
    (number, "-"),
    (number, "1/0"),
    (number, "9" * 5000),
    (first_line, " \n "),
    (whole, ""),
    (regex("x(y)?"), "x"),
    (regex("q"), "x"),
    (json_field("answer"), "42"),
    (json_field("answer"), '{"answer": null}'),
    (json_field("answer"), '{"reply": 3}'),
    (json_field("answer"), '{"answer": 3'),
    (json_field("answer"), "no json"),
    (json_field("answer"), '{"answer": ' + "[" * 20_000),
    (json_field("answer"), '{"answer": 1e9999999999999999999}'),
]


@pytest.mark.parametrize(("parse", "text"), BAD, ids=[f"{i}" for i in range(len(BAD))])
def test_what_is_not_there_is_an_error_and_no_answer(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse(text)


@pytest.mark.parametrize("parse", [choice("AB"), number, first_line, whole, regex("a"), json_field("a.b")])
def test_a_parser_goes_to_another_process_and_is_the_same_there(parse: object) -> None:
    assert pickle.loads(pickle.dumps(parse)) == parse


def test_parsers_that_cannot_work_are_refused_where_they_are_made() -> None:
    with pytest.raises(ValueError, match="give the options"):
        choice([])
    with pytest.raises(ValueError, match="the same"):
        choice(["yes", "Yes"])
    with pytest.raises(ValueError, match="name the field"):
        json_field("")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (Decimal("1.50"), 1.5),
        (Fraction(1, 4), 0.25),
        (Decimal("0.1"), 0.1),
        ("Paris", " paris\n"),
        ("New  York", "new york"),
        ("ﬁn", "FIN"),
        ({"a": 1, "b": "X"}, {"b": "x", "a": 1.0}),
        ([1, "A"], (1.0, "a")),
        ({"x", "Y"}, frozenset(["y", "X"])),
        (float("inf"), Decimal("Infinity")),
        (True, 1),
        (Decimal("1e99999999"), Decimal("10e99999998")),
    ],
)
def test_answers_that_say_the_same_are_the_same(one: object, other: object) -> None:
    assert canonical(one) == canonical(other)
    assert hash(canonical(one)) == hash(canonical(other))


@pytest.mark.parametrize(
    ("one", "other"), [("1", 1), ("a", "b"), ([1, 2], [2, 1]), ({"a": 1}, {"a": 2}), (0.1, 0.2), ([], {})], ids=str
)
def test_answers_that_say_something_else_are_not(one: object, other: object) -> None:
    assert canonical(one) != canonical(other)


def test_an_answer_that_cannot_be_counted_is_refused_with_what_to_do() -> None:
    with pytest.raises(TypeError, match="equivalence="):
        verbatim([bytearray()])
    with pytest.raises(TypeError, match="equivalence="):
        canonical({"a": bytearray()})
    assert verbatim("A") != verbatim("a")
    assert verbatim([1, "A"]) == verbatim([1.0, "A"]) != verbatim([1, "a"])
    assert canonical(b"x") == b"x"


def test_of_alternatives_the_one_that_has_matched_is_the_answer() -> None:
    assert [regex("(yes)|(no)")(text) for text in ("yes", "no")] == ["yes", "no"]


def test_options_that_are_none_are_refused() -> None:
    for options in (5, [1, 2]):
        with pytest.raises(ValueError, match="give the options"):
            choice(options)  # type: ignore[arg-type]  # that is what is tested


def test_a_number_of_any_size_is_counted_at_once() -> None:
    huge = [number("1e99999999"), json_field("x")('{"x": 1e99999999}'), number("1e-99999999"), 10, Fraction(1, 3)]
    assert len({canonical(each) for each in huge}) == 4


def test_a_whole_number_is_an_int() -> None:
    assert [repr(number(text)) for text in ("1,234", "-3", "3.0")] == ["1234", "-3", "Decimal('3.0')"]


class Thing:
    pass


class Colour(enum.Enum):
    RED = 1


def test_answers_of_which_no_two_are_ever_the_same_cannot_be_counted() -> None:
    with pytest.raises(TypeError, match=r"no two of its kind are the same.*give equivalence="):
        canonical(Thing())
    assert canonical(Colour.RED) is Colour.RED
