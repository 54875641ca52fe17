"""What stands in a request: its body, its headers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from exoflow.web.problems import Problem

if TYPE_CHECKING:
    from starlette.requests import Request

KEY_MAX = 255


async def body_of(request: Request, most: int) -> bytes:
    """The body, of which no more is read than may be sent.

    Raises:
        Problem: 413, it is larger.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most:
        raise _too_large(most)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise _too_large(most)
        parts.append(part)
    return b"".join(parts)


def _too_large(most: int) -> Problem:
    detail = f"the body is larger than {most:,} bytes: send less, or serve with a larger --max-body"
    return Problem(413, detail, headers={"Connection": "close"})


def json_of_body(request: Request, body: bytes) -> object:
    """The data of a JSON body; an empty one is None.

    Raises:
        Problem: 415 or 400, it is none.
    """
    if not body:
        return None
    import msgspec

    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise Problem(415, f"the body is {kind or 'of no type'}: send JSON, with Content-Type: application/json")
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, f"the body is no JSON: {error}") from error


def key_of(request: Request) -> str | None:
    """The idempotency key.

    Raises:
        Problem: 400, it cannot be one.
    """
    key = request.headers.get("idempotency-key")
    if key is not None and (not key or len(key) > KEY_MAX or not key.isascii() or not key.isprintable()):
        raise Problem(400, f"Idempotency-Key must be printable ASCII, of 1 to {KEY_MAX} letters")
    return key


class Preference(NamedTuple):
    """``Prefer`` (RFC 7240). What is not known, or makes no sense, is passed over."""

    wait_s: float | None
    """How long to wait for the result; None: until it is there."""
    applied: str
    """For ``Preference-Applied``."""


def preference_of(request: Request) -> Preference:
    given = request.headers.get("prefer")
    if given is None:
        return Preference(None, "")
    found: dict[str, str] = {}
    for each in given.split(","):
        name, _, value = each.partition(";")[0].partition("=")
        found.setdefault(name.strip().lower(), value.strip().strip('"'))
    respond_async, wait = "respond-async" in found, found.get("wait", "")
    applied = ["respond-async"] * respond_async + [f"wait={wait}"] * wait.isdecimal()
    wait_s = float(wait) if wait.isdecimal() else 0.0 if respond_async else None
    return Preference(wait_s, ", ".join(applied))
