"""Classes and functions of ``__main__``, and functions behind decorators: recorded by name, found again anywhere.

Plain pickle records ``__main__.Order``, which is another thing in every other process; cloudpickle copies the class,
and then ``isinstance`` fails. Here the file is recorded, and the name is looked up in whichever module that file is
loaded as.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pickle
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import FunctionType, ModuleType
from typing import Any

from exoflow.errors import CodecError

_PRIVATE = "__exoflow_main_"
"""Begins the names of modules that were a ``__main__`` elsewhere and are nothing by name here."""

_MAX_HOPS = 8
_found: dict[str, ModuleType] = {}
_lock = threading.RLock()


class _Thread(threading.local):
    finding = 0


_thread = _Thread()


@contextmanager
def finding_code() -> Iterator[None]:
    """While this thread imports whatever is needed to find a recorded function."""
    _thread.finding += 1
    try:
        yield
    finally:
        _thread.finding -= 1


def is_finding_code() -> bool:
    """Whether this thread is in the middle of such an import. A file that runs its flow then would never end."""
    return _thread.finding > 0


def reduce_by_name(thing: Any) -> tuple[Any, ...] | None:
    """How a class or function is pickled where plain pickle would record a wrong name; None: as plain pickle does it.

    Raises:
        pickle.PicklingError: it cannot be found by name again; it has to be pickled by value.
    """
    module_name = getattr(thing, "__module__", None)
    is_main = module_name == "__main__" or (isinstance(module_name, str) and module_name.startswith(_PRIVATE))
    if not is_main and not isinstance(thing, FunctionType):
        return None
    module = sys.modules.get(module_name) if isinstance(module_name, str) else None
    hops = _hops(module, thing)
    if not is_main:
        return None if hops == 0 or hops is None else (find_in_module, (module_name, thing.__qualname__, hops))
    path = _source_file(module)
    if hops is None or path is None:
        raise pickle.PicklingError(f"{thing.__qualname__} of __main__ has no name to find it by")
    return find_in_file, (path, thing.__qualname__, _import_name(module), hops)


def find_in_file(path: str, qualname: str, name: str | None, hops: int) -> object:
    """What ``reduce_by_name`` recorded of a ``__main__``."""
    return _resolve(_module_of(path, name), qualname, hops, path)


def find_in_module(name: str, qualname: str, hops: int) -> object:
    """What ``reduce_by_name`` recorded of a function behind a decorator."""
    module = sys.modules["__main__"] if _is_main(name) else importlib.import_module(name)
    return _resolve(module, qualname, hops, name)


class MainUnpickler(pickle.Unpickler):
    """Finds ``script.Order``, pickled where script.py was imported, in the ``__main__`` that runs script.py."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if _is_main(module_name):
            found: Any = sys.modules["__main__"]
            for part in global_name.split("."):
                found = getattr(found, part)
            return found
        return super().find_class(module_name, global_name)


def main_stem() -> str:
    """The name that the file of ``__main__`` would be imported by; empty where it has none."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    return _stem(path) if isinstance(path, str) else ""


@cache
def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def _hops(module: ModuleType | None, thing: Any) -> int | None:
    """How many decorators lie between the thing of that name and this one; None: it is not there."""
    found: Any = module
    for part in thing.__qualname__.split("."):
        found = getattr(found, part, None)
    for hops in range(_MAX_HOPS):
        if found is thing:
            return hops
        found = _within(found)
    return None


def _within(wrapper: Any) -> Any:
    """The function that a decorator got: of a task or flow, or of one that uses functools.wraps."""
    function = getattr(wrapper, "function", None)
    return function if function is not None else getattr(wrapper, "__wrapped__", None)


def _resolve(module: ModuleType, qualname: str, hops: int, where: str) -> object:
    found: Any = module
    try:
        for part in qualname.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        raise CodecError(f"{qualname} is not in {where} any more; something that was recorded needs it") from error
    for _ in range(hops):
        found = _within(found)
    return found


def _source_file(module: ModuleType | None) -> str | None:
    path = getattr(module, "__file__", None)
    return _real_file(path) if isinstance(path, str) else None


@cache
def _real_file(path: str) -> str | None:
    real = os.path.realpath(path)
    return real if os.path.isfile(real) else None


def _import_name(module: ModuleType | None) -> str | None:
    """``package.module`` for ``python -m package.module``: its relative imports need it."""
    name = getattr(getattr(module, "__spec__", None), "name", None)
    return name if isinstance(name, str) and not name.startswith(_PRIVATE) else None


def _module_of(path: str, name: str | None) -> ModuleType:
    with _lock:
        module = _found.get(path)
        if module is None or sys.modules.get(module.__name__) is not module:
            with finding_code():
                module = _found[path] = _loaded(path) or _imported(path, name)
        return module


def _loaded(path: str) -> ModuleType | None:
    """The module that this file is loaded as, ``__main__`` first."""
    main = sys.modules.get("__main__")
    file_name = os.path.basename(path)
    moved = not os.path.exists(path)  # then a file of the same name must do
    for module in (main, *list(sys.modules.values())):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or os.path.basename(file) != file_name:
            continue
        if os.path.realpath(file) == path or (moved and module is main):
            return module
    return None


def _imported(path: str, name: str | None) -> ModuleType:
    if name is not None and importlib.util.find_spec(name) is not None:
        return importlib.import_module(name)
    if not os.path.exists(path):
        raise CodecError(f"something that was recorded is defined in {path}, which is not there")
    private = f"{_PRIVATE}{_stem(path)}_{zlib.crc32(path.encode()):08x}__"
    spec = importlib.util.spec_from_file_location(private, path)
    if spec is None or spec.loader is None:
        raise CodecError(f"something that was recorded is defined in {path}, which is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[private] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[private]
        raise
    return module


def _is_main(name: str) -> bool:
    """Whether importing ``name`` would load the file of ``__main__`` a second time."""
    if name.rpartition(".")[2] != main_stem():  # which spares a look at the file system
        return False
    main = _source_file(sys.modules["__main__"])
    if name in sys.modules:
        return _source_file(sys.modules[name]) == main
    return _origin(name) == main


@cache
def _origin(name: str) -> str | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return _real_file(spec.origin) if spec is not None and spec.origin is not None else None
