"""``exoflow run`` and ``resume``."""

from __future__ import annotations

import os
import time
import traceback
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

import exoflow
from exoflow.cli.arguments import arguments
from exoflow.cli.failures import FAILED, WrongUsage, reported
from exoflow.cli.loading import find_flow_object, make_importable
from exoflow.cli.options import (
    DebugOption,
    ExecutorOption,
    JsonOption,
    LabelOption,
    RunIdArgument,
    StoreOption,
    pairs,
)
from exoflow.cli.place import catalogue_of, resume_command, store_of
from exoflow.cli.progress import progress, told
from exoflow.cli.showing import say_what_stands
from exoflow.cli.stopping import Stopped, run_stoppable
from exoflow.cli.terminal import STYLES, Terminal, terminal_alone
from exoflow.cli.words import count, duration
from exoflow.client import code_of
from exoflow.errors import ExecutorError
from exoflow.flows import AnyFlow, adopt
from exoflow.model import Status
from exoflow.options import RunOptions

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution

_PACKAGE = os.path.join(os.path.dirname(exoflow.__file__), "")
_WHERE = "Where it was raised:\n"


def run(
    target: Annotated[str, typer.Argument(metavar="FILE:FLOW", help="As in jobs.py:daily.", show_default=False)],
    arg: Annotated[
        list[str] | None, typer.Option("--arg", metavar="NAME=VALUE", help="An argument: JSON, or text as it is.")
    ] = None,
    run_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Names the run; the same id again goes on with it.")
    ] = None,
    store: StoreOption = None,
    executor: ExecutorOption = None,
    label: LabelOption = None,
    json_output: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Run a flow, and print what it returns."""
    with terminal_alone(json_output=json_output) as terminal, reported(terminal, debug=debug):
        flow = find_flow_object(target)
        assert isinstance(flow, AnyFlow)
        args, kwargs = arguments(flow._spec.function, arg or ())
        options = RunOptions(store=store_of(store), labels=pairs(label, "--label"))
        if run_id is not None:
            options["run_id"] = run_id
        if executor is not None:
            options["executor"] = executor
        execution = _begun(flow, options, args, kwargs)
        _run_to_end(execution, terminal, resume_command(execution.run_id, store, executor), debug=debug)


def _begun(
    flow: AnyFlow[..., Any, Any], options: RunOptions, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Execution:
    try:
        return flow.options(**options)._begin(args, kwargs)
    except (TypeError, ValueError, ExecutorError) as error:  # an empty id, an argument that does not encode
        raise WrongUsage(str(error)) from error


def resume(
    run_id: RunIdArgument,
    accept: Annotated[
        list[str] | None,
        typer.Option("--accept", metavar="CALL", help="Use this call's result although its code has changed."),
    ] = None,
    executor: ExecutorOption = None,
    takeover: Annotated[
        bool, typer.Option("--takeover", help="Take the run from a process that lives; it can record nothing more.")
    ] = False,
    store: StoreOption = None,
    json_output: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Go on with a run that broke off or failed: what is recorded is not run again."""
    with terminal_alone(json_output=json_output) as terminal, reported(terminal, debug=debug):
        opened = store_of(store)
        with catalogue_of(opened, terminal) as catalogue:
            known = catalogue.run(run_id)
        if known.status in (Status.FAILED, Status.BROKEN_OFF, Status.IN_DOUBT) or takeover:
            go_to(known.cwd, terminal)
        make_importable(known.file, known.module)
        try:
            execution = adopt(run_id, code_of, opened, executor, takeover=takeover, accept=tuple(accept or ()))
        except ExecutorError as error:
            raise WrongUsage(str(error)) from error
        _run_to_end(execution, terminal, resume_command(run_id, store, executor), debug=debug)


def go_to(folder: str, terminal: Terminal) -> None:
    """Resume where the run began: its relative paths mean the same there."""
    if not folder or os.path.realpath(folder) == os.path.realpath(os.getcwd()):
        return
    try:
        os.chdir(folder)
    except OSError as error:
        terminal.say(f"exoflow: the run began in {folder}, which is not there now ({error.strerror}); it goes on here")
    else:
        terminal.say(Text(f"in {folder}, where the run began", style="dim"))


def _run_to_end(execution: Execution, terminal: Terminal, go_on: str, *, debug: bool) -> None:
    """Run a flow's body to its end, say how far it is meanwhile, print what came of it.

    ``go_on`` is the command that goes on with it.
    """
    if not terminal.json_output:
        terminal.say(Text.assemble(("run ", "dim"), execution.run_id))
    begun, stored = time.monotonic(), execution.ended.is_set()
    try:
        with told(execution, terminal):
            result = run_stoppable(execution, go_on)
    except Stopped as stopped:
        if terminal.json_output:
            terminal.print_json(_outcome(execution, time.monotonic() - begun, error=str(stopped)))
        raise
    except Exception as error:
        if execution.status is not Status.FAILED and not isinstance(error, ExecutorError):
            raise
        _tell_failure(execution, error, terminal, go_on, debug=debug)
        raise typer.Exit(FAILED) from None
    seconds = time.monotonic() - begun
    if terminal.json_output:
        terminal.print_json(_outcome(execution, seconds, result=result))
        return
    found = progress(execution)
    loaded = f", {found.loaded:,} of them loaded" if found.loaded else ""
    words = " before" if stored else f" · {count(found.made, 'call')}{loaded} · {duration(seconds)}"
    terminal.say(Text.assemble(("done", STYLES[Status.DONE]), (words, "dim")))
    _print_result(result, terminal)


def _print_result(result: object, terminal: Terminal) -> None:
    """Text as it is, nothing for None, everything else as JSON."""
    if isinstance(result, str):
        terminal.out.print(result, markup=False, soft_wrap=True)
    elif result is not None:
        terminal.print_json(result)


def _outcome(execution: Execution, seconds: float, **rest: object) -> dict[str, object]:
    found = progress(execution)
    return {
        "id": execution.run_id,
        "status": str(execution.status),
        "calls": found.made,
        "loaded": found.loaded,
        "seconds": round(seconds, 3),
        **rest,
    }


def _tell_failure(execution: Execution, error: Exception, terminal: Terminal, go_on: str, *, debug: bool) -> None:
    """The task's own traceback, which run it was, and how to go on."""
    notes = [note for note in getattr(error, "__notes__", ()) if isinstance(note, str) and note.startswith(_WHERE)]
    if isinstance(error, ExecutorError) and not debug:
        pass  # there is no cluster, say: no code of the user's is to blame
    elif notes and not debug:
        terminal.say(own_frames(notes[0].removeprefix(_WHERE)))
    else:
        terminal.say("".join(traceback.format_exception(error)).rstrip())
    message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    how = str(execution.status).replace("_", " ")
    terminal.say(Text.assemble("\n", (how, STYLES[execution.status]), f" {execution.run_id}: {message}"))
    if execution.flow.undo_on_failure:
        say_what_stands(execution.values.store, execution.run_id, terminal)
    terminal.say(f"Go on with it: {go_on}")
    if terminal.json_output:
        terminal.print_json(_outcome(execution, 0.0, error=message))


def own_frames(text: str) -> str:
    """A formatted traceback without the lines that are about ExoFlow's own files."""
    kept, ours = [], False
    for line in text.splitlines():
        if line.startswith("  File "):
            ours = line.startswith(f'  File "{_PACKAGE}')
        elif not line.startswith("    "):
            ours = False
        if not ours:
            kept.append(line)
    return "\n".join(kept)
