import datetime as dt
import decimal
import enum
import pathlib
import subprocess
import sys
import uuid
from dataclasses import dataclass

import msgpack
import numpy as np
import pytest

from exoflow.codec import code_fingerprint, difference, fingerprint, make_reference, source_of
from exoflow.model import CallId


class Color(enum.Enum):
    RED = 1
    BLUE = 2


@dataclass
class Order:
    hotel: str
    nights: int


class Opaque:
    pass


class Other:
    pass


def form(*args, **kwargs):
    """As it is read back from a record."""
    return msgpack.unpackb(msgpack.packb(fingerprint(args, kwargs)))


def f(x, y=0, *rest, z=None): ...


SAMPLES = [
    None, True, 0, -5, 2**63, 2**70, -(2**70), 1.5, "a", "a" * 65, "b" * 65, "\ud800", "ü", b"a", b"a" * 65,
    bytearray(b"a"), [1], (1,), [[1], 2], {"a": 1}, {"a": 2}, {1, 2}, frozenset({1}), Color.RED, Color.BLUE,
    Order("x", 1), Order("x", 2), dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.date(2026, 1, 1), dt.timedelta(1),
    decimal.Decimal("1.5"), decimal.Decimal("1.50"), uuid.UUID(int=1), pathlib.Path("/a"), 1j, range(3),
    np.arange(3), np.arange(4), np.arange(3.0), np.arange(6).reshape(2, 3), np.float64(1.25), np.int64(5),
    np.zeros((0, 3)), make_reference(CallId("a")), make_reference(CallId("b")), Opaque(), Other(), "a" * 5000,
    list(range(1000)), list(range(1001)), {"k": list(range(1000))},
]  # fmt: skip


def test_a_value_agrees_with_its_own_form_and_with_no_other():
    forms = [form(sample) for sample in SAMPLES]
    for index, one in enumerate(SAMPLES):
        for other, expected in enumerate(forms):
            said = difference(expected, fingerprint((one,), {}), f)
            if index == other:
                assert said is None, one
            else:
                assert said is not None, (one, SAMPLES[other])
                assert said.startswith("the argument x was ")


def test_not_a_number_agrees_with_itself():
    assert difference(form(float("nan")), form(float("nan")), f) is None


def test_what_cannot_be_compared_counts_as_equal_to_its_type():
    assert form(Opaque()) == form(Opaque())
    assert form(np.array([Opaque()])) == form(np.array([Opaque(), 1]))


def test_the_order_of_keys_and_of_sets_does_not_matter():
    assert form({"a": 1, "b": 2}) == form({"b": 2, "a": 1})
    assert form({"x", "y", "z"}) == form({"z", "y", "x"})


def test_an_array_is_its_content_however_it_lies():
    array = np.arange(100).reshape(10, 10)
    assert form(array.T) == form(np.ascontiguousarray(array.T))
    assert form(array) != form(array.T)


def test_positions_and_keywords_agree_for_the_same_parameter():
    assert difference(form(1, 2), form(1, y=2), f) is None
    assert difference(form(1, 2), form(y=3, x=1), f) == "the argument y was 2, and is 3 now"


def test_the_difference_shows_both_values():
    assert difference(form("2026-01-01"), form("2026-01-02"), f) == (
        "the argument x was '2026-01-01', and is '2026-01-02' now"
    )
    assert difference(form(Order("a", 1)), form(Order("a", 2)), f) == (
        "the argument x was Order(hotel='a', nights=1), and is Order(hotel='a', nights=2) now"
    )
    assert difference(form([1, {"k": (2,)}]), form(Color.RED), f) == (
        "the argument x was list(1, dict('k': tuple(2))), and is Color.RED now"
    )
    said = difference(form(make_reference(CallId("read#1"))), form("y" * 100), f)
    assert said.startswith("the argument x was the result of read#1, and is a str of length 100 (")


def test_an_argument_more_or_less_is_a_difference():
    assert difference(form(1), form(1, z=2), f) == "the argument z is 2; it was not given before"
    assert difference(form(1, z=2), form(1), f) == "the argument z was 2; it is not given now"
    assert difference(form(1, 2, 3, 4), form(1, 2, 3), f) is not None


