"""What tasks, flows and calls are called, and where their code is found again."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from exoflow.codec import code_mark
from exoflow.driver.identity import keep_home

_FORBIDDEN = frozenset("/#~!:[]")  # they divide the parts of a call's id
_IN_KEYS = str.maketrans({c: f"%{ord(c):02X}" for c in "%![]\n\r\t"})


def key_text(key: object) -> str:
    """A user's key as it stands in a call's id.

    Raises:
        TypeError, ValueError: it is neither text nor a number, or empty.
    """
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise TypeError(f"key={key!r} must be a str or an int")
    text = str(key).translate(_IN_KEYS)
    if not text:
        raise ValueError("key='' names nothing")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError(f"key={key!r} holds half of a character, and is no UTF-8")
    return text


def name_of(function: Callable[..., Any], name: object, kind: str) -> str:
    """By which its calls are known: the one it was given, or the function's.

    Raises:
        ValueError: it does not fit into an id.
    """
    if name is None:
        return cleaned(function).rpartition(".")[2] if kind == "flow" else cleaned(function, last=True)
    if not isinstance(name, str) or not name or not name.isprintable() or _FORBIDDEN.intersection(name):
        raise ValueError(f"name={name!r} must be printable text without {' '.join(sorted(_FORBIDDEN))}")
    return name


def cleaned(function: Callable[..., Any], *, last: bool = False) -> str:
    """The qualified name, fit for ids; of a function inside another the ``last`` part only, or all of them."""
    qualname = function.__qualname__
    qualname = qualname.rpartition("<locals>.")[2] if last else qualname.replace("<locals>.", "")
    return qualname.replace("<lambda>", "lambda")


class Place(NamedTuple):
    """Where code lies."""

    module: str
    """By which it is imported; empty: it is not."""
    file: str | None
    name: str
    """Stands before the names of its flows."""


def place_of(function: Callable[..., Any]) -> Place:
    """Where a function is defined, said so that another process finds it."""
    name = function.__module__
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None) or function.__code__.co_filename
    path = os.path.realpath(file) if os.path.exists(file) else None
    if name != "__main__" and not name.startswith("__exoflow_main_"):
        return Place(name, path, name)
    spec = getattr(module, "__spec__", None)
    imported = "" if spec is None or spec.name.startswith("__exoflow_main_") else spec.name
    stem = os.path.splitext(os.path.basename(path))[0] if path else ""
    return Place(imported, path, imported or stem)


def code_of(name: str, function: Callable[..., Any], version: object) -> bytes:
    """The mark by which a replay knows the code again, or the version that stands for it.

    Raises:
        TypeError: that is no text.
    """
    if version is not None and (not isinstance(version, str) or not version):
        raise TypeError(f"version={version!r} must be text, as '2'")
    home = f"{place_of(function).name}.{function.__qualname__}"
    mark = code_mark(function, home, version)
    keep_home(name, mark, home, function)
    return mark
