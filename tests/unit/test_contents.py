"""Arrays and tables as arguments: told apart by what they hold, not by how it lies in memory."""

import datetime as dt
import decimal
import itertools
import subprocess
import sys

import msgpack
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from exoflow.codec import decode, difference, encode, fingerprint, whole_fingerprint


def form(value):
    """As it is read back from a record."""
    return msgpack.unpackb(msgpack.packb(fingerprint((value,), {})), use_list=False)


def frame(**columns):
    return pd.DataFrame(columns)


DAYS = pd.to_datetime(["2026-01-01", "2026-01-02"])
SAMPLES = {
    "masked": np.ma.array([1, 2], mask=[0, 1]),
    "masked elsewhere": np.ma.array([1, 2], mask=[1, 0]),
    "masked, other data": np.ma.array([3, 2], mask=[0, 1]),
    "fields": np.zeros(2, [("a", "i4")]),
    "other fields": np.zeros(2, [("b", "i4")]),
    "fields filled": np.ones(2, [("a", "i4")]),
    "objects": np.array(["a", 1], object),
    "other objects": np.array(["b", 1], object),
    "texts": np.array(["a"]),
    "other texts": np.array(["b"]),
    "float64": np.float64(1.0),
    "float32": np.float32(1.0),
    "float": 1.0,
    "-0.0": np.float64(-0.0),
    "day": np.datetime64("2026-01-01"),
    "dtype": np.dtype("i4"),
    "other dtype": np.dtype("i8"),
    "frame": frame(a=[1, 2], b=["x", "y"]),
    "other number": frame(a=[1, 3], b=["x", "y"]),
    "other text": frame(a=[1, 2], b=["x", "z"]),
    "other name": frame(a=[1, 2], c=["x", "y"]),
    "other type": frame(a=[1.0, 2.0], b=["x", "y"]),
    "other order": frame(b=["x", "y"], a=[1, 2]),
    "more rows": frame(a=[1, 2, 2], b=["x", "y", "y"]),
    "other index": frame(a=[1, 2], b=["x", "y"]).set_index([[1, 2]]),
    "named index": frame(a=[1, 2], b=["x", "y"]).rename_axis("n"),
    "two levels": frame(a=[1, 2], b=["x", "y"]).set_index(["a", "b"], drop=False),
    "twice one name": pd.DataFrame([[1, 2]], columns=["a", "a"]),
    "twice one name, other": pd.DataFrame([[1, 3]], columns=["a", "a"]),
    "object column": frame(a=pd.Series([(1,), "x"], dtype=object)),
    "other object column": frame(a=pd.Series([(2,), "x"], dtype=object)),
    "category": pd.Series(["a", "b"], dtype="category"),
    "other category": pd.Series(["b", "a"], dtype="category"),
    "unused category": pd.Series(pd.Categorical(["a", "b"], ["a", "b", "c"])),
    "ordered category": pd.Series(pd.Categorical(["a", "b"], ordered=True)),
    "days": pd.Series(DAYS),
    "days in Rome": pd.Series(DAYS.tz_localize("Europe/Rome")),
    "days in UTC": pd.Series(DAYS.tz_localize("UTC")),
    "periods": pd.Series(DAYS.to_period("D")),
    "other periods": pd.Series(DAYS.to_period("M")),
    "nullable": pd.Series([1, None], dtype="Int64"),
    "other nullable": pd.Series([1, 0], dtype="Int64"),
    "python texts": pd.Series(["a", None], dtype=object),
    "other python texts": pd.Series(["b", None], dtype=object),
    "arrow ints": pd.Series([1, 2], dtype="int64[pyarrow]"),
    "other arrow ints": pd.Series([1, 3], dtype="int64[pyarrow]"),
    "intervals": pd.Series(pd.interval_range(0, 2)),
    "other intervals": pd.Series(pd.interval_range(0, 2, closed="left")),
    "series": pd.Series([1, 2], name="s"),
    "other series": pd.Series([1, 3], name="s"),
    "series of another name": pd.Series([1, 2], name="t"),
    "range": pd.RangeIndex(2),
    "other range": pd.RangeIndex(3),
    "index": pd.Index([1, 2]),
    "other index of numbers": pd.Index([1, 3]),
    "pandas array": pd.array([1, 2]),
    "timestamp": pd.Timestamp("2026-01-01"),
    "other timestamp": pd.Timestamp("2026-01-02"),
    "timestamp in Rome": pd.Timestamp("2026-01-01", tz="Europe/Rome"),
    "timedelta": pd.Timedelta("1D"),
    "NaT": pd.NaT,
    "NA": pd.NA,
    "table": pa.table({"a": [1, None], "b": ["x", "y"]}),
    "other table": pa.table({"a": [1, None], "b": ["x", "z"]}),
    "no null": pa.table({"a": [1, 0], "b": ["x", "y"]}),
    "null elsewhere": pa.table({"a": [None, 1], "b": ["x", "y"]}),
    "other names": pa.table({"a": [1, None], "c": ["x", "y"]}),
    "batch": pa.record_batch({"a": [1, None], "b": ["x", "y"]}),
    "arrow lists": pa.array([[1], [2, 3]]),
    "other arrow lists": pa.array([[1, 2], [3]]),
    "arrow texts": pa.array(["ab", "c"]),
    "other arrow texts": pa.array(["a", "bc"]),
    "dictionary": pa.array(["a", "b"]).dictionary_encode(),
    "structs": pa.array([{"a": 1, "b": "x"}, None]),
    "other structs": pa.array([{"a": 1, "b": "y"}, None]),
    "maps": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())),
    "other maps": pa.array([[("a", 2)], []], pa.map_(pa.string(), pa.int64())),
    "booleans": pa.array([True, False]),
    "other booleans": pa.array([False, True]),
    "decimals": pa.array([decimal.Decimal("1.5")]),
    "other decimals": pa.array([decimal.Decimal("1.6")]),
    "nothing": pa.array([None, None]),
    "less of nothing": pa.array([None]),
    "scalar": pa.scalar(1),
    "other scalar": pa.scalar(2),
    "schema": pa.schema([("a", "int64")]),
    "other schema": pa.schema([("a", "int32")]),
}


