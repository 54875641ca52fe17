from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass, field

import pytest

from exoflow.codec import find_references, make_reference, register_reference, substitute
from exoflow.codec.references import Detached
from exoflow.errors import CodecError
from exoflow.model import CallId

Pair = namedtuple("Pair", "first second")
A, B, C = (make_reference(CallId(name)) for name in "abc")


class Tagged(list):
    tag = None


@dataclass(frozen=True, slots=True)
class Frozen:
    item: object
    other: int = 1


@dataclass
class Counting:
    item: object
    made: list = field(default_factory=list)

    def __post_init__(self):
        self.made.append(1)


class Opaque:
    def __init__(self, item):
        self.item = item


def ids(args, kwargs=None):
    return [reference.call_id for reference in find_references(args, kwargs or {})]


def substituted(*args, **kwargs):
    return substitute(args, kwargs, str.upper)


def test_flat_scalars_hold_no_references():
    assert find_references((1, "a", None), {"b": 2.5}) == []


def test_references_are_found_in_containers_in_order_and_once():
    args = ([1, A], {"k": (B, Pair(A, C))}, Frozen([C]))
    assert ids(args, {"x": A}) == ["a", "b", "c"]


def test_sets_objects_and_dict_keys_are_not_searched():
    assert ids(({A}, Opaque(A), {A: 1})) == []


def test_containers_keep_their_exact_type():
    tagged = Tagged([A])
    tagged.tag = "kept"
    (pair, ordered, default, frozen, again), kwargs = substituted(
        Pair(A, 1), OrderedDict(x=A, y=2), defaultdict(list, x=A), Frozen(A, 5), tagged, k=(A,)
    )
    assert pair == Pair("A", 1)
    assert type(pair) is Pair
    assert list(ordered.items()) == [("x", "A"), ("y", 2)]
    assert type(ordered) is OrderedDict
    assert default["missing"] == []
    assert frozen == Frozen("A", 5)
    assert (type(again), again, again.tag) == (Tagged, ["A"], "kept")
    assert kwargs == {"k": ("A",)}
    assert list(tagged) == [A]


def test_a_dataclass_is_not_initialised_again():
    (twin,), _ = substituted(Counting(A))
    assert (twin.item, twin.made) == ("A", [1])


def test_containers_without_references_are_the_same_objects():
    untouched = [1, {"a": (2,)}]
    (kept, changed), _ = substituted(untouched, [untouched, A])
    assert kept is untouched
    assert changed[0] is untouched


def test_a_container_that_stands_in_two_places_does_so_afterwards():
    shared = [A]
    (first, second), _ = substituted(shared, {"x": shared})
    assert first is second["x"]


def test_data_nested_10_000_deep_works():
    value = [A]
    for _ in range(10_000):
        value = [value]
    assert ids((value,)) == ["a"]
    (twin,), _ = substituted(value)
    for _ in range(10_000):
        (twin,) = twin
    assert twin == ["A"]


def test_data_that_holds_itself_is_fine_without_a_reference_and_refused_with_one():
    ring = [1]
    ring.append(ring)
    (twin,), _ = substituted(ring)
    assert twin is ring
    ring.append(A)
    assert ids((ring,)) == ["a"]
    with pytest.raises(CodecError, match="both a Ref and itself"):
        substituted(ring)


def test_a_registered_class_is_a_reference_and_a_group_stands_for_its_list():
    class Mine(Detached):
        pass

    class Several(list):
        pass

    register_reference(Mine)
    register_reference(Several, group=True)
    assert ids(([Mine(CallId("m"))], Several([A, B]))) == ["m", "a", "b"]
    (group,), _ = substituted(Several([A, B]))
    assert (type(group), group) == (list, ["A", "B"])
