"""What tells the arguments of two calls apart, small enough for a journal record (rule I3).

A form is msgpack data: short scalars as they are; everything else a list that begins with its kind. What cannot be
compared (pickle bytes are not canonical) is ``["*", type]``, and equal to everything of its type.
"""

from __future__ import annotations

import enum
import hashlib
import inspect
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, cast

import msgpack

from exoflow.codec.references import Reference, is_reference
from exoflow.codec.sums import crc32_of_array

SHORT = 64
"""Text and bytes up to this length stand in the form themselves."""

ARGUMENT_MAX_BYTES = 512
"""Of all forms of a call; an argument that does not fit is a digest."""

_MAX_DEPTH = 16  # what lies deeper counts as equal
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 64) - 1
_BY_TEXT = frozenset(
    ["datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta", "decimal.Decimal", "uuid.UUID",
     "fractions.Fraction", "pathlib.PosixPath", "pathlib.PurePosixPath", "builtins.complex", "builtins.range"]
)  # fmt: skip

Form = Any
"""msgpack data."""


def fingerprint(args: tuple[object, ...], kwargs: Mapping[str, object]) -> Form:
    """The comparable form of a call's arguments: ``((form, ...), {name: form})``."""
    positional: list[Form] = []
    for value in args:
        kind = type(value)
        if kind is str:
            if len(value) <= SHORT and value.isascii():  # type: ignore[arg-type, attr-defined]  # kind is str
                positional.append(value)
                continue
        elif kind is int:
            if _INT_MIN <= value <= _INT_MAX:  # type: ignore[operator]  # kind is int
                positional.append(value)
                continue
        elif value is None or kind is bool:
            positional.append(value)
            continue
        positional.append(_form(value, 0))
    named = {name: _form(value, 0) for name, value in kwargs.items()} if kwargs else {}
    if len(positional) + len(named) > 4 or any(map(_is_large, positional)) or any(map(_is_large, named.values())):
        left = ARGUMENT_MAX_BYTES
        for index, form in enumerate(positional):
            positional[index], left = _fitted(form, left)
        for name, form in named.items():
            named[name], left = _fitted(form, left)
    return tuple(positional), named


def difference(old: Form, new: Form, function: Callable[..., object] | None = None) -> str | None:
    """Which argument differs, with both values, for a person to read; None: they agree."""
    if old == new or _agree(old, new):
        return None
    before, after = _bound(old, function), _bound(new, function)
    for name in [*before, *(name for name in after if name not in before)]:
        if name not in before:
            return f"the argument {name} is {_shown(after[name])}; it was not given before"
        if name not in after:
            return f"the argument {name} was {_shown(before[name])}; it is not given now"
        if not _agree(before[name], after[name]):
            return f"the argument {name} was {_shown(before[name])}, and is {_shown(after[name])} now"
    return None


def _form(value: Any, depth: int) -> Form:
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is int:
        if _INT_MIN <= value <= _INT_MAX:
            return value
        return ["#", "int", value.bit_length(), _digest(_whole(value))]
    if kind is float:
        return value if value == value else ["#", "float", 0, b"nan"]  # NaN differs from itself
    if kind is str:
        return _form_of_text(value)
    if kind is bytes or kind is bytearray:
        short = kind is bytes and len(value) <= SHORT
        return value if short else ["#", kind.__name__, len(value), _digest(value)]
    if depth == _MAX_DEPTH:
        return ["*", kind.__qualname__]
    if is_reference(kind):
        return ["ref", cast(Reference, value).call_id]
    if isinstance(value, list | tuple | dict | set | frozenset):
        return _form_of_container(value, kind, depth + 1)
    return _form_of_object(value, kind, depth + 1)


def _form_of_text(value: str) -> Form:
    if len(value) <= SHORT:
        try:
            value.encode()
            return value
        except UnicodeEncodeError:  # a lone surrogate: no msgpack text
            pass
    return ["#", "str", len(value), _digest(value.encode("utf-8", "surrogatepass"))]


