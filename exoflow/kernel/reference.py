"""The rules once more, with nothing kept from one event to the next.

``kernel.py`` counts, marks and queues, so that an event costs microseconds. Here every question is answered anew from
plain facts: what the bodies called and read, what attempts came to, which records exist, which commands were given.
Read this to decide whether to trust ExoFlow; ``tests/property/test_kernel_forms.py`` holds the two forms against each
other after every event of random histories. The rules' names are those of ``docs/guarantees.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from exoflow.kernel.facts import NO_VERSION, CallFacts, Facts
from exoflow.model import CallId, Kind, Version

# -- lineage -----------------------------------------------------------------------------------------------------------


def is_choice(call: CallFacts) -> bool:
    """Another attempt may give another result. Errors are choices (L7); a child flow follows its reads (V17)."""
    if call.failed:
        return not call.inherited
    return call.fickle or not call.note.deterministic and call.note.kind is not Kind.FLOW


def taken(facts: Facts, call: CallFacts) -> Iterator[CallId]:
    """The inputs whose values an attempt sees, those behind Refs inside values included."""
    seen: set[CallId] = set()
    pending = list(call.inputs)
    while pending:
        id = pending.pop()
        if id not in seen:
            seen.add(id)
            yield id
            if not facts.calls[id].failed:
                pending.extend(facts.calls[id].refs)


def stands_on(facts: Facts, call: CallFacts) -> set[CallId]:
    """What a call directly stands on: G10 adds what its body, and each body around that, had read before the call."""
    found = set(taken(facts, call))
    if call.inherited:
        found = {id for id in found if facts.calls[id].failed}
    own = facts.bodies.get(f"{call.id}/")
    if own is not None:  # V17
        found.update(own.reads, own.result_refs)
    found.update(call.open_names)
    body, reads_at = facts.bodies.get(call.path), call.reads_at
    while call.attached and body is not None:
        found.update(body.reads[:reads_at])
        if body.owner is None:
            break
        owner = facts.calls[body.owner]
        found.update(taken(facts, owner))
        body, reads_at = facts.bodies.get(owner.path), owner.reads_at
    found.update(states(facts, call))
    sealed = {id for id in found - set(call.open_names) if is_sealed(facts.calls[id])}  # L5: what it names may be newer
    return found - sealed - {call.id}


def is_sealed(call: CallFacts) -> bool:
    """Inside a child flow whose body is not replayed: the record of the child flow, or its own, stands for it (V17)."""
    return not call.attached and is_whole(call)


def lineage(facts: Facts, call: CallFacts) -> set[CallId]:
    """Everything that a call stands on, at any distance."""
    known = facts.found.get(call.id)
    if known is not None:
        return known
    found = facts.found[call.id] = set()
    pending = stands_on(facts, call)
    while pending:
        id = pending.pop()
        if id not in found and id != call.id:
            found.add(id)
            pending |= stands_on(facts, facts.calls[id])
    return found


def states(facts: Facts, call: CallFacts) -> list[CallId]:
    """V7: the call whose state an attempt takes, at the end, and those that stood aside since: why they did counts."""
    found: list[CallId] = []
    id = None if stands_aside(facts, call) else call.before
    while id is not None:
        found.append(id)
        id = facts.calls[id].before if stands_aside(facts, facts.calls[id]) else None
    return found


def stands_aside(facts: Facts, call: CallFacts) -> bool:
    """V7: an argument has failed, so it never begins; the state goes on to the next call of the actor."""
    return call.before is not None and call.inherited and any(facts.calls[id].failed for id in taken(facts, call))


def newest(call: CallFacts) -> Version:
    """Of its attempts that computed, or began in this epoch: what stands on an older one is not true any more."""
    return max(call.made, call.started)


def stamp(facts: Facts, call: CallFacts) -> Version:
    """The newest attempt among the choices behind a call, itself apart."""
    behind = (facts.calls[id] for id in lineage(facts, call))
    return max((newest(source) for source in behind if is_choice(source)), default=NO_VERSION)


def agrees(facts: Facts, call: CallFacts) -> bool:
    """I3, V3: its result was made after every choice behind it, so it stands on the newest of each (ADR 1).

    V5: a deterministic call that is made again is no choice, and takes nothing with it.
    """
    if call.inherited:
        sources = (facts.calls[id] for id in (*taken(facts, call), *states(facts, call)))
        return any(source.failed and agrees(facts, source) for source in sources)
    return call.has_result and call.made > stamp(facts, call)


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


def is_whole(call: CallFacts) -> bool:
    """L2: its record is durable; V7: for a choice of an actor, a snapshot too."""
    return call.durable and (not call.note.actor or call.snapshot_durable or not is_choice(call))


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
        cover = next_snapshot(facts, source)
        if not source.note.actor or not source.durable or cover is None:
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


def after(facts: Facts, call: CallFacts) -> CallFacts | None:
    """The next call of an actor."""
    return next((other for other in facts.calls.values() if other.attached and other.before == call.id), None)


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


# -- what falls --------------------------------------------------------------------------------------------------------


def to_remake(facts: Facts) -> set[CallId]:
    """The choices that will be made again as soon as nothing is left to be undone (V4)."""
    again = (facts.calls[id] for id in needed(facts) if is_choice(facts.calls[id]) and newest(facts.calls[id]))
    return {call.id for call in again if not call.running and not call.given_up and is_ready(facts, call)}


def is_ready(facts: Facts, call: CallFacts) -> bool:
    """Its inputs are there; for an effect, all behind it is committed, and it is not in doubt itself."""
    if call.note.effect is not None and (is_doubtful(call) or not is_grounded(facts, call)):
        return False
    return has_inputs(facts, call)


def to_retire(facts: Facts) -> set[CallId]:
    """V3: the calls whose results, durable or not, stand on a choice that is made again.

    An attempt at a choice is newer than all that was derived from its old result, near or far: that is the fixpoint.
    """
    holding = [call for call in facts.calls.values() if call.has_result and (call.attached or call.open_names)]
    remake = to_remake(facts)
    return {c.id for c in holding if not agrees(facts, c) or not c.inherited and lineage(facts, c) & remake}


def stands_on_fallen(facts: Facts, call: CallFacts) -> bool:
    """V3, V10: what a running attempt computes will not be used."""
    return call.started < stamp(facts, call) or bool(lineage(facts, call) & to_remake(facts))


def to_undo(facts: Facts) -> list[Version]:
    """V4: the intents to roll back, newest first. G6: never one that an effect has released."""
    standing = (call for call in facts.calls.values() if call.intent and call.note.rollback and not call.released)
    remake = to_remake(facts)
    return sorted((call.intent for call in standing if must_fall(facts, call, remake)), reverse=True)


def must_fall(facts: Facts, call: CallFacts, remake: set[CallId]) -> bool:
    """Whether nothing may be left of a rollback-able call's newest intent."""
    if is_unwinding(facts):
        return True  # V15
    if call.intent_is_old and call.made < call.intent:
        return True  # V4: it broke off with its process; what began behind it is undone before it
    if not call.attached:
        if facts.outcome == "done":
            return is_orphan(facts, call)
        choices = [facts.calls[id] for id in call.intent_names if is_choice(facts.calls[id])]
        return any(newest(choice) > call.intent or choice.id in remake for choice in choices)
    if call.intent < stamp(facts, call) or lineage(facts, call) & remake:
        return True  # V3
    ended = (call.intent_is_old or call.started >= call.intent) and not call.running and not call.has_result
    return ended and (call.given_up or call.id in needed(facts) and has_inputs(facts, call))


