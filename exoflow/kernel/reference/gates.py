"""When an attempt may start."""

from __future__ import annotations

from exoflow.kernel.reference.commits import is_grounded
from exoflow.kernel.reference.facts import CallFacts, Facts
from exoflow.kernel.reference.falls import to_undo
from exoflow.kernel.reference.graph import lineage
from exoflow.kernel.reference.needs import has_state_before, has_values, is_doubtful
from exoflow.model import CallId, Kind


def gate(facts: Facts, call: CallFacts) -> str | None:
    """Why an attempt may not start yet; None: it may."""
    if not has_values(facts, call) and not (is_doubtful(call) and call.note.on_doubt == "stop"):
        return "G1: an input is not there, or its record is not durable"
    if not has_state_before(facts, call):
        return "V7: the state that it takes is not there"
    acts = call.note.effect is not None
    if call.note.stands_firm and not is_grounded(facts, call):
        return "G3, G6: a choice or a rollback-able call behind it is not committed"
    if (call.note.stands_firm or call.note.rollback) and not facts.start_durable:
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
