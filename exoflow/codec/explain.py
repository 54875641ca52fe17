"""The pickler in pure Python: for data nested deeper than the C one can go, and to say what cannot be pickled."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import is_dataclass
from pickle import _Pickler  # the Python form of pickle.Pickler: it can be watched, and does not recurse in C
from types import FunctionType
from typing import Any, BinaryIO

from exoflow.codec.references import session
from exoflow.errors import CodecError

RECURSION_LIMIT = 200_000
"""Frames: some 50,000 nested lists or 25,000 nested objects."""

_STACK_BYTES = 256 << 20  # address space. An object on the way takes 1 KB of it: a call with *args recurses in C

_LOOK_AHEAD = 12  # states, reduce tuples and closures lie between an object and its attribute
_SHOWN = 8
_lock = threading.Lock()

ADVICE = {
    "Actor": "pass what its methods return",
    "generator": "return a list, or a tuple, of what it gives",
    "async_generator": "return a list of what it gives",
    "coroutine": "await it first",
    "Task": "pass what it returns: call it, or submit it and pass the Ref",
    "Future": "await it first, and pass its result",
    "TextIOWrapper": "pass the path, and open it where it is used",
    "BufferedReader": "pass the path, and open it where it is used",
    "BufferedWriter": "pass the path, and open it where it is used",
    "FileIO": "pass the path, and open it where it is used",
    "socket": "pass the address, and connect where it is used",
    "SSLSocket": "pass the address, and connect where it is used",
    "Connection": "pass what it takes to connect, and connect where it is used",
    "lock": "leave it out in __getstate__, and make it where it is used",
    "RLock": "leave it out in __getstate__, and make it where it is used",
    "frame": "pass the text of it: traceback.format_exc()",
    "traceback": "pass the text of it: traceback.format_exc()",
}


class WatchedPickler(_Pickler):
    """Pickles like the others, and keeps the chain of objects that it is inside of."""

    def __init__(
        self,
        file: BinaryIO,
        *,
        buffer_callback: Callable[[Any], object],
        reduce: Callable[[Any], Any],
        dispatch_table: Any,
    ) -> None:
        super().__init__(file, 5, buffer_callback=buffer_callback)
        self.chain: list[object] = []
        self.dispatch_table = dispatch_table
        self._reduce = reduce

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        self.chain.append(obj)
        super().save(obj, save_persistent_id)  # type: ignore[misc]  # typeshed has not all of it
        self.chain.pop()  # not in a finally: an error leaves the chain as it is

    def reducer_override(self, obj: Any) -> Any:
        return self._reduce(obj)


def run_deep(work: Callable[[], None]) -> None:
    """Run it where it can recurse ``RECURSION_LIMIT`` deep, in a thread with a stack for that.

    The limit is the interpreter's, so it is raised for this moment only.
    """
    failed: list[BaseException] = []
    met, adopt = session.met, session.adopt

    def run() -> None:
        session.met, session.adopt = met, adopt
        try:
            work()
        except BaseException as error:  # noqa: BLE001 -- raised again in the thread that asked
            failed.append(error)

    with _lock:
        limit = sys.getrecursionlimit()
        stack = threading.stack_size(_STACK_BYTES)
        try:
            thread = threading.Thread(target=run, name="exoflow-deep", daemon=True)
            sys.setrecursionlimit(max(limit, RECURSION_LIMIT))
            thread.start()
            threading.stack_size(stack)
            thread.join()
        finally:
            threading.stack_size(stack)
            sys.setrecursionlimit(limit)
    if failed:
        raise failed[0]


def refusal(chain: Sequence[object], error: BaseException, what: str) -> CodecError:
    """The error for the last object of the chain, which ``error`` says cannot be pickled."""
    if isinstance(error, RecursionError):
        return CodecError(
            f"{what} cannot be pickled: it is nested more than {RECURSION_LIMIT // 8} deep, or without end"
        )
    culprit = chain[-1] if chain else None
    kind = type(culprit)
    name = (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )
    advice = ADVICE.get(kind.__name__, "leave it out, or give its class a __reduce__")
    article = "an" if name[0] in "aeiouAEIOU" else "a"
    return CodecError(f"{what}{path_in(chain)}: {article} {name} cannot be pickled ({error}); {advice}")


def path_in(chain: Sequence[object]) -> str:
    """``['models'][3]._lock``: the way from the first object of the chain to the last, as far as it can be told."""
    links: list[str] = []
    at = 0
    while at < len(chain) - 1:
        for ahead in range(at + 1, min(at + _LOOK_AHEAD, len(chain))):
            link = _link(chain[at], chain[ahead])
            if link:
                links.append(link)
                at = ahead
                break
        else:
            at += 1
    if len(links) > _SHOWN:
        links = [*links[: _SHOWN // 2], f" … {len(links) - _SHOWN} more … ", *links[-_SHOWN // 2 :]]
    return "".join(links)


def _link(parent: Any, child: object) -> str:
    """How to get from one object to another that it directly holds; empty: it does not hold it."""
    if isinstance(parent, list | tuple):
        return next((f"[{index}]" for index, item in enumerate(parent) if item is child), "")
    if isinstance(parent, dict):
        return next((f"[{key!r:.40}]" for key, item in parent.items() if item is child), "") or next(
            (f" (its key {key!r:.40})" for key in parent if key is child), ""
        )
    if isinstance(parent, set | frozenset):
        return " (in a set)" if any(item is child for item in parent) else ""
    if isinstance(parent, FunctionType):
        return _link_in_function(parent, child)
    return next((f".{name}" for name, item in _attributes(parent) if item is child), "")


def _link_in_function(function: FunctionType, child: object) -> str:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            if cell.cell_contents is child:
                return f" (its closure's {name})"
        except ValueError:  # an empty cell
            continue
    if any(item is child for item in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())):
        return " (a default of it)"
    names = function.__code__.co_names
    return next((f" (its global {name})" for name in names if function.__globals__.get(name) is child), "")


def _attributes(thing: Any) -> Iterator[tuple[str, object]]:
    yield from dict(getattr(thing, "__dict__", {})).items()
    for ancestor in type(thing).__mro__:
        slots = ancestor.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            if name not in ("__dict__", "__weakref__") and (is_dataclass(thing) or not name.startswith("__")):
                value = getattr(thing, name, None)
                if value is not None:
                    yield name, value
