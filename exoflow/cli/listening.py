"""What commands that serve have in common: where they listen, whom they let in, how much they read."""

from __future__ import annotations

import errno
import importlib.util
import ipaddress
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from exoflow.cli.failures import WrongUsage

if TYPE_CHECKING:
    from exoflow.http.tokens import Tokens

_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def need(extra: str, *modules: str) -> None:
    """Raises WrongUsage: not all of them are installed; it says how to."""
    for module in modules:
        if importlib.util.find_spec(module) is None:  # some take seconds to import: not before all else is right
            raise WrongUsage(f"this needs more packages ({module} is missing): pip install 'exoflow[{extra}]'")


@contextmanager
def bound_to(host: str, port: int) -> Iterator[socket.socket]:
    """The socket, closed at the end."""
    from exoflow.http.server import bind

    try:
        bound = bind(host, port)
    except OSError as error:
        is_hosts = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        raise WrongUsage(
            f"{host}:{port} cannot be listened at: {error.strerror or error}."
            f" Try another {'--host: it is an address of this machine' if is_hosts else '--port'}"
        ) from error
    with bound:
        yield bound


def tokens_from(file: Path | None, option: str, variable: str) -> Tokens:
    """Those of a file, else of an environment variable: lines NAME: SECRET."""
    from exoflow.http.tokens import Tokens, read_tokens

    try:
        if file is None:
            return Tokens(read_tokens(os.environ.get(variable, ""), variable))
        found = read_tokens(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUsage(f"{option} {file} cannot be read: {getattr(error, 'strerror', error)}") from error
    except ValueError as error:
        raise WrongUsage(str(error)) from error
    if not found:
        raise WrongUsage(f"{option} {file} names nobody: write lines NAME: SECRET")
    return Tokens(found)


def check_host(host: str, *, safe: bool, what: str, option: str) -> None:
    """Raises WrongUsage: others could do ``what``, and nothing says who may."""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        loopback = False
    if not loopback and not safe:
        raise WrongUsage(
            f"--host {host}: others could {what}. Say who may: {option} FILE, lines NAME: SECRET; or --no-auth"
        )


def bytes_of(text: str, option: str) -> int:
    """As 64k or 8M."""
    number, unit = (text[:-1], text[-1].lower()) if text[-1:].isalpha() else (text, "")
    if not number.isdecimal() or unit not in _UNITS or int(number) == 0:
        raise WrongUsage(f"{option} {text}: write a number of bytes, or as 64k, 8M")
    return int(number) * _UNITS[unit]


def log_requests(*loggers: str) -> None:
    """Warnings of everybody, and what these say at INFO."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    for name in ("exoflow.http", *loggers):
        logging.getLogger(name).setLevel(logging.INFO)
