"""A call's arguments as bytes; what is wrong with one is said by its name."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Mapping

from exoflow.codec.encoded import Encoded
from exoflow.codec.engines import Live
from exoflow.codec.references import find_references
from exoflow.codec.values import Adopt, all_immutable, encode
from exoflow.errors import CodecError
from exoflow.model import CallId


def encode_arguments(
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    *,
    task: str,
    function: Callable[..., object] | None = None,
    own: bool = False,
    adopt: Adopt | None = None,
) -> Encoded:
    """``(args, kwargs)``; an error names the task, the argument and the place in it. ``adopt``: as in ``encode``.

    Raises:
        CodecError: a part cannot be pickled, or is a Ref that no task would find there.
    """
    if all_immutable(args, kwargs):
        return Encoded(pickle.dumps((args, dict(kwargs)), 5))
    adopted: set[CallId] = set()

    def adopts(live: Live) -> CallId:
        assert adopt is not None
        call = adopt(live)
        adopted.add(call)
        return call

    try:
        encoded = encode((args, dict(kwargs)), what="\0", own=own, adopt=adopts if adopt else None)
    except CodecError as error:
        raise CodecError(_name_argument(str(error), task, function)) from error
    if encoded.refs:
        found = adopted.union(reference.call_id for reference in find_references(args, kwargs))
        hidden = [ref for ref in encoded.refs if ref not in found]
        if hidden:
            raise CodecError(
                f"the arguments of {task} hold the Ref to {hidden[0]} in a set or in an object: Refs are found in "
                "lists, tuples, dicts (as values) and dataclasses. Put it there, or pass its value: ref.result()"
            )
    return encoded


def _name_argument(message: str, task: str, function: Callable[..., object] | None) -> str:
    """The message with its first two steps, ``[0][1]``, said as the second argument."""
    if not message.startswith("\0"):  # it is not about a place in there
        return f"the arguments of {task}: {message}"
    way = message.removeprefix("\0")
    if way.startswith("[0]["):
        position, _, rest = way[4:].partition("]")
        name = _parameter(function, int(position))
        return _named(name, task, rest) if name else f"argument {position} of {task}{rest}"
    if way.startswith("[1]["):
        name, _, rest = way[5:].partition("']")
        return _named(name, task, rest)
    return f"the arguments of {task}{way}"


def _named(name: str, task: str, rest: str) -> str:
    return f"the argument {name!r} of {task}{'' if rest.startswith(':') else f', {name}'}{rest}"


def _parameter(function: Callable[..., object] | None, position: int) -> str | None:
    if function is None:
        return None
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):
        return None
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return named[position] if position < len(named) else None
