"""Errors to one line and an exit code."""

from __future__ import annotations

import logging
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from exoflow.cli.terminal import Terminal
from exoflow.errors import ExoFlowError, InDoubt, Interruption, RunIsLive, RunNotFound

DONE, FAILED, USAGE, NOT_FOUND, LIVE, IN_DOUBT, SIGNALLED = 0, 1, 2, 3, 4, 5, 128


class WrongUsage(Exception):
    """The command line asks for something that there is not; the message says what there is."""


@contextmanager
def reported(terminal: Terminal, *, debug: bool) -> Iterator[None]:
    """Turn an error into a line on stderr and the command's exit code; ``debug`` shows its traceback too."""
    if debug:
        logging.basicConfig(level=logging.DEBUG, format="%(relativeCreated)d ms %(name)s: %(message)s")
    try:
        yield
    except (WrongUsage, ExoFlowError, Interruption) as error:
        if debug:
            terminal.err.print_exception()
        terminal.say(f"exoflow: {str(error).replace('takeover=True', '--takeover')}")
        raise typer.Exit(exit_code(error)) from None
    except sqlite3.Error as error:
        if debug:
            terminal.err.print_exception()
        terminal.say(f"exoflow: the catalogue cannot be used: {error}. It may be deleted: it is built again.")
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt as stopped:
        terminal.say(f"\nexoflow: {str(stopped) or 'stopped by Ctrl-C'}")
        raise typer.Exit(SIGNALLED + getattr(stopped, "number", signal.SIGINT)) from None


def exit_code(error: BaseException) -> int:
    """The exit code that tells of an error."""
    for kind, code in ((WrongUsage, USAGE), (RunNotFound, NOT_FOUND), (RunIsLive, LIVE), (InDoubt, IN_DOUBT)):
        if isinstance(error, kind):
            return code
    return FAILED
