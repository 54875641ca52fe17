import asyncio
import socket
import sys
import threading
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from exoflow import codec
from exoflow.codec import (
    Encoded,
    decode,
    encode,
    encode_arguments,
    encode_result,
    from_bytes,
    from_object,
    make_reference,
    reduce_reference,
    to_bytes,
    to_parts,
)
from exoflow.errors import CodecError, Corrupt
from exoflow.model import CallId

SCALARS = [None, True, False, 0, -1, 127, 128, -128, -129, 2**63, -(2**63), 2**200, 0.0, -0.0, 1e308, float("inf"),
           "", "day", "über", "\ud800", b"", b"\x80", b"x" * 20_000, "y" * 100_000]  # fmt: skip
LARGE = np.arange(10_000)


def through_object(encoded: Encoded) -> Encoded:
    return from_object(b"".join(to_parts(encoded)))


FORMS = {
    "as it is": lambda encoded: encoded,
    "inline": lambda encoded: from_bytes(to_bytes(encoded)),
    "object": through_object,
}


@pytest.fixture(params=FORMS)
def form(request):
    return FORMS[request.param]


@pytest.mark.parametrize("value", SCALARS, ids=lambda value: repr(value)[:20])
def test_scalars_come_back_with_their_exact_type(form, value):
    twin = decode(form(encode(value)))
    assert twin == value
    assert type(twin) is type(value)


def test_nan_and_the_sign_of_zero_survive():
    assert np.isnan(decode(encode(float("nan"))))
    assert str(decode(encode(-0.0))) == "-0.0"


def test_a_small_scalar_is_a_tag_and_its_bytes():
    assert encode(5) == Encoded(b"i\x05")
    assert encode("a").head == b"sa"
    assert to_bytes(encode(None)) == b"n"


def test_large_bytes_are_not_copied():
    value = b"x" * 100_000
    encoded = encode(value)
    assert encoded.buffers[0].obj is value
    assert decode(encoded) is value


def test_mutable_values_are_decoded_anew_each_time():
    encoded = encode([1, {"a": {2}}])
    first, second = decode(encoded), decode(encoded)
    assert first == second == [1, {"a": {2}}]
    assert first is not second


def test_a_large_array_is_not_copied_and_not_writable(form):
    encoded = encode([LARGE])
    assert len(encoded.head) < 1000
    assert np.shares_memory(decode(encoded)[0], LARGE)
    twin = decode(form(encoded))[0]
    assert np.array_equal(twin, LARGE)
    with pytest.raises(ValueError, match="read-only"):
        twin[0] = 1
    assert LARGE[0] == 0


def test_a_small_array_is_the_consumers_own():
    encoded = encode(np.zeros(10))
    first = decode(encoded)
    first[0] = 1
    assert decode(encoded)[0] == 0


def test_a_large_frame_cannot_be_written_through(form):
    frame = pd.DataFrame({"n": LARGE, "f": LARGE * 0.5})
    encoded = form(encode(frame))
    assert encoded.buffers
    twin = decode(encoded)
    pd.testing.assert_frame_equal(twin, frame)
    with pytest.raises(ValueError, match="read-only"):
        twin["n"].to_numpy()[0] = 7
    pd.testing.assert_frame_equal(decode(encoded), frame)


def test_an_arrow_table_is_not_copied(form):
    table = pa.table({"n": LARGE})
    encoded = form(encode(table))
    assert sum(map(len, encoded.buffers)) >= LARGE.nbytes
    assert decode(encoded).equals(table)


def test_a_strided_array_survives():
    assert np.array_equal(decode(encode(LARGE[::2])), LARGE[::2])


def test_own_copies_what_the_caller_could_change():
    array = LARGE.copy()
    encoded = encode(array, own=True)
    array[0] = 7
    assert decode(encoded)[0] == 0


def test_buffers_lie_at_multiples_of_64():
    data = b"".join(to_parts(encode([LARGE, np.arange(30_001, dtype="u1"), LARGE * 2])))
    view = memoryview(data)
    encoded = from_object(view)
    origin = np.frombuffer(view, "u1").ctypes.data
    assert len(encoded.buffers) == 3
    assert [(np.frombuffer(buffer, "u1").ctypes.data - origin) % 64 for buffer in encoded.buffers] == [0, 0, 0]


def test_size_counts_the_buffers():
    assert encode(LARGE).size >= LARGE.nbytes


@pytest.mark.parametrize("place", ["magic", "table", "head", "buffer", "end"])
def test_damage_is_seen_and_named(place):
    data = bytearray(b"".join(to_parts(encode([LARGE]))))
    at = {"magic": 0, "table": 20, "head": 66, "buffer": len(data) - 100, "end": None}[place]
    if at is None:
        del data[-1000:]
    else:
        data[at] ^= 1
    with pytest.raises(Corrupt, match="values/j/1 is damaged"):
        decode(from_object(bytes(data), "values/j/1"))


