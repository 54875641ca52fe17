"""``exoflow explain``: what holds a call back and what saves its result, from a flow's source or a run's records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich.text import Text

from exoflow.catalogue import CallSeen, Description
from exoflow.cli.failures import reported
from exoflow.cli.loading import find_flow, looks_like_flow
from exoflow.cli.options import DebugOption, JsonOption, StoreOption
from exoflow.cli.place import catalogue_of, store_of
from exoflow.cli.rows import names
from exoflow.cli.sites import Site, sites
from exoflow.cli.terminal import Terminal
from exoflow.cli.words import listed
from exoflow.driver.spec import FlowSpec, TaskSpec

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
    "rollback": "starts once its intent is durable",
    "": "starts as soon as its inputs are there",
}
_WAITING = ("idempotent", "irrevocable", "transaction")


@dataclass(frozen=True, slots=True)
class Explained:
    """What is said of one call, or of one place in the source."""

    call: str
    where: str
    kind: str
    """choice, deterministic or child flow."""
    effect: str
    saved: str
    starts: str
    waits_for: tuple[str, ...]
    """Choices that have to be durable before it may start."""
    warnings: tuple[str, ...]


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
                run = catalogue.describe(target)
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
    waits_for = tuple(_label(each, flow) for each in behind if _may_hold(each)) if note.effect else ()
    name = site.name if site.how == "call" else f"{site.name}.{site.how}"
    return Explained(
        call="/".join([*site.path, name]),
        where=f"line {site.line}",
        kind="deterministic" if note.deterministic else "choice",
        effect=effect,
        saved=_SAVED[note.saves],
        starts=_STARTS[effect],
        waits_for=waits_for,
        warnings=tuple(_warnings(site.task, awaited=awaited)),
    )


def _label(site: Site, flow: FlowSpec) -> str:
    return f"{'/'.join([*site.path, site.name])} (line {site.line})"


def _may_hold(site: Site) -> bool:
    """A choice that is not durable by the time that anybody can stand on it; or what an effect releases (G6)."""
    if site.task is None:
        return True
    note = site.task.note
    return note.saves != "sync" and (not note.deterministic or note.rollback)


def _acts(task: TaskSpec | None) -> bool:
    return task is not None and task.note.effect is not None


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
    return [_recorded(call, by_id, shown) for call in run.calls]


def _recorded(call: CallSeen, by_id: dict[str, CallSeen], shown: dict[str, str]) -> Explained:
    effect = call.effect or ""
    choices = [shown[id] for id in _ancestors(call, by_id) if by_id[id].choice or by_id[id].effect == "rollback"]
    if call.reads_at:
        choices.append(f"the {call.reads_at} results that the flow's body had read")
    last = call.last
    saved = "began, no result" if last is None else "undone" if last.undone else last.saved
    return Explained(
        call=call.id,
        where=f"process {last.epoch}" if last else "",
        kind="child flow" if call.child_flow else "choice" if call.choice else "deterministic",
        effect=effect,
        saved={"inline": "saved in the journal", "object": "saved as an object"}.get(saved, saved),
        starts=_STARTS[effect].replace("starts", "started"),
        waits_for=tuple(choices) if effect in _WAITING else (),
        warnings=("in doubt: nothing says whether its effect happened",) if call.in_doubt else (),
    )


def _ancestors(call: CallSeen, by_id: dict[str, CallSeen]) -> list[str]:
    found: dict[str, None] = {}
    stack = list(call.inputs)
    while stack:
        id = stack.pop()
        if id in by_id and id not in found:
            found[id] = None
            stack.extend(by_id[id].inputs)
    return sorted(found, key=list(by_id).index)


# -- print -------------------------------------------------------------------------------------------------------------


def _lines(found: Sequence[Explained]) -> Iterator[Text]:
    if not found:
        yield Text("no call of a task", style="dim")
    width = max((len(each.call) for each in found), default=0)
    place = max((len(each.where) for each in found), default=0)
    for each in found:
        where = (f"{each.where:<{place}}  ", "dim")
        yield Text.assemble(where, (f"{each.call:<{width}}", "bold"), f"  {each.kind:<13}  {each.saved}")
        below = " " * (place + 4)
        if each.effect:
            yield Text.assemble(
                below, ("can be undone" if each.effect == "rollback" else each.effect, "magenta"), f": {each.starts}"
            )
        if each.waits_for:
            waits = "waits for" if each.where.startswith("line") else "waited for"
            yield Text(f"{below}{waits} {listed(each.waits_for, most=8)}", style="cyan")
        elif each.effect in _WAITING:
            yield Text(f"{below}no choice behind it: only the run's inputs have to be durable", style="dim")
        for warning in each.warnings:
            yield Text(f"{below}careful: {warning}", style="yellow")
