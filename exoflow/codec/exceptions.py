"""A task's exception as bytes: itself where that can be done, with the text of its traceback as a note."""

from __future__ import annotations

import traceback
from typing import Any

from exoflow.codec.encoded import from_bytes, to_bytes
from exoflow.codec.values import decode, encode
from exoflow.errors import CodecError, TaskFailed

_NOTE = "Where it was raised:\n"
"""Begins the note, so that an error that is passed on keeps its first one."""


def encode_error(error: BaseException) -> bytes:
    """The exception, with type, arguments and attributes; as a TaskFailed where it does not survive that."""
    text = traceback_text(error)
    if isinstance(error, Exception):  # the SystemExit of a task must not end the flow's program
        for candidate in (_Itself(error), _Bare(error)):
            data = _tried((candidate, text), error)
            if data is not None:
                return data
    kind = type(error)
    failed = TaskFailed(f"{kind.__module__}.{kind.__qualname__}: {_message(error)}")
    return to_bytes(encode((failed, text)))


def decode_error(data: bytes) -> BaseException:
    """A new copy of the exception, to be raised; its ``__notes__`` show the traceback of the first."""
    try:
        error, text = _loaded(data)
    except Exception as broken:  # noqa: BLE001 -- the exception's own code runs here; another process may lack its class
        return TaskFailed(f"the recorded error does not load here: {type(broken).__name__}: {broken}")
    if text not in getattr(error, "__notes__", ()):
        error.add_note(text)
    return error


def traceback_text(error: BaseException) -> str:
    """The formatted traceback, that of the first raise where the error was passed on."""
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, str) and note.startswith(_NOTE):
            return note
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    return _NOTE + "".join(lines).rstrip()


def rebuild(kind: type[BaseException], args: tuple[object, ...], attributes: dict[str, object]) -> BaseException:
    """An exception whose ``__init__`` takes something else than its ``args``."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


class _Itself:
    """Pickles as its exception does by itself, whatever others (Dask: tblib) have told pickle of its class."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> Any:
        return self._error.__reduce_ex__(5)


class _Bare:
    """Pickles as its exception, without calling ``__init__`` again."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild, (type(self._error), self._error.args, dict(self._error.__dict__))


def _loaded(data: bytes) -> tuple[BaseException, str]:
    error, text = decode(from_bytes(data))
    return error, text


def _tried(candidate: tuple[object, str], error: BaseException) -> bytes | None:
    """The candidate as bytes, if what comes back from them is the same error."""
    try:
        data = to_bytes(encode(candidate, what="the error"))
        twin, _ = _loaded(data)
        same = type(twin) is type(error) and repr(twin.args) == repr(error.args) and str(twin) == str(error)
    except (MemoryError, RecursionError, CodecError):
        return None
    except Exception:  # noqa: BLE001 -- the exception's own __init__, __reduce__ or __repr__
        return None
    return data if same and twin.__dict__.keys() == error.__dict__.keys() else None


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 -- the exception's own __str__
        return "(its message cannot be shown)"
