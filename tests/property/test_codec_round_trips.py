"""Whatever can be built from plain data survives every form, and its fingerprint tells it apart."""

import dataclasses
import itertools
import math

import msgpack
import pandas as pd
import pyarrow as pa
from hypothesis import given, strategies as st

from exoflow.codec import (
    Encoded,
    decode,
    difference,
    encode,
    encode_result,
    find_references,
    fingerprint,
    from_bytes,
    from_object,
    make_reference,
    substitute,
    to_bytes,
    to_parts,
    whole_fingerprint,
)
from exoflow.model import CallId

any_text = st.text(st.characters(), max_size=100)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | any_text | st.binary(max_size=100)
    | st.builds(lambda byte, n: bytes([byte]) * n, st.integers(0, 255), st.integers(16_000, 70_000))
)  # fmt: skip
keys = st.integers() | st.text(max_size=5) | st.booleans()


def containers(items):
    return (
        st.lists(items, max_size=4)
        | st.tuples(items, items)
        | st.dictionaries(keys, items, max_size=4)
        | st.builds(bytearray, st.binary(max_size=50))
        | st.frozensets(st.integers(), max_size=4)
    )


values = st.recursive(scalars, containers, max_leaves=20)


def same(one, other):
    """Equal, with exact types, and NaN equal to itself."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(item, other[key]) for key, item in one.items())
    return one == other


@given(values)
def test_every_value_survives_every_form(value):
    encoded = encode_result(value, task="t")
    assert same(decode(encoded), value)
    assert same(decode(from_bytes(to_bytes(encoded))), value)
    assert same(decode(from_object(b"".join(to_parts(encoded)))), value)
    assert same(decode(from_bytes(to_bytes(from_object(b"".join(to_parts(encoded)))))), value)


@given(values, st.lists(st.sampled_from("abc"), max_size=3))
def test_refs_survive_every_form(value, names):
    encoded = encode([value, *(make_reference(CallId(name)) for name in names)])
    expected = tuple(dict.fromkeys(names))
    for form in (encoded, from_bytes(to_bytes(encoded)), from_object(b"".join(to_parts(encoded)))):
        assert form.refs == expected
        assert decode(form, lookup=str.upper)[1:] == [name.upper() for name in names]


@given(st.binary(max_size=200), st.lists(st.binary(max_size=200), max_size=4))
def test_both_layouts_keep_heads_and_buffers_of_any_length(head, buffers):
    encoded = Encoded(b"b" + head, tuple(map(memoryview, buffers)))
    for form in (from_bytes(to_bytes(encoded)), from_object(b"".join(to_parts(encoded)))):
        assert bytes(form.head) == encoded.head
        assert [bytes(buffer) for buffer in form.buffers] == buffers


@given(st.lists(values, max_size=4), st.dictionaries(st.text(max_size=3), values, max_size=2))
def test_a_fingerprint_is_msgpack_data_that_agrees_with_itself(args, kwargs):
    one = fingerprint(tuple(args), kwargs)
    other = msgpack.unpackb(msgpack.packb(fingerprint(tuple(args), kwargs)), strict_map_key=False)
    assert difference(other, one) is None
    assert len(msgpack.packb(one)) < 1000


def alike(one, other):
    """As ``same``, down to the sign of zero, and with the order of dicts left out."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (
            math.isnan(one) if math.isnan(other) else (one, math.copysign(1, one)) == (other, math.copysign(1, other))
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, dict | frozenset):
        pairs = one.items() if isinstance(one, dict) else ((item,) for item in one)
        others = list(other.items() if isinstance(other, dict) else ((item,) for item in other))
        return len(one) == len(other) and all(any(alike(pair, each) for each in others) for pair in pairs)
    return one == other


