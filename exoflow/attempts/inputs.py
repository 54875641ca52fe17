"""The inputs of an attempt: which they are, and their values in the places of Refs."""

from __future__ import annotations

import functools
import inspect
import re
import weakref
from collections.abc import Callable, Mapping
from typing import Any, cast

from exoflow.codec import (
    Encoded,
    Live,
    Reference,
    decode,
    engine_object,
    find_references,
    from_bytes,
    make_reference,
    substitute,
)
from exoflow.errors import Corrupt, StorageError
from exoflow.model import CallId, Inline, Value
from exoflow.protocols import Attempt, Vanished

Fetch = Callable[[Value], Encoded | Live]
"""Reads a Stored or Held value; KeyError or FileNotFoundError where it is lost."""

_MENTIONS_REF = re.compile(r"\bRefs?\b")


class InputLost(Exception):
    """An attempt cannot begin; ``outcome`` says so."""

    def __init__(self, outcome: Vanished) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


def arguments(attempt: Attempt, fetch: Fetch, given: dict[CallId, Live]) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """What the body gets: values in the places of Refs, except for parameters that want the Ref."""
    inputs = _Inputs(attempt, fetch, given)
    args, kwargs = attempt.args, attempt.kwargs
    if attempt.encoded is not None:
        args, kwargs = decode(cast(Encoded, attempt.encoded), lookup=make_reference, bring=inputs.bring)
    return _with_values(attempt, args, kwargs, inputs.value_of) if attempt.inputs else (args, kwargs)


def _with_values(
    attempt: Attempt, args: tuple[Any, ...], kwargs: Mapping[str, Any], value_of: Callable[[CallId], object]
) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    wanted = wants_refs(attempt.function)
    if not wanted:
        return substitute(args, kwargs, value_of)
    keeps = _positions(attempt.function, wanted, len(args))
    given = tuple(arg for arg, kept in zip(args, keeps, strict=True) if not kept)
    named = {name: value for name, value in kwargs.items() if name not in wanted}
    replaced, renamed = substitute(given, named, value_of)
    rest = iter(replaced)
    return tuple(arg if kept else next(rest) for arg, kept in zip(args, keeps, strict=True)), {**kwargs, **renamed}


def inputs_of(
    function: Callable[..., object], args: tuple[object, ...], kwargs: Mapping[str, object]
) -> list[Reference]:
    """The Refs whose values the call needs: all but those in parameters that want the Ref itself."""
    wanted = wants_refs(function)
    if not wanted:
        return find_references(args, kwargs)
    keeps = _positions(function, wanted, len(args))
    return find_references(
        tuple(arg for arg, kept in zip(args, keeps, strict=True) if not kept),
        {name: value for name, value in kwargs.items() if name not in wanted},
    )


class _Inputs:
    """The values of an attempt's inputs, each made once. No closures: they would keep large ones until the next gc."""

    def __init__(self, attempt: Attempt, fetch: Fetch, given: dict[CallId, Live]) -> None:
        self._attempt = attempt
        self._fetch = fetch
        self._given = given
        self._values: dict[CallId, object] = {}

    def value_of(self, call: CallId) -> object:
        """Contents in the places of the Refs in it; a Ref where the attempt was given none.

        Of what an engine's object stands for: a Live, where that is at hand.
        """
        if call not in self._values:
            self._values[call] = self._made(call)
        return self._values[call]

    def bring(self, call: CallId, kind: str) -> object:
        found = self.value_of(call)
        if isinstance(found, Live):
            self._given[call] = found
        return engine_object(kind, found)

    def _made(self, call: CallId) -> object:
        value = self._attempt.inputs.get(call)
        if value is None:
            return make_reference(call)
        try:
            found = from_bytes(value) if isinstance(value, Inline) else self._fetch(value)
            return found if isinstance(found, Live) else decode(found, lookup=self.value_of, bring=self.bring)
        except (KeyError, FileNotFoundError, Corrupt) as error:
            reason = f"its input {call} is lost: {type(error).__name__}: {error}"
            raise InputLost(Vanished(reason, lost=(call,))) from error
        except StorageError as error:
            raise InputLost(Vanished(f"its input {call} could not be read: {error}")) from error


_wants: weakref.WeakKeyDictionary[Any, frozenset[str]] = weakref.WeakKeyDictionary()


def wants_refs(function: Callable[..., object]) -> frozenset[str]:
    """The names of the parameters whose annotation mentions ``Ref`` or ``Refs``."""
    try:
        return _wants[function]
    except (KeyError, TypeError):
        pass
    annotations = getattr(_plain(function), "__annotations__", {})
    # Text will do: evaluating an annotation runs the user's code, and fails for names that only a type checker sees.
    names = frozenset(name for name, note in annotations.items() if name != "return" and _mentions_ref(note))
    try:
        _wants[function] = names
    except TypeError:  # it cannot be referred to weakly
        return names
    return names


def _plain(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.unwrap(function)


def _mentions_ref(note: object) -> bool:
    text = note if isinstance(note, str) else note.__qualname__ if isinstance(note, type) else repr(note)
    return _MENTIONS_REF.search(text) is not None


def _positions(function: Callable[..., object], wanted: frozenset[str], count: int) -> list[bool]:
    """For each positional argument, whether its parameter is one of the wanted."""
    keeps: list[bool] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            keeps += [name in wanted] * (count - len(keeps))
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            keeps.append(name in wanted)
    return [*keeps, *[False] * count][:count]
