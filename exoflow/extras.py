"""Packages that not everybody needs: who lacks one is told how to get it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needed(what: str, extra: str) -> Iterator[None]:
    """A block that imports them, for ``what`` people have called.

    Raises:
        ImportError: one is not installed; it says what to install.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "exoflow"):  # our own mistake
            raise
        raise ImportError(f"{what} needs {missing}: pip install 'exoflow[{extra}]'", name=missing) from error