def twisted(value, chance):
    """The same value, or another one that Python may call equal to it."""
    if isinstance(value, list | tuple):
        return type(value)(twisted(item, chance) for item in value)
    if isinstance(value, dict):
        items = [(key, twisted(item, chance)) for key, item in value.items()]
        chance.shuffle(items)
        return dict(items)
    if chance.random() < 0.8:
        return value
    if isinstance(value, bool | int) and abs(value) < 2**50:
        return chance.choice([bool, int, float])(value)
    return -value if isinstance(value, float) else value


@given(values, values, st.randoms(use_true_random=False))
def test_fingerprints_differ_just_where_values_do(one, other, chance):
    for each in (other, twisted(one, chance)):
        said = difference(fingerprint((one,), {}), fingerprint((each,), {}))
        whole = difference(whole_fingerprint((one,), {})[0], whole_fingerprint((each,), {})[0])
        assert (said is None) == (whole is None) == alike(one, each), (said, whole)


columns = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3),
    st.lists(st.floats(allow_nan=False), min_size=3, max_size=3),
    st.lists(st.text(max_size=3) | st.none(), min_size=3, max_size=3),
    st.lists(st.booleans(), min_size=3, max_size=3),
)
frames = st.dictionaries(st.text("ab", max_size=2), columns, max_size=3).map(lambda made: pd.DataFrame(made, range(3)))


@given(frames, frames)
def test_frames_agree_just_where_pandas_says_that_they_are_equal(one, other):
    for each in (other, one.copy(), one[::-1][::-1].copy()):
        equal = one.equals(each) and one.columns.equals(each.columns) and list(one.dtypes) == list(each.dtypes)
        zeros = "-0.0" in repr([one.to_dict(), each.to_dict()])
        assert zeros or (difference(fingerprint((one,), {}), fingerprint((each,), {})) is None) == equal


lists = st.lists(st.none() | st.lists(st.none() | st.text(max_size=3), max_size=3), max_size=12)


@given(lists, lists, st.lists(st.integers(0, 12), max_size=4))
def test_arrow_arrays_agree_just_where_they_hold_the_same_however_they_are_cut(one, other, cuts):
    kind = pa.list_(pa.string())
    places = [0, *sorted(min(cut, len(one)) for cut in cuts), len(one)]
    whole = pa.chunked_array([pa.array(one, kind)])
    cut = pa.chunked_array([whole.chunk(0)[a:b] for a, b in itertools.pairwise(places)], kind)
    assert difference(fingerprint((whole,), {}), fingerprint((cut,), {})) is None
    said = difference(fingerprint((cut,), {}), fingerprint((pa.chunked_array([pa.array(other, kind)]),), {}))
    assert (said is None) == (one == other)


marks = st.sampled_from([make_reference(CallId(name)) for name in "abc"])


@dataclasses.dataclass(frozen=True)
class Box:
    item: object


def trees(items):
    return (
        st.lists(items, max_size=4)
        | st.tuples(items, items)
        | st.dictionaries(keys, items, max_size=3)
        | st.builds(Box, items)
    )


def replaced(node):
    """The plain, recursive meaning of ``substitute``."""
    if hasattr(node, "call_id"):
        return node.call_id.upper()
    if isinstance(node, list | tuple):
        return type(node)(map(replaced, node))
    if isinstance(node, dict):
        return {key: replaced(item) for key, item in node.items()}
    return Box(replaced(node.item)) if isinstance(node, Box) else node


def marks_of(node):
    if hasattr(node, "call_id"):
        return [node.call_id]
    children = node if isinstance(node, list | tuple) else node.values() if isinstance(node, dict) else ()
    children = [node.item] if isinstance(node, Box) else children
    return [name for child in children for name in marks_of(child)]


@given(st.recursive(marks | st.integers(), trees, max_leaves=20))
def test_substitute_means_what_the_recursive_form_means(tree):
    found = [reference.call_id for reference in find_references((tree,), {})]
    assert found == list(dict.fromkeys(marks_of(tree)))
    (twin,), _ = substitute((tree,), {}, str.upper)
    assert twin == replaced(tree)
    if not found:
        assert twin is tree
