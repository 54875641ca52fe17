"""The form of a value: what it holds, so that two of them can be compared where the values are not at hand any more.

A form is msgpack data: short scalars as they are; everything else a list that begins with its kind. What cannot be
compared (pickle bytes are not canonical) is ``["*", type]``, and equal to everything of its type.

Nothing depends on where a class is imported from, so that a script and the module of it agree, or on the order of sets
and dicts; ``OrderedDict`` alone has an order, as in Python.
"""

from __future__ import annotations

import collections
import enum
import functools
import hashlib
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from types import BuiltinFunctionType, FunctionType, SimpleNamespace
from typing import Any, cast

import msgpack

from exoflow.codec.contents import form_of_content
from exoflow.codec.references import Reference, is_reference

SHORT = 64
"""Text and bytes up to this length stand in the form themselves."""

_SHOWN_DEPTH = 4  # what lies deeper is a digest: small, and shared parts are looked at once
_MAX_DEPTH = 50  # what lies deeper counts as equal
_REPR_MAX = 200
INT_MIN, INT_MAX = -(1 << 63), (1 << 64) - 1
_BY_TEXT = frozenset(
    ["datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta", "datetime.timezone",
     "zoneinfo.ZoneInfo", "decimal.Decimal", "uuid.UUID", "fractions.Fraction", "pathlib.PosixPath",
     "pathlib.PurePosixPath", "pathlib.PureWindowsPath", "builtins.complex", "builtins.range", "builtins.ellipsis",
     "ipaddress.IPv4Address", "ipaddress.IPv6Address", "ipaddress.IPv4Network", "ipaddress.IPv6Network"]
)  # fmt: skip

# What is derived from one of these counts by its value, whatever its own __str__ and the like would say.
_SCALARS: tuple[tuple[type, Callable[[Any], object]], ...] = (
    (int, int.__int__), (float, float.__float__), (str, str.__str__), (bytes, bytes.__bytes__), (bytearray, bytearray),
    (complex, complex.__complex__),
)  # fmt: skip

Form = Any
"""msgpack data."""


def form_of(value: object) -> Form:
    """The form of one value."""
    form = _form_of_scalar(value, type(value))
    return Walk().form(value, 0) if form is _NO_SCALAR else form


_NO_SCALAR = object()


def _form_of_scalar(value: Any, kind: type) -> Form:
    if value is None or kind is bool:
        return value
    if kind is int:
        if INT_MIN <= value <= INT_MAX:
            return value
        return ["#", "int", value.bit_length(), digest(_whole(value))]
    if kind is float:
        return value if value == value else ["#", "float", 0, b"nan"]  # NaN differs from itself
    if kind is str:
        return _form_of_text(value)
    if kind is bytes or kind is bytearray:
        short = kind is bytes and len(value) <= SHORT
        return value if short else ["#", kind.__name__, len(value), digest(value)]
    return _NO_SCALAR


def _form_of_text(value: str) -> Form:
    if len(value) <= SHORT:
        try:
            value.encode()
            return value
        except UnicodeEncodeError:  # a lone surrogate: no msgpack text
            pass
    return ["#", "str", len(value), digest(value.encode("utf-8", "surrogatepass"))]


