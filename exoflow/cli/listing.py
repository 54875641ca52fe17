"""``exoflow list``."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from exoflow.catalogue import RunSummary
from exoflow.cli.failures import reported
from exoflow.cli.options import DebugOption, JsonOption, LabelOption, StoreOption, pairs
from exoflow.cli.place import catalogue_of, runs_in, store_of
from exoflow.cli.terminal import Terminal, status_text, table
from exoflow.cli.words import ago, duration, waits_for
from exoflow.model import Status


def list_runs(
    status: Annotated[Status | None, typer.Option(help="Only runs that stand like this.", show_choices=True)] = None,
    flow: Annotated[str | None, typer.Option(help="Only runs of this flow.")] = None,
    label: LabelOption = None,
    limit: Annotated[int, typer.Option(min=0, help="So many, the newest first; 0 for all.")] = 20,
    store: StoreOption = None,
    json_output: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List runs, the newest first."""
    terminal = Terminal(json_output=json_output)
    with reported(terminal, debug=debug):
        opened = store_of(store)
        with catalogue_of(opened, terminal) as catalogue:
            found = catalogue.runs(status=status, flow=flow, labels=pairs(label, "--label"), limit=limit or None)
            known = catalogue.count()
        if json_output:
            terminal.print_json([summary_json(run) for run in found])
            return
        if found:
            _print(found, terminal)
        if len(found) < known or not found:
            shown = f"{len(found):,} of " if found else "none of " if known else ""
            terminal.say(Text(f"{shown}{runs_in(known, opened)}", style="dim"))


def _print(runs: list[RunSummary], terminal: Terminal) -> None:
    labelled = any(run.labels for run in runs)
    drawn = table(
        "id", "status", "started", "took", "calls", *(["labels"] if labelled else []), right=("took", "calls")
    )
    for column in drawn.columns[:5]:
        column.no_wrap = True
    for run in runs:
        took = duration(run.ended_s - run.started_s) if run.ended_s is not None else ""
        status = status_text(run.status)
        if run.undo_failed:
            status.append(", undo failed", "bold red")
        if run.waits is not None:
            status.append(f" for {waits_for(run.waits, most=1)}", "dim")
        row = [Text(run.run_id), status, Text(ago(run.started_s)), Text(took), Text(f"{run.calls:,}")]
        drawn.add_row(*row, *([Text(", ".join(f"{k}={v}" for k, v in run.labels.items()))] if labelled else []))
    terminal.out.print(drawn)


def summary_json(run: RunSummary) -> dict[str, Any]:
    """A run for ``--json``."""
    return {
        "id": run.run_id,
        "flow": run.flow,
        "status": str(run.status),
        "started_s": run.started_s,
        "ended_s": run.ended_s,
        "undo_failed": run.undo_failed,
        "calls": run.calls,
        "processes": run.epoch,
        "waits_for": _waits_json(run),
        "labels": dict(run.labels),
        "executor": run.executor,
        "version": run.version,
        "file": run.file,
        "qualname": run.qualname,
    }


def _waits_json(run: RunSummary) -> list[dict[str, Any]]:
    calls = run.waits.calls if run.waits is not None else ()
    return [{"call": call, "event": event, "due_s": due_s} for call, event, due_s in calls]
