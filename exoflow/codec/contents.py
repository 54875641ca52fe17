"""The content of arrays and tables: numpy, pandas and Arrow, none of which is imported here before the program does.

A table's form is ``["table", type, rows, [[label, type of the values, rows, crc32], ...]]``, so that a difference can
name the column. How an array lies in memory, is sliced or divided into chunks does not matter.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from typing import Any

import msgpack

from exoflow.codec.sums import crc32_of_array

Form = Any
"""msgpack data; see ``forms``."""

Forms = Callable[[Any], Form]
"""The form of an element."""

_CHUNK_BYTES = 1 << 20
_PANDAS_SCALARS = ("Timestamp", "Timedelta", "Period", "Interval")


def form_of_content(value: Any, kind: type, form: Forms) -> Form | None:
    """The form of an array, a table, or a scalar of their libraries; None: it is none of these."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and hasattr(numpy, "ndarray"):  # else it is being imported
        if isinstance(value, numpy.ndarray):
            return _form_of_array(value, kind, form, numpy)
        if isinstance(value, numpy.generic | numpy.dtype):
            return ["=", kind.__qualname__, repr(value)]
    home = kind.__module__.partition(".")[0]
    if home == "pandas":
        return _form_of_pandas(value, kind, form)
    if home == "pyarrow":
        return _form_of_arrow(value, kind, form)
    return None


# -- numpy


def _form_of_array(array: Any, kind: type, form: Forms, numpy: Any) -> Form:
    dtype, shape = array.dtype, list(array.shape)
    if isinstance(array, numpy.ma.MaskedArray):
        mask = numpy.ma.getmaskarray(array)
        return ["array", kind.__qualname__, str(dtype), shape, _crc(numpy.ma.getdata(array), form), _crc(mask, form)]
    name = dtype.str if dtype.names is None else str(dtype)
    return ["array", kind.__qualname__, name, shape, _crc(numpy.asarray(array), form)]


