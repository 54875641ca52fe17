"""What is behind a call, and whether its result agrees with that."""

from __future__ import annotations

from collections.abc import Iterator

from exoflow.kernel.reference.facts import NO_VERSION, CallFacts, Facts
from exoflow.model import CallId, Kind, Version


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


def is_whole(call: CallFacts) -> bool:
    """L2: its record is durable; V7: for a choice of an actor, a snapshot too."""
    return call.durable and (not call.note.actor or call.snapshot_durable or not is_choice(call))


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


def owners(facts: Facts, call: CallFacts) -> Iterator[CallFacts]:
    """The child flows that a call is inside of, from the inside out."""
    id = call.id
    while (id := CallId(id.rpartition("/")[0])) in facts.calls:
        yield facts.calls[id]


def after(facts: Facts, call: CallFacts) -> CallFacts | None:
    """The next call of an actor."""
    return next((other for other in facts.calls.values() if other.attached and other.before == call.id), None)
