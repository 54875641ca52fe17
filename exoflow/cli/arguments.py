"""``--arg k=v`` texts to the arguments of a flow, as its signature wants them."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any, get_args

from exoflow.cli.failures import WrongUsage
from exoflow.conversion import WrongArgument, converted, parameters_of, shown


def arguments(function: Callable[..., Any], texts: Sequence[str]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments for a flow.

    A value is JSON if it parses as JSON, else text; then it becomes what the parameter's annotation says.

    Raises:
        WrongUsage: an argument is missing, unknown, or not what its annotation says; the message names it.
    """
    parameters = parameters_of(function)
    given: dict[str, Any] = {}
    try:
        for text in texts:
            name, equals, value = text.partition("=")
            if not equals:
                raise WrongUsage(f"--arg {text}: write NAME=VALUE")
            if name in given:
                raise WrongUsage(f"--arg {name} is given twice")
            given[name] = _read(name, value, parameters.hint(name))
        return parameters.bound(given)
    except WrongArgument as error:
        raise WrongUsage(f"--arg {error.name}: {error.why}") from error


def _read(name: str, text: str, hint: Any) -> Any:
    why = ""
    for value in (text,) if hint in _WRITTEN else _meanings(text, hint):
        try:
            return _WRITTEN[hint](value) if hint in _WRITTEN else converted(value, hint)
        except (ValueError, ArithmeticError) as error:
            why = why or str(error).removeprefix("$: ")
    raise WrongUsage(f"--arg {name}: {text!r} is no {shown(hint)}: {why}")


def _meanings(text: str, hint: Any) -> Iterator[object]:
    """What a text may stand for, the likeliest first. Whoever types need not quote, and may write False and None."""
    for member in (hint, *get_args(hint)):
        if isinstance(member, type) and issubclass(member, enum.Enum) and text in member.__members__:
            yield member[text].value
    spellings = {"True": "true", "False": "false", "None": "null"}
    try:
        yield json.loads(text)
    except ValueError:
        yield text
        if text in spellings:
            yield json.loads(spellings[text])
    else:
        yield text


_WRITTEN: dict[Any, Callable[[Any], object]] = {
    Decimal: Decimal,  # JSON's number would be a float on the way
    bytes: str.encode,
}
