"""``exoflow explain``: what holds a call back and what saves its result, from a flow's source or a run's records."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Annotated

import typer
from rich.text import Text

from exoflow.catalogue import CallSeen, Description
from exoflow.cli.acting import made_again, snapshots_of, states_of
from exoflow.cli.failures import WrongUsage, reported
from exoflow.cli.loading import find_flow, looks_like_flow
from exoflow.cli.options import DebugOption, JsonOption, StoreOption
from exoflow.cli.place import catalogue_of, store_of
from exoflow.cli.rows import names
from exoflow.cli.sites import sites
from exoflow.cli.source import Site
from exoflow.cli.terminal import Terminal
from exoflow.cli.words import listed, place
from exoflow.driver.spec import FlowSpec, TaskSpec
from exoflow.errors import RunNotFound
from exoflow.model import Status

_SAVED = {
    "sync": "saved before anyone may read it",
    "async": "saved in the background",
    "never": "never saved, made again when needed",
    "cost": "saved where making it again would cost more",
}
_STARTS = {
    "idempotent": "starts only when every choice behind it is durable",
    "irrevocable": "starts only when its intent and every choice behind it are durable",
    "transaction": "starts only when its intent and every choice behind it are durable",
    "paid": "starts only when every choice behind it is durable, sends behind its intent, never again once recorded",
    "rollback": "starts once its intent is durable",
    "": "starts as soon as its inputs are there",
}
_WAITING = ("idempotent", "irrevocable", "transaction", "paid")
_WORDS = {"rollback": "can be undone", "paid": "paid for"}


@dataclass(frozen=True, slots=True)
class Explained:
    """What is said of one call, or of one place in the source."""

    call: str
    where: str
    kind: str
    """choice, deterministic, child flow, or actor, for what creates one."""
    effect: str
    saved: str
    starts: str
    waits_for: tuple[str, ...]
    """Choices that have to be durable before it may start."""
    warnings: tuple[str, ...]
    state: str = ""
    """Of an actor: when snapshots are taken, or in which one the state is."""
    after_crash: str = ""
    """Of an actor's call: what is made again."""