def _crc(array: Any, form: Forms, crc: int = 0) -> int:
    """Of the elements in C order. Never more than about a megabyte is copied, however the array lies."""
    dtype = array.dtype
    if dtype.names is not None:  # bytes between fields are anything
        for name in dtype.names:
            crc = _crc(array[name], form, crc)
        return crc
    if dtype.hasobject:
        return zlib.crc32(msgpack.packb([form(item) for item in array.reshape(-1).tolist()]), crc)
    if array.size == 0:
        return crc
    if array.flags.c_contiguous:
        known = None if crc else crc32_of_array(array)
        return known if known is not None else zlib.crc32(array.reshape(-1).view("u1"), crc)
    rows = max(1, _CHUNK_BYTES * len(array) // array.nbytes)
    for start in range(0, len(array), rows):
        crc = zlib.crc32(array[start : start + rows].copy(order="C").reshape(-1).view("u1"), crc)
    return crc


# -- pandas


def _form_of_pandas(value: Any, kind: type, form: Forms) -> Form | None:
    pandas = sys.modules["pandas"]
    if isinstance(value, pandas.DataFrame):
        parts = [*_parts_of_index("the index", value.index, form), *_parts_of_index("the columns", value.columns, form)]
        parts += [_part(f"the column {label!r}", column, form) for label, column in value.items()]
        return ["table", kind.__qualname__, len(value), parts]
    if isinstance(value, pandas.Series):
        parts = [*_parts_of_index("the index", value.index, form), ["the name", "", 1, _packed_crc(form(value.name))]]
        return ["table", kind.__qualname__, len(value), [*parts, _part("the values", value, form)]]
    if isinstance(value, pandas.Index):
        return ["table", kind.__qualname__, len(value), _parts_of_index("the values", value, form)]
    if isinstance(value, pandas.api.extensions.ExtensionArray):
        return ["table", kind.__qualname__, len(value), [_part("the values", value, form)]]
    if (
        value is pandas.NaT
        or value is pandas.NA
        or isinstance(value, tuple(getattr(pandas, n) for n in _PANDAS_SCALARS))
    ):
        return ["=", kind.__qualname__, repr(value)]
    return None


def _parts_of_index(label: str, index: Any, form: Forms) -> list[Form]:
    pandas = sys.modules["pandas"]
    names = [f"the names of {label}", "", 1, _packed_crc([form(name) for name in index.names])]
    if isinstance(index, pandas.RangeIndex):
        return [[label, f"range {index.start} {index.stop} {index.step}", len(index), 0], names]
    if isinstance(index, pandas.MultiIndex):
        levels = [index.get_level_values(level) for level in range(index.nlevels)]
        return [*(_part(f"level {n} of {label}", level, form) for n, level in enumerate(levels)), names]
    return [_part(label, index, form), names]


def _part(label: str, values: Any, form: Forms) -> Form:
    """Of a Series, a plain Index or an ExtensionArray."""
    return [label, str(values.dtype), len(values), _crc_of_values(values, form)]


def _crc_of_values(values: Any, form: Forms) -> int:
    pandas, numpy = sys.modules["pandas"], sys.modules["numpy"]
    dtype = values.dtype
    if isinstance(dtype, numpy.dtype):
        plain = values.to_numpy()
        if not dtype.hasobject:
            return _crc(plain, form)
        if pandas.api.types.infer_dtype(plain, skipna=True) != "string":
            return _crc(plain, form)
        return _crc(pandas.util.hash_array(plain, categorize=False), form)
    array = getattr(values, "array", values)
    if isinstance(dtype, pandas.CategoricalDtype):
        parts = [bool(dtype.ordered), _parts_of_index("", array.categories, form)]
        return _crc(array.codes, form, _packed_crc(parts))
    if isinstance(dtype, pandas.ArrowDtype) or type(array).__name__.startswith("Arrow"):
        return _crc_of_arrow(array.__arrow_array__(), form)
    if isinstance(dtype, pandas.DatetimeTZDtype | pandas.PeriodDtype):
        return _crc(array.asi8, form)
    try:
        return _crc(pandas.util.hash_array(array), form)
    except TypeError:  # elements that have no hash
        return _packed_crc([form(item) for item in array])


def _packed_crc(form: Form) -> int:
    return zlib.crc32(msgpack.packb(form, unicode_errors="surrogatepass"))


# -- Arrow


def _form_of_arrow(value: Any, kind: type, form: Forms) -> Form | None:
    arrow = sys.modules["pyarrow"]
    if isinstance(value, arrow.Table | arrow.RecordBatch):
        columns = zip(value.schema, value.columns, strict=True)
        parts = [
            [f"the column {field.name!r}", str(field.type), len(column), _crc_of_arrow(column, form)]
            for field, column in columns
        ]
        return ["table", kind.__qualname__, len(value), parts]
    if isinstance(value, arrow.Array | arrow.ChunkedArray):
        part = ["the values", str(value.type), len(value), _crc_of_arrow(value, form)]
        return ["table", "ChunkedArray" if isinstance(value, arrow.ChunkedArray) else "Array", len(value), [part]]
    if isinstance(value, arrow.Scalar):
        return ["=", kind.__qualname__, f"{value.type} {value.as_py()!r}"]
    if isinstance(value, arrow.Schema | arrow.DataType | arrow.Field):
        return ["=", kind.__qualname__, str(value)]
    return None


def _crc_of_arrow(values: Any, form: Forms) -> int:
    """Of what the array says: nulls by their places, so that what lies under them does not matter."""
    streams: dict[str, list[int]] = {}
    for chunk in values.chunks if isinstance(values, sys.modules["pyarrow"].ChunkedArray) else [values]:
        _stream(chunk, "", streams, form)
    return _packed_crc(sorted([path, *stream] for path, stream in streams.items() if stream[0]))


def _stream(array: Any, path: str, streams: dict[str, list[int]], form: Forms) -> None:
    """Add an array, a chunk of a whole, to the running checksums of its parts: ``{part: [elements, crc32]}``."""
    arrow = sys.modules["pyarrow"]
    import pyarrow.compute as compute

    if str(array.type) in ("string_view", "binary_view"):
        array = array.cast(f"large_{str(array.type).removesuffix('_view')}")
    types, kind = arrow.types, array.type
    if array.null_count:
        places = compute.add(compute.indices_nonzero(array.is_null()), streams.get(path, [0])[0])
        _add(streams, f"{path}?", len(places), places.cast("uint64").buffers()[1])
        _count(streams, path, array.null_count)
        array = array.drop_null()
    if isinstance(array, arrow.ExtensionArray):
        _stream(array.storage, path, streams, form)
    elif types.is_dictionary(kind):
        _stream(array.dictionary_decode(), path, streams, form)
    elif types.is_string(kind) or types.is_binary(kind) or types.is_large_string(kind) or types.is_large_binary(kind):
        _stream_of_text(array, path, streams, compute.binary_length(array))
    elif types.is_boolean(kind):
        _stream(array.cast("uint8"), path, streams, form)
    elif types.is_struct(kind):
        _count(streams, path, len(array))
        for n, child in enumerate(array.flatten()):
            _stream(child, f"{path}.{n}", streams, form)
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        _stream(compute.list_value_length(array), path, streams, form)
        _stream(array.flatten(), f"{path}[]", streams, form)
    elif types.is_primitive(kind) or types.is_decimal(kind) or types.is_fixed_size_binary(kind):
        width = kind.bit_width // 8
        _add(streams, path, len(array), array.buffers()[1], array.offset * width, len(array) * width)
    elif len(array):  # unions, maps, views: slow, and right
        _add(streams, path, len(array), b"".join(msgpack.packb(form(item)) for item in array.to_pylist()))


def _stream_of_text(array: Any, path: str, streams: dict[str, list[int]], lengths: Any) -> None:
    _, offsets, data = array.buffers()
    if not len(array):
        return
    places = memoryview(offsets).cast("i" if lengths.type.bit_width == 32 else "q")
    begin, end = places[array.offset], places[array.offset + len(array)]
    width = lengths.type.bit_width // 8
    _add(streams, path, len(array), lengths.buffers()[1], lengths.offset * width, len(array) * width)
    if data is not None:
        _add(streams, f"{path}'", end - begin, data, begin, end - begin)


def _add(
    streams: dict[str, list[int]], path: str, count: int, data: Any, begin: int = 0, size: int | None = None
) -> None:
    stream = streams.setdefault(path, [0, 0])
    stream[0] += count
    if count and data is not None:
        view = memoryview(data).cast("B")
        stream[1] = zlib.crc32(view[begin : len(view) if size is None else begin + size], stream[1])


def _count(streams: dict[str, list[int]], path: str, count: int) -> None:
    streams.setdefault(path, [0, 0])[0] += count
