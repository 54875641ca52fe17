"""Pages that a browser on this machine shows: each can make it ask a server here, which without keys knows nobody."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit


def why_not(headers: Mapping[str, str], *, any_host: bool = False) -> str | None:
    """Why this request may be a page's of another site; None: it is not.

    Args:
        headers: by names in small letters, or of a mapping that knows no difference.
        any_host: something in front asks who it is, so this machine may be called anything. A page else could be of a
            name that was given this machine's address after it was loaded ("DNS rebinding"): it asks its own site.
    """
    host, origin = headers.get("host", ""), headers.get("origin")
    if origin and origin.partition("://")[2] != host:
        return f"a page of {origin} asks"
    return None if any_host or _is_here(host) else f"{host} is asked, and this is localhost"


def _is_here(host: str) -> bool:
    """It is an address, or a name that nobody can give to another one."""
    try:
        name = urlsplit(f"//{host}").hostname or "localhost"  # browsers always say where they ask
        return name == "localhost" or name.endswith(".localhost") or bool(ipaddress.ip_address(name))
    except ValueError:
        return False
