import array
import collections
import datetime as dt
import decimal
import enum
import functools
import ipaddress
import pathlib
import pickle
import re
import types
import uuid
import zoneinfo
from dataclasses import dataclass

import msgpack
import numpy as np
import pytest

from exoflow.codec import difference, fingerprint, make_reference, whole_fingerprint
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
                assert said.startswith("the argument x") and " was " in said and said.endswith(" now")


def test_not_a_number_agrees_with_itself():
    assert difference(form(float("nan")), form(float("nan")), f) is None


def test_what_cannot_be_compared_counts_as_equal_to_its_type():
    assert form(Opaque()) == form(Opaque())
    assert form(np.array([Opaque()])) == form(np.array([Opaque()]))
    assert form([Opaque()] * 2) != form([Opaque(), Other()])


def test_the_order_of_keys_and_of_sets_does_not_matter_as_in_python():
    assert form({"a": 1, "b": 2}) == form({"b": 2, "a": 1})
    assert form({1: 1, "b": 2}) == form({"b": 2, 1: 1})
    assert form(collections.OrderedDict(a=1, b=2)) != form(collections.OrderedDict(b=2, a=1))
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
    assert difference(form(Order("a", 1)), form(Order("a", 2)), f) == "the argument x.nights was 1, and is 2 now"
    assert difference(form({"a": [1, {"lr": 0.1}]}), form({"a": [1, {"lr": 1}]}), f) == (
        "the argument x['a'][1]['lr'] was 0.1, and is 1 now"
    )
    assert difference(form([1, 2]), form([1, 2, 3]), f) == ("the argument x was list(1, 2), and is list(1, 2, 3) now")
    assert difference(form(1, 2, 3, 4), form(1, 2, 3, 5), f) == "the argument rest[1] was 4, and is 5 now"
    assert len(difference(form([str(n) * 20 for n in range(9)]), form(()), f)) < 600
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


class Text(str):
    __slots__ = ()

    def __str__(self):
        return "always the same"


class Whole(int):
    pass


class Row:
    """As attrs makes a class."""

    __attrs_attrs__ = (types.SimpleNamespace(name="a"), types.SimpleNamespace(name="b"))

    def __init__(self, a, b):
        self.a, self.b = a, b


def nested(depth, inner):
    for _ in range(depth):
        inner = [inner]
    return inner


POINT = collections.namedtuple("POINT", "x y")


@pytest.mark.parametrize(
    "pair",
    [
        (1, True), (1, 1.0), (True, 1.0), (0.0, -0.0), ([1, 0], [True, False]), ([1.0] * 500, [1] * 500),
        ({1: 0}, {True: 0}), (Text("a"), Text("c")), ("a", Text("a")), (Whole(1), Whole(2)), (Whole(1), 1),
        (nested(17, 1), nested(17, 2)), (nested(45, 1), nested(45, True)), (POINT(1, 2), POINT(1, 3)),
        (collections.deque([1]), collections.deque([2])), (collections.Counter("a"), collections.Counter("b")),
        (array.array("i", [1]), array.array("i", [2])), (re.compile("a"), re.compile("a", re.IGNORECASE)),
        (slice(1), slice(2)), (len, max), (int, str), (ValueError(1), ValueError(2)),
        (types.SimpleNamespace(a=1), types.SimpleNamespace(a=2)), (functools.partial(f, 1), functools.partial(f, 2)),
        (dt.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Rome")), dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
        (dt.datetime(2026, 1, 1, fold=0, tzinfo=dt.UTC), dt.datetime(2026, 1, 1, fold=1, tzinfo=dt.UTC)),
        (ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("10.0.0.2")), (Row(1, 2), Row(1, 3)),
    ],
)  # fmt: skip
def test_what_is_cheap_to_tell_apart_is_told_apart(pair):
    one, other = pair
    said = difference(form(one), fingerprint((other,), {}), f)
    assert said is not None
    was, _, now = said.partition(" was ")[2].partition(", and is ")
    assert was + " now" != now, "a person sees the difference"
    assert difference(form(one), fingerprint((pickle.loads(pickle.dumps(one)),), {}), f) is None


def test_a_ring_and_what_is_shared_is_looked_at_once():
    @dataclass
    class Tree:
        parent: object
        children: list

    root = Tree(None, [])
    root.children += [Tree(root, []) for _ in range(50)]
    for child in root.children:
        child.children += [Tree(child, [Tree(root, [root])]) for _ in range(50)]
    assert form(root) == form(root)
    shared = []
    for _ in range(45):
        shared = [shared, shared]
    assert form(shared) == form(shared)


def test_forms_of_an_older_scheme_are_not_called_different():
    new = form(1, [2])
    assert difference([[1, ["list", "list", 2]], {}], new) is None
    assert difference(((1, 3), {}), new) is None


def test_it_is_told_which_arguments_hold_what_cannot_be_compared():
    _, blind = whole_fingerprint((1, [0, {"a": Opaque()}], 3), {"z": [Opaque()], "y": nested(60, 1), "w": (1,)})
    assert blind[:2] == [[False, True, False], {"z": True, "y": True, "w": False}]


def test_deep_data_does_not_recurse_without_end():
    value = []
    for _ in range(10_000):
        value = [value]
    ring = []
    ring.append(ring)
    assert form(value) == form(value)
    assert form(ring) == form(ring)
