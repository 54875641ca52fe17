"""``exoflow llm make-adapters``."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from exoflow.cli.failures import WrongUsage, reported
from exoflow.cli.listening import need
from exoflow.cli.llm import check_model
from exoflow.cli.options import DebugOption
from exoflow.cli.terminal import Terminal
from exoflow.cli.words import count, size


def make_adapters(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where they are written.", show_default=False)],
    model: Annotated[str, typer.Option("--model", metavar="MODEL", help="Which they are for.")] = "smollm2",
    number: Annotated[int, typer.Option("--count", min=1, help="How many.")] = 8,
    ranks: Annotated[str, typer.Option("--ranks", metavar="R,R,…", help="Dealt out in turn.")] = "8",
    attention: Annotated[bool, typer.Option("--attention", help="Change q, k, v and o only.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="The same one writes the same bytes.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Write over adapters that are there.")] = False,
    debug: DebugOption = False,
) -> None:
    """Write LoRA adapters with random weights, in PEFT's format, to try an engine with."""
    terminal = Terminal()
    with reported(terminal, debug=debug):
        need("llm", "torch", "transformers")
        dealt = ranks_of(ranks)
        check_model(model)
        from exoflow.llm.bench import adapters
        from exoflow.llm.engine.models.loading import geometry_of, read_config
        from exoflow.llm.engine.models.sources import find_model

        geometry = geometry_of(read_config(find_model(model)))
        modules = adapters.ATTENTION if attention else adapters.ALL
        try:
            if not force:
                _check_names(directory, adapters.names(number))
            _check_room(directory, needed := adapters.bytes_of(geometry, number, dealt, modules))
            said = f"writing {count(number, 'adapter')}, {size(needed)}, to {directory}"
            with _told(terminal, said, number) as written:
                adapters.make_adapters(
                    directory, geometry, number, dealt, modules, seed, base_model=model, written=written
                )
        except OSError as error:
            raise WrongUsage(f"{error.filename or directory} cannot be written: {error.strerror or error}") from error
        terminal.say(f"{count(number, 'adapter')} in {directory}")


def ranks_of(text: str) -> list[int]:
    """As ``8,16,64``."""
    dealt = [rank.strip() for rank in text.split(",")]
    if not all(rank.isdecimal() and int(rank) for rank in dealt):
        raise WrongUsage(f"--ranks {text}: write numbers from 1, as 8,16,64")
    return [int(rank) for rank in dealt]


def _check_names(directory: Path, names: list[str]) -> None:
    taken = next((directory / name for name in names if (directory / name).exists()), None)
    if taken is not None:
        raise WrongUsage(f"{taken} is there already: give another DIR, or --force to write over it")


def _check_room(directory: Path, needed: int) -> None:
    there = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    if needed > (free := shutil.disk_usage(there).free):
        raise WrongUsage(
            f"they take {size(needed)}, and {there} has {size(free)} left: give less by --count or --ranks"
        )


@contextmanager
def _told(terminal: Terminal, text: str, number: int) -> Iterator[Callable[[int], None]]:
    """Says the text, and how far it is where lines can be drawn over."""
    if not terminal.live:
        terminal.say(text)
        yield lambda written: None
        return
    with terminal.err.status(text, spinner="dots") as status:
        yield lambda written: status.update(f"{text}: {written:,} of {number:,}")
