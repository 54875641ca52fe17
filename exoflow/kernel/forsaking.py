"""A recorded value that the store has lost or damaged: absent, unless something released may stand on it (L10)."""

from __future__ import annotations

from exoflow.kernel.call import Call, Scope, State
from exoflow.kernel.graph import states
from exoflow.kernel.starting import Starting
from exoflow.model import NO_VERSION


class Forsaking(Starting):
    """What is not known to be harmless is refused: then nothing has changed, and the object can be put back."""

    def forsake(self, call: Call) -> str | None:
        """The call's value cannot be read: from now on it counts as absent. Why it must not, if there is a reason."""
        refusal = self._why_kept(call)
        if refusal is not None:
            return refusal
        call.held = call.saved = call.committed = False
        call.why = "damaged"
        if call.is_choice and call.attached:
            self._retire_derived(call)
        self.damaged = True
        if not call.is_choice:
            self.lost(call.id)  # what was derived from it stays true (V5)
            return None
        self._set_aside(self.scopes[""])  # as after an adoption: gates that the choice had opened are closed by that
        if call.state is State.DONE:
            call.state = State.IDLE
            self.unattached.discard(call)
        return None

    def forsake_snapshot(self, call: Call) -> str | None:
        """A snapshot cannot be read: an older one will do. Why not, if there is a reason: calls are made again."""
        remade = [call]
        while (holder := remade[-1].before) is not None and not holder.has_state:
            remade.append(holder)
        choices = [each for each in remade if each.is_choice]
        for choice in choices:
            refusal = self._why_kept(choice)
            if refusal is not None:
                return refusal
        for choice in choices:
            choice.committed = False
        call.snapshot = NO_VERSION
        call.snapped = False
        self._set_aside(self.scopes[""])  # as after an adoption: gates that were open are closed by that
        return None

    def _why_kept(self, call: Call) -> str | None:
        if call.note.effect is not None or call.intent:
            return "for it had an effect"
        if self.cancelling:
            return "for the run is being cancelled"
        if not call.is_choice:
            return None
        undoable = 0
        for other in self.calls.values():
            if other.note.effect is None and not other.intent or not _may_stand_on(other, call):
                continue
            if other.note.effect is not None:
                return f"for {other.id} may have had an effect, and may stand on it"
            undoable += 1
        # A crash in between would leave several to be undone, and nothing that says in which order.
        return "for several calls with a rollback may stand on it" if undoable > 1 else None


def _may_stand_on(other: Call, call: Call) -> bool:
    """Whether a call that has begun was made from the result of another, as far as is known before its body asks."""
    if max(other.version, other.intent, other.attempt) < call.version or other.propagated:
        return False
    return not other.attached or not call.attached or call in _lineage(other)


def _lineage(call: Call) -> set[Call]:
    """All that an attached call stands on."""
    seen: set[Call] = set()
    reads: dict[Scope, int] = {}
    pending = [call]
    while pending:
        source = pending.pop()
        if source in seen:
            continue
        seen.add(source)
        pending += (*source.inputs, *source.contents, *source.late, *states(source))
        scope, upto = source.scope, source.reads_at
        while scope is not None and reads.get(scope, -1) < upto:
            pending += scope.reads[max(0, reads.get(scope, 0)) : upto]
            reads[scope] = upto
            owner = scope.owner
            if owner is None:
                break
            pending += (*owner.inputs, *owner.contents)
            scope, upto = owner.scope, owner.reads_at
    return seen
