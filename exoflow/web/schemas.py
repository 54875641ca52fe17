"""JSON Schemas of functions, for an OpenAPI document."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, get_origin

from exoflow.conversion import parameters_of


class Schemas(NamedTuple):
    """JSON Schemas of functions: of what each takes, and of what it returns."""

    arguments: Sequence[dict[str, Any]]
    results: Sequence[dict[str, Any]]
    components: dict[str, Any]
    """What the others refer to, as ``#/components/schemas/NAME``."""


def schema(*functions: Callable[..., Any]) -> Schemas:
    """For an OpenAPI document. An annotation that JSON Schema cannot say is left open."""
    import msgspec

    components: dict[str, Any] = {}

    def other(kind: Any) -> dict[str, Any]:
        plain = get_origin(kind) or kind
        if isinstance(plain, type) and issubclass(plain, os.PathLike):
            return {"type": "string", "format": "path"}
        if hasattr(plain, "model_json_schema"):
            found: dict[str, Any] = plain.model_json_schema(ref_template=_REFERENCE.replace("{name}", "{model}"))
            components.update(found.pop("$defs", {}))
            return found
        return {}

    hints: list[Any] = []
    for function in functions:
        parameters = parameters_of(function)
        wanted = [parameters.hints.get(name, Any) for name in (*parameters.signature.parameters, "return")]
        hints += [hint if _has_schema(hint, other) else Any for hint in wanted]
    made, own = msgspec.json.schema_components(hints, schema_hook=other, ref_template=_REFERENCE)
    components.update(own)
    rest = iter(made)
    arguments, results = [], []
    for function in functions:
        arguments.append(_object(parameters_of(function).signature, rest))
        results.append(next(rest))
    return Schemas(arguments, results, components)


_REFERENCE = "#/components/schemas/{name}"


def _has_schema(hint: object, other: Callable[[Any], dict[str, Any]]) -> bool:
    import msgspec

    try:
        msgspec.json.schema_components([hint], schema_hook=other, ref_template=_REFERENCE)
    except TypeError:
        return False
    return True


def _object(signature: inspect.Signature, schemas: Iterable[dict[str, Any]]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required, rest = [], False
    for (name, parameter), found in zip(signature.parameters.items(), schemas):  # noqa: B905  # more stand behind them
        if parameter.kind is parameter.VAR_KEYWORD:
            rest = True
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            properties[name] = found
            if parameter.default is parameter.empty:
                required.append(name)
    made = {"type": "object", "properties": properties, "additionalProperties": rest}
    return {**made, "required": required} if required else made
