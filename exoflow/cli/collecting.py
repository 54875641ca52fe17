"""``exoflow gc``."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from exoflow.cli.failures import reported
from exoflow.cli.options import DebugOption, JsonOption, StoreOption
from exoflow.cli.place import store_of
from exoflow.cli.terminal import Terminal
from exoflow.cli.words import count
from exoflow.driver.records import Ended
from exoflow.journal.gc import Collected, collect
from exoflow.journal.retention import EndedRun, Keep

_DAY_S = 86_400


def gc(
    keep_days: Annotated[
        float | None,
        typer.Option(
            min=0, help="Delete runs that ended longer ago than this. (default: none is deleted)", show_default=False
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted, and delete nothing.")] = False,
    store: StoreOption = None,
    json_output: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Free space: pack ended runs, delete values that nothing needs, and old runs if you say how old.

    Runs that have not ended are never touched. A failed run counts as ended: once it is deleted it cannot be resumed.
    """
    terminal = Terminal(json_output=json_output)
    with reported(terminal, debug=debug):
        opened = store_of(store)
        with terminal.waiting(f"collecting in {opened.url}"):
            done = collect(opened, _keep(keep_days), dry_run)
        if json_output:
            terminal.print_json({"dry_run": dry_run, **asdict(done)})
        else:
            _print(done, terminal, dry_run=dry_run)


def _keep(days: float | None) -> Keep:
    """Which ended runs stay."""
    if days is None:
        return lambda run: True
    oldest_s = time.time() - days * _DAY_S

    def recent(run: EndedRun) -> bool:
        return Ended(*run.end).time_s >= oldest_s

    return recent


def _print(done: Collected, terminal: Terminal, *, dry_run: bool) -> None:
    for run_id in done.dropped:
        terminal.out.print(Text(f"{'would delete' if dry_run else 'deleted'}  {run_id}"), soft_wrap=True)
    parts = [
        f"{count(len(done.dropped), 'run')} deleted",
        f"{count(len(done.packed), 'run')} packed",
        f"{count(len(done.slots), 'journal slot')} and {count(len(done.values), 'value')} deleted",
    ]
    terminal.say(Text(("would be: " if dry_run else "") + ", ".join(parts), style="dim"))
