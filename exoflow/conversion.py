"""Plain JSON data to what annotations say, and results back to JSON. msgspec does it, and is loaded when it is used."""

from __future__ import annotations

import dataclasses
import difflib
import enum
import inspect
import json
import math
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

_FUNCTIONS_MAX = 1024
_WHERE = re.compile(r"(?P<what>.*?)(?: - at (?P<key>`key` in )?`\$?(?P<place>.*)`)?", re.DOTALL)


class WrongArgument(ValueError):
    """An argument is missing, unknown, or not what its annotation says. The message names it."""

    def __init__(self, name: str, why: str, place: str | None = None) -> None:
        super().__init__(f"{place or f'$.{name}'}: {why}")
        self.name = name
        self.why = why
        """Without the name."""


def converted(value: object, hint: object, place: str = "$") -> Any:
    """Plain JSON data as the annotation says; what is of its type already is left as it is.

    Dataclasses, TypedDict, NamedTuple, enums (by value), datetime and the like, Decimal, UUID, Path, bytes (base64),
    unions, Literal, containers of these, ``Annotated[int, msgspec.Meta(ge=0)]``; a class with ``model_validate``.

    Raises:
        ValueError: it is not that; the message begins with the place, as ``$.rooms[0].nights``.
    """
    if hint is Any or hint is object or hint in type(value).__mro__ and not (hint is int and type(value) is bool):
        return value
    import msgspec

    try:
        made = msgspec.convert(value, hint, dec_hook=_other, str_keys=True)
    except msgspec.ValidationError as error:
        raise ValueError(_told(str(error), hint, place)) from error
    except TypeError as error:
        if get_origin(hint) not in (Union, types.UnionType):
            raise ValueError(f"{place}: JSON cannot become {shown(hint)}: {error}") from error
        made = _one_of(value, get_args(hint), place)
    ignored = _ignored(value, made, place)
    if ignored is not None:
        raise ValueError(ignored)
    return made


def _one_of(value: object, members: Sequence[object], place: str) -> object:
    """For unions whose members JSON does not tell apart, as ``date | str``: the first that it can become, text last."""
    errors = []
    for member in sorted(members, key=lambda member: member is str):
        try:
            return converted(value, member, place)
        except ValueError as error:
            errors.append(str(error))
    raise ValueError("; or ".join(errors))


def _other(kind: Any, value: object) -> object:
    """A type that msgspec does not know."""
    plain = get_origin(kind) or kind
    if isinstance(plain, type):
        if isinstance(value, plain):
            return value
        if issubclass(plain, os.PathLike) and isinstance(value, str):
            return typing.cast(Any, plain)(value)
        if hasattr(plain, "model_validate"):  # pydantic
            return _validated(plain, value)
    raise ValueError(f"expected {shown(kind)}, got {type(value).__name__}; JSON has no such thing")


def _validated(model: Any, value: object) -> object:
    try:
        return model.model_validate(value)
    except ValueError as error:
        errors = getattr(error, "errors", None)
        if errors is None:
            raise
        each = (f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in errors())
        raise ValueError("; ".join(each)) from error


def _told(message: str, hint: object, place: str) -> str:
    """The words of msgspec, with the place in front."""
    match = _WHERE.fullmatch(message)
    assert match is not None
    what = match["what"].replace("`", "")
    choices = _choices(hint) if not match["place"] else ()
    if what.startswith("Invalid enum value") and choices:
        what += f": it has to be {' or '.join(map(repr, choices))}"
    return f"{place}{match['place'] or ''}: {'a key: ' if match['key'] else ''}{what[:1].lower()}{what[1:]}"


def _choices(hint: Any) -> tuple[object, ...]:
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return tuple(member.value for member in hint)
    if get_origin(hint) is Literal:
        return get_args(hint)
    return ()


def _ignored(given: object, made: object, place: str) -> str | None:
    """What says that a field was given that there is not: msgspec passes over it."""
    if made is given:
        return None
    if isinstance(given, dict):
        known = _fields(made)
        if known is None:
            return None
        for name, value in given.items():
            if name not in known:
                return f"{place}.{name}: there is no such field; {_nearest(name, known)}"
            found = _ignored(value, known[name], f"{place}.{name}")
            if found is not None:
                return found
    elif isinstance(given, list) and isinstance(made, (list, tuple)) and len(given) == len(made):
        for number, (value, kept) in enumerate(zip(given, made, strict=True)):
            found = _ignored(value, kept, f"{place}[{number}]")
            if found is not None:
                return found
    return None


def _fields(made: object) -> Mapping[str, object] | None:
    """By name; None for what refuses unknown ones itself, or has keys that are no names."""
    if dataclasses.is_dataclass(made):
        return {field.name: getattr(made, field.name) for field in dataclasses.fields(made) if field.init}
    if isinstance(made, dict) and all(type(key) is str for key in made):
        return made
    return None


