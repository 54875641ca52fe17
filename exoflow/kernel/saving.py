"""What is saved: results, and the states that actors' calls leave (V7)."""

from __future__ import annotations

from exoflow.kernel.call import Call, State
from exoflow.kernel.commands import RecordSnapshot, Save, Snapshot, Upload
from exoflow.kernel.retirement import Retirement
from exoflow.model import CallId, Version


class Saving(Retirement):
    """A record is appended when its value is stored; it counts when it is durable (L2)."""

    def _save(self, call: Call) -> None:
        if call.saved or call.upload:
            return
        self._upload(call)

    def _append_save(self, call: Call) -> None:
        self.seq += 1
        call.saved = True
        if call.note.paid and not (call.failed and call.unheard):
            call.settle_intent(charged=not call.failed)
        if call.forced or call.note.saves == "sync":
            self.urgent = self.seq
        self.records.append((self.seq, call, call.version, "save"))
        self.out.append(Save(call.id, call.version, call.names, call.failed, call.record_stamp))

    def _upload(self, call: Call) -> None:
        call.upload = call.version
        self._unsaved[call.id] = call.version
        self.out.append(Upload(call.id, call.version))

    def uploaded(self, id: CallId, version: Version) -> None:
        """The value is an object of the store now, or goes into its record."""
        call = self.calls[id]
        if self._unsaved.get(id) == version:
            del self._unsaved[id]
        if call.upload == version and call.version == version and call.state is State.DONE:
            call.upload = Version(0)
            self._append_save(call)

    # -- an actor's state ------------------------------------------------------------------------------------------

    def _left(self, call: Call, *, state: bool, snapshot: bool) -> None:
        """An actor's call has ended, and what state it has left."""
        origin = call.origin
        assert origin is not None
        call.live = state
        call.took = Version(0)
        call.dead = not state
        if snapshot:
            self._append_snapshot(call)
        elif state and (call.due or call.fickle and call.note.saves == "sync"):
            self._snapshot(call)
        if origin.cover_wanted or call.forced and call.is_choice:
            origin.cover_wanted = False
            self._uncovered.append(call)

    def _give_back(self, call: Call) -> None:
        """The attempt did not begin: the state is as it was."""
        holder = self.holder(call)
        if holder is not None and holder.version == call.took and holder.state is State.DONE:
            holder.live = True
        call.took = Version(0)

    def _snapshot(self, call: Call) -> None:
        if not call.snapping and not (call.snapshot and call.snapshot == call.version):
            call.snapping = call.version
            self.out.append(Snapshot(call.id, call.version))

    def _append_snapshot(self, call: Call) -> None:
        self.seq += 1
        call.snapshot = call.version
        call.snapped = False
        if call.forced or call.note.saves == "sync":
            self.urgent = self.seq
        self.records.append((self.seq, call, call.version, "snapshot"))
        self.out.append(RecordSnapshot(call.id, call.version))

    def snapshot_taken(self, id: CallId, version: Version) -> None:
        """The state is an object of the store now, or goes into its record."""
        call = self.calls[id]
        if call.snapping != version:
            return
        call.snapping = Version(0)
        if call.version == version and call.state is State.DONE:
            self._append_snapshot(call)
            self._state_there(call)

    def state_lost(self, id: CallId) -> None:
        """The state is no longer in memory; who needs it starts from a snapshot."""
        call = self.calls[id]
        call.live = False
        if call.snapping:
            call.snapping = Version(0)
            if call.forced or call.note.saves == "sync" or call.wanted:
                self._uncovered.append(call)
        self._state_there(call)
