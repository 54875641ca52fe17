"""What falls when a choice is made again: results derived from it, bodies that read them, effects with an undo."""

from __future__ import annotations

from collections.abc import Callable

from exoflow.errors import Corrupt
from exoflow.kernel.call import Call, Scope, State
from exoflow.kernel.commands import RecordUndoFailed, RecordUndone, Replay, Stop, Undo
from exoflow.kernel.needs import Needs
from exoflow.model import CallId, Kind, Version, show_version


class Retirement(Needs):
    """V3 and V4: the fixpoint is one walk over what holds a result; undos go newest first, and before any new run."""

    # -- retire ----------------------------------------------------------------------------------------------------

    def _retire_derived(self, choice: Call) -> None:
        """The choice is about to be made again: whatever was derived from its old result is not true any more."""
        choice.has_derived = bool(choice.intent)
        named: list[Call] = []
        for call in self.standing.pop(choice.id, ()):
            if call.attached and call.names:
                named.append(call)
            elif not call.attached and (call.intent or call.names and call.state is State.DONE):
                self._void(call)
        self._fall([choice], named)

    def _fall(self, sources: list[Call], fallen: list[Call]) -> None:
        """Take back ``fallen``, and all that was derived from it and from ``sources``: results, bodies, effects."""
        fall = _Fall(self._void, sources)
        for call in fallen:
            fall.visit(call, base=False)
        while fall.stack:
            source = fall.stack.pop()
            for taker in source.takers:
                fall.visit(taker, base=True)
            for taker in source.late_takers:
                fall.visit(taker, base=False)
            fall.visit_readers(source)
        for scope in fall.aside:
            self._set_aside(scope)
        for call in fall.voided:
            if call.attached:
                self._renew(call)

    def _set_aside(self, scope: Scope) -> None:
        """The body of this scope has read something that is not true any more (V12)."""
        if scope.owner is not None and not scope.owner.attached:
            return  # it went with its parent
        self._detach(scope)
        self.out.append(Replay(scope.path))
        self._ending.append(self.scopes[""])
        owner = scope.owner
        if owner is None:
            self.finishing = self.unwinding
        else:
            owner.body = None
            if owner.state is State.RUNNING:
                owner.state = State.IDLE
                assert owner.scope is not None
                owner.scope.active -= 1
                self._renew(owner)

    def _detach(self, scope: Scope) -> None:
        """Keep what the calls of a body came to, and forget that it has made them."""
        for call in self._unlink(scope):
            self._reopening.discard(call)
            call.forced = False  # the effect that waited for it may not be made again
            at_once = call.note.kind is Kind.FLOW or call.note.may_be_left
            if call.state is State.NEEDED or call.state is State.RUNNING and at_once:
                only_its_state_was = call.state is State.NEEDED and self._has_value(call)
                call.state = State.DONE if only_its_state_was else State.IDLE
                self.fallen += 1
            if call.state is State.DONE or call.intent:
                self._detached(call)

    def _detached(self, call: Call) -> None:
        """A result or an intent that no body has asked for yet. It falls with any choice that its record names."""
        self.unattached.add(call)
        if not call.rare:
            return  # it names nothing
        names = call.intent_names if call.intent and call.note.rollback else ()
        for name in names + call.names if call.state is State.DONE else names:
            self.standing.setdefault(name, []).append(call)

    def _void(self, call: Call) -> None:
        """Take the call's result back. Its effect too, where it has one; an effect without rollback is never here."""
        if call.note.effect is not None and call.state >= State.RUNNING and not call.propagated:
            raise Corrupt(
                f"{call.id} had an effect that cannot be undone, and a result that it stands on is gone from the "
                f"journal (version {show_version(call.version or call.attempt)}). Nothing was run again: look at what "
                f"the effect did, then start a new run."
            )
        self.fallen += 1
        if call.note.paid and call.intent:
            call.settle_intent()
            self.unattached.discard(call)
        if call.state is State.RUNNING:
            if call.note.kind is Kind.TASK:
                self.stale[call.attempt] = call
                self.out.append(Stop(call.id, call.attempt))
            call.state = State.IDLE
            if call.scope is not None and not call.note.may_be_left:
                call.scope.active -= 1  # it is renewed before its scope can end
        elif call.state is State.DONE:
            call.state = State.IDLE
            if not call.intent:
                self.unattached.discard(call)
        self._reopening.discard(call)
        call.held = call.committed = call.failed = call.propagated = False
        call.saved = False
        if call.note.kind is Kind.FLOW and not call.holds:
            call.holds = True
            call.open += 1
        call.stamp_at = -1
        call.record_stamp = Version(0)
        call.closed = False
        if call.refs:
            call.refs = ()
            for taker in list(call.takers):
                self._relink_contents(taker)
                if taker.missing:
                    self._misled.append(taker)
        call.upload = Version(0)
        self._unsaved.pop(call.id, None)
        if call.note.actor:
            if call.skipped and call.attached:
                self._skip(call, skipped=False)
            self._forget_state(call)
        call.why = "remade"
        if call.intent and call.note.rollback:
            self._queue_undo(call)

    def _forget_state(self, call: Call) -> None:
        """The state that an actor's call has left is that of no version any more."""
        call.live = call.snapped = call.written = call.dead = call.committed = False
        call.snapshot = call.snapping = call.took = Version(0)

    def _renew(self, call: Call) -> None:
        """A result was taken back: have it made again if somebody still needs it."""
        assert call.scope is not None
        if call.wanted or any(taker.state is State.NEEDED for taker in call.takers):
            self._need(call)
        elif call.note.may_be_left:
            pass  # until somebody waits for it
        elif call.scope.returned or not self.unattached:
            self._need(call)
        else:
            call.scope.deferred.append(call)

    def _look_again(self) -> None:
        """What these calls waited for may never come: the value that referred to it has fallen."""
        misled, self._misled = self._misled, []
        for call in misled:
            if call.attached and call.missing:
                call.missing = 0
                if call.state is State.DONE:
                    self._open_again(call)
                else:
                    self._ready.append(call)

    # -- undo ------------------------------------------------------------------------------------------------------

    def _queue_undo(self, call: Call) -> None:
        if not call.released:
            self._to_undo[call.intent] = call

    def _undo_next(self) -> None:
        """Undo the newest intent that waits, once no attempt that stands on what was retired runs any more."""
        if self._undoing or self.stale or self.stuck or self.durable_seq < self._failing_seq:
            return
        newest = max(self._to_undo)
        self._undoing = newest
        self.out.append(Undo(self._to_undo[newest].id, newest))

    def undone(self, id: CallId, version: Version) -> None:
        """The undo of this version has been carried out."""
        if self._undoing != version:
            return
        call = self._to_undo.pop(version)
        self._undoing = Version(0)
        self._forget_intent(call, version)
        if call.state is State.NEEDED:
            self._held_back.append(call)
        self._undone_seq = self.seq

    def undo_failed(self, id: CallId, version: Version) -> None:
        """The undo of this version has failed for good. Those behind it are older, and it may stand on what they undo.

        What runs goes on to its end, as in every run that ends (V16); nothing starts, as before every undo (V4).
        """
        self.stuck = True
        self.seq += 1
        self.out.append(RecordUndoFailed(id, version))

    def _forget_intent(self, call: Call, version: Version) -> None:
        """Record that nothing is left of this version's effect."""
        taken = self._take_back(call) if call.rare and call.releases else ()
        call.intent = Version(0)
        call.intent_durable = False
        call.intent_names = ()
        if call.state is not State.DONE:
            self.unattached.discard(call)
        self.seq += 1
        self.urgent = self.seq
        self.out.append(RecordUndone(call.id, version, taken))

    def _take_back(self, effect: Call) -> tuple[CallId, ...]:
        """What an effect that did not happen had released can be undone again, unless another one has begun since."""
        self._holding.discard(effect)
        taken, effect.releases = effect.releases, ()
        for other in self.calls.values():
            if other.note.effect is None or other is effect:
                continue
            if max(other.intent, other.attempt, other.version) > effect.intent:
                return ()  # it may stand on the same, which stays released
        for id in taken:
            if id in self.calls:
                self.calls[id].released = False
        for call in self.calls.values():
            call.swept = False
        for scope in self.scopes.values():
            scope.swept_reads = 0
        return taken

    def _is_blocked(self) -> bool:
        """Nothing starts while something is to be undone, or its record is not durable (V4)."""
        return bool(self._to_undo) or self.durable_seq < self._undone_seq


class _Fall:
    """One walk over what was derived: which results are void, and which bodies have to be replayed."""

    def __init__(self, void: Callable[[Call], None], sources: list[Call]) -> None:
        self.void = void
        self.stack = sources
        self.aside: dict[Scope, None] = {}
        self.voided: list[Call] = []

    def visit(self, call: Call, *, base: bool) -> None:
        """``base``: what a child flow was called with has fallen, and not only something that its body read."""
        if base and call.body is not None:
            self.aside[call.body] = None
            for inner in call.body.calls:
                self.visit(inner, base=True)
        if call.has_derived and (base or call.state is State.DONE or call.note.kind is not Kind.FLOW):
            call.has_derived = False
            if call.state is not State.IDLE:  # else only an intent falls: it runs again when somebody asks for it
                self.voided.append(call)
            self.void(call)
            self.stack.append(call)

    def visit_readers(self, source: Call) -> None:
        """Bodies that have read the result, and whatever they called after that (G10)."""
        for scope, index in source.readers():
            self.aside[scope] = None
            for call in scope.calls:
                if call.reads_at > index:
                    self.visit(call, base=True)
            if scope.owner is not None and scope.owner.attached:
                self.visit(scope.owner, base=False)
        source.read_at = -1
        source.read_by.clear()