def _nearest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return f"there are {', '.join(known)}" if len(known) > 1 else f"there is {known[0]}" if known else "there are none"


def shown(hint: object) -> str:
    """An annotation as one would write it."""
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


class Parameters(NamedTuple):
    """What a function can be given by name."""

    function: str
    signature: inspect.Signature
    hints: Mapping[str, Any]

    def hint(self, name: str) -> Any:
        """What the parameter of that name wants.

        Raises:
            WrongArgument: there is none.
        """
        parameters = self.signature.parameters
        found = parameters.get(name)
        if found is None or found.kind in _REST:
            rest = [each for each in parameters.values() if each.kind is each.VAR_KEYWORD]
            if not rest:
                known = [each.name for each in parameters.values() if each.kind not in _REST]
                raise WrongArgument(name, f"{self.function} has no such parameter; {_nearest(name, known)}")
            name = rest[0].name
        return self.hints.get(name, Any)

    def bound(self, given: Mapping[str, object]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments.

        Raises:
            WrongArgument: one is missing.
        """
        rest, positional = dict(given), []
        for name, parameter in self.signature.parameters.items():
            if parameter.default is parameter.empty and name not in given and parameter.kind not in _REST:
                kind = f" ({shown(self.hints[name])})" if name in self.hints else ""
                raise WrongArgument(name, f"it is missing{kind}")
            if parameter.kind is parameter.POSITIONAL_ONLY:
                positional.append(rest.pop(name, parameter.default))
        return tuple(positional), rest


_REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@lru_cache(_FUNCTIONS_MAX)
def parameters_of(function: Callable[..., Any]) -> Parameters:
    """Of a function, or of the class of a dataclass."""
    return Parameters(getattr(function, "__name__", "the flow"), inspect.signature(function), _hints(function))


def _hints(function: Callable[..., Any]) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError, SyntaxError):  # an annotation that means nothing here is none
        return {}


def arguments_of(function: Callable[..., Any], given: Mapping[str, object]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """JSON data by name to the positional and keyword arguments of a function.

    Raises:
        WrongArgument: one is missing, unknown, or not what its annotation says.
    """
    parameters = parameters_of(function)
    made = {}
    for name, value in given.items():
        hint = parameters.hint(name)
        try:
            made[name] = converted(value, hint)
        except ValueError as error:
            place, _, why = str(error).partition(": ")
            raise WrongArgument(name, why, f"$.{name}{place[1:]}") from error
    return parameters.bound(made)


def plain(value: object) -> object:
    """A result as JSON data: dataclasses and models as objects, times and Decimal as text, arrays as lists.

    Raises:
        ValueError: JSON cannot say it; the message begins with the place, as ``$.rooms[0]``.
    """
    import msgspec

    try:
        return msgspec.to_builtins(value, str_keys=True, enc_hook=_written)
    except (TypeError, ValueError) as error:
        raise ValueError(_unwritable(value, _is_plain) or f"$: {error}") from error


def json_of(value: object) -> bytes:
    """A result as a JSON document. Raises ValueError as ``plain``, and for NaN and infinity, which JSON has not."""
    data = plain(value)
    try:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode(errors="backslashreplace")  # of half a character: JSON writes it like that, too
    except (TypeError, ValueError) as error:
        raise ValueError(_unwritable(data, _is_written) or f"$: {error}") from error


def _written(value: Any) -> object:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "model_dump"):  # pydantic
        return value.model_dump(mode="json")
    if hasattr(value, "tolist"):  # numpy's scalars and arrays, and what follows them
        return value.tolist()
    raise TypeError(f"JSON cannot say a {type(value).__name__}; return something plainer")


def _is_plain(value: object) -> None:
    import msgspec

    msgspec.to_builtins(value, str_keys=True, enc_hook=_written)


def _is_written(value: object) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no JSON number")
    json.dumps(value, allow_nan=False)


def _unwritable(value: object, check: Callable[[object], None], place: str = "$") -> str | None:
    """The innermost place that a check refuses, and why."""
    try:
        check(value)
        return None
    except (TypeError, ValueError) as error:
        why = f"{place}: {error}"
    inner: Iterable[tuple[str, object]] = ()
    if dataclasses.is_dataclass(value):
        inner = ((f".{field.name}", getattr(value, field.name)) for field in dataclasses.fields(value))
    elif isinstance(value, Mapping):
        inner = ((f".{key}", each) for key, each in value.items())
    elif isinstance(value, (list, tuple)):
        inner = ((f"[{number}]", each) for number, each in enumerate(value))
    return next(filter(None, (_unwritable(each, check, place + step) for step, each in inner)), why)
