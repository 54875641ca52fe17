"""What a function's code is, so that a changed one is noticed (rule I4)."""

from __future__ import annotations

import contextlib
import dis
import functools
import hashlib
import inspect
import textwrap
import weakref
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

_cache: weakref.WeakKeyDictionary[Any, bytes] = weakref.WeakKeyDictionary()
_SIZE = 8


def code_fingerprint(function: Callable[..., object]) -> bytes:
    """Eight bytes of bytecode, constants, names and scalar defaults, nested functions included.

    The same for another docstring, other comments or other line numbers; another one for another minor version of
    Python, whose bytecode differs. What the function calls is not looked at.
    """
    try:
        known = _cache.get(function)
    except TypeError:  # it cannot be hashed, or not be referred to weakly
        return _computed(function)
    if known is None:
        known = _computed(function)
        with contextlib.suppress(TypeError):
            _cache[function] = known
    return known


def source_of(function: Callable[..., object]) -> str:
    """The source text; empty where there is none."""
    try:
        return textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    except (OSError, TypeError):
        return ""


def _computed(function: Callable[..., object]) -> bytes:
    digest = hashlib.blake2b(digest_size=_SIZE)
    for token in _tokens_of_callable(function):
        digest.update(token.encode("utf-8", "surrogatepass") + b"\0")
    return digest.digest()


def _tokens_of_callable(function: Any) -> Iterator[str]:
    while isinstance(function, functools.partial):
        yield f"partial {_scalars(function.args)} {_scalars(tuple(function.keywords.items()))}"
        function = function.func
    for layer in _layers(function):
        code = getattr(layer, "__code__", None)
        if code is None:  # built in, or an object with __call__
            code = getattr(vars(type(layer)).get("__call__"), "__code__", None)
        if isinstance(code, CodeType):
            yield from _tokens(code)
        else:
            yield str(getattr(layer, "__qualname__", type(layer).__qualname__))
        yield f"defaults {_scalars(getattr(layer, '__defaults__', None) or ())}"
        yield f"defaults {_scalars(tuple((getattr(layer, '__kwdefaults__', None) or {}).items()))}"


def _layers(function: Any) -> Iterator[Any]:
    """A function and those that it wraps."""
    seen: set[int] = set()
    while function is not None and id(function) not in seen:
        seen.add(id(function))
        yield function
        function = getattr(function, "__wrapped__", None)


def _tokens(code: CodeType) -> Iterator[str]:
    """The instructions with what they name, rather than its place in a table: a docstring moves the places."""
    yield f"{code.co_argcount} {code.co_posonlyargcount} {code.co_kwonlyargcount} {code.co_flags}"
    yield " ".join(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    instructions = list(dis.get_instructions(code))
    for instruction, following in zip(instructions, [*instructions[1:], None], strict=True):
        if instruction.opname in ("EXTENDED_ARG", "CACHE", "NOP"):
            continue
        value = instruction.argval
        if isinstance(value, CodeType):
            yield f"{instruction.opname} {value.co_name}"
            yield from _tokens(value)
        elif following is not None and following.opname == "STORE_NAME" and following.argval == "__doc__":
            yield "docstring"
        elif instruction.opname == "LOAD_CONST":
            yield f"LOAD_CONST {_constant(value)}"
        else:
            yield f"{instruction.opname} {value}"


def _constant(value: object) -> str:
    """The same text in every process: the order of a frozenset differs between them."""
    if isinstance(value, frozenset):
        return f"frozenset({sorted(map(_constant, value))})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_constant, value))})"
    return f"{type(value).__name__} {value!r}"


def _scalars(values: tuple[object, ...]) -> str:
    """Defaults whose text is the same in every process; of others the type."""
    return " ".join(
        _scalars(value) if isinstance(value, tuple)
        else _constant(value) if isinstance(value, bool | int | float | str | bytes | None)
        else type(value).__qualname__
        for value in values
    )  # fmt: skip
