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
from types import CodeType, FunctionType
from typing import Any

import msgpack

from exoflow.codec.forms import form_of

_cache: weakref.WeakKeyDictionary[Any, bytes] = weakref.WeakKeyDictionary()
_SIZE = 8
_SCHEME = b"\x02"  # the first had eight bytes and no number
_HOME_SIZE = 4
_VERSION = b"version "
# Of the flags those that say how the function is called; the others tell of a docstring or of a __future__.
_FLAGS = (
    inspect.CO_VARARGS | inspect.CO_VARKEYWORDS | inspect.CO_GENERATOR | inspect.CO_COROUTINE
    | inspect.CO_ITERABLE_COROUTINE | inspect.CO_ASYNC_GENERATOR
)  # fmt: skip
_SKIPPED = frozenset(["EXTENDED_ARG", "CACHE", "NOP"])
_JUMPS = frozenset([*dis.hasjrel, *dis.hasjabs])


def code_fingerprint(function: Callable[..., object]) -> bytes:
    """Nine bytes of bytecode, constants, names, defaults and captured values, nested functions included.

    The same for another docstring, other comments or other line numbers, in every process, and for a file that is
    loaded under another name; another one for another minor version of Python, whose bytecode differs. Defaults,
    captured values and so the arguments of decorators count as far as arguments can be compared (``forms``);
    captured functions count by their code. What the function calls by a global name is not looked at.
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


def code_mark(function: Callable[..., object], home: str, version: str | None = None) -> bytes:
    """What a record keeps of a task's code: its fingerprint or the user's version, and where it is at home."""
    place = hashlib.blake2b(home.encode("utf-8", "surrogatepass"), digest_size=_HOME_SIZE).digest()
    code = code_fingerprint(function) if version is None else _VERSION + version.encode()
    return code + b"\0" + place


def same_code(old: bytes, new: bytes) -> bool:
    """Whether two marks are of the same code, wherever it lies. One of an older scheme cannot be compared."""
    before, after = _code_of(old), _code_of(new)
    return before == after or (len(before) == _SIZE and after.startswith(_SCHEME))


def home_of(mark: bytes) -> bytes:
    """The part of a mark that says where the code is at home; empty in one of an older scheme."""
    return mark[len(_code_of(mark)) + 1 :]


def _code_of(mark: bytes) -> bytes:
    at = len(mark) - _HOME_SIZE - 1
    return mark[:at] if mark.startswith((_SCHEME, _VERSION)) and mark[at : at + 1] == b"\0" else mark


def source_of(function: Callable[..., object]) -> str:
    """The source text, and what the function has captured; empty where there is none."""
    try:
        source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    except (OSError, TypeError):
        return ""
    lines = [
        f"# captured by {layer.__qualname__}: {name} = {_described(value)}\n"
        for layer in _layers(function)
        for name, value in _captured(layer)
        if not callable(value)
    ]
    return source + "".join(lines)


def _described(value: object) -> str:
    """Numbers as they are. Of other things no more than what tells two of them apart: they may be secrets."""
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    digest = hashlib.blake2b(msgpack.packb(form_of(value), unicode_errors="surrogatepass"), digest_size=4)
    return f"a {type(value).__qualname__} ({digest.hexdigest()})"


def _computed(function: Callable[..., object]) -> bytes:
    digest = hashlib.blake2b(digest_size=_SIZE)
    for token in _tokens_of_callable(function, set()):
        digest.update(token.encode("utf-8", "surrogatepass") + b"\0")
    return _SCHEME + digest.digest()


def _tokens_of_callable(function: Any, seen: set[int]) -> Iterator[str]:
    """Of a function, of those that it wraps, and of those that they have captured."""
    while isinstance(function, functools.partial):
        yield "partial"
        yield from _tokens_of_value(function.args, seen)
        yield from _tokens_of_value(function.keywords, seen)
        function = function.func
    for layer in _layers(function):
        if id(layer) in seen:
            yield "seen"
            continue
        seen.add(id(layer))
        code = getattr(layer, "__code__", None)
        if code is None:  # built in, or an object with __call__
            code = getattr(vars(type(layer)).get("__call__"), "__code__", None)
        if isinstance(code, CodeType):
            yield from _tokens(code)
        else:
            yield str(getattr(layer, "__qualname__", type(layer).__qualname__))
        yield "defaults"
        for value in getattr(layer, "__defaults__", None) or ():
            yield from _tokens_of_value(value, seen)
        for name, value in (getattr(layer, "__kwdefaults__", None) or {}).items():
            yield name
            yield from _tokens_of_value(value, seen)
        for name, value in _captured(layer):
            yield f"captured {name}"
            yield from _tokens_of_value(value, seen)


def _tokens_of_value(value: Any, seen: set[int]) -> Iterator[str]:
    """A function by its code, everything else as an argument is compared."""
    if isinstance(value, FunctionType | functools.partial):
        yield from _tokens_of_callable(value, seen)
    elif isinstance(value, tuple | list) and any(isinstance(item, FunctionType | functools.partial) for item in value):
        for item in value:
            yield from _tokens_of_value(item, seen)
    else:
        yield msgpack.packb(form_of(value), unicode_errors="surrogatepass").hex()


def _captured(function: Any) -> Iterator[tuple[str, object]]:
    """The names and values of a function's closure, as far as they have been set."""
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    if isinstance(code, CodeType):
        for name, cell in zip(code.co_freevars, cells or (), strict=False):
            with contextlib.suppress(ValueError):  # not set yet, as the name of a function that calls itself
                yield name, cell.cell_contents


