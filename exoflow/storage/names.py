"""Which names an object may have."""

from __future__ import annotations

import re
from functools import lru_cache

_PART = r"[A-Za-z0-9_@=+,~%:!$()\[\]-][A-Za-z0-9_@=+,~%:!$()\[\]. -]*"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*")


@lru_cache(maxsize=4096)
def checked(name: str) -> str:
    """The name itself, if it is one: relative, ``/``-separated, ASCII; no part is empty or begins with a dot.

    Raises:
        ValueError: it is not. (A programmer's error: users' texts are hashed before they become names.)
    """
    if not _NAME.fullmatch(name) or len(name) > 1024 or any(len(part) > 200 for part in name.split("/")):
        raise ValueError(f"{name!r} cannot name an object: it must be relative, ASCII, without '..' or hidden parts")
    return name
