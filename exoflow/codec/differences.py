"""Two fingerprints compared, and how they differ, for a person to read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from exoflow.codec.fingerprints import packed
from exoflow.codec.forms import Form

_SHOWN_MAX = 200
Parts = dict[str, Form]


def difference(old: Form, new: Form, function: Callable[..., object] | None = None) -> str | None:
    """Which argument differs, and where in it, with both values; None: they agree, or are forms of two schemes."""
    if _scheme(old) != _scheme(new) or _same(old, new):
        return None
    before, after = by_parameter(old, function), by_parameter(new, function)
    for name in [*before, *(name for name in after if name not in before)]:
        if name not in before:
            return f"the argument {name} is {shown(after[name])}; it was not given before"
        if name not in after:
            return f"the argument {name} was {shown(before[name])}; it is not given now"
        found = _found(before[name], after[name])
        if found is not None:
            where, was, now = found
            return f"the argument {name}{where} was {was}, and is {now} now"
    return None


def by_parameter(form: Form, function: Callable[..., object] | None) -> Parts:
    """The forms by parameter, so that ``f(1)`` and ``f(x=1)`` agree."""
    positional, named = form[:2]
    if function is not None:
        try:
            signature = inspect.signature(function)
            bound = signature.bind(*positional, **named).arguments
        except (TypeError, ValueError):  # the function has other parameters now
            pass
        else:
            return dict(_flat(bound, signature))
    return {**{str(index): item for index, item in enumerate(positional)}, **named}


def _flat(bound: dict[str, Any], signature: inspect.Signature) -> Iterator[tuple[str, Form]]:
    for name, form in bound.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            yield from ((f"{name}[{index}]", item) for index, item in enumerate(form))
        elif kind is inspect.Parameter.VAR_KEYWORD:
            yield from form.items()
        else:
            yield name, form


def _scheme(form: Form) -> object:
    return form[2] if len(form) > 2 else 1


def _same(old: Form, new: Form) -> bool:
    """By their bytes, which tell ``1``, ``True`` and ``1.0`` apart, ``0.0`` and ``-0.0``, and no lists from tuples."""
    return packed(old) == packed(new)


def _found(old: Form, new: Form) -> tuple[str, str, str] | None:
    """The way to the first difference, and both sides of it."""
    if _same(old, new):
        return None
    if isinstance(old, list | tuple) and isinstance(new, list | tuple) and tuple(old[:2]) == tuple(new[:2]):
        for where, one, other in _inside(old, new):
            found = _found(one, other)
            if found is not None:
                return f"{where}{found[0]}", found[1], found[2]
    was, now = shown(old), shown(new)
    if was == now:  # as of text and a subclass of it
        was, now = f"{was} ({_kind(old)})", f"{now} ({_kind(new)})"
    return "", was, now


def _inside(old: Form, new: Form) -> Iterator[tuple[str, Form, Form]]:
    """The parts of two forms of one kind and type side by side; none, where they have not the same parts."""
    kind = old[0]
    if kind == "table":
        before, after = {part[0]: part for part in old[3]}, {part[0]: part for part in new[3]}
        if old[2] == new[2] and list(before) == list(after):
            yield from (
                (f", {label},", ["part", *part[1:]], ["part", *after[label][1:]]) for label, part in before.items()
            )
    elif len(old) != len(new):
        return
    elif kind == "list":
        yield from ((f"[{index}]", *pair) for index, pair in enumerate(zip(old[2:], new[2:], strict=True)))
    elif kind in ("dict", "dataclass"):
        pairs = list(zip(old[2:], new[2:], strict=True))
        if all(_same(one[0], other[0]) for one, other in pairs):
            dots = kind == "dataclass"
            yield from ((f".{one[0]}" if dots else f"[{shown(one[0])}]", one[1], other[1]) for one, other in pairs)


def _kind(form: Form) -> str:
    return str(form[1]) if isinstance(form, list | tuple) and len(form) > 1 else type(form).__name__


def shown(form: Form) -> str:
    """A form for a person, no longer than a line or two."""
    text = _text(form)
    return text if len(text) <= _SHOWN_MAX else f"{text[: _SHOWN_MAX * 3 // 4]} … {text[-_SHOWN_MAX // 4 :]}"


def _text(form: Form) -> str:
    if not isinstance(form, list | tuple) or not form:
        return repr(form)
    kind, *rest = form
    match kind:
        case "#":
            name, size, digest = rest
            return "nan" if bytes(digest) == b"nan" else f"a {name} of length {size} ({bytes(digest).hex()})"
        case "ref":
            return f"the result of {rest[0]}"
        case "=":
            return rest[1] if rest[1].startswith(rest[0]) or "(" in rest[1] else f"{rest[0]} {rest[1]}"
        case "enum":
            return f"{rest[0]}.{rest[1]}"
        case "array":
            crcs = " and ".join(f"{crc:08x}" if isinstance(crc, int) else str(crc) for crc in rest[3:])
            return f"an array {rest[1]}{list(rest[2])} with crc32 {crcs}"
        case "table":
            return f"a {rest[0]} of {rest[1]} rows ({', '.join(_part(part) for part in rest[2])})"
        case "part":
            return f"{rest[1]} × {rest[0]} with crc32 {rest[2]:08x}"
        case "again":
            return f"what it is inside of, {rest[0]} deep"
        case "list" | "set":
            return f"{rest[0]}({', '.join(map(_text, rest[1:]))})"
        case "dict":
            return f"{rest[0]}({', '.join(f'{_text(key)}: {_text(item)}' for key, item in rest[1:])})"
        case "dataclass":
            return f"{rest[0]}({', '.join(f'{name}={_text(item)}' for name, item in rest[1:])})"
        case "*":
            return f"a {rest[0]}"
        case _:
            return "[" + ", ".join(map(_text, form)) + "]"


def _part(part: Form) -> str:
    label, kind, *_ = part
    return f"{label.removeprefix('the ')} {kind}".strip()
