"""``exoflow serve``."""

from __future__ import annotations

import ipaddress
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from exoflow.cli.failures import WrongUsage, reported
from exoflow.cli.loading import flows_in, load_module
from exoflow.cli.options import DebugOption, ExecutorOption, StoreOption
from exoflow.cli.place import store_of
from exoflow.cli.terminal import Terminal
from exoflow.errors import ExecutorError

if TYPE_CHECKING:
    from exoflow.web.gateway import Flow
    from exoflow.web.tokens import Tokens

_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def serve(
    target: Annotated[
        str, typer.Argument(metavar="FILE", help="Whose flows are served, as in shop.py.", show_default=False)
    ],
    host: Annotated[str, typer.Option("--host", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 for a free one.")] = 8000,
    tokens: Annotated[
        Path | None, typer.Option("--tokens", metavar="FILE", help="Lines NAME: SECRET. (default: $EXOFLOW_TOKENS)")
    ] = None,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="Let anybody ask, from other machines, too.")] = False,
    max_running: Annotated[int, typer.Option("--max-running", min=1, help="So many flows run at a time.")] = 200,
    max_queue: Annotated[int, typer.Option("--max-queue", min=0, help="So many more wait for their turn.")] = 1000,
    max_body: Annotated[str, typer.Option("--max-body", metavar="SIZE", help="Of a request, as 64k or 8M.")] = "1M",
    grace: Annotated[float, typer.Option("--grace", min=0, help="Seconds that flows have to end in, at a stop.")] = 30,
    store: StoreOption = None,
    executor: ExecutorOption = None,
    debug: DebugOption = False,
) -> None:
    """Serve the flows of a file as HTTP functions, and go on with what a dead process has left of them.

    Stops at SIGTERM or Ctrl-C when its flows have ended, and exits with 0; the second signal ends it at once.
    """
    terminal = Terminal()
    with reported(terminal, debug=debug):
        known = _tokens(tokens)
        _check_host(host, safe=bool(known) or no_auth)
        flows = _flows(target)
        _serve(
            flows, known, host=host, port=port, limits=(max_running, max_queue), max_body=_bytes(max_body),
            grace_s=grace, store=store, executor=executor, terminal=terminal, debug=debug,
        )  # fmt: skip


def _serve(
    flows: Mapping[str, Flow], known: Tokens, *, host: str, port: int, limits: tuple[int, int], max_body: int,
    grace_s: float, store: str | None, executor: str | None, terminal: Terminal, debug: bool,
) -> None:  # fmt: skip
    import asyncio

    from exoflow.web.app import Service
    from exoflow.web.gateway import Gateway
    from exoflow.web.server import Server, listen

    if not debug:
        logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
        for name in ("exoflow.web", "exoflow.adoption"):
            logging.getLogger(name).setLevel(logging.INFO)
    opened = store_of(store)
    try:
        bound = listen(host, port)
    except OSError as error:
        raise WrongUsage(
            f"{host}:{port} cannot be listened at: {error.strerror or error}. Try another --port"
        ) from error
    with bound:
        address = bound.getsockname()
        shown = f"[{address[0]}]" if ":" in address[0] else address[0]

        async def main() -> None:
            gateway = Gateway(opened, flows, max_running=limits[0], max_queue=limits[1], executor=executor)
            try:
                gateway.check()
            except (ExecutorError, ValueError) as error:
                raise WrongUsage(str(error)) from error
            service = Service(gateway, known, max_body=max_body, debug=debug)
            terminal.say(f"serving {', '.join(flows)} at http://{shown}:{address[1]}, runs in {opened.url}")
            await Server(service, grace_s=grace_s, tell=terminal.say).serve([bound])

        asyncio.run(main())


def _flows(target: str) -> Mapping[str, Flow]:
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise WrongUsage(f"serve needs more packages ({error.name} is missing): pip install 'exoflow[web]'") from error
    flows = flows_in(load_module(target))
    if not flows:
        raise WrongUsage(f"{target} has no flow: a function with @flow, at the top of the file")
    return cast("Mapping[str, Flow]", flows)


def _tokens(file: Path | None) -> Tokens:
    from exoflow.web.tokens import Tokens, read_tokens

    try:
        if file is not None:
            found = read_tokens(file.read_text(encoding="utf-8"), str(file))
            if not found:
                raise WrongUsage(f"{file} has no token: write lines NAME: SECRET")
            return Tokens(found)
        return Tokens(read_tokens(os.environ.get("EXOFLOW_TOKENS", ""), "EXOFLOW_TOKENS"))
    except OSError as error:
        raise WrongUsage(f"the tokens cannot be read: {file}: {error.strerror}") from error
    except ValueError as error:
        raise WrongUsage(str(error)) from error


def _check_host(host: str, *, safe: bool) -> None:
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        loopback = False
    if not loopback and not safe:
        raise WrongUsage(
            f"--host {host}: others could start flows. Say who may: --tokens FILE, lines NAME: SECRET; or --no-auth"
        )


def _bytes(text: str) -> int:
    number, unit = (text[:-1], text[-1].lower()) if text[-1:].isalpha() else (text, "")
    if not number.isdecimal() or unit not in _UNITS or int(number) == 0:
        raise WrongUsage(f"--max-body {text}: write a number of bytes, or as 64k, 8M")
    return int(number) * _UNITS[unit]
