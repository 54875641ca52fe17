"""``exoflow show``: what became of each call of a run, and why."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from exoflow.catalogue import CallSeen, Description, spent_by_flow, spent_on
from exoflow.cli.failures import reported
from exoflow.cli.listing import summary_json
from exoflow.cli.options import DebugOption, JsonOption, RunIdArgument, StoreOption
from exoflow.cli.place import catalogue_of, resolve_command, resume_command, store_of
from exoflow.cli.terminal import Terminal, status_text
from exoflow.cli.timeline import timeline
from exoflow.cli.tree import error_line, totals, tree
from exoflow.cli.words import count, duration, listed, moment, usd, waits_for
from exoflow.model import Spent, Status, Version, show_version
from exoflow.protocols import Store

_DOUBTS_MAX = 10


def show(
    run_id: RunIdArgument,
    as_timeline: Annotated[bool, typer.Option("--timeline", help="Bars over time instead of a tree.")] = False,
    every: Annotated[bool, typer.Option("--all", help="A line for each call, alike or not.")] = False,
    store: StoreOption = None,
    json_output: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show a run's calls: what each waited for, what was saved, what models cost, what ran again and why."""
    terminal = Terminal(json_output=json_output)
    with reported(terminal, debug=debug):
        with catalogue_of(store_of(store), terminal) as catalogue:
            found = catalogue.describe(run_id)
        if json_output:
            terminal.print_json(description_json(found))
            return
        terminal.out.print(heading(found))
        terminal.out.print()
        draw = timeline if as_timeline else tree
        terminal.out.print(draw(found, min(terminal.out.width, 120), every=every), crop=False)
        terminal.out.print()
        terminal.out.print(Text(totals(found), style="dim"))
        _advise(found, terminal, store)


def heading(found: Description) -> Text:
    """Which run this is and how it stands, in two lines."""
    run = found.run
    text = Text.assemble((run.run_id, "bold"), "  ", status_text(run.status))
    if run.status in (Status.RUNNING, Status.WAITING) and found.processes:
        pids = [str(pid) for pid in found.processes if pid > 0]
        text.append(f" in process {listed(pids)}" if pids else " elsewhere")
    facts = [run.flow, f"began {moment(run.started_s)}"]
    facts.append(f"took {duration(found.ended_s - run.started_s)}" if run.ended_s else "has not ended")
    facts += [f"{count(run.epoch, 'process')}"] if run.epoch > 1 else []
    facts += [f"{run.executor} executor"] if run.executor else []
    facts += [f"{key}={value}" for key, value in run.labels.items()]
    text.append("\n" + " · ".join(facts), "dim")
    if run.waits is not None:
        text.append(f"\nwaits for {waits_for(run.waits)}, since {moment(run.waits.since_s)}", "cyan")
    if run.error is not None:
        text.append("\n" + error_line(run.error), "red")
    return text


def say_what_stands(store: Store, run_id: str, terminal: Terminal) -> None:
    """Of a run that was to be rolled back: what was not undone, and why."""
    with catalogue_of(store, terminal) as catalogue:
        found = catalogue.describe(run_id)
    standing = [call.id for call in found.calls if call.effect == "rollback" and call.intents > call.undos]
    if standing:
        terminal.say(
            f"Still in place: {listed(standing)}. An effect had begun that stands on it, and from then on it is not "
            "undone. If it should go, undo it by hand."
        )


def _advise(found: Description, terminal: Terminal, store: str | None) -> None:
    """What to do next, where something is to be done."""
    run = found.run
    doubts = [call for call in found.calls if call.in_doubt]
    if doubts:
        terminal.say(
            f"{count(len(doubts), 'effect')} in doubt: {listed([call.id for call in doubts])}. A process died, or the "
            "call failed, when the effect may have happened, and before its result was recorded. Look at what the "
            "service did, then say it:"
        )
        for call in doubts[:_DOUBTS_MAX]:
            terminal.say(
                f"  {resolve_command(run.run_id, call.id, store)} --happened JSON | --did-not    (key {call.key})"
            )
    left = [call.id for call in found.calls if call.not_undone]
    if left:
        terminal.say(
            f"The undo of {listed(left)} failed: its effect is in place, and nothing older was undone. Mend what makes "
            "it fail, or undo the effect by hand so that the undo finds nothing to do. Resuming tries it again."
        )
    if run.status in (Status.FAILED, Status.BROKEN_OFF, Status.IN_DOUBT):
        terminal.say(f"Go on with it: {resume_command(run.run_id, store)}")


def description_json(found: Description) -> dict[str, Any]:
    """A run and its calls for ``--json``."""
    run = summary_json(found.run)
    run["error"] = error_line(found.run.error) if found.run.error else None
    actors = [
        {
            "id": actor.id,
            "snapshots": [call.id for call in actor.snapshots],
            "in_no_snapshot": [call.id for call in actor.behind],
        }
        for actor in found.actors
    ]
    calls = [_call_json(call) for call in found.calls]
    spent = {path: _spent_json(spent) for path, spent in spent_by_flow(found.calls).items()}
    return {**run, "live_in": list(found.processes), "actors": actors, "spent": spent, "calls": calls}


def _spent_json(spent: Spent) -> dict[str, Any]:
    bill = spent.bill
    return {
        "calls": spent.calls,
        "input_tokens": bill.input_tokens,
        "output_tokens": bill.output_tokens,
        "cached_tokens": bill.cached_tokens,
        "nano_usd": bill.nano_usd,
        "usd": f"{usd(bill.nano_usd):f}",
        "maybe_rebilled": spent.maybe_rebilled,
    }


def _call_json(call: CallSeen) -> dict[str, Any]:
    return {
        "id": call.id,
        "task": call.task,
        "waited_for": list(call.inputs),
        "runs": call.runs,
        "loaded": call.loaded,
        "choice": call.choice,
        "child_flow": call.child_flow,
        "effect": call.effect,
        "intents": call.intents,
        "key": call.key,
        "undos": call.undos,
        "undoings": [
            {
                "version": show_version(Version(undo.version)),
                "time_s": undo.time_s,
                "tries": undo.tries,
                "error": error_line(undo.error) if undo.error else None,
            }
            for undo in call.undoings
        ],
        "in_doubt": call.in_doubt,
        "spent": _spent_json(spent_on([call])) if call.bill is not None else None,
        "error": error_line(call.error) if call.error else None,
        "actor": call.actor,
        "in_snapshot": call.in_snapshot if call.actor else None,
        "attempts": [
            {
                "version": show_version(Version(attempt.version)),
                "process": attempt.epoch,
                "started_s": attempt.started_s,
                "seconds": attempt.seconds,
                "number": attempt.number,
                "why": attempt.why,
                "saved": attempt.saved,
                "size": attempt.size,
                "undone": attempt.undone,
                "executor": attempt.executor,
                "worker": attempt.worker,
            }
            for attempt in call.attempts
        ],
    }
