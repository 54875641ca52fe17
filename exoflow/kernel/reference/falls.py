"""What falls when a choice is made again, and what is undone."""

from __future__ import annotations

from exoflow.kernel.reference.commits import is_grounded
from exoflow.kernel.reference.facts import CallFacts, Facts
from exoflow.kernel.reference.graph import agrees, is_choice, lineage, newest, owners, stamp
from exoflow.kernel.reference.needs import has_inputs, is_doubtful, is_unwinding, needed
from exoflow.model import CallId, Version


def to_remake(facts: Facts) -> set[CallId]:
    """The choices that will be made again as soon as nothing is left to be undone (V4)."""
    again = (facts.calls[id] for id in needed(facts) if is_choice(facts.calls[id]) and newest(facts.calls[id]))
    return {call.id for call in again if not call.running and not call.given_up and is_ready(facts, call)}


def is_ready(facts: Facts, call: CallFacts) -> bool:
    """Its inputs are there; of an effect, or a paid call, all behind is committed, and it is not in doubt itself."""
    if call.note.stands_firm and (is_doubtful(call) or not is_grounded(facts, call)):
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


def is_orphan(facts: Facts, call: CallFacts) -> bool:
    """No body has made the call, nor is it inside a child flow whose result stands without its body (V17)."""
    if call.attached:
        return False
    for owner in owners(facts, call):
        if owner.attached or f"{owner.id}/" in facts.bodies:
            return f"{owner.id}/" in facts.bodies or not owner.has_result
    return True