class Walk:
    """One look at a value, which neither loses itself in rings nor sees what is shared again and again."""

    __slots__ = ("_known", "_open", "blind")

    def __init__(self) -> None:
        self.blind = False
        """Whether it has met what cannot be compared."""
        self._open: dict[int, int] = {}
        self._known: dict[int, tuple[object, Form]] = {}  # it holds the objects: an id is one's own while one lives

    def form(self, value: Any, depth: int) -> Form:
        kind = type(value)
        form = _form_of_scalar(value, kind)
        if form is not _NO_SCALAR:
            return form
        if is_reference(kind):
            return ["ref", cast(Reference, value).call_id]
        key = id(value)
        if key in self._open:
            return ["again", self._open[key]]
        if depth < _SHOWN_DEPTH:
            return self._opened(value, kind, key, depth)
        if depth == _MAX_DEPTH:
            return self._wildcard(kind)
        known = self._known.get(key)
        if known is None:
            form = self._opened(value, kind, key, depth)
            known = self._known[key] = (value, form if form[0] in ("*", "=", "#", "enum") else _digested(form))
        return known[1]

    def _opened(self, value: Any, kind: type, key: int, depth: int) -> Form:
        self._open[key] = depth
        if kind is list or kind is tuple:
            form = ["list", kind.__name__]
            self._add(form, value, depth + 1)
        elif kind is dict:
            form = self._form_of_dict(value, kind, depth + 1)
        else:
            try:
                form = self._form_of_object(value, kind, depth + 1)
            except Exception:  # noqa: BLE001 -- the user's code and other libraries': a call must not fail by a comparison
                form = self._wildcard(kind)
        del self._open[key]
        return form

    def _add(self, forms: list[Form], items: Iterable[Any], depth: int) -> None:
        """Append the forms of the items; what needs none is seen here, since that is what most items are."""
        for item in items:
            kind = type(item)
            if (
                (kind is str and len(item) <= SHORT and item.isascii())
                or (kind is int and INT_MIN <= item <= INT_MAX)
                or (kind is float and item == item)
                or item is None
                or kind is bool
            ):
                forms.append(item)
            else:
                forms.append(self.form(item, depth))

    def _form_of_dict(self, value: dict[Any, Any], kind: type, depth: int) -> Form:
        pairs: list[Form] = []
        if isinstance(value, collections.OrderedDict):
            self._add_pairs(pairs, value.items(), depth)
        elif set(map(type, value)) == {str}:
            self._add_pairs(pairs, sorted(value.items(), key=_first), depth)
        else:
            self._add_pairs(pairs, value.items(), depth)
            pairs.sort(key=repr)
        return ["dict", kind.__qualname__, *pairs]

    def _add_pairs(self, pairs: list[Form], items: Iterable[tuple[Any, Any]], depth: int) -> None:
        for item in items:
            pair: list[Form] = []
            self._add(pair, item, depth)
            pairs.append(pair)

    def _form_of_object(self, value: Any, kind: type, depth: int) -> Form:
        if isinstance(value, enum.Enum):
            return ["enum", kind.__qualname__, value.name or repr(value.value)]
        names = _names_of_fields(kind)
        if names is not None:
            return self._form_of_parts(kind, [(name, getattr(value, name, None)) for name in names], depth)
        if f"{kind.__module__}.{kind.__qualname__}" in _BY_TEXT:
            return _form_by_text(value, kind)
        if isinstance(value, dict):
            return self._form_of_dict(value, kind, depth)
        if isinstance(value, list | tuple | collections.deque):
            return ["list", kind.__qualname__, *[self.form(item, depth) for item in value]]
        if isinstance(value, set | frozenset):
            return ["set", kind.__qualname__, *sorted((self.form(item, depth) for item in value), key=repr)]
        form = form_of_content(value, kind, lambda item: self.form(item, depth))
        if form is not None:
            return form if form[0] != "=" else _fitted_text(form)
        for plain, as_plain in _SCALARS:
            if isinstance(value, plain):
                return ["list", kind.__qualname__, self.form(as_plain(value), depth)]
        return self._form_of_rest(value, kind, depth)

    def _form_of_rest(self, value: Any, kind: type, depth: int) -> Form:
        if kind is FunctionType or kind is BuiltinFunctionType or isinstance(value, type):
            return ["=", kind.__qualname__, value.__qualname__]
        if kind is functools.partial:
            return self._form_of_parts(
                kind, [(name, getattr(value, name)) for name in ("func", "args", "keywords")], depth
            )
        if kind is slice:
            return self._form_of_parts(
                kind, [(name, getattr(value, name)) for name in ("start", "stop", "step")], depth
            )
        if kind is re.Pattern:
            return self._form_of_parts(kind, [(name, getattr(value, name)) for name in ("pattern", "flags")], depth)
        if kind is SimpleNamespace:
            return self._form_of_parts(kind, sorted(vars(value).items()), depth)
        if isinstance(value, BaseException):
            return self._form_of_parts(kind, [("args", value.args)], depth)
        array = sys.modules.get("array")
        if array is not None and kind is array.array:
            return ["array", "array", value.typecode, [len(value)], digest(value.tobytes()).hex()]
        return self._wildcard(kind)

    def _form_of_parts(self, kind: type, parts: list[tuple[str, Any]], depth: int) -> Form:
        return ["dataclass", kind.__qualname__, *[[name, self.form(item, depth)] for name, item in parts]]

    def _wildcard(self, kind: type) -> Form:
        self.blind = True
        return ["*", kind.__qualname__]


def _names_of_fields(kind: Any) -> tuple[str, ...] | None:
    """Of a dataclass, a named tuple, or a class that attrs, msgspec or pydantic has made."""
    if is_dataclass(kind):
        return tuple(field.name for field in fields(kind))
    if issubclass(kind, tuple):
        return getattr(kind, "_fields", None)
    attributes = getattr(kind, "__attrs_attrs__", None)
    if attributes is not None:
        return tuple(attribute.name for attribute in attributes)
    names = getattr(kind, "__struct_fields__", None) or getattr(kind, "__pydantic_fields__", None)
    return tuple(names) if names else None


def _form_by_text(value: Any, kind: type) -> Form:
    text = repr(value)
    if " at 0x" in text and hasattr(value, "isoformat"):  # a tzinfo of somebody's own
        text = value.isoformat()
    return _fitted_text(["=", kind.__qualname__, text])


def _fitted_text(form: Form) -> Form:
    _, name, text = form
    return form if len(text) <= _REPR_MAX else ["#", name, len(text), digest(text.encode("utf-8", "surrogatepass"))]


def _first(item: tuple[str, object]) -> str:
    return item[0]


def _whole(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)


def digest(data: bytes | bytearray) -> bytes:
    """Eight bytes that stand for many."""
    return hashlib.blake2b(data, digest_size=8).digest()


def _digested(form: Form) -> Form:
    """A list form as a digest; what cannot be compared counts by its type there too."""
    packed = msgpack.packb(form, unicode_errors="surrogatepass")
    return ["#", form[1], len(form) - 2, digest(packed)]
