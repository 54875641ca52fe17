"""One try at one call of an OpenAI-compatible endpoint."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from urllib.parse import quote

import aiohttp

from exoflow.llm.calls.connections import session
from exoflow.llm.calls.failures import EXCERPT, Failed, failed_with
from exoflow.llm.calls.reading import Pieces, Reading, UnknownForm, Unreadable, whole

logger = logging.getLogger(__name__)

_KEY_MAX = 200
KEY_HEADER = "Idempotency-Key"


def key_of(key: str) -> str:
    """A call's key, as others take it: printable ASCII, and not too long."""
    quoted = quote(key, safe="/#[]@:,~!+= ")
    return quoted if len(quoted) <= _KEY_MAX else hashlib.sha256(key.encode()).hexdigest()


def key_header(key: str) -> dict[str, str]:
    return {KEY_HEADER: key_of(key)}


async def asked(url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Reading:
    """A whole answer.

    Raises:
        Failed: there is none.
    """
    async with _posted(url, body, headers, timeout_s) as response:
        return _whole(await response.read())


async def streamed(
    url: str, body: bytes, headers: Mapping[str, str], timeout_s: float, on_piece: Callable[[str, int], None]
) -> Reading:
    """An answer that is told of piece by piece; where the endpoint streams none, as a whole.

    Args:
        on_piece: Is told all of the text so far, and of how many pieces it is.

    Raises:
        Failed: it did not come, or not to its end.
    """
    pieces = Pieces()
    try:
        async with _posted(url, body, headers, timeout_s) as response:
            begun = await response.content.readany()
            if begun.lstrip().startswith(b"{"):  # no event begins so
                reading = _whole(begun + await response.content.read())
                if reading.text:
                    on_piece(reading.text, 1)
                return reading
            async for data in _events(begun, response.content):
                try:
                    text = pieces.add(_json(data))
                except (Unreadable, ValueError, RecursionError) as error:
                    raise _unreadable(error, data) from error
                if text:
                    on_piece(pieces.text, pieces.count)
    except Failed as failed:
        if not pieces.has_ended:
            raise
        logger.warning("%s %s; the answer before that is whole, and is kept", url, failed.why)
    try:
        return pieces.reading()
    except Unreadable as error:
        raise _unreadable(error, b"") from error


async def requested(
    method: str, url: str, headers: Mapping[str, str], timeout_s: float, body: bytes | aiohttp.FormData | None = None
) -> bytes:
    """What an endpoint says to any other request.

    Raises:
        Failed: it says nothing, or no.
    """
    async with _sent(method, url, body, headers, timeout_s) as response:
        return await response.read()


def _posted(
    url: str, body: bytes, headers: Mapping[str, str], timeout_s: float
) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
    return _sent("POST", url, body, headers, timeout_s)


@asynccontextmanager
async def _sent(
    method: str, url: str, body: bytes | aiohttp.FormData | None, headers: Mapping[str, str], timeout_s: float
) -> AsyncIterator[aiohttp.ClientResponse]:
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with session().request(
            method, url, data=body, headers=headers, timeout=timeout, allow_redirects=False
        ) as response:
            if response.status != 200:
                text = (await response.content.read(8 * EXCERPT)).decode("utf-8", "replace")
                raise failed_with(response.status, response.headers, text)
            yield response
    except TimeoutError as error:
        raise Failed(f"gave no answer in {timeout_s:g} s", sent=True) from error
    except aiohttp.ClientConnectorError as error:
        raise Failed(f"is not reached: {error}") from error
    except aiohttp.InvalidURL as error:
        raise Failed(f"is no address: {error}", again=False) from error
    except (aiohttp.ClientError, OSError) as error:
        raise Failed(f"broke the connection off ({type(error).__name__}: {error})", sent=True) from error


async def _events(begun: bytes, content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The data of server-sent events, to ``[DONE]`` or the end; lines may be as long as they like."""
    rest, more = begun, begun
    while more:
        *lines, rest = rest.split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                data = line[5:].strip()
                if data == b"[DONE]":
                    return
                yield data
        more = await content.readany()
        rest += more
    if rest.startswith(b"data:") and rest[5:].strip() != b"[DONE]":
        yield rest[5:].strip()


def _whole(data: bytes) -> Reading:
    try:
        return whole(_json(data))
    except (Unreadable, ValueError, RecursionError) as error:
        raise _unreadable(error, data) from error


def _json(data: bytes) -> object:
    try:
        found: object = json.loads(data)
    except UnicodeDecodeError:  # a token that was cut within a letter
        found = json.loads(data.decode("utf-8", "replace"))
    if isinstance(found, dict) and found.get("error") and not found.get("choices"):
        # Some gateways say 200 first, and then that it went wrong.
        error = found["error"]
        code = error.get("code") if isinstance(error, dict) else None
        raise failed_with(
            code if isinstance(code, int) and 400 <= code < 600 else 502, {}, data.decode(errors="replace")
        )
    return found


def _unreadable(error: Exception, data: bytes) -> Failed:
    excerpt = data[:EXCERPT].decode("utf-8", "replace")
    again = not isinstance(error, UnknownForm)  # it would be paid for again, and be no better
    return Failed(f"gave an answer that cannot be read: {error}", status=200, body=excerpt, again=again, sent=True)


def body_of(asked: Mapping[str, object]) -> bytes:
    """As it is sent.

    Raises:
        TypeError: JSON cannot say it.
    """
    try:
        return json.dumps(asked, allow_nan=False, ensure_ascii=False).encode("utf-8", "surrogatepass")
    except (TypeError, ValueError) as error:
        raise TypeError(f"the request is no JSON: {error}") from error
