"""``exoflow serve``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from exoflow.cli.failures import WrongUsage, reported
from exoflow.cli.listening import bound_to, bytes_of, check_host, log_requests, need, tokens_from
from exoflow.cli.loading import flows_in, load_module
from exoflow.cli.options import DebugOption, ExecutorOption, StoreOption
from exoflow.cli.place import store_of
from exoflow.cli.terminal import Terminal
from exoflow.errors import ExecutorError

if TYPE_CHECKING:
    from exoflow.http.tokens import Tokens
    from exoflow.web.gateway import Flow


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
    fair: Annotated[
        bool, typer.Option("--fair", help="Tokens take turns among the flows that wait. (default: first come)")
    ] = False,
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
        known = tokens_from(tokens, "--tokens", "EXOFLOW_TOKENS")
        check_host(host, safe=bool(known) or no_auth, what="start flows", option="--tokens")
        most = bytes_of(max_body, "--max-body")
        flows = _flows(target)
        _serve(
            flows, known, any_host=no_auth, host=host, port=port, limits=(max_running, max_queue), fair=fair,
            max_body=most, grace_s=grace, store=store, executor=executor, terminal=terminal, debug=debug,
        )  # fmt: skip


def _serve(
    flows: Mapping[str, Flow], known: Tokens, *, any_host: bool, host: str, port: int, limits: tuple[int, int],
    fair: bool, max_body: int, grace_s: float, store: str | None, executor: str | None, terminal: Terminal, debug: bool,
) -> None:  # fmt: skip
    import asyncio

    from exoflow.http.server import Server, listen
    from exoflow.web.app import Service, application
    from exoflow.web.gateway import Gateway

    if not debug:
        log_requests("exoflow.web", "exoflow.adoption")
    opened = store_of(store)
    with bound_to(host, port) as bound:
        address = listen(bound)

        async def main() -> None:
            gateway = Gateway(opened, flows, max_running=limits[0], max_queue=limits[1], executor=executor, fair=fair)
            try:
                gateway.check()
            except (ExecutorError, ValueError) as error:
                raise WrongUsage(str(error)) from error
            service = Service(gateway, known, any_host=any_host, max_body=max_body, debug=debug)
            serving = f"serving {', '.join(flows)} at {address}, runs in {opened.url}"
            server = Server(
                application(service), gateway.drain, "flows", grace_s=grace_s, tell=terminal.say,
                ready=lambda: terminal.say(serving), lifespan="on",
            )  # fmt: skip
            await server.serve([bound])

        asyncio.run(main())


def _flows(target: str) -> Mapping[str, Flow]:
    need("web", "starlette", "uvicorn")
    flows = flows_in(load_module(target))
    if not flows:
        raise WrongUsage(f"{target} has no flow: a function with @flow, at the top of the file")
    return cast("Mapping[str, Flow]", flows)