def test_no_single_flipped_bit_goes_unseen():
    value = {"a": [1, 2, "three"], "b": b"x" * 40}
    data = b"".join(to_parts(encode(value)))
    for at in range(len(data)):
        for bit in (0, 3, 7):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            try:
                twin = decode(from_object(bytes(damaged)))
            except Corrupt:
                continue
            assert twin == value, f"byte {at}: only the zeros between parts may change"


def test_an_empty_object_is_damaged():
    with pytest.raises(Corrupt, match="less than a header"):
        from_object(b"")


def test_checksums_are_verified_once_and_not_before_they_are_needed():
    data = bytearray(b"".join(to_parts(encode([LARGE]))))
    encoded = from_object(data)
    decode(encoded)
    data[-100] ^= 1  # no storage does that while it is mapped; it shows that nobody looks again
    decode(encoded)


def test_what_stays_on_the_machine_needs_no_checksums():
    encoded = from_object(b"".join(to_parts(encode([LARGE]), checksums=False)))
    assert encoded.checksums is None
    assert np.array_equal(decode(encoded)[0], LARGE)


def test_an_unknown_form_is_corrupt():
    with pytest.raises(Corrupt, match="no form of this version"):
        decode(Encoded(b"?rest"))


def test_immutable_is_by_exact_type():
    class Number(int):
        pass

    assert all(map(codec.immutable, [None, True, 1, 1.5, "a", b"a"]))
    assert not any(map(codec.immutable, [Number(1), (1,), [], bytearray(), np.float64(1)]))


# --- functions and classes


def test_lambdas_and_local_classes_go_by_value():
    @dataclass
    class Local:
        n: int

    add = decode(encode(lambda n: n + LARGE[1]))
    assert add(1) == 2
    twin = decode(encode(Local(3)))
    assert isinstance(twin, Local)
    assert twin == Local(3)


class Wrapped:
    def __init__(self, function):
        self.function = function


def plain(x):
    return x + 1


inner = plain
plain = Wrapped(plain)


@pytest.fixture
def importable(monkeypatch):
    monkeypatch.setitem(sys.modules, __name__, sys.modules[inner.__module__])


def test_a_function_behind_a_decorator_goes_by_name(importable):
    encoded = encode(inner)
    assert decode(encoded) is inner
    assert len(encoded.head) < 200


# --- depth


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def depth_of(value):
    depth = 0
    while value:
        value = value[0]
        depth += 1
    return depth


class Node:
    next: "Node | None" = None


def test_data_nested_10_000_deep_works():
    assert depth_of(decode(encode_result(nested(10_000), task="t"))) == 10_000


def test_objects_linked_10_000_deep_work():
    head = node = Node()
    for _ in range(10_000):
        node.next = Node()
        node = node.next
    node = decode(encode(head))
    depth = 0
    while node.next:
        node = node.next
        depth += 1
    assert depth == 10_000


class Endless:
    def __reduce__(self):
        return Endless, (Endless(),)


def test_what_never_ends_is_an_error_and_the_recursion_limit_is_as_before():
    before = sys.getrecursionlimit()
    with pytest.raises(CodecError, match="nested more than 25000 deep, or without end"):
        encode(Endless())
    assert sys.getrecursionlimit() == before


# --- what cannot be pickled


class Model:
    def __init__(self):
        self._lock = threading.Lock()


class Keyed:
    def __init__(self, lock):
        self.lock = lock


@dataclass(slots=True)
class Slotted:
    items: list = field(default_factory=list)


async def coroutine():
    return 1


def test_the_message_names_the_way_to_what_cannot_be_pickled():
    with pytest.raises(CodecError) as caught:
        encode_result({"models": [1, 2, 3, Model()]}, task="train")
    assert str(caught.value) == (
        "the result of train['models'][3]._lock: a _thread.lock cannot be pickled "
        "(cannot pickle '_thread.lock' object); leave it out in __getstate__, and make it where it is used"
    )


def test_the_way_leads_through_slots_sets_keys_closures_and_globals():
    lock = threading.Lock()

    class Local:
        def guard(self):
            return lock

    for value, way in [
        (Slotted([lock]), ".items[0]"),
        ({1: {Keyed(lock)}}, "[1] (in a set).lock"),
        (Local, ".guard (its closure's lock)"),
        (lambda: lock, " (its closure's lock)"),
        (lambda default=lock: default, " (a default of it)"),
        ((SimpleNamespace(a=SimpleNamespace(b=lock)),), "[0].a.b"),
    ]:
        with pytest.raises(CodecError) as caught:
            encode(value, what="x")
        assert str(caught.value).startswith(f"x{way}: a _thread.lock cannot"), str(caught.value)