def _form_of_container(value: Any, kind: type, depth: int) -> Form:
    if isinstance(value, dict):
        items = [[_form(key, depth), _form(item, depth)] for key, item in value.items()]
        return ["dict", kind.__qualname__, *sorted(items, key=repr)]
    if isinstance(value, set | frozenset):
        return ["set", kind.__qualname__, *sorted((_form(item, depth) for item in value), key=repr)]
    return ["list", kind.__qualname__, *(_form(item, depth) for item in value)]


def _form_of_object(value: Any, kind: type, depth: int) -> Form:
    if isinstance(value, enum.Enum):
        return ["enum", kind.__qualname__, value.name]
    if is_dataclass(kind):
        parts = [[field.name, _form(getattr(value, field.name, None), depth)] for field in fields(value)]
        return ["dataclass", kind.__qualname__, *parts]
    if f"{kind.__module__}.{kind.__qualname__}" in _BY_TEXT:
        return ["=", kind.__qualname__, repr(value)]
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray | numpy.generic) and not value.dtype.hasobject:
        crc = crc32_of_array(value)
        if crc is None:
            content = numpy.ascontiguousarray(value)
            crc = zlib.crc32(content.reshape(-1).view(numpy.uint8)) if content.size else 0
        return ["array", kind.__qualname__, value.dtype.str, list(value.shape), crc]
    return ["*", kind.__qualname__]


def _whole(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)


def _digest(data: bytes | bytearray) -> bytes:
    return hashlib.blake2b(data, digest_size=8).digest()


def _is_large(form: Form) -> bool:
    return type(form) is list and form[0] != "#" and form[0] != "*"


def _fitted(form: Form, left: int) -> tuple[Form, int]:
    """The form, or a digest of it where it is larger than what is left; and what is left then."""
    packed = msgpack.packb(form, unicode_errors="surrogatepass")
    if len(packed) <= left:
        return form, left - len(packed)
    if type(form) is list:
        return (form if form[0] in ("#", "*") else ["#", form[1], len(form) - 2, _digest(packed)]), left
    return ["#", type(form).__name__, len(form), _digest(packed)] if len(packed) > 9 else form, left


def _bound(form: Form, function: Callable[..., object] | None) -> dict[str, Form]:
    """The forms by parameter, so that ``f(1)`` and ``f(x=1)`` agree."""
    positional, named = form
    if function is not None:
        try:
            return dict(inspect.signature(function).bind(*positional, **named).arguments)
        except (TypeError, ValueError):  # the function has other parameters now
            pass
    return {**{str(index): item for index, item in enumerate(positional)}, **named}


def _agree(old: Form, new: Form) -> bool:
    """Equal, tuples being lists: a form may have been through msgpack. Wildcards agree with what has their type."""
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        return len(old) == len(new) and all(map(_agree, old, new))
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(_agree(item, new[name]) for name, item in old.items())
    return bool(old == new)


def _shown(form: Form) -> str:
    if not isinstance(form, list | tuple) or not form:
        return repr(form)
    kind, *rest = form
    match kind:
        case "#":
            name, size, digest = rest
            return f"a {name} of length {size} ({bytes(digest).hex()})"
        case "ref":
            return f"the result of {rest[0]}"
        case "=":
            return str(rest[1])
        case "enum":
            return f"{rest[0]}.{rest[1]}"
        case "array":
            return f"an array {rest[1]}{rest[2]} with crc32 {rest[3]:08x}"
        case "list" | "set":
            return f"{rest[0]}({', '.join(map(_shown, rest[1:]))})"
        case "dict":
            return f"{rest[0]}({', '.join(f'{_shown(key)}: {_shown(item)}' for key, item in rest[1:])})"
        case "dataclass":
            return f"{rest[0]}({', '.join(f'{name}={_shown(item)}' for name, item in rest[1:])})"
        case "*":
            return f"a {rest[0]}"
        case _:
            return "[" + ", ".join(map(_shown, form)) + "]"
