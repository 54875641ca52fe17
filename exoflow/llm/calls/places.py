"""Where a model is: an address, or an engine."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from exoflow.llm.durable import EngineSpec


def address_of(endpoint: str) -> str:
    """The base address, without a slash at its end.

    Raises:
        ValueError: it is none.
    """
    address = endpoint.rstrip("/")
    if not address.startswith(("http://", "https://")):
        raise ValueError(f"{endpoint!r} is no address: it begins with http:// or https://, and mostly ends with /v1")
    parts = urlsplit(address)
    if not parts.hostname:
        raise ValueError(f"{endpoint!r} is no address: it names no host")
    if "@" in parts.netloc:
        raise ValueError("an address is recorded, so it has no password: LLM(..., headers={'Authorization': ...})")
    if parts.query or parts.fragment:
        raise ValueError(f"{endpoint!r}: give the address without what begins with {'?' if parts.query else '#'}")
    for tail in ("/chat/completions", "/completions"):
        if address.endswith(tail):
            raise ValueError(f"give the base address, {address.removesuffix(tail)!r}: {tail} is added to it")
    return address


def engine_of(engine: Any) -> tuple[EngineSpec, str]:
    """An engine, described, and its model.

    Raises:
        TypeError: it is none.
    """
    spec = engine if isinstance(engine, EngineSpec) else None
    if spec is None and hasattr(engine, "generate") and hasattr(engine, "load_adapter"):
        spec = EngineSpec.of(engine)
    if spec is None:
        raise TypeError(f"LLM({engine!r}): give the address of an endpoint, an Engine or an EngineSpec")
    return spec, spec.model
