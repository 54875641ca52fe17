"""What a command prints: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, is_dataclass
from typing import IO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from exoflow.model import Status

_WIDE = 200
"""Columns where nobody looks: a line that goes to a file or a pipe is not cut."""

STYLES: dict[Status, str] = {
    Status.DONE: "green",
    Status.FAILED: "red",
    Status.CANCELLED: "yellow",
    Status.RUNNING: "cyan",
    Status.WAITING: "cyan",
    Status.IN_DOUBT: "magenta",
    Status.BROKEN_OFF: "yellow",
}


class Terminal:
    """Two consoles, and whether a program reads the first."""

    def __init__(self, *, json_output: bool = False, out: IO[str] | None = None) -> None:
        self.json_output = json_output
        self.out = _console(file=out)
        self.err = _console(stderr=True)

    @property
    def live(self) -> bool:
        """Whether lines can be drawn over."""
        return self.err.is_terminal and not self.err.is_dumb_terminal and not self.json_output

    def print_json(self, value: object) -> None:
        """One JSON document. What JSON does not know is shown as Python shows it."""
        self.out.print(json.dumps(value, indent=2, default=_plain, ensure_ascii=False), markup=False, soft_wrap=True)

    def say(self, text: str | Text) -> None:
        """A line about what goes on, on stderr; never parsed, never with markup."""
        self.err.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """A spinner on a terminal, nothing elsewhere."""
        if not self.live:
            yield
            return
        with self.err.status(text, spinner="dots"):
            yield


@contextmanager
def terminal_alone(*, json_output: bool) -> Iterator[Terminal]:
    """With JSON nobody else writes to stdout: what a flow or a worker process prints goes to stderr meanwhile."""
    if not json_output:
        yield Terminal()
        return
    own = sys.stdout
    try:
        is_real = own.fileno() == 1
    except (OSError, ValueError):
        is_real = False
    with redirect_stdout(sys.stderr):
        if not is_real:
            yield Terminal(json_output=True, out=own)
            return
        own.flush()
        with os.fdopen(os.dup(1), "w", encoding=own.encoding, errors=own.errors) as out:
            os.dup2(2, 1)
            try:
                yield Terminal(json_output=True, out=out)
            finally:
                out.flush()
                os.dup2(out.fileno(), 1)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """`exoflow list | head`: whoever read has enough, and that is no error."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains when it flushes at its end
        raise SystemExit(0)


def _console(*, stderr: bool = False, file: IO[str] | None = None) -> Console:
    console = _Console(stderr=stderr, file=file, highlight=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _WIDE
    return console


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    return repr(value)


def table(*headings: str, right: tuple[str, ...] = ()) -> Table:
    """A table without lines."""
    made = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 3, 0, 0))
    for heading in headings:
        made.add_column(heading, justify="right" if heading in right else "left", no_wrap=heading in right)
    return made


def status_text(status: Status) -> Text:
    return Text(str(status).replace("_", " "), style=STYLES[status])
