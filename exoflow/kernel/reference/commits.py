"""What is committed, and may be used: itself, and with all that is behind it."""

from __future__ import annotations

from exoflow.kernel.reference.facts import CallFacts, Facts
from exoflow.kernel.reference.graph import after, agrees, is_choice, is_whole, lineage, stands_aside
from exoflow.model import CallId, Kind


def committed(facts: Facts, call: CallFacts) -> bool:
    """It cannot change, as far as it is a choice itself; G6: nor be undone."""
    return is_committed_alone(facts, call) or is_covered(facts, call)


def is_committed_alone(facts: Facts, call: CallFacts) -> bool:
    """By its own record, and for a choice of an actor by its own snapshot."""
    if call.note.kind is Kind.FLOW:
        own = facts.bodies.get(f"{call.id}/")
        unsaved = any(not is_whole(facts.calls[id]) for id in call.open_names)
        if not call.has_result or unsaved and not (own and own.ended):
            return False  # its body has not read all that it will, or which choices are behind it is not known yet
    if call.inherited:
        return True
    if is_choice(call) or call.note.rollback or not is_restorable(facts, call.before):
        return call.has_result and is_whole(call)
    return True


def is_restorable(facts: Facts, id: CallId | None) -> bool:
    """V7: whether the state before a call can be had again without a choice of the actor's being made again."""
    while id is not None:
        call = facts.calls[id]
        if not stands_aside(facts, call) and (call.snapshot_durable or is_choice(call)):
            return call.snapshot_durable
        id = call.before
        if id is None:
            return False
    return True


def is_covered(facts: Facts, call: CallFacts) -> bool:
    """V7: a later snapshot commits it, once all that this one stands on is committed, or covered in the same way."""
    found: set[CallId] = set()
    pending = [call]
    while pending:
        source = pending.pop()
        if source.covered:
            continue
        if not source.note.actor or not source.durable or (cover := next_snapshot(facts, source)) is None:
            return False
        found.add(source.id)
        behind = (facts.calls[id] for id in lineage(facts, cover) | {cover.id})
        pending += [each for each in behind if each.id not in found and not is_committed_alone(facts, each)]
    return True


def next_snapshot(facts: Facts, call: CallFacts) -> CallFacts | None:
    """The first call of the actor, from this one on, whose state is in a durable snapshot."""
    at: CallFacts | None = call
    while at is not None and at.has_result and not at.snapshot_durable:
        at = after(facts, at)
    return at if at is not None and at.has_result else None


def closed(facts: Facts, call: CallFacts) -> bool:
    """Pinned: it and every choice behind it are committed."""
    return committed(facts, call) and is_grounded(facts, call)


def is_grounded(facts: Facts, call: CallFacts) -> bool:
    """G3, G6: every choice and every rollback-able call behind it is committed."""
    return all(committed(facts, facts.calls[id]) for id in lineage(facts, call))


def available(facts: Facts, call: CallFacts) -> bool:
    """G1, G2: a consumer may use it: at once in memory, a ``sync`` result only when its record is durable."""
    if not agrees(facts, call):
        return False
    if call.failed:
        return True
    return (call.held or call.recorded) and (call.note.saves != "sync" or call.durable and committed(facts, call))