def _layers(function: Any) -> Iterator[Any]:
    """A function and those that it wraps."""
    seen: set[int] = set()
    while function is not None and id(function) not in seen:
        seen.add(id(function))
        yield function
        function = getattr(function, "__wrapped__", None)


def _tokens(code: CodeType) -> Iterator[str]:
    """The instructions with what they name, rather than its place in a table: a docstring moves the places."""
    yield f"{code.co_argcount} {code.co_posonlyargcount} {code.co_kwonlyargcount} {code.co_flags & _FLAGS}"
    yield " ".join(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    bytecode = dis.Bytecode(code)
    instructions, places = _kept(bytecode)
    for instruction, following in zip(instructions, [*instructions[1:], None], strict=True):
        value = instruction.argval
        if isinstance(value, CodeType):
            yield f"{instruction.opname} {value.co_name}"
            yield from _tokens(value)
        elif following is not None and following.opname == "STORE_NAME" and following.argval == "__doc__":
            yield "docstring"
        elif instruction.opcode in _JUMPS:
            yield f"{_undirected(instruction)} {_landing(instruction, instructions, places)}"
        elif instruction.opname == "LOAD_CONST":
            yield f"LOAD_CONST {_constant(value)}"
        else:
            yield f"{instruction.opname} {value}"
    yield from _guarded(bytecode, places)


def _kept(bytecode: dis.Bytecode) -> tuple[list[dis.Instruction], dict[int, int]]:
    """The instructions that do something; and the place among them of each offset, for jumps and ranges."""
    kept: list[dis.Instruction] = []
    places: dict[int, int] = {}
    for instruction in bytecode:
        places[instruction.offset] = len(kept)
        if instruction.opname not in _SKIPPED:
            kept.append(instruction)
    places[len(bytecode.codeobj.co_code)] = len(kept)
    return kept, places


def _landing(jump: dis.Instruction, instructions: list[dis.Instruction], places: dict[int, int]) -> int:
    """Where it gets to. The compiler leaves a jump to a jump as it is where they are on different lines."""
    place = places[jump.argval]
    for _ in instructions:  # a loop that does nothing but jump has no end
        if place == len(instructions) or _undirected(instructions[place]) not in ("JUMP", "JUMP_ABSOLUTE"):
            break
        place = places[instructions[place].argval]
    return place


def _undirected(jump: dis.Instruction) -> str:
    return jump.opname.replace("_FORWARD", "").replace("_BACKWARD", "").replace("_NO_INTERRUPT", "")


def _guarded(bytecode: dis.Bytecode, places: dict[int, int]) -> Iterator[str]:
    """What ``try`` and ``with`` cover: it stands beside the instructions. Neighbours with one handler are one."""
    ranges: list[list[int]] = []
    for entry in bytecode.exception_entries:  # type: ignore[attr-defined]  # typeshed has not all of it
        start, end = places[entry.start], places[entry.end]
        handler = [places[entry.target], entry.depth, int(entry.lasti)]
        if start == end:
            continue
        if ranges and ranges[-1][1] == start and ranges[-1][2:] == handler:
            ranges[-1][1] = end
        else:
            ranges.append([start, end, *handler])
    for each in ranges:
        yield f"guarded {each}"


def _constant(value: object) -> str:
    """The same text in every process: the order of a frozenset differs between them."""
    if isinstance(value, frozenset):
        return f"frozenset({sorted(map(_constant, value))})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_constant, value))})"
    return f"{type(value).__name__} {value!r}"
