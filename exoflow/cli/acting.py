"""What ``explain`` says of actors: when their states are saved, and what a crash costs."""

from __future__ import annotations

from exoflow.catalogue import ActorSeen
from exoflow.cli.source import Site

_TENS = {1: "st", 2: "nd", 3: "rd"}


def snapshots_of(site: Site) -> str:
    """When a snapshot is taken, at a place in the source that creates or calls an actor."""
    if site.creates is not None:
        every = site.creates.snapshot_every
        behind = "every call" if every == 1 else f"every {_nth(every)} call"
        return f"a snapshot, its pickle, is taken when it has been created, behind {behind}, and where an effect waits"
    note = site.task.note if site.task is not None else None
    if note is not None and note.actor and note.saves == "sync" and note.chooses:
        return "a snapshot is taken behind this call, before anyone may read its result"
    return ""


def made_again(site: Site) -> str:
    """What a crash costs there."""
    if site.creates is not None:
        most = site.creates.snapshot_every - 1
        if most == 0:
            return "created again by this call, and given the state of the last snapshot"
        calls = "the call" if most == 1 else f"up to {most} calls"
        return f"created again by this call, given the state of the last snapshot, and {calls} behind that made again"
    note = site.task.note if site.task is not None else None
    if note is None or not note.actor:
        return ""
    if note.deterministic:
        return "what it had returned, and was recorded, stays; behind the last snapshot it is made again for the state"
    return "behind the last snapshot it is made again, and with it whatever was derived from what it had returned"


def states_of(actor: ActorSeen, shown: dict[str, str], *, over: bool) -> dict[str, str]:
    """Of each call of an actor in a run's records, in which snapshot the state is that it has left."""
    lost = "in no snapshot" + ("" if over else ": made again where it is needed after a crash")
    found = {call.id: lost for call in actor.behind}
    newest = ""
    for call in reversed(actor.calls):
        if call.in_snapshot:
            newest = shown[call.id]
            found[call.id] = "in a snapshot of its own"
        elif newest:
            found[call.id] = f"in the snapshot behind {newest}"
    return found


def _nth(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else _TENS.get(number % 10, "th")
    return f"{number}{ending}"
