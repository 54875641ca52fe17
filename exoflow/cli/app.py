"""The commands, put together."""

from __future__ import annotations

import inspect
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from exoflow.cli import (
    benching,
    collecting,
    doctor,
    explaining,
    listing,
    llm,
    making,
    running,
    serving,
    showing,
    telling,
)
from exoflow.cli.failures import reported
from exoflow.cli.options import DebugOption, JsonOption
from exoflow.cli.terminal import Terminal

app = typer.Typer(
    name="exoflow",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        Terminal().out.print(f"exoflow {version('exoflow')}, Python {platform.python_version()}", markup=False)
        raise typer.Exit


@app.callback()
def _exoflow(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Durable Python workflows with no server: they survive kill -9, and each effect happens exactly once.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no such run, 4 live elsewhere, 5 in doubt, 130 Ctrl-C, 143 SIGTERM.
    """


def _demo(
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep", metavar="FOLDER", help="Keep stores and outputs in this new folder.", show_default=False
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Less work for the same calls.")] = False,
    json_output: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Kill a real ETL twice with kill -9, resume it, and compare it byte for byte with an undisturbed run."""
    from exoflow.cli.demo import run_demo
    from exoflow.cli.stopping import stoppable

    with reported(Terminal(json_output=json_output), debug=debug), stoppable():
        raise typer.Exit(run_demo(keep=keep, quick=quick, json_output=json_output))


def _add(name: str, command: Callable[..., None], *examples: str, to: typer.Typer = app) -> None:
    told = [part.replace("\n", " ") for part in inspect.cleandoc(command.__doc__ or "").split("\n\n")]
    shown = "\n".join(["Examples:", *(f"  {example}" for example in examples)])
    if len(told) == 1:  # of what follows the first paragraph, typer takes away an indent that all lines but one have
        shown = f"\n{shown}"
    to.command(name, help="\n\n".join([*told, shown]))(command)


_add(
    "run",
    running.run,
    "exoflow run jobs.py:daily --arg day=2026-03-01",
    "exoflow run jobs.py:daily --arg parts=32 --id nightly-2026-03-01 --label team=search",
    "exoflow run package.module:daily --executor processes --json",
)
_add(
    "resume",
    running.resume,
    "exoflow resume nightly-2026-03-01",
    "exoflow resume nightly-2026-03-01 --accept 'classify#3'",
)
_add(
    "list",
    listing.list_runs,
    "exoflow list",
    "exoflow list --status broken_off --flow daily",
    "exoflow list --label team=search --limit 0 --json",
)
_add("show", showing.show, "exoflow show nightly-2026-03-01", "exoflow show nightly-2026-03-01 --timeline")
_add("explain", explaining.explain, "exoflow explain jobs.py:daily", "exoflow explain nightly-2026-03-01 --json")
_add(
    "send",
    telling.send,
    "exoflow send nightly-2026-03-01 approved",
    'exoflow send nightly-2026-03-01 approved \'{"by": "anna"}\' --id 4711',
)
_add(
    "resolve",
    telling.resolve,
    "exoflow resolve nightly-2026-03-01 'charge#0' --happened '\"receipt-17\"'",
    "exoflow resolve nightly-2026-03-01 'charge#0' --did-not",
)
_add("cancel", telling.cancel, "exoflow cancel nightly-2026-03-01")
_add("gc", collecting.gc, "exoflow gc --dry-run", "exoflow gc --keep-days 30")
_add("doctor", doctor.doctor, "exoflow doctor", "exoflow doctor --store /data/exoflow")
_add(
    "serve",
    serving.serve,
    "exoflow serve shop.py",
    "exoflow serve shop.py --host 0.0.0.0 --tokens /etc/shop/tokens --store /data/exoflow",
)
_add("demo", _demo, "exoflow demo", "exoflow demo --keep /tmp/demo")

_llm = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Serve a model with thousands of LoRA adapters.")
app.add_typer(_llm, name="llm")
_add(
    "serve",
    llm.serve,
    "exoflow llm serve smollm2 --adapters adapters",
    "exoflow llm serve /models/llama --adapters adapters --host 0.0.0.0 --api-keys /etc/llm/keys",
    to=_llm,
)
_add(
    "make-adapters",
    making.make_adapters,
    "exoflow llm make-adapters adapters --model smollm2 --count 100 --ranks 8,16,64",
    to=_llm,
)
_add(
    "bench",
    benching.bench,
    "exoflow llm bench smollm2 --rate 2 --duration 30 --adapters 100 --ranks 8,16,64",
    "exoflow llm bench http://127.0.0.1:8000/v1 --adapters 100 --json",
    to=_llm,
)