def test_a_value_agrees_with_its_copy_and_with_no_other():
    forms = {name: form(value) for name, value in SAMPLES.items()}
    for name, value in SAMPLES.items():
        again = fingerprint((decode(encode(value)),), {})
        for other, expected in forms.items():
            said = difference(expected, again)
            assert (said is None) == (name == other), (name, other, said)
    assert not any(whole_fingerprint((value,), {})[1][0][0] for value in SAMPLES.values())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("frame", "other number", "the argument d, the column 'a', was 2 × int64 with crc32 "),
        ("frame", "more rows", "the argument d was a DataFrame of 2 rows (index range 0 2 1, "),
        ("frame", "other name", "(index range 0 2 1, names of the index, "),
        ("table", "other table", "the argument d, the column 'b', was 2 × string with crc32 "),
        ("timestamp", "other timestamp", "was Timestamp('2026-01-01 00:00:00'), and is Timestamp('2026-01-02"),
        ("float64", "float", "the argument d was np.float64(1.0), and is 1.0 now"),
        ("masked", "masked elsewhere", "the argument d was an array int64[2] with crc32 "),
    ],
)  # fmt: skip
def test_the_difference_names_the_column(old, new, said):
    def f(d): ...

    old, new = whole_fingerprint((SAMPLES[old],), {})[0], whole_fingerprint((SAMPLES[new],), {})[0]
    assert said in difference(old, new, f)


def test_bytes_between_fields_do_not_matter():
    padded = np.dtype({"names": ["a", "b"], "formats": ["i1", "i4"], "offsets": [0, 4]})
    one, other = (np.frombuffer(bytes([1, gap, gap, gap, 2, 0, 0, 0]), padded) for gap in (0, 9))
    assert form(one) == form(other)


