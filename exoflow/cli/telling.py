"""``exoflow send``, ``resolve`` and ``cancel``: tell a run something, whichever process it is in."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Annotated

import typer
from rich.text import Text

import exoflow
from exoflow.cli.failures import WrongUsage, reported
from exoflow.cli.loading import make_importable
from exoflow.cli.options import DebugOption, JsonOption, RunIdArgument, StoreOption
from exoflow.cli.place import catalogue_of, resume_command, store_of
from exoflow.cli.running import go_to
from exoflow.cli.showing import say_what_stands
from exoflow.cli.terminal import STYLES, Terminal
from exoflow.client import code_of
from exoflow.driver.runtime import Runtime
from exoflow.errors import DidNotHappen, RunCancelled, RunError
from exoflow.flows import adopt
from exoflow.model import Happened, Status
from exoflow.sending import check_doubts

PATIENCE_S = 10.0
"""How long ``cancel`` waits for another process to carry it out."""


def send(
    run_id: RunIdArgument,
    event: Annotated[str, typer.Argument(metavar="EVENT", help="Its name, as the flow waits for it.")],
    data: Annotated[str | None, typer.Argument(metavar="JSON", help="Its data. (default: null)")] = None,
    sending: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Of this sending: twice with one id is taken once.")
    ] = None,
    store: StoreOption = None,
    json_output: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Send a run an event. It is durable when the command returns, whoever works on the run, or nobody."""
    terminal = Terminal(json_output=json_output)
    with reported(terminal, debug=debug):
        value = None if data is None else _json(data, "the data")
        try:
            exoflow.send(run_id, event, value, id=sending, store=store_of(store))
        except ValueError as error:
            raise WrongUsage(str(error)) from error
        if json_output:
            terminal.print_json({"id": run_id, "event": event})
        else:
            terminal.say(f"sent {event} to {run_id}")


def resolve(
    run_id: RunIdArgument,
    call: Annotated[str, typer.Argument(metavar="CALL", help="Whose effect is in doubt, as `exoflow show` names it.")],
    happened: Annotated[
        str | None, typer.Option("--happened", metavar="JSON", help="It happened; what the call would have returned.")
    ] = None,
    did_not: Annotated[
        bool, typer.Option("--did-not", help="It did not happen: `resume` runs the call again.")
    ] = False,
    store: StoreOption = None,
    json_output: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say whether an effect in doubt happened. Then `exoflow resume` goes on with the run."""
    terminal = Terminal(json_output=json_output)
    with reported(terminal, debug=debug):
        if (happened is None) is not did_not:
            raise WrongUsage("say one of --happened JSON (null, if the call returns nothing) and --did-not")
        answer = DidNotHappen() if happened is None else Happened(_json(happened, "--happened"))
        exoflow.resolve(run_id, call, answer, store=store_of(store))
        if json_output:
            terminal.print_json({"id": run_id, "call": call, "happened": not did_not})
        else:
            terminal.say(f"noted that {call} {'did not happen' if did_not else 'happened'}")
            terminal.say(f"Go on with it: {resume_command(run_id, store)}")


def cancel(
    run_id: RunIdArgument, store: StoreOption = None, json_output: JsonOption = False, debug: DebugOption = False
) -> None:
    """Cancel a run: what can be undone is undone, unless an effect stands on it.

    The process that works on it is told, and does it; a run that no process works on is cancelled here.
    """
    terminal = Terminal(json_output=json_output)
    with reported(terminal, debug=debug):
        opened = store_of(store)
        with catalogue_of(opened, terminal) as catalogue:
            known = catalogue.run(run_id)
        if known.status in (Status.DONE, Status.CANCELLED):
            raise RunError(f"the run {run_id} has ended already: it is {known.status}")
        if known.status in (Status.RUNNING, Status.WAITING):
            exoflow.cancel(run_id, store=opened)
            with terminal.waiting("its process cancels it"), suppress(RunCancelled, TimeoutError):
                exoflow.get(run_id, store=opened).result(timeout=PATIENCE_S)
        else:
            check_doubts(opened, Runtime.of(opened).journal.find(run_id))
            go_to(known.cwd, terminal)
            make_importable(known.file, known.module)
            execution = adopt(run_id, code_of, opened)
            execution.cancel()
            with suppress(RunCancelled):
                execution.result()
        status = exoflow.get(run_id, store=opened).status
        if json_output:
            terminal.print_json({"id": run_id, "status": str(status)})
            return
        terminal.say(Text.assemble((str(status), STYLES[status]), f" {run_id}"))
        say_what_stands(opened, run_id, terminal)
        if status in (Status.RUNNING, Status.WAITING):
            terminal.say("The cancel is durable. It is carried out when what runs in its process now has ended.")


def _json(text: str, what: str) -> object:
    try:
        value: object = json.loads(text)
    except ValueError as error:
        raise WrongUsage(
            f"{what}: {text!r} is no JSON: {error}. A text is written with its quotes: '\"text\"'"
        ) from error
    return value
