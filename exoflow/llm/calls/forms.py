"""Structured output: what is asked of the endpoint for a form, and the text of an answer as that form."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

from exoflow.conversion import converted
from exoflow.errors import WrongForm
from exoflow.extras import needed

Schema = dict[str, Any]
_SHOWN = 200


def response_format_of(form: object) -> Mapping[str, object]:
    """As OpenAI's field: of a JSON Schema, a dataclass, a msgspec or pydantic class; that field itself stays as it is.

    Raises:
        TypeError, ValueError: it is none of these.
    """
    if isinstance(form, Mapping):
        if "properties" not in form and form.get("type") in ("text", "json_object", "json_schema", "grammar"):
            if form["type"] == "json_schema":
                _check_schema(_text(_schema_in(form)))
            return form
        _check_schema(_text(form))
        return _asked("answer", dict(form))
    if isinstance(form, type):
        if hasattr(form, "model_json_schema"):  # pydantic
            return _asked(form.__name__, form.model_json_schema())
        if dataclasses.is_dataclass(form) or hasattr(form, "__struct_fields__"):
            import msgspec

            return _asked(form.__name__, _with_root(msgspec.json.schema(form)))
    raise TypeError(
        f"response_format={form!r}: give a JSON Schema, a dataclass, a msgspec.Struct or a pydantic model, or what "
        "OpenAI's response_format takes, as {'type': 'json_object'}"
    )


def check_findable(form: object) -> None:
    """Of what stands in the arguments of a recorded call.

    Raises:
        TypeError: it is a dataclass of a function: what msgspec keeps in it cannot be pickled, nor is it found by name.
    """
    if isinstance(form, type) and dataclasses.is_dataclass(form) and "<locals>" in form.__qualname__:
        raise TypeError(
            f"response_format={form.__qualname__}: a recorded call needs a class that is found again by its name: "
            "define it at the top of a module, outside of any function"
        )


def parsed(text: str, form: object, finish_reason: str, refusal: str | None) -> Any:
    """The text as the form.

    Raises:
        WrongForm: it is not that; the message says where.
    """
    if not is_parsed(form):
        return None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong(text, f"it is no JSON ({error}){told_why(finish_reason, refusal)}") from error
    try:
        return in_form(data, form)
    except (ValueError, RecursionError) as error:
        raise _wrong(text, str(error)) from error


def is_parsed(form: object) -> bool:
    """Whether an answer in this form is more than its text."""
    return form is not None and not (isinstance(form, Mapping) and form.get("type") in ("text", "grammar"))


def in_form(data: object, form: object) -> Any:
    """What JSON has said, as the form.

    Raises:
        ValueError: it is not that; the message says where.
    """
    if isinstance(form, Mapping):
        _check(data, form)
        return data
    return converted(data, form)


def _schema_in(form: Mapping[Any, Any]) -> object:
    inner = form.get("json_schema")
    schema = inner.get("schema", {}) if isinstance(inner, Mapping) else None
    if not isinstance(schema, Mapping):
        raise TypeError(f"response_format={form!r}: json_schema is a dict, {{'name': ..., 'schema': {{...}}}}")
    return schema


def _text(schema: object) -> str:
    try:
        return json.dumps(schema)
    except (TypeError, ValueError) as error:
        raise TypeError(f"response_format={schema!r} is no JSON Schema: {error}") from error


@lru_cache(maxsize=100)
def _check_schema(text: str) -> None:
    """Before an answer is paid for that nothing could be checked by.

    Raises:
        ValueError: it is no JSON Schema; the message says where.
    """
    try:
        import jsonschema  # type: ignore[import-untyped]  # it ships no types
    except ImportError:  # an engine alone does without; whoever wants the answer parsed is told then
        return
    schema = json.loads(text)
    try:
        jsonschema.validators.validator_for(schema).check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ValueError(f"response_format is no JSON Schema: {error.json_path}: {error.message}") from error


def _asked(name: str, schema: Schema) -> Schema:
    schema = _closed(schema)
    return {
        "type": "json_schema",
        "json_schema": {"name": name, "schema": schema, "strict": _is_strict(schema)},
    }


def _with_root(schema: Schema) -> Schema:
    """Its root stands in the schema itself: endpoints want an object there."""
    name = schema.get("$ref", "").removeprefix("#/$defs/")
    if not name:
        return schema
    defs = dict(schema["$defs"])
    root: Schema = defs[name]
    if f'"#/$defs/{name}"' not in json.dumps(defs):
        del defs[name]
    return root | ({"$defs": defs} if defs else {})


def _closed(node: Any) -> Any:
    """Objects with properties have no others, as endpoints want it that keep to a schema strictly."""
    if isinstance(node, dict):
        inner = {name: _closed(part) for name, part in node.items()}
        return inner if "properties" not in node else {"additionalProperties": False} | inner
    return [_closed(part) for part in node] if isinstance(node, list) else node


def _is_strict(node: Any) -> bool:
    """Whether all fields are required: only then endpoints can keep to it strictly."""
    if isinstance(node, dict):
        if isinstance(node.get("properties"), dict) and set(node["properties"]) != set(node.get("required", ())):
            return False
        return node.get("additionalProperties") in (None, False) and all(map(_is_strict, node.values()))
    return all(map(_is_strict, node)) if isinstance(node, list) else True


def _check(data: object, form: Mapping[Any, Any]) -> None:
    if form.get("type") == "json_object":
        if not isinstance(data, dict):
            raise ValueError(f"$: expected object, got {type(data).__name__}")
        return
    with needed("Answer.parsed", "calls"):
        import jsonschema

    schema = form["json_schema"].get("schema", {}) if form.get("type") == "json_schema" else form
    try:
        jsonschema.validate(data, cast("Mapping[str, Any]", schema))
    except jsonschema.ValidationError as error:
        raise ValueError(f"{error.json_path}: {error.message}") from error


def _wrong(text: str, why: str) -> WrongForm:
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    error = WrongForm(f"the answer is not of the form that was asked for: {why}. It was {shown!r}")
    error.text = text
    return error


def told_why(finish_reason: str, refusal: str | None) -> str:
    """Why the text is not what was wanted, where the endpoint tells, to stand behind what was found."""
    if refusal:
        return f": the model refused, {refusal!r}"
    return ": max_tokens cut it off, give more" if finish_reason == "length" else ""