def test_an_array_that_does_not_lie_in_order_is_read_piece_by_piece():
    array = np.arange(3_000_000, dtype="i4").reshape(3, 1000, 1000)
    for lies in (array.T, array[::-1], array[:, ::2], array[:0], array.T[0, 0]):
        assert form(lies) == form(np.ascontiguousarray(lies))


TYPES = [
    pa.int8(), pa.int64(), pa.float32(), pa.bool_(), pa.string(), pa.large_string(), pa.binary(), pa.binary(3),
    pa.timestamp("us", "UTC"), pa.date32(), pa.duration("s"), pa.decimal128(9, 2), pa.list_(pa.int16()),
    pa.list_(pa.string()), pa.large_list(pa.bool_()), pa.list_(pa.int8(), 2), pa.struct([("x", pa.string())]),
    pa.dictionary(pa.int8(), pa.string()), pa.map_(pa.string(), pa.int8()), pa.null(), pa.string_view(),
    pa.struct([("l", pa.list_(pa.struct([("y", pa.int8())])))]),
]  # fmt: skip


def values_of(kind, n):
    """Something of the type that tells its place, and nulls."""
    if n % 5 == 3 or pa.types.is_null(kind):
        return None
    if pa.types.is_struct(kind):
        return {field.name: values_of(field.type, n + 1) for field in kind}
    if pa.types.is_map(kind):
        return [(f"k{i}", values_of(kind.item_type, i)) for i in range(n % 3)]
    if pa.types.is_fixed_size_list(kind):
        return [values_of(kind.value_type, n + i) for i in range(2)]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [values_of(kind.value_type, n + i) for i in range(n % 4)]
    if pa.types.is_boolean(kind):
        return n % 3 == 0
    if pa.types.is_fixed_size_binary(kind):
        return b"%03d" % n
    if pa.types.is_binary(kind):
        return b"x" * n
    if pa.types.is_timestamp(kind):
        return dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(n)
    if pa.types.is_date(kind):
        return dt.date(2026, 1, 1) + dt.timedelta(n)
    if pa.types.is_duration(kind):
        return dt.timedelta(n)
    if pa.types.is_decimal(kind):
        return decimal.Decimal(n)
    return str(n) * (n % 4) if "string" in str(kind) else n


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_slices_and_chunks_of_arrow_do_not_matter(kind):
    items = [values_of(kind, n) for n in range(40)]
    whole = pa.array(items, kind)
    expected = form(pa.chunked_array([whole]))
    for cuts in ([0, 40], [0, 1, 2, 40], [0, 7, 7, 23, 40], list(range(41))):
        pairs = list(itertools.pairwise(cuts))
        assert form(pa.chunked_array([whole.slice(a, b - a) for a, b in pairs], kind)) == expected
        assert form(pa.chunked_array([pa.array(items[a:b], kind) for a, b in pairs], kind)) == expected
    assert form(whole.slice(5, 20)) == form(pa.array(items[5:25], kind))
    if not pa.types.is_null(kind):
        assert form(whole.slice(5, 20)) != form(whole.slice(6, 20))


def test_what_lies_under_a_null_does_not_matter():
    valid = pa.array([True, False, True]).buffers()[1]
    one, other = (
        pa.Array.from_buffers(pa.int64(), 3, [valid, pa.py_buffer(np.array([1, under, 3]).tobytes())])
        for under in (0, 99)
    )
    assert one.equals(other)
    assert form(one) == form(other)


def test_neither_pandas_nor_pyarrow_nor_numpy_is_imported():
    program = (
        "import sys, datetime, decimal\n"
        "from exoflow.codec import fingerprint\n"
        "class A: pass\n"
        "fingerprint((A(), [A()], datetime.datetime.now(), decimal.Decimal(1), {1: {2}}), {})\n"
        "print([name for name in ('numpy', 'pandas', 'pyarrow', 'array') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert not {"numpy", "pandas", "pyarrow"} & set(eval(said))
