"""``--arg k=v`` texts to the arguments of a flow, as its signature wants them."""

from __future__ import annotations

import dataclasses
import difflib
import enum
import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin
from uuid import UUID

from exoflow.cli.failures import WrongUsage
from exoflow.cli.words import listed


def arguments(function: Callable[..., Any], texts: Sequence[str]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments for a flow.

    A value is JSON if it parses as JSON, else text; then it becomes what the parameter's annotation says.

    Raises:
        WrongUsage: an argument is missing, unknown, or not what its annotation says; the message names it.
    """
    signature = inspect.signature(function)
    hints = _hints(function)
    given: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise WrongUsage(f"--arg {text}: write NAME=VALUE")
        if name in given:
            raise WrongUsage(f"--arg {name} is given twice")
        given[name] = _converted(name, value, hints.get(_slot(name, signature, function), Any))
    return _bound(signature, given, hints)


def _hints(function: Callable[..., Any]) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError, SyntaxError):  # an annotation that means nothing here is none
        return {}


def _slot(name: str, signature: inspect.Signature, function: Callable[..., Any]) -> str:
    """The parameter that takes a name; ``**rest`` takes any."""
    parameters = signature.parameters
    found = parameters.get(name)
    if found is not None and found.kind is not inspect.Parameter.VAR_POSITIONAL:
        return name
    for parameter in parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            return parameter.name
    near = difflib.get_close_matches(name, parameters, n=1)
    hint = (
        f"did you mean {near[0]}?"
        if near
        else f"there are {listed(list(parameters), 20)}"
        if parameters
        else "it has none"
    )
    raise WrongUsage(f"--arg {name}: {getattr(function, '__name__', 'the flow')} has no such parameter; {hint}")


def _bound(
    signature: inspect.Signature, given: dict[str, Any], hints: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    missing = [
        f"--arg {name}=…{_shown(hints[name]) if name in hints else ''}"
        for name, parameter in signature.parameters.items()
        if parameter.default is parameter.empty
        and name not in given
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if missing:
        raise WrongUsage(f"missing: {listed(missing, 20)}")
    positional = [
        given.pop(name, parameter.default)
        for name, parameter in signature.parameters.items()
        if parameter.kind is parameter.POSITIONAL_ONLY
    ]
    return tuple(positional), given


def _shown(hint: Any) -> str:
    return f" ({hint.__name__ if isinstance(hint, type) else hint})"


def _converted(name: str, text: str, hint: Any) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    try:
        return _as(hint, value, text)
    except (ValueError, TypeError, ArithmeticError) as error:
        reason = f": {error}" if str(error) else ""
        kind = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
        raise WrongUsage(f"--arg {name}: {text!r} is no {kind}{reason}") from error


def _as(hint: Any, value: Any, text: str) -> Any:
    """The value as the annotation says. ``text`` is what was typed, for types that are written as text.

    Raises:
        ValueError, TypeError: it is not that.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any or hint is object or isinstance(hint, (str, typing.TypeVar)):
        return value
    if origin is typing.Annotated:
        return _as(inner[0], value, text)
    if origin in (Union, types.UnionType):
        return _as_one_of(inner, value, text)
    if origin is Literal:
        return _one_literal(inner, value, text)
    if hint is None or hint is type(None):
        return _checked(value, type(None))
    if hint in _WRITTEN:
        return _WRITTEN[hint](value if isinstance(value, str) else text)
    if origin is not None:
        return _container(origin, inner, value)
    return _plain(hint, value, text)


def _as_one_of(members: Sequence[Any], value: Any, text: str) -> Any:
    """The member that the JSON value is already, else the first that it can become; text last of all."""
    for member in members:
        if isinstance(member, type) and type(value) is member:
            return value
    errors = []
    for member in sorted(members, key=lambda member: member is str):
        try:
            return _as(member, value, text)
        except (ValueError, TypeError, ArithmeticError) as error:
            errors.append(str(error))
    raise ValueError("; ".join(filter(None, errors)))


def _one_literal(choices: Sequence[Any], value: Any, text: str) -> Any:
    for choice in choices:
        if choice in (value, text) and type(choice) in (type(value), str):
            return choice
    raise ValueError(f"it has to be {' or '.join(map(repr, choices))}")


def _container(origin: Any, inner: Sequence[Any], value: Any) -> Any:
    if isinstance(origin, type) and issubclass(origin, Mapping):
        key, kind = inner or (Any, Any)
        items = _checked(value, dict).items()
        return {_as(key, name, name): _as(kind, each, _text(each)) for name, each in items}
    items = _checked(value, list)
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        if len(items) != len(inner):
            raise ValueError(f"it has to have {len(inner)} elements")
        return tuple(_as(kind, each, _text(each)) for kind, each in zip(inner, items, strict=True))
    made = [_as(inner[0] if inner else Any, each, _text(each)) for each in items]
    return origin(made) if origin in (tuple, set, frozenset) else made


def _plain(hint: Any, value: Any, text: str) -> Any:
    if hint is str:
        return value if isinstance(value, str) else text
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint[text] if text in hint.__members__ else hint(value)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _dataclass(hint, _checked(value, dict))
    if hint in (tuple, set, frozenset):
        return hint(_checked(value, list))
    return _checked(value, hint)


def _dataclass(kind: type[Any], given: Mapping[str, Any]) -> Any:
    hints = _hints(kind)
    return kind(**{name: _as(hints.get(name, Any), each, _text(each)) for name, each in given.items()})


def _checked(value: Any, kind: Any) -> Any:
    if not isinstance(kind, type):
        return value
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError("" if type(value) is str else f"it is {json.dumps(value)}")
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


_WRITTEN: dict[Any, Callable[[str], Any]] = {
    Path: Path,
    Decimal: Decimal,
    UUID: UUID,
    date: date.fromisoformat,
    datetime: datetime.fromisoformat,
    bytes: str.encode,
}
