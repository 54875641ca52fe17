"""Who may ask: bearer tokens, each with the name that its runs bear."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Tokens:
    """Names and secrets. Empty: nobody need show one."""

    def __init__(self, secrets: Mapping[str, str] | None = None) -> None:
        self._digests = {name: _digest(secret.encode()) for name, secret in (secrets or {}).items()}

    def __bool__(self) -> bool:
        return bool(self._digests)

    def __len__(self) -> int:
        return len(self._digests)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._digests)

    def name_of(self, authorization: str | None) -> str | None:
        """The name of the token in an ``Authorization`` header; None: it is not one of ours. In constant time."""
        scheme, _, secret = (authorization or "").partition(" ")
        given, found = _digest(secret.strip().encode("latin-1", "replace")), None
        for name, digest in self._digests.items():
            if hmac.compare_digest(given, digest):
                found = name
        return found if scheme.lower() == "bearer" else None


def read_tokens(text: str, source: str) -> dict[str, str]:
    """The lines ``name: secret`` of a text; empty ones and those that begin with # are passed over.

    Raises:
        ValueError: a line is none, or a name stands there twice. The message shows no secret.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, colon, secret = (part.strip() for part in line.partition(":"))
        if not colon or not secret or not _NAME.fullmatch(name) or not secret.isascii() or " " in secret:
            raise ValueError(
                f"{source}, line {number}: write NAME: SECRET, the name of letters, digits, '_', '.' and '-', "
                "the secret in ASCII without spaces"
            )
        if name in found or secret in found.values():
            raise ValueError(f"{source}, line {number}: {name!r} has a name or a secret that stands there before")
        found[name] = secret
    return found


def _digest(secret: bytes) -> bytes:
    """All of one length, so that a comparison does not tell the length of a secret either."""
    return hashlib.sha256(secret).digest()