def is_unwinding(facts: Facts) -> bool:
    """V15: cancelled, or failed with a flow that rolls back; an epoch in between may have died of a crash."""
    return facts.cancelled or facts.failing or facts.outcome == "failed" and facts.undo_on_failure


def owners(facts: Facts, call: CallFacts) -> Iterator[CallFacts]:
    """The child flows that a call is inside of, from the inside out."""
    id = call.id
    while (id := CallId(id.rpartition("/")[0])) in facts.calls:
        yield facts.calls[id]


def is_orphan(facts: Facts, call: CallFacts) -> bool:
    """No body has made the call, nor is it inside a child flow whose result stands without its body (V17)."""
    if call.attached:
        return False
    for owner in owners(facts, call):
        if owner.attached or f"{owner.id}/" in facts.bodies:
            return f"{owner.id}/" in facts.bodies or not owner.has_result
    return True


# -- what is needed ----------------------------------------------------------------------------------------------------


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
        if call.note.effect is not None and has_inputs(facts, call):
            behind = [id for id in lineage(facts, call) if not committed(facts, facts.calls[id])]
            pending.extend((id, False) for id in behind)
            pending.extend((last.id, True) for id in behind for last in to_cover(facts, facts.calls[id]))
    return found


def has_inputs(facts: Facts, call: CallFacts) -> bool:
    return has_values(facts, call) and has_state_before(facts, call)


