"""When a needed call may start: its inputs, its gates, its intent (G1 to G6, L1, L4)."""

from __future__ import annotations

from exoflow.errors import Corrupt, RunError
from exoflow.kernel.call import Call, State
from exoflow.kernel.commands import Dispatch, Intend, Replay, Run
from exoflow.kernel.outcomes import Outcomes
from exoflow.model import NO_VERSION, CallId, Kind, Version


class Starting(Outcomes):
    """Only here does anything run, so only here does anything fall because a choice is made again."""

    def _start(self, call: Call) -> None:
        """Start a needed call, or note what it waits for."""
        if call.missing or call.state is not State.NEEDED:
            return
        if call.rare and call.fail_after_undo and not call.intent:
            self._fail(call)
            return
        if call.note.effect == "irrevocable" and call.note.on_doubt == "stop" and self._stops_in_doubt(call):
            return
        if (call.inputs or call.note.actor) and not self._has_inputs(call):
            return
        note = call.note
        if not note.stands_firm and not self._makes_way(call):
            return
        if self._is_blocked():
            self._held_back.append(call)
            return
        if note.stands_firm and not (self._may_act(call) and self._makes_way(call)):
            return
        if note.rollback and not self._may_be_undone(call):
            return
        if self._is_blocked():
            self._held_back.append(call)
            return
        self._run(call)

    def _has_inputs(self, call: Call) -> bool:
        """Whether all that the call takes is there. If it never will be, it has failed with that."""
        missing, error = self._look_at_inputs(call)
        if missing:
            return False
        if error is not None:
            if call.before is not None:
                self._skip(call, skipped=True)
            self._fail_with(call, error)
            return False
        if call.before is not None and (dead := self._look_at_state(call)) is not None:
            self._fail_with(call, dead)
            return False
        return not call.awaits_state

    def _stops_in_doubt(self, call: Call) -> bool:
        """Somebody has to be asked first: until then it needs no input."""
        if not call.intent_durable:
            return False
        if self._is_blocked():
            self._held_back.append(call)
            return True
        return not self._doubt_settled(call)

    def _makes_way(self, call: Call) -> bool:
        """Before a choice is made again, what stands on the old one falls (V3), its own last effect too (V4)."""
        if call.failed:
            call.fickle = True
        if call.is_choice and (call.version and call.has_derived or call.id in self.standing):
            self._retire_derived(call)
            if not call.attached:  # its own body is among what fell
                call.state = State.IDLE
                call.owed = True
                call.held = call.saved = call.committed = call.failed = False
                if not call.intent:
                    self.unattached.discard(call)
                return False
        if call.note.rollback and call.intent and (call.attempt == call.intent or call.recalled):
            if call.released:
                raise Corrupt(
                    f"the result of {call.id} is gone, and an effect stands on what it did: it can neither be undone "
                    f"nor done again. Nothing was run."
                )
            self._held_back.append(call)
            self._queue_undo(call)
            return False
        return True

    def _run(self, call: Call) -> None:
        if self.damaged and call.is_choice and any(left.note.effect for left in self.unattached):
            raise Corrupt(
                f"a damaged record in the journal may have been the result of {call.id}, and a recorded effect "
                f"may stand on it. Nothing was run again."
            )
        if call.note.paid:
            call.begun_before = call.begun_before or call.intent != NO_VERSION
        if call.note.rollback:
            call.attempt = call.intent  # what the intent names is what an undo will name
        else:
            call.attempt = self._next_version()
        call.state = State.RUNNING
        call.held = call.saved = False
        if call.rare and call.owed:
            call.owed = False
        if call.note.actor:
            self._take_state(call)
        if call.rare and call.body is not None:
            if not call.body.ended:
                return  # its body is at work again already, to find a value (V6)
            self._detach(call.body)
            self.out.append(Replay(call.body.path))  # child flows inside of it may be at work again
            call.body = None
        if not call.has_derived:
            self._mark_derived(call)
        self._fix_stamp(call)
        if call.is_choice:
            call.version = call.attempt  # from now on nothing stands on the old one
            self.remade += 1
        if call.note.actor:
            call.failed = False  # its error is made again, for the state that it had left
        self.out.append(Run(call.id, call.attempt, call.tries + call.losses + 1, call.why))

    def _take_state(self, call: Call) -> None:
        """The state before the call is its own from now on: its body changes it."""
        self._forget_state(call)
        if call.upload:
            call.upload = NO_VERSION
            self._unsaved.pop(call.id, None)
        holder = self.holder(call)
        if holder is not None and holder.live:
            holder.live = False
            call.took = holder.version

    # -- gates -----------------------------------------------------------------------------------------------------

    def _may_act(self, call: Call) -> bool:
        """G3, G6 and L1 for a task with an effect; its intent (L4) where it needs one. A paid one asks for it later."""
        if call.intent and call.note.effect == "irrevocable" and call.intent_durable:
            return self._doubt_settled(call)
        if call.open:
            if not call.gated:
                call.gated = True
                self._force_lineage(call)
            self.urgent = self.seq
            return False
        call.gated = False
        if call.note.effect == "idempotent" and not call.gate_seq:
            call.gate_seq = self.seq  # without an intent, that what it stands on was made has to be durable by itself
        needed = max(self.start_seq, call.gate_seq)
        if self.durable_seq < needed:
            self._waiting_start.append(call)
            self.urgent = max(self.urgent, needed)
            return False
        if call.note.paid:
            return True
        released = self._sweep(call)
        if call.note.effect == "idempotent" and not released and not call.intent and not self._is_held():
            return True
        if call.intent_durable:
            return True
        if not call.intent:
            self._intend(call, (), released)
        return False

    def dispatching(self, id: CallId, version: Version) -> bool:
        """The body of a paid call is about to send: it waits for a ``Dispatch``. False: its attempt counts no more.

        An earlier attempt's intent, of which nobody heard, will do.
        """
        call = self.calls[id]
        if call.state is not State.RUNNING or call.attempt != version:
            return False
        if not call.intent:
            self._intend(call, (), ())
            if not call.attached:
                self._detached(call)
        elif call.intent_durable:
            self._dispatch(call)
        return True

    def _dispatch(self, call: Call) -> None:
        self.out.append(Dispatch(call.id, call.attempt))

    def _is_held(self) -> bool:
        """An effect that may not happen has released calls: whatever else stands on them has to say so, too."""
        return any(call.intent and call.note.effect == "irrevocable" for call in self._holding)

    def _may_be_undone(self, call: Call) -> bool:
        """A task with rollback starts behind its durable intent (L4)."""
        if self.durable_seq < self.start_seq:
            self._waiting_start.append(call)
            self.urgent = max(self.urgent, self.start_seq)
            return False
        if not call.intent:
            self._intend(call, self._open_lineage(call, choices=True), ())
            return False
        return call.intent_durable

    def _intend(self, call: Call, names: tuple[CallId, ...], releases: tuple[CallId, ...]) -> None:
        call.intent = self._next_version()
        call.intent_durable = False
        call.intent_names = names
        if releases:
            call.releases = releases
            if call.note.effect == "irrevocable":
                self._holding.add(call)
        call.recalled = False
        self._mark_derived(call)
        self.seq += 1
        self.urgent = self.seq
        self.records.append((self.seq, call, call.intent, "intent"))
        self.out.append(Intend(call.id, call.intent, names, releases))

    def _force_lineage(self, call: Call) -> None:
        for source in self._behind(call):
            self._force(source)

    def _force(self, call: Call) -> None:
        """An effect waits for this call: save it, or make it again, and so with all behind it (G4, V2)."""
        stack = [call]
        while stack:
            source = stack.pop()
            if source.forced or source.closed:
                continue
            source.forced = True
            if source.note.kind is Kind.FLOW and source.state is State.IDLE:
                self._need(source)  # only its body knows which choices are behind it
            elif source.must_commit and not source.committed:
                if self.strict and source.note.saves == "never" and not source.failed:
                    raise RunError(
                        f"{source.id} is never to be saved, and an effect, or a paid call, that stands on it cannot "
                        f"start before it is: the flow is strict. Give the task another checkpoint, or make the flow "
                        f"not strict"
                    )
                if source.state is State.DONE and source.held:
                    self._save(source)
                elif source.state is State.IDLE or source.state is State.DONE and not self._has_value(source):
                    self._need(source)
                if source.note.actor and source.is_choice:
                    self._uncovered.append(source)
            elif source.names and source.body is None and source.state is State.DONE:
                self._open_again(source)
            stack.extend(source.late)
            stack.extend(self._behind(source))

    def _give_up_hope(self) -> None:
        """No recorded call will be made again that has a snapshot."""
        self._hopeless += self._hoping
        self._hoping.clear()

    def _cover(self, call: Call, *, in_vain: bool = False) -> None:
        """Something waits for an actor's call: have a snapshot taken that is at it, or behind it (V7).

        ``in_vain``: no recorded call behind it will be made again, so that its snapshot would do.
        """
        if call.state is not State.DONE:
            return
        if not call.attached:
            self._reopen(call)  # a snapshot behind it may be there, and only its body tells what is behind it
            return
        last = call
        while not (last.has_state or last.snapping):
            taker = self.taker(last)
            if taker is not None and taker.state is State.DONE:
                last = taker
                continue
            if taker is not None and taker.state is State.RUNNING:
                assert call.origin is not None
                call.origin.cover_wanted = True  # between two calls
            elif not in_vain and self.unattached and not (last.scope and last.scope.idle):
                self._hoping.append(call)
            elif not in_vain and taker is not None and not taker.version:
                self._hopeless.append(call)  # it may stand aside, as it did before, and a snapshot be behind it
            else:
                assert call.origin is not None
                call.origin.cover_wanted = taker is not None and taker.state is State.NEEDED
                self._need_state(last)
            return
        self._force(last)  # the snapshot counts once all that it stands on is committed
        if not last.snapshot or last.snapshot != last.version:
            self._snapshot(last)
        self.urgent = self.seq
