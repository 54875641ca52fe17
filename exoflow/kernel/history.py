"""What the journal tells of older epochs. Recovery is a first run with a longer history."""

from __future__ import annotations

from functools import cache

from exoflow.kernel.call import Call, State
from exoflow.kernel.ending import Ending
from exoflow.model import NO_VERSION, Annotations, CallId, Effect, Version

PLAIN = Annotations()


class History(Ending):
    """Records are told in the journal's order, before any body runs."""

    def recall_result(
        self,
        id: CallId,
        path: str,
        version: Version,
        *,
        saved: bool,
        failed: bool,
        choice: bool,
        effect: bool,
        names: tuple[CallId, ...],
        refs: tuple[CallId, ...],
        reads_at: int,
        newest: Version = NO_VERSION,
        actor: bool = False,
        dead: bool = False,
        unheard: bool = False,
        billed: bool = False,
    ) -> None:
        """A SAVED, FAILED or MADE record of an older epoch, in journal order."""
        call = self._recalled(id, path)
        if actor and call.version != version:
            call.snapshot, call.snapped = NO_VERSION, False
            call.fickle = call.fickle or call.failed
        call.version = version
        call.state = State.DONE if saved else State.IDLE
        call.saved = saved
        call.committed = saved and (not actor or call.snapped or not (choice or failed))
        call.failed = failed
        if actor:
            call.written, call.dead = saved, dead
        if names or call.rare:
            call.names = names
        call.refs = tuple(map(self.reference, refs)) if refs else ()
        call.recorded_reads_at = reads_at
        call.record_stamp = newest
        call.why = "not saved"
        call.note = _note(
            choice or failed, effect=effect, rollback=call.note.rollback, actor=actor, paid=call.note.paid
        )
        if saved and call.note.paid and not unheard:
            call.settle_intent(charged=not failed, billed=billed)

    def recall_snapshot(self, id: CallId, version: Version) -> None:
        """A SNAPSHOT record of an older epoch."""
        call = self.calls.get(id)
        if call is not None and call.version == version:
            call.snapshot, call.snapped = version, True
            call.committed = call.written

    def recall_intent(
        self,
        id: CallId,
        path: str,
        version: Version,
        *,
        names: tuple[CallId, ...],
        releases: tuple[CallId, ...],
        rollback: bool,
        reads_at: int,
        paid: bool = False,
    ) -> None:
        """An INTENT record of an older epoch."""
        call = self._recalled(id, path)
        call.intent = version
        call.intent_durable = True
        call.intent_names = names
        call.recorded_reads_at = reads_at
        call.releases = releases
        effect = not (rollback or paid)
        call.note = _note(True, effect=effect, rollback=rollback, actor=call.note.actor, paid=paid)
        for released in releases:
            if released in self.calls:
                self.calls[released].released = True

    def recall_called(self, id: CallId, path: str, newest: Version, reads_at: int) -> None:
        """A CALLED record of an older epoch: an effect may have begun that leaves no other record before its result."""
        call = self._recalled(id, path)
        call.called_at = newest
        call.recorded_reads_at = reads_at

    def recall_undone(self, id: CallId, version: Version, takes_back: tuple[CallId, ...] = ()) -> None:
        """An UNDONE record of an older epoch: the attempt and its effect are gone."""
        for released in takes_back:
            if released in self.calls:
                self.calls[released].released = False
        call = self.calls.get(id)
        if call is None:
            return
        if call.intent and call.intent <= version:
            call.intent = Version(0)
            call.intent_durable = False
            call.releases = ()
        if call.version <= version:
            call.state = State.IDLE
            call.saved = False
            call.committed = call.failed = False

    def recalled(self) -> None:
        """The whole history has been told: what stands on a choice that was made again later is void."""
        if self.damaged:
            self._unsure = {call.id for call in self.calls.values() if call.intent and call.state is not State.DONE}
        for call in self.calls.values():
            if not call.rare:
                continue  # it names nothing
            named = [self.calls[name] for name in (*call.intent_names, *call.names) if name in self.calls]
            newest = max((source.version for source in named if source.is_choice), default=0)
            if call.intent and call.note.rollback and call.intent < newest or call.names and call.version < newest:
                self._void(call)
        for call in self.calls.values():
            if call.rare and call.releases and call.note.effect is not None and call.version < call.intent:
                self._holding.add(call)
            if call.intent and call.note.rollback and call.version < call.intent:
                self._queue_undo(call)  # it broke off: undone with all that broke off, newest first (V4)
            if call.state is State.DONE or call.intent:
                self._detached(call)

    def reference(self, id: CallId) -> Call:
        """The call that a Ref names; not made yet by this incarnation of the body, perhaps."""
        call = self.calls.get(id)
        if call is None:
            call = self.calls[id] = Call(id, PLAIN)
        return call

    def _recalled(self, id: CallId, path: str) -> Call:
        call = self.calls.get(id)
        if call is None:
            call = self.calls[id] = Call(id, PLAIN)
            call.recalled = True
            if path not in self.by_path:
                self.by_path[path] = []
            self.by_path[path].append(call)
        return call


@cache
def _note(choice: bool, *, effect: bool, rollback: bool, actor: bool, paid: bool) -> Annotations:
    """What a record tells of a task, until the body has made the call and brought its own annotations."""
    seen: Effect | None = "irrevocable" if effect else None
    return Annotations(deterministic=not choice, effect=seen, rollback=rollback, actor=actor, paid=paid)
