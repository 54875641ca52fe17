"""What became of a try that gave no answer: whether another one may help, when, and how it is said."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from exoflow.errors import CallFailed, CallRefused, RateLimited, Unanswered

EXCERPT = 500
PATIENCE_S = 3600.0
"""Who is to wait longer is told so instead."""
_AGAIN = frozenset([408, 409, 425, 429])
_FOR_GOOD = frozenset(["insufficient_quota", "billing_hard_limit_reached"])
"""Codes of a 429 that no waiting cures."""

_ADVICE = {
    200: "it speaks another form than OpenAI's chat or completions: another address or model of it may not",
    400: "the request is wrong as it is: what the endpoint says, says where",
    401: "the key is missing or wrong: LLM(..., api_key=...), or the environment variable of api_key_env",
    402: "the account has no money left",
    403: "the key may not do this",
    404: "the address or the model is wrong: it is the base address, which mostly ends with /v1",
    413: "the request is too long",
    422: "the request is wrong as it is: what the endpoint says, says where",
    429: "give LLM(..., rpm=..., tpm=...) what the endpoint allows, or more retries",
}


class Failed(Exception):
    """One try.

    Args:
        sent: the endpoint may have answered it all the same, and bills it.
        wait_s: what Retry-After asks for.
    """

    def __init__(
        self,
        why: str,
        *,
        status: int | None = None,
        body: str = "",
        again: bool = True,
        sent: bool = False,
        wait_s: float | None = None,
    ) -> None:
        super().__init__(why)
        self.why, self.status, self.body, self.again, self.sent, self.wait_s = why, status, body, again, sent, wait_s

    @property
    def wants_too_long(self) -> bool:
        """Nobody waits until another try would be welcome."""
        return self.again and self.wait_s is not None and self.wait_s > PATIENCE_S

    def error(self, where: str, tries: int, *, maybe_billed: bool) -> CallFailed:
        """As whoever called sees it."""
        kind = CallRefused if not self.again else RateLimited if self.status == 429 else Unanswered
        said = f": {self.body}" if self.body else ""
        advice = self._advice(kind)
        times = f", {tries} times" if tries > 1 else ""
        error = kind(f"{where} {self.why}{times}{said}{f' ({advice})' if advice else ''}")
        error.status, error.body, error.tries, error.maybe_billed = self.status, self.body, tries, maybe_billed
        return error

    def _advice(self, kind: type[CallFailed]) -> str:
        if self.wants_too_long:
            return (
                f"it is not to be asked again for {(self.wait_s or 0) / 3600:,.1f} hours (Retry-After), and no call "
                "waits for more than one: run it again then, what is recorded is not asked again; "
                "or give LLM(...) another key or endpoint"
            )
        return _ADVICE.get(self.status or 0, "") if kind is not Unanswered else ""


def failed_with(status: int, headers: Mapping[str, str], text: str) -> Failed:
    """An answer that is none, by its status."""
    message, code = _said(text)
    again = (status in _AGAIN or status >= 500) and code not in _FOR_GOOD
    if 300 <= status < 400:
        message = f"it has moved to {headers.get('Location', 'somewhere else')}: give that address"
    return Failed(f"answered {status}", status=status, body=message, again=again, wait_s=retry_after_s(headers))


def retry_after_s(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds to wait, of whichever header says so: a number, or a date.

    Args:
        headers: Of an answer; their names in any case.
        now: Seconds since the epoch.
    """
    milliseconds = headers.get("retry-after-ms")
    try:
        if milliseconds is not None:
            return _sane(float(milliseconds) / 1000)
    except ValueError:
        pass
    value = headers.get("Retry-After")
    if value is None:
        return None
    try:
        return _sane(float(value))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return _sane(when - (time.time() if now is None else now))


def _sane(seconds: float) -> float | None:
    return None if seconds != seconds else max(0.0, seconds)


def _said(text: str) -> tuple[str, str]:
    """What an endpoint says in OpenAI's form of an error, or in its own; and the code of it."""
    try:
        found = json.loads(text)
    except ValueError:
        return _excerpt(text), ""
    error = found.get("error", found) if isinstance(found, dict) else found
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return _excerpt(error["message"]), str(error.get("code") or "")
    return _excerpt(error if isinstance(error, str) else text), ""


def _excerpt(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= EXCERPT else f"{text[:EXCERPT]}…"
