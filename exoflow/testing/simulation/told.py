"""A kernel that tells a mirror of each event before it takes it."""

from __future__ import annotations

from typing import Any

from exoflow.kernel import reference as rules
from exoflow.kernel.call import Call, Scope, Turn
from exoflow.kernel.commands import Stop
from exoflow.kernel.kernel import Kernel
from exoflow.kernel.reference.facts import BodyFacts, CallFacts
from exoflow.model import Annotations, CallId, Version
from exoflow.testing.simulation.mirror import LOST, NONE, Mirror


class Told(Kernel):
    """The running form; every event is a fact for the reference too."""

    def __init__(self, epoch: int, *, undo_on_failure: bool = False, strict: bool = False) -> None:
        super().__init__(epoch, undo_on_failure=undo_on_failure, strict=strict)
        self.mirror = Mirror()
        self.mirror.undo_on_failure = undo_on_failure
        self._changed = False
        self.left_states: dict[CallId, bool] = {}
        """Whether the last attempt of an actor that failed has left a state."""

    def agreed(self, what: str, id: CallId, running: bool, reference: bool) -> None:
        """Both forms answer this question about a call; ``Checked`` compares."""

    def recall_result(self, id: CallId, path: str, version: Version, **what: Any) -> None:
        saved, note = what["saved"], self._recalled_note(id, what)
        known = self.mirror.calls.get(id)
        if known is not None and known.note.actor and known.made != version:
            self.mirror.set(id, snapshot=False, snapshot_durable=False, fickle=known.fickle or known.failed)
        self.mirror.set(
            id, path=path, made=version, has_result=saved, held=False, recorded=saved, durable=saved, note=note,
            failed=what["failed"], refs=what["refs"], open_names=what["names"], dead=what.get("dead", False),
        )  # fmt: skip
        if saved and not what.get("unheard", False):
            self.mirror.settle_intent(id)
        for ref in what["refs"]:
            self.mirror.calls.setdefault(ref, CallFacts(ref))
        super().recall_result(id, path, version, **what)

    def _recalled_note(self, id: CallId, what: dict[str, Any]) -> Annotations:
        """What the record tells of the call's annotations, until its body makes it again."""
        known = self.mirror.calls.get(id)
        rollback = known is not None and known.note.rollback
        deterministic = not what["choice"] and not what["failed"]
        return Annotations(
            deterministic,
            effect="irrevocable" if what["effect"] else None,
            rollback=rollback,
            actor=what.get("actor", False),
            paid=known is not None and known.note.paid,
        )

    def recall_intent(self, id: CallId, path: str, version: Version, **what: Any) -> None:
        rollback, paid = what["rollback"], what["paid"]
        note = Annotations(effect=None if rollback or paid else "irrevocable", rollback=rollback, paid=paid)
        self.mirror.set(
            id, path=path, note=note, intent=version, intent_durable=True, intent_names=what["names"],
            intent_is_old=True, holds=what["releases"],
        )  # fmt: skip
        for released in what["releases"]:
            self.mirror.set(released, released=True)
        super().recall_intent(id, path, version, **what)

    def recall_snapshot(self, id: CallId, version: Version) -> None:
        if id in self.mirror.calls and self.mirror.calls[id].made == version:
            self.mirror.set(id, snapshot=True, snapshot_durable=True)
        super().recall_snapshot(id, version)

    def recall_called(self, id: CallId, path: str, newest: Version, reads_at: int) -> None:
        self.mirror.set(id, path=path)
        super().recall_called(id, path, newest, reads_at)

    def recall_undone(self, id: CallId, version: Version, takes_back: tuple[CallId, ...] = ()) -> None:
        for released in takes_back:
            self.mirror.set(released, released=False)
        call = self.mirror.calls[id]
        if call.intent and call.intent <= version:
            self.mirror.set(id, intent=NONE, intent_durable=False, holds=())
        if call.made <= version:
            self.mirror.set(id, **LOST)
        super().recall_undone(id, version, takes_back)

    def opened(self, path: str, owner: CallId | None) -> Scope:
        if owner is not None or path not in self.mirror.bodies:
            self.mirror.bodies[path] = BodyFacts(path, owner)
        return super().opened(path, owner)

    def reference(self, id: CallId) -> Call:
        self.mirror.calls.setdefault(id, CallFacts(id))
        return super().reference(id)

    def called(
        self, scope: Scope, id: CallId, note: Annotations, inputs: tuple[Call, ...] = (), passes: tuple[Call, ...] = (),
        turn: Turn | None = None,
    ) -> Call:  # fmt: skip
        self._changed = True
        body = self.mirror.bodies[scope.path]
        self.mirror.set(
            id, note=note, attached=True, path=scope.path, inputs=tuple(i.id for i in inputs), reads_at=len(body.reads),
            passes=tuple(i.id for i in passes), before=turn.before.id if turn is not None and turn.before else None,
        )  # fmt: skip
        if not self.mirror.history_left() and not note.may_be_left:
            self.mirror.body(scope.path, demanded=body.demanded | {id})
        return super().called(scope, id, note, inputs, passes, turn)

    def wants(self, call: Call) -> None:
        self._changed = True
        self.mirror.awaited.add(call.id)
        super().wants(call)

    def left(self, call: Call) -> None:
        self._changed = True
        if not call.waiters and not call.handed_out:
            self.mirror.awaited.discard(call.id)
            self.mirror.set(call.id, running=False)
        super().left(call)

    def waits(self, scope: Scope, *, settled: bool = True) -> None:
        self._changed = True
        self._demand(scope)
        super().waits(scope, settled=settled)

    def _demand(self, scope: Scope) -> None:
        demanded = self.mirror.bodies[scope.path].demanded | rules.untaken(self.mirror.facts(), scope.path)
        self.mirror.body(scope.path, demanded=demanded)

    def read(self, scope: Scope, call: Call) -> None:
        self._changed = True
        self.mirror.awaited.discard(call.id)
        super().read(scope, call)
        self.mirror.body(scope.path, reads=(*self.mirror.bodies[scope.path].reads, call.id))

    def returned(self, scope: Scope, refs: tuple[Call, ...] = (), *, raised: bool = False) -> None:
        self._changed = True
        self.mirror.body(scope.path, returned=True, result_refs=tuple(ref.id for ref in refs))
        self._demand(scope)
        super().returned(scope, refs, raised=raised)

    def computed(self, id: CallId, version: Version, **what: Any) -> bool:
        counts = self._ended_attempt(id, version)
        accepted = super().computed(id, version, **what)
        self.agreed("whether a result counts", id, accepted, counts)
        if counts:
            refs = tuple(ref.id for ref in what.get("refs", ()))
            made = self.calls[id].version
            result: dict[str, Any] = {"made": made, "has_result": True, "held": True, "refs": refs, "open_names": ()}
            self.mirror.set(id, **LOST | result | {"live": what.get("state", False)})
        return accepted

    def failed(self, id: CallId, version: Version, *, did_not_happen: bool = False, **what: Any) -> bool:
        counts = self._ended_attempt(id, version)
        if counts:
            self.mirror.unheard.discard(id)
            self.mirror.tries[id] = self.mirror.tries.get(id, 0) + 1
            self._give_up(id, self.mirror.tries[id] > self.mirror.calls[id].note.retries, did_not_happen)
        accepted = super().failed(id, version, did_not_happen=did_not_happen, **what)
        self.left_states[id] = what.get("state", False)
        self.agreed("whether an error counts", id, accepted, counts)
        return accepted

    def dispatching(self, id: CallId, version: Version) -> bool:
        self._changed = True
        known = self.mirror.calls[id]
        counts = known.running and known.started == version
        if counts:
            self.mirror.set(id, asks=True)
        accepted = super().dispatching(id, version)
        self.agreed("whether an attempt may ask for its intent", id, accepted, counts)
        return accepted

    def vanished(self, id: CallId, version: Version, *, began: bool = True) -> bool:
        counts = self._ended_attempt(id, version)
        if counts:
            self.mirror.unheard.add(id)
            self.mirror.losses[id] = self.mirror.losses.get(id, 0) + 1
            self._give_up(id, self.mirror.losses[id] > self.mirror.calls[id].note.losses, False)
        if counts and not began:
            self.mirror.give_back(version)
        accepted = super().vanished(id, version, began=began)
        self.agreed("whether a loss counts", id, accepted, counts)
        return accepted

    def _ended_attempt(self, id: CallId, version: Version) -> bool:
        """An attempt has ended; whether its outcome counts."""
        self._changed = True
        self.mirror.retired_attempts.discard(version)
        call = self.mirror.calls[id]
        self.mirror.ended.add(version)
        stopped = any(isinstance(command, Stop) and command.version == version for command in self.out)
        if not call.running or call.started != version or stopped:
            return False
        self.mirror.set(id, running=False)
        return True

    def _give_up(self, id: CallId, none_left: bool, did_not_happen: bool) -> None:
        note = self.mirror.calls[id].note
        if note.effect != "irrevocable" or note.on_doubt == "retry" or did_not_happen:
            self.mirror.set(id, given_up=none_left or self.mirror.cancelled)

    def uploaded(self, id: CallId, version: Version) -> None:
        self._changed = True
        self.mirror.set(id, uploading=False)
        super().uploaded(id, version)

    def lost(self, id: CallId) -> None:
        self._changed = True
        self.mirror.set(id, held=False, uploading=False)
        super().lost(id)

    def state_lost(self, id: CallId) -> None:
        self._changed = True
        self.mirror.set(id, live=False, snapshotting=False)
        super().state_lost(id)

    def snapshot_taken(self, id: CallId, version: Version) -> None:
        self._changed = True
        super().snapshot_taken(id, version)

    def resolved(self, id: CallId, *, happened: bool) -> Version:
        self._changed = True
        version = super().resolved(id, happened=happened)
        self.mirror.set(id, in_doubt=False)
        if version:
            self.mirror.set(id, running=True, started=version)
        elif not happened:
            note = self.mirror.calls[id].note
            spent = self.mirror.tries.get(id, 0) > note.retries or self.mirror.losses.get(id, 0) > note.losses
            self._give_up(id, spent, did_not_happen=True)
        return version

    def doubt_again(self, id: CallId) -> None:
        self._changed = True
        self.mirror.set(id, in_doubt=False)
        super().doubt_again(id)

    def started(self) -> None:
        self.mirror.seq += 1
        self.mirror.start_seq = self.mirror.seq
        super().started()

    def counted(self) -> None:
        self.mirror.seq += 1
        super().counted()

    def durable(self, seq: int) -> None:
        self._changed = True
        self.mirror.durable(seq)
        super().durable(seq)

    def undone(self, id: CallId, version: Version) -> None:
        self._changed = True
        super().undone(id, version)
        self.mirror.undoing = NONE
        self.mirror.undone_seq = self.seq

    def undo_failed(self, id: CallId, version: Version) -> None:
        self._changed = self.mirror.stuck = True
        super().undo_failed(id, version)

    def goes_on_failing(self) -> None:
        self._changed = self.mirror.failing = True
        super().goes_on_failing()

    def settled(self, *, failed: bool) -> None:
        self._changed = True
        if not self.mirror.outcome:
            self.mirror.outcome = "failed" if failed else "done"
        super().settled(failed=failed)

    def unsettled(self) -> None:
        self._changed = True
        self.mirror.body("", ended=False)
        super().unsettled()

    def cancel(self) -> None:
        self._changed = True
        self.mirror.cancelled = True
        super().cancel()
        for id in self.mirror.calls:
            self.mirror.set(id, running=False, in_doubt=False)