def explain(
    target: Annotated[
        str, typer.Argument(metavar="FILE:FLOW | ID", help="A flow's source, or a run.", show_default=False)
    ],
    store: StoreOption = None,
    json_output: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Explain what each call waits for, what is saved when, and what to be careful of.

    For FILE:FLOW the source is read, not run: it says what may happen. For a run's ID it says what did.
    """
    terminal = Terminal(json_output=json_output)
    with reported(terminal, debug=debug):
        if looks_like_flow(target):
            flow = find_flow(target)
            title, found = f"{flow.name}: what may happen", explain_source(flow)
        else:
            with catalogue_of(store_of(store), terminal) as catalogue:
                try:
                    run = catalogue.describe(target)
                except RunNotFound as error:
                    if not os.path.isfile(f"{target}.py"):
                        raise
                    raise WrongUsage(f"{error}; to explain a flow of that file, write {target}.py:FLOW") from error
            title, found = f"{run.run.run_id}: what happened", explain_run(run)
        if json_output:
            terminal.print_json([asdict(each) for each in found])
            return
        terminal.out.print(Text(title, style="bold"))
        terminal.out.print()
        for line in _lines(found):
            terminal.out.print(line, soft_wrap=True)


# -- a flow's source ---------------------------------------------------------------------------------------------------


def explain_source(flow: FlowSpec) -> list[Explained]:
    """One entry for each place where the flow's source calls a task."""
    found = sites(flow)
    waited_for = {number for site in found if _acts(site.task) for number in site.behind}
    return [
        _site(site, found, flow, awaited=number in waited_for)
        for number, site in enumerate(found)
        if site.task is not None
    ]


def _site(site: Site, all_sites: Sequence[Site], flow: FlowSpec, *, awaited: bool) -> Explained:
    assert site.task is not None
    note = site.task.note
    effect = site.task.effect
    behind = [all_sites[number] for number in site.behind]
    waits_for = tuple(_label(each, flow) for each in behind if _may_hold(each)) if note.stands_firm else ()
    name = site.name if site.how in ("call", site.name) else f"{site.name}.{site.how}"
    return Explained(
        call="/".join([*site.path, name]),
        where=f"line {site.line}",
        kind="actor" if site.creates else "deterministic" if note.deterministic else "choice",
        effect=effect,
        saved=_SAVED[note.saves],
        starts=_STARTS[effect],
        waits_for=waits_for,
        warnings=tuple(_warnings(site.task, awaited=awaited)),
        state=snapshots_of(site),
        after_crash=made_again(site),
    )


def _label(site: Site, flow: FlowSpec) -> str:
    in_snapshot = ", in a snapshot" if site.task is not None and site.task.note.actor else ""
    return f"{'/'.join([*site.path, site.name])} (line {site.line}{in_snapshot})"


def _may_hold(site: Site) -> bool:
    """A choice that is not durable by the time that anybody can stand on it; or what an effect releases (G6)."""
    if site.task is None:
        return True
    note = site.task.note
    return note.saves != "sync" and (not note.deterministic or note.rollback)


def _acts(task: TaskSpec | None) -> bool:
    return task is not None and task.note.stands_firm


def _warnings(task: TaskSpec, *, awaited: bool) -> Iterator[str]:
    note = task.note
    if not note.deterministic and task.effect in ("idempotent", "irrevocable"):
        yield (
            "it is not deterministic and has an effect: a second attempt may send something else under the same key. "
            "Decide in one task and act in the next, or say deterministic=True"
        )
    if note.checkpoint == "never" and not note.deterministic and awaited:
        yield 'checkpoint="never", but an effect stands on it: it is saved all the same'
    if note.effect == "irrevocable" and note.on_doubt == "stop":
        yield 'a crash while it runs leaves the run in doubt, because on_doubt is "stop"; a probe could tell'


# -- a run's records ---------------------------------------------------------------------------------------------------


def explain_run(run: Description) -> list[Explained]:
    """One entry for each call that has a record."""
    shown = names(run.calls)
    by_id = {call.id: call for call in run.calls}
    sources = {call.id: call.inputs for call in run.calls}
    over = run.run.status in (Status.DONE, Status.CANCELLED)
    states: dict[str, str] = {}
    for actor in run.actors:
        states |= states_of(actor, shown, over=over)
        for before, call in pairwise(actor.calls):
            sources[call.id] = (*sources[call.id], before.id)
    found = []
    for call in run.calls:
        choices = [id for id in _ancestors(call, sources) if by_id[id].choice or by_id[id].effect == "rollback"]
        waited_for = [shown[id] for id in choices]
        found.append(_recorded(call, waited_for, run.run.executor, states.get(call.id, "")))
    return found


def _recorded(call: CallSeen, choices: list[str], usual: str, state: str) -> Explained:
    effect = call.effect or ""
    if call.reads_at:
        choices.append(f"the {call.reads_at} results that the flow's body had read")
    last = call.last
    saved = "began, no result" if last is None else "undone" if last.undone else last.saved
    return Explained(
        call=call.id,
        where=", ".join(filter(None, [f"process {last.epoch}", place(last, usual)])) if last else "",
        kind=_kind(call),
        effect=effect,
        saved={"inline": "saved in the journal", "object": "saved as an object"}.get(saved, saved),
        starts=_STARTS[effect].replace("starts", "started"),
        waits_for=tuple(choices) if effect in _WAITING else (),
        warnings=("in doubt: nothing says whether its effect happened",) if call.in_doubt else (),
        state=state,
    )


def _kind(call: CallSeen) -> str:
    if call.actor == call.id:
        return "actor"
    return "child flow" if call.child_flow else "choice" if call.choice else "deterministic"


def _ancestors(call: CallSeen, sources: Mapping[str, Sequence[str]]) -> list[str]:
    found: dict[str, None] = {}
    stack = list(sources[call.id])
    while stack:
        id = stack.pop()
        if id in sources and id not in found and id != call.id:
            found[id] = None
            stack.extend(sources[id])
    return sorted(found, key=list(sources).index)


# -- print -------------------------------------------------------------------------------------------------------------


def _lines(found: Sequence[Explained]) -> Iterator[Text]:
    if not found:
        yield Text(
            "no call of a task is to be seen here; what the flow is given, or gets from elsewhere, may be called"
        )
    width = max((len(each.call) for each in found), default=0)
    place = max((len(each.where) for each in found), default=0)
    for each in found:
        where = (f"{each.where:<{place}}  ", "dim")
        yield Text.assemble(where, (f"{each.call:<{width}}", "bold"), f"  {each.kind:<13}  {each.saved}")
        below = " " * (place + 4)
        if each.effect:
            yield Text.assemble(below, (_WORDS.get(each.effect, each.effect), "magenta"), f": {each.starts}")
        if each.waits_for:
            waits = "waits for" if each.where.startswith("line") else "waited for"
            yield Text(f"{below}{waits} {listed(each.waits_for, most=8)}", style="cyan")
        elif each.effect in _WAITING:
            yield Text(f"{below}no choice behind it: only the run's inputs have to be durable", style="dim")
        if each.state:
            yield Text(f"{below}state: {each.state}", style="blue")
        if each.after_crash:
            yield Text(f"{below}after a crash: {each.after_crash}", style="blue")
        for warning in each.warnings:
            yield Text(f"{below}careful: {warning}", style="yellow")