def test_a_function_with_other_parameters_is_compared_by_place():
    assert difference(form(1, 2), form(1, 3), lambda: None) == "the argument 1 was 2, and is 3 now"
    assert difference(form(1), form(2)) == "the argument 0 was 1, and is 2 now"


@pytest.mark.parametrize(
    "args", [(list(range(10_000)),), tuple(range(10_000, 10_200)), ("x" * 60,) * 50, ({str(n): n for n in range(999)},)]
)
def test_a_form_stays_small_and_still_tells(args):
    small = fingerprint(args, {})
    assert len(msgpack.packb(small)) <= 512 + 16 * len(args)
    changed = (*args[:-1], [0]) if len(args) > 1 else ([args[0], 0],)
    assert difference(small, fingerprint(changed, {})) is not None


def test_deep_data_does_not_recurse_without_end():
    value = []
    for _ in range(10_000):
        value = [value]
    ring = []
    ring.append(ring)
    assert form(value) == form(value)
    assert form(ring) == form(ring)


# --- code


def source(text, name="g"):
    scope = {}
    exec(compile(text, "<test>", "exec", dont_inherit=True), scope)
    return scope[name]


BASE = "def g(x, y=1):\n    def h(z):\n        return z in {'a', 'b'}\n    return h(x) + 1\n"


@pytest.mark.parametrize(
    "text",
    [
        "\n\n# moved\n" + BASE,
        BASE.replace("    def h", '    """Documented."""\n    def h', 1),
        BASE.replace("        return z", '        "Documented."\n        return z'),
        BASE.replace("    return h", "    # why\n    return h"),
    ],
)
def test_docstrings_comments_and_lines_do_not_matter(text):
    assert code_fingerprint(source(text)) == code_fingerprint(source(BASE))


@pytest.mark.parametrize(
    ("old", "new"),
    [("+ 1", "+ 2"), ("+ 1", "- 1"), ("+ 1", "+ 1.0"), ("'b'", "'c'"), ("y=1", "y=2"), ("h(x)", "h(y)"),
     ("def g", "async def g"), ("y=1", "*, y=1")],
)  # fmt: skip
def test_every_change_of_the_code_matters(old, new):
    assert code_fingerprint(source(BASE.replace(old, new))) != code_fingerprint(source(BASE))


def test_a_class_inside_may_have_a_docstring():
    text = "def g():\n    class C:\n        n = 1\n    return C\n"
    documented = text.replace("        n", '        """Documented."""\n        n')
    other = documented.replace("Documented", "Documented otherwise")
    assert code_fingerprint(source(documented)) == code_fingerprint(source(other))
    assert code_fingerprint(source(documented)) != code_fingerprint(source(documented.replace("n = 1", "n = 2")))


def test_the_fingerprint_is_the_same_in_every_process():
    program = (
        f"from exoflow.codec import code_fingerprint\nscope = {{}}\nexec({BASE!r}, scope)\n"
        "print(code_fingerprint(scope['g']).hex())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed},
            check=True, capture_output=True, text=True,
        ).stdout.strip()
        for seed in "123"
    }  # fmt: skip
    assert seen == {code_fingerprint(source(BASE)).hex()}


def test_what_is_no_plain_function_has_a_fingerprint_too():
    import functools

    class Callable:
        def __call__(self):
            return 1

    @functools.wraps(source(BASE))
    def wrapper():
        return 2

    prints = [code_fingerprint(thing) for thing in (len, Callable(), functools.partial(f, 1), wrapper, [].append)]
    assert len(set(prints)) == len(prints)
    assert all(len(print_) == 8 for print_ in prints)
    assert code_fingerprint(functools.partial(f, 1)) != code_fingerprint(functools.partial(f, 2))


def test_the_source_can_be_shown_where_there_is_one():
    assert source_of(test_the_source_can_be_shown_where_there_is_one).startswith("def test_the_source")
    assert source_of(len) == ""
    assert source_of(source(BASE)) == ""
