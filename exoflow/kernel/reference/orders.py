"""What to do now."""

from __future__ import annotations

from collections.abc import Iterator

from exoflow.kernel.reference.commits import committed
from exoflow.kernel.reference.facts import CallFacts, Facts
from exoflow.kernel.reference.falls import to_undo
from exoflow.kernel.reference.gates import gate
from exoflow.kernel.reference.graph import agrees, lineage
from exoflow.kernel.reference.needs import is_unwinding, needed, to_cover
from exoflow.model import CallId

Due = tuple[str, CallId]


def due(facts: Facts) -> set[Due]:
    """Every command that should be given now and was not."""
    found: set[Due] = set()
    wanted = needed(facts)
    undo = to_undo(facts)
    for id in wanted:
        call = facts.calls[id]
        if call.running or call.given_up or call.in_doubt:
            continue
        reason = gate(facts, call)
        if reason is None:
            found.add(("Run", id))
        elif reason.startswith("L4") and not call.intent:
            found.add(("Intend", id))
        elif reason.startswith("V13"):
            found.add(("Probe", id))
    for call in facts.calls.values():
        if call.running and call.asks and (call.intent_durable or not call.intent):
            found.add(("Dispatch" if call.intent else "Intend", call.id))
    for id in to_save(facts, wanted):
        found.add(("Upload", id))
    found |= {("Snapshot", id) for id in to_snapshot(facts, wanted)}
    if undo and (order := next_undo(facts)):
        found |= {(order, call.id) for call in facts.calls.values() if call.intent == undo[0]}
    return found


def next_undo(facts: Facts) -> str:
    """V4: once what stands on it has ended; one that failed for good holds up those behind it, which are older.

    V15: that a run has failed is durable before anything is undone for it, or a crash would let it try again.
    """
    if facts.undoing or facts.retired_attempts or facts.stuck:
        return ""
    if is_unwinding(facts) and not facts.cancelled and not facts.failing:
        return "RecordFailing"
    return "Undo" if facts.failing_durable else ""


def gated(facts: Facts, wanted: set[CallId]) -> Iterator[CallFacts]:
    """What stands behind effects, and paid calls, that wait for it to be committed."""
    waiting = (facts.calls[id] for id in wanted if facts.calls[id].note.stands_firm)
    gated = [call for call in waiting if not call.running and (gate(facts, call) or "").startswith("G3")]
    behind = (facts.calls[id] for call in gated for id in lineage(facts, call))
    return (source for source in behind if source.attached and not committed(facts, source) and agrees(facts, source))


def to_save(facts: Facts, wanted: set[CallId]) -> set[CallId]:
    """G4: choices that a waiting effect stands on are saved now, whatever their checkpoint says."""
    behind = gated(facts, wanted)
    return {call.id for call in behind if call.held and not call.recorded and not call.uploading}


def to_snapshot(facts: Facts, wanted: set[CallId]) -> set[CallId]:
    """V7: a snapshot is taken for them, of the newest state that is at rest."""
    last = (last for call in gated(facts, wanted) for last in to_cover(facts, call))
    return {call.id for call in last if call.live and not call.snapshot and not call.snapshotting}
