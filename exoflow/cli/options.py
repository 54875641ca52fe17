"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store", metavar="URL", help="Where runs are kept. (default: $EXOFLOW_STORE, pyproject.toml, ./.exoflow)"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON to stdout, and nothing else there.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show where an error comes from, and the log.")]
ExecutorOption = Annotated[
    str | None,
    typer.Option(
        "--executor",
        metavar="NAME",
        help="Where tasks run: local, processes, ray, dask, each with :8 for eight workers; ray://HOST:PORT, "
        "tcp://SCHEDULER:PORT. (default: as the flow says, then local)",
    ),
]
LabelOption = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="May be given more than once.")
]
RunIdArgument = Annotated[
    str, typer.Argument(metavar="ID", help="The run's id, as `exoflow list` shows it.", show_default=False)
]


def pairs(texts: list[str] | None, option: str, form: str = "KEY=VALUE") -> dict[str, str]:
    """``k=v`` texts as a dict.

    Raises:
        typer.BadParameter: one of them has no ``=``.
    """
    found = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{text!r} is not {form}", param_hint=f"'{option}'")
        found[key] = value
    return found