def has_values(facts: Facts, call: CallFacts) -> bool:
    return all(available(facts, facts.calls[id]) for id in made_from(facts, call))


def made_from(facts: Facts, call: CallFacts) -> set[CallId]:
    """The values that an attempt needs: from a snapshot, an actor is first created again, from what it was created."""
    found = set(taken(facts, call))
    source = holder(facts, call)
    if source is not None and has_state(source) and not source.live:
        while source.before is not None:
            source = facts.calls[source.before]
        found.update(taken(facts, source))
    return found


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


def history_left(calls: Iterable[CallFacts]) -> bool:
    """Whether a body may still make a call whose result, or intent, is known."""
    return any(not call.attached and (call.has_result or call.intent) for call in calls)


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


def is_wanted(facts: Facts, call: CallFacts) -> bool:
    """V1: somebody waits for its value, or it has never run, and is to be run for its own sake."""
    if call.id in facts.awaited:
        return True
    if call.note.actor and call.attached and not call.made and (taker := after(facts, call)):
        return taker.has_result and taker.made > NO_VERSION  # V7: it stood aside, and no record says so
    return call.attached and call.id in facts.bodies[call.path].demanded and not agrees(facts, call)


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


def has_value(call: CallFacts) -> bool:
    return call.failed or call.held or call.recorded


# -- gates -------------------------------------------------------------------------------------------------------------


def gate(facts: Facts, call: CallFacts) -> str | None:
    """Why an attempt may not start yet; None: it may."""
    if not has_values(facts, call) and not (is_doubtful(call) and call.note.on_doubt == "stop"):
        return "G1: an input is not there, or its record is not durable"
    if not has_state_before(facts, call):
        return "V7: the state that it takes is not there"
    acts = call.note.effect is not None
    if acts and not is_grounded(facts, call):
        return "G3, G6: a choice or a rollback-able call behind the effect is not committed"
    if (acts or call.note.rollback) and not facts.start_durable:
        return "L1: the run's inputs are not durable"
    if facts.undoing or to_undo(facts) or not facts.undone_recorded:
        return "V4: something is to be undone first"
    needs_intent = call.note.rollback or call.note.effect == "irrevocable"
    if needs_intent or acts and (call.intent or to_release(facts, call) or are_held(facts)):
        if not call.intent:
            return "L4: it has no intent"
        if not call.intent_durable:
            return "L4: its intent is not durable"
    if is_doubtful(call):
        return "V13: whether the effect happened is not known"
    return None


def are_held(facts: Facts) -> bool:
    """G6: whether an effect has released calls and may not happen: then whatever stands on them has to say so, too."""
    return any(
        call.holds and call.intent and call.note.effect == "irrevocable" and call.made < call.intent
        for call in facts.calls.values()
    )


def to_release(facts: Facts, call: CallFacts) -> set[CallId]:
    """G6: the rollback-able calls behind an effect; its intent says that they will not be undone.

    V17: of a child flow whose body is not replayed, all that is committed: its result may stand on any of it.
    """
    behind = lineage(facts, call)
    flows = [f"{id}/" for id in behind if facts.calls[id].note.kind is Kind.FLOW and f"{id}/" not in facts.bodies]
    inside = {id for id, other in facts.calls.items() if other.durable and any(id.startswith(path) for path in flows)}
    return {id for id in behind | inside if facts.calls[id].note.rollback and not facts.calls[id].released}


def is_doubtful(call: CallFacts) -> bool:
    """V13: an attempt may have begun under the intent, and no result tells how it ended."""
    if call.note.effect != "irrevocable" or call.note.on_doubt == "retry":
        return False
    return call.intent_durable and (call.intent_is_old or call.started >= call.intent)


# -- what to do now ----------------------------------------------------------------------------------------------------

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
    """What stands behind effects that wait for it to be committed."""
    waiting = (facts.calls[id] for id in wanted if facts.calls[id].note.effect is not None)
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
