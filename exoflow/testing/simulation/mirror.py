"""The facts that the reference asks for, gathered from what goes into a running kernel and what comes out of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from exoflow.kernel import reference as rules
from exoflow.kernel.commands import (
    Command,
    Dispatch,
    Doubt,
    EndScope,
    Intend,
    Make,
    Probe,
    RecordFailing,
    RecordSnapshot,
    RecordUndoFailed,
    RecordUndone,
    Replay,
    Run,
    Save,
    Snapshot,
    Stop,
    Undo,
    Upload,
)
from exoflow.kernel.reference.facts import BodyFacts, CallFacts, Facts
from exoflow.model import CallId, Kind, Version

NONE = Version(0)
LOST: dict[str, Any] = {
    "has_result": False, "held": False, "recorded": False, "durable": False, "uploading": False, "failed": False,
    "inherited": False, "refs": (), "live": False, "snapshot": False, "snapshot_durable": False, "snapshotting": False,
    "dead": False, "covered": False,
}  # fmt: skip


class Mirror:
    """The facts: what went into the running kernel, and the commands that came out of it."""

    def __init__(self) -> None:
        self.calls: dict[CallId, CallFacts] = {}
        self.bodies: dict[str, BodyFacts] = {}
        self.awaited: set[CallId] = set()
        self.retired_attempts: set[Version] = set()
        self.ended: set[Version] = set()
        self.took: dict[Version, CallId] = {}
        """Attempts of actors, and whose live state they were given."""
        self.tries: dict[CallId, int] = {}
        self.losses: dict[CallId, int] = {}
        self.unheard: set[CallId] = set()
        """Whose last attempt ended without a word."""
        self.undoing = NONE
        self.undone_seq = self.start_seq = self.seq = self.durable_seq = 0
        self.cancelled = self.failing = self.stuck = False
        self.failing_seq = 0
        self.outcome = ""
        self.undo_on_failure = False
        self._facts = Facts()
        self.records: list[tuple[int, CallId, Version, str]] = []

    def facts(self) -> Facts:
        now = Facts(
            dict(self.calls), dict(self.bodies), frozenset(self.awaited), frozenset(self.retired_attempts),
            self.undoing, self.durable_seq >= self.undone_seq, self.durable_seq >= self.start_seq, self.cancelled,
            self.failing, self.durable_seq >= self.failing_seq, self.stuck, self.outcome, self.undo_on_failure,
        )  # fmt: skip
        if now != self._facts:
            self._facts = now
        return self._facts

    def set(self, id: CallId, **changes: Any) -> None:
        self.calls[id] = replace(self.calls.get(id) or CallFacts(id), **changes)

    def body(self, path: str, **changes: Any) -> None:
        self.bodies[path] = replace(self.bodies[path], **changes)

    def settle_intent(self, id: CallId) -> None:
        """What became of a paid call is recorded, or has fallen: its next attempt needs another intent."""
        if self.calls[id].note.paid:
            self.set(id, intent=NONE, intent_durable=False)

    def history_left(self) -> bool:
        return rules.history_left(self.calls.values())

    def given(self, command: Command) -> None:
        """A command is a fact as well."""
        match command:
            case Run(id, version, _, why) if why != "reopened":
                self._take_state(id, version)
                self.set(id, running=True, asks=False, started=version, **LOST)
            case Stop(id, version):
                self.set(id, running=False)
                self._ask_anew(id)
                if version not in self.ended:
                    self.retired_attempts.add(version)
            case Save(id, version):
                self._append(id, version, "result")
                self.set(id, recorded=True)
                if id not in self.unheard or not self.calls[id].failed:
                    self.settle_intent(id)
            case Make(id, version):
                self._append(id, version, "made")
            case Intend(id, version, names, releases):
                self._append(id, version, "intent")
                self.set(id, intent=version, intent_durable=False, intent_names=names, intent_is_old=False)
                self._release(releases, True)
                self.set(id, holds=releases or self.calls[id].holds)
            case RecordUndone(id, version, takes_back):
                self._release(takes_back, False)
                self._append(id, version, "undone")
                gone = LOST if self.calls[id].made <= version else {}
                self.set(id, intent=NONE, intent_durable=False, intent_names=(), holds=(), **gone)
            case Undo(_, version):
                self.undoing = version
            case Replay(path):
                self.replay(path)
            case Upload(id, _):
                self.set(id, uploading=True)
            case Probe(id, _) | Doubt(id, _):
                self.set(id, in_doubt=True)
            case EndScope(path, _):
                self.body(path, ended=True)
            case RecordFailing() | RecordUndoFailed():
                self._note(failing=isinstance(command, RecordFailing))
            case _:
                self._given_rarely(command)

    def _given_rarely(self, command: Command) -> None:
        match command:
            case Snapshot(id, _):
                self.set(id, snapshotting=True)
            case RecordSnapshot(id, version):
                self._append(id, version, "snapshot")
                self.set(id, snapshotting=False, snapshot=True)
            case Dispatch(id, _):
                self.set(id, asks=False)
            case _:
                pass

    def _take_state(self, id: CallId, version: Version) -> None:
        source = rules.holder(self.facts(), self.calls[id])
        if source is not None and source.live:
            self.set(source.id, live=False)
            self.took[version] = source.id

    def give_back(self, version: Version) -> None:
        """An attempt of an actor did not begin."""
        id = self.took.pop(version, None)
        if id is not None and self.calls[id].has_result:
            self.set(id, live=True)

    def _note(self, *, failing: bool) -> None:
        self.seq += 1
        if failing:
            self.failing, self.failing_seq = True, self.seq

    def _release(self, ids: tuple[CallId, ...], released: bool) -> None:
        for id in ids:
            self.set(id, released=released)

    def _append(self, id: CallId, version: Version, what: str) -> None:
        self.seq += 1
        self.records.append((self.seq, id, version, what))

    def replay(self, path: str) -> None:
        owner = self.bodies[path].owner
        self._detach(path, self.facts())
        if owner is None:
            self.outcome = ""
        else:
            self.set(owner, running=False)
            self._ask_anew(owner)

    def _detach(self, path: str, before: Facts) -> None:
        body = self.bodies.pop(path)
        self.awaited = {id for id in self.awaited if not id.startswith(path)}
        if body.owner is None:
            self.bodies[path] = BodyFacts(path)
        for id, call in list(self.calls.items()):
            if call.attached and call.path == path:
                running = call.running and call.note.kind is not Kind.FLOW and not call.note.may_be_left
                covered = call.note.actor and rules.is_covered(before, call)
                self.set(id, attached=False, running=running, covered=covered)
                if f"{id}/" in self.bodies:
                    self._detach(f"{id}/", before)

    def durable(self, seq: int) -> None:
        self.durable_seq = max(seq, self.durable_seq)
        while self.records and self.records[0][0] <= seq:
            _, id, version, what = self.records.pop(0)
            call = self.calls[id]
            if what == "result" and call.made == version and call.recorded:
                self.set(id, durable=True)
            elif what == "snapshot" and call.made == version and call.snapshot:
                self.set(id, snapshot_durable=True)
            elif what == "intent" and call.intent == version:
                self.set(id, intent_durable=True)

    def retire(self) -> None:
        """Carry out V3. A choice for which something fell is made again, even if who asked for it fell with it."""
        for id in rules.to_remake(self.facts()):
            path = self.calls[id].path
            self.body(path, demanded=self.bodies[path].demanded | {id})
            self.set(id, **LOST, fickle=self.calls[id].fickle or self.calls[id].failed)
        while fallen := rules.to_retire(self.facts()):
            for id in fallen:
                self.set(id, **LOST)
                self.settle_intent(id)
                self._ask_anew(id)

        facts = self.facts()
        for id, call in facts.calls.items():  # timers and events are nobody's attempts: there is nothing to stop
            if call.attached and call.running and call.note.may_be_left and rules.stands_on_fallen(facts, call):
                self.set(id, running=False)

    def _ask_anew(self, id: CallId) -> None:
        """A call whose result fell runs for its own sake when its body waits again, if history may still take it."""
        call = self.calls[id]
        if call.attached and self.history_left():
            self.body(call.path, demanded=self.bodies[call.path].demanded - {id})
