"""What is needed, and what that takes."""

from __future__ import annotations

from collections.abc import Iterable

from exoflow.kernel.reference.commits import available, committed
from exoflow.kernel.reference.facts import NO_VERSION, CallFacts, Facts
from exoflow.kernel.reference.graph import after, agrees, is_choice, lineage, owners, states, taken
from exoflow.model import CallId


def needed(facts: Facts) -> set[CallId]:
    """V1, V2: the calls without a usable value that have to run, now or once their inputs are there."""
    known = facts.found.get("needed")
    if known is not None:
        return known
    found = facts.found["needed"] = set()
    if facts.outcome or is_unwinding(facts):
        return found  # V15, V16
    pending = [(id, False) for id, call in facts.calls.items() if is_wanted(facts, call)]
    while pending:
        id, for_state = pending.pop()
        call = facts.calls[id]
        if not call.attached and not has_value(call):  # V6: inside a child flow, which is replayed to make it again
            pending.extend((id, False) for owner in owners(facts, call) for id in taken(facts, owner))
        there = agrees(facts, call) and (has_state(call) if for_state else has_value(call))
        if call.id in found or not call.attached or there:
            continue
        found.add(call.id)
        if call.running or call.in_doubt or is_doubtful(call) and call.note.on_doubt == "stop":
            continue  # it has had its inputs, or nobody knows yet whether it needs them
        pending.extend((id, False) for id in made_from(facts, call))
        if has_values(facts, call):
            pending.extend((id, True) for id in states(facts, call)[-1:])  # V7: the state is asked for last
        if call.note.stands_firm and has_inputs(facts, call):
            behind = [id for id in lineage(facts, call) if not committed(facts, facts.calls[id])]
            pending.extend((id, False) for id in behind)
            pending.extend((last.id, True) for id in behind for last in to_cover(facts, facts.calls[id]))
    return found


def is_unwinding(facts: Facts) -> bool:
    """V15: cancelled, or failed with a flow that rolls back; an epoch in between may have died of a crash."""
    return facts.cancelled or facts.failing or facts.outcome == "failed" and facts.undo_on_failure


def is_wanted(facts: Facts, call: CallFacts) -> bool:
    """V1: somebody waits for its value, or it has never run, and is to be run for its own sake."""
    if call.id in facts.awaited:
        return True
    if call.note.actor and call.attached and not call.made and (taker := after(facts, call)):
        return taker.has_result and taker.made > NO_VERSION  # V7: it stood aside, and no record says so
    return call.attached and call.id in facts.bodies[call.path].demanded and not agrees(facts, call)


def made_from(facts: Facts, call: CallFacts) -> set[CallId]:
    """The values that an attempt needs: from a snapshot, an actor is first created again, from what it was created."""
    found = set(taken(facts, call))
    source = holder(facts, call)
    if source is not None and has_state(source) and not source.live:
        while source.before is not None:
            source = facts.calls[source.before]
        found.update(taken(facts, source))
    return found


def has_inputs(facts: Facts, call: CallFacts) -> bool:
    return has_values(facts, call) and has_state_before(facts, call)


def has_values(facts: Facts, call: CallFacts) -> bool:
    return all(available(facts, facts.calls[id]) for id in made_from(facts, call))


def has_value(call: CallFacts) -> bool:
    return call.failed or call.held or call.recorded


def holder(facts: Facts, call: CallFacts) -> CallFacts | None:
    """V7: whose state an attempt takes."""
    found = states(facts, call)
    return facts.calls[found[-1]] if found else None


def has_state(call: CallFacts) -> bool:
    """V7: the state that it has left can be had."""
    return call.has_result and (call.live or call.snapshot)


def has_state_before(facts: Facts, call: CallFacts) -> bool:
    source = holder(facts, call)
    return source is None or has_state(source) and not source.snapshotting


def is_doubtful(call: CallFacts) -> bool:
    """V13: an attempt may have begun under the intent, and no result tells how it ended."""
    if call.note.effect != "irrevocable" or call.note.on_doubt == "retry":
        return False
    return call.intent_durable and (call.intent_is_old or call.started >= call.intent)


def to_cover(facts: Facts, call: CallFacts) -> list[CallFacts]:
    """V7: whose state, in a snapshot, would commit an actor's call; nobody's, if one behind it may have one soon."""
    if not call.note.actor or not is_choice(call) or not call.has_result:
        return []
    last = call
    while not has_state(last) and not last.snapshotting:
        taker = after(facts, last)
        if taker is None or not taker.has_result:
            waits = taker is not None and taker.running or history_left(facts.calls.values())
            return [] if waits else [last]
        last = taker
    return [last]


def history_left(calls: Iterable[CallFacts]) -> bool:
    """Whether a body may still make a call whose result, or intent, is known."""
    return any(not call.attached and (call.has_result or call.intent) for call in calls)


def untaken(facts: Facts, path: str) -> set[CallId]:
    """V1: what runs for its own sake, once this body waits or has ended: effects, and what no result was made from yet.

    A call that is made when no history is left to be asked for runs in any case. Timers and events are never taken
    for their own sake.
    """
    calls = (call for call in facts.calls.values() if call.attached and call.path == path)
    made = {call.id for call in calls if not call.note.may_be_left}
    takers = [call for call in facts.calls.values() if call.attached]
    used: set[CallId] = set()
    while more := {id for taker in takers if has_served(facts, taker, used) for id in served_by(facts, taker)} - used:
        used |= more
    return {id for id in made if id not in used or facts.calls[id].note.effect is not None}


def has_served(facts: Facts, call: CallFacts, used: set[CallId]) -> bool:
    """Its result is there, or was used, near or far: for its sake no input has to be made."""
    return agrees(facts, call) or call.id in used and call.note.effect is None


def served_by(facts: Facts, call: CallFacts) -> list[CallId]:
    """What has been of use for the call."""
    return [*call.inputs, *states(facts, call)]