def test_a_long_way_is_shortened():
    value = nested(100)
    innermost = value
    while innermost:
        innermost = innermost[0]
    innermost.append(threading.Lock())
    with pytest.raises(CodecError, match=r"x\[0\]\[0\]\[0\]\[0\] … 93 more … \[0\]\[0\]\[0\]\[0\]: a _thread"):
        encode(value, what="x")


def test_each_usual_suspect_comes_with_advice(tmp_path):
    waiting = coroutine()
    with socket.socket() as open_socket, (tmp_path / "f").open("w") as file:
        for value, advice in [
            ((x for x in ()), "return a list"),
            (file, "pass the path"),
            (open_socket, "pass the address"),
            (waiting, "await it first"),
            (threading.RLock(), "__getstate__"),
            (sys._getframe(), "traceback.format_exc()"),
        ]:
            with pytest.raises(CodecError, match=advice.replace("(", r"\(").replace(")", r"\)")):
                encode([value])
    waiting.close()


def test_a_readable_file_is_refused_too_not_read(tmp_path):
    path = tmp_path / "f"
    path.write_text("secret")
    with path.open() as file, pytest.raises(CodecError, match="pass the path"):
        encode(file)


def test_an_asyncio_task_is_refused():
    async def main():
        task = asyncio.ensure_future(asyncio.sleep(0))
        with pytest.raises(CodecError, match="cannot be pickled"):
            encode(task)
        await task

    asyncio.run(main())


def test_an_argument_is_named():
    def train(rows, *, model=None): ...

    for args, kwargs, start in [
        (([Model()],), {}, "the argument 'rows' of train, rows[0]._lock: "),
        ((), {"model": Model()}, "the argument 'model' of train, model._lock: "),
    ]:
        with pytest.raises(CodecError) as caught:
            encode_arguments(args, kwargs, task="train", function=train)
        assert str(caught.value).startswith(start)
    with pytest.raises(CodecError, match=r"^argument 0 of train\[0\]\._lock: "):
        encode_arguments(([Model()],), {}, task="train")


class Raising:
    def __reduce__(self):
        raise RuntimeError("not today")


def test_an_error_of_the_users_own_code_is_told():
    with pytest.raises(CodecError, match="not today"):
        encode({"a": Raising()})


class Forgetful:
    def __setstate__(self, state):
        raise KeyError("state")

    def __init__(self):
        self.n = 1


def test_a_result_that_does_not_load_again_is_refused_on_the_run_that_made_it():
    assert encode(Forgetful())
    with pytest.raises(CodecError, match="the result of t, a Forgetful, was pickled but does not load again: KeyError"):
        encode_result(Forgetful(), task="t")


def test_a_class_that_is_gone_is_a_codec_error():
    encoded = encode(Model)
    with pytest.raises(CodecError, match="needs what is not here"):
        decode(Encoded(bytes(encoded.head).replace(b"Model", b"Medal")))


# --- refs


def test_refs_are_collected_in_order_and_each_once():
    a, b = make_reference(CallId("a")), make_reference(CallId("b"))
    encoded = encode({"x": [b, a], "y": {"deep": (b,)}})
    assert encoded.refs == ("b", "a")
    for form in FORMS.values():
        assert form(encoded).refs == ("b", "a")


def test_refs_become_what_lookup_says(form):
    encoded = form(encode([make_reference(CallId("a")), LARGE]))
    first, second = decode(encoded, lookup={"a": 5}.__getitem__)
    assert first == 5
    assert np.array_equal(second, LARGE)


def test_a_value_may_be_decoded_while_another_is():
    inner_value = encode([make_reference(CallId("b"))])
    outer_value = encode([make_reference(CallId("a")), make_reference(CallId("a"))])
    decoded = decode(outer_value, lookup=lambda call: decode(inner_value, lookup=str.upper))
    assert decoded == [["B"], ["B"]]


def test_a_ref_with_nobody_to_ask_is_an_error():
    with pytest.raises(CodecError, match="holds a Ref to a"):
        decode(encode([make_reference(CallId("a"))]))


def test_a_ref_cannot_be_pickled_by_hand():
    import pickle

    with pytest.raises(CodecError, match=r"cannot be pickled by hand.*ref\.result\(\)"):
        pickle.dumps(make_reference(CallId("a")))
    with pytest.raises(CodecError):
        reduce_reference(CallId("a"))


def test_refs_met_before_another_pickler_takes_over_are_not_counted_twice():
    encoded = encode([make_reference(CallId("a")), lambda: 1])
    assert encoded.refs == ("a",)


def test_tensors_are_each_consumers_own():
    torch = pytest.importorskip("torch")
    encoded = encode(torch.zeros(10_000))
    decode(encoded)[0] = 1
    assert decode(encoded)[0] == 0
