"""What is needed: by a body that waits, by a call that takes it, by an effect behind it (V1, V2, V6)."""

from __future__ import annotations

from exoflow.kernel.call import NOBODY, Call, State, joined
from exoflow.kernel.commands import Deliver, Run
from exoflow.kernel.lineage import Lineage
from exoflow.model import CallId, Kind


class Needs(Lineage):
    """A needed call is marked at once, and started when the commands are taken."""

    def wants(self, call: Call) -> None:
        """The body, or the end of the run, waits for the call's value."""
        call.wanted = True
        if self._is_forgivable(call):
            self._forgive(call)
        if self._available(call):
            self.out.append(Deliver(call.id))
        else:
            self._need(call)

    def _available(self, call: Call) -> bool:
        """Its value, or its error, may be used by a consumer (G1)."""
        if call.state is not State.DONE:
            return False
        if call.failed:
            return True
        return (call.held or call.saved) and (call.note.saves != "sync" or call.committed or self._is_whole(call))

    def _announce(self, call: Call) -> None:
        """Tell whoever waits for the value, if it may be used."""
        if not self._available(call):
            return
        if call.wanted:
            self.out.append(Deliver(call.id))
            root = self.scopes[""]
            if root.returned:
                self._ending.append(root)
            if call.note.kind is Kind.EVENT:  # a child flow may have returned it
                self._ending.extend(scope for scope in self.scopes.values() if scope.returned and scope is not root)
        waiters, call.waiters = call.waiters, NOBODY
        if waiters and not call.failed:
            for ref in call.refs:  # they take what it refers to: have it made while they wait for their other inputs
                if not self._available(ref):
                    self._need(ref)
        for waiter in waiters:
            if waiter.missing:
                waiter.missing -= 1
                if not waiter.missing and waiter.state is State.DONE:
                    self._open_again(waiter)
                elif not waiter.missing:
                    self._ready.append(waiter)

    def _is_whole(self, call: Call) -> bool:
        """Whether an actor's call is durable, itself and the state that it has left: nobody asks what is behind it."""
        return call.note.actor and call.written and (call.snapped or not call.is_choice)

    def _has_value(self, call: Call) -> bool:
        return call.failed or call.held or call.saved

    def _need(self, call: Call) -> None:
        """Have the call run; what it takes and is missing is needed when it is looked at (V2)."""
        if not call.attached:
            self._reopen(call)
        elif call.state is State.IDLE or call.state is State.DONE and not self._has_value(call):
            if self.unwinding:
                return
            call.state = State.NEEDED
            call.missing = 0
            if not call.note.may_be_left:
                assert call.scope is not None
                call.scope.active += 1
            self._ready.append(call)

    def _need_state(self, call: Call) -> None:
        """Have the state that an actor's call has left, whatever became of its result (V6, V7)."""
        if call.state is not State.DONE or not self._has_value(call):
            self._need(call)
        elif not self.unwinding:
            assert call.scope is not None
            call.state = State.NEEDED
            call.why = "state lost"
            call.missing = 0
            call.scope.active += 1
            self._ready.append(call)

    def _look_at_state(self, call: Call) -> Call | None:
        """Ask for the state that the call begins with, if it is not there. The error, if it never will be."""
        holder = self.holder(call)
        assert holder is not None  # who creates the actor never stands aside
        if holder.dead and self._is_forgivable(holder):
            self._forgive(holder)
        if holder.dead and holder.state is State.DONE:
            return holder
        call.awaits_state = not holder.has_state or bool(holder.snapping)
        if not holder.has_state:
            self._need_state(holder)
        return None

    def _state_there(self, call: Call) -> None:
        """Let the call behind it look whether it may start."""
        taker = self.taker(call)
        if taker is not None and taker.awaits_state:
            taker.awaits_state = False
            if taker.state is State.NEEDED:
                self._ready.append(taker)

    def _made_from(self, call: Call) -> tuple[Call, ...]:
        """The calls whose values an attempt needs: from a snapshot, the actor is created again first."""
        if not call.note.actor or call.before is None:
            return call.inputs
        holder = self.holder(call)
        assert call.origin is not None
        from_snapshot = holder is not None and holder.has_state and not holder.live
        return call.inputs + call.origin.inputs if from_snapshot else call.inputs

    def _is_forgivable(self, call: Call) -> bool:
        """Its error comes from a life that has ended, and the body has not read it since (V14)."""
        return self.forgiving and call.failed and call.recalled and not call.seen and not call.failed_anew

    def _forgive(self, call: Call) -> None:
        """Run a failed call again if nothing recorded stands on its error (V14)."""
        assert call.scope is not None
        recalled = self.by_path.get(call.scope.path, ())
        if any(c.version > call.version and not c.attached and c.state is State.DONE for c in recalled):
            return
        call.state = State.IDLE
        call.failed = call.committed = False
        call.saved = call.dead = False
        call.why = "failed before"

    def _reopen(self, call: Call) -> None:
        """A Ref into a child flow whose result is recorded: its body is replayed to see how the value is made (V6)."""
        self._sought.add(call)
        owner: Call | None = call
        while owner is not None and not owner.attached:
            owner = self.calls.get(CallId(owner.id.rpartition("/")[0]))
        if owner is not None:
            self._open_again(owner)

    def _open_again(self, owner: Call) -> None:
        if not owner.attached or owner.state is not State.DONE or owner.body is not None or owner in self._reopening:
            return
        missing, _ = self._look_at_inputs(owner)
        if missing:
            return  # its body needs its arguments; if a choice among them has to be made again, its result falls
        self._reopening.add(owner)
        self.out.append(Run(owner.id, owner.version, owner.tries, "reopened"))

    def _found(self, call: Call) -> None:
        """A call was made while values inside child flows are looked for: it may be one, or lead to one."""
        if call in self._sought:
            self._sought.discard(call)
            if call.waiters or call.wanted:
                self._need(call)
                self._announce(call)  # by its own annotations it may be there all the same
        elif call.note.kind is Kind.FLOW and any(sought.id.startswith(f"{call.id}/") for sought in self._sought):
            self._open_again(call)

    def _look_at_inputs(self, call: Call) -> tuple[list[Call], Call | None]:
        """The inputs whose values are not there yet, Refs inside values included, and the first error among the others.

        Asks for what is missing. With all inputs ended, the first error is the call's own: the same in every replay.
        """
        found: dict[Call, None] = dict.fromkeys(self._made_from(call))
        missing: list[Call] = []
        error: Call | None = None
        pending = list(found)
        for source in pending:
            if self._is_forgivable(source):
                self._forgive(source)
            if not self._available(source):
                missing.append(source)
            elif source.failed:
                error = error or source
            else:
                pending.extend(ref for ref in source.refs if ref not in found)
                found.update(dict.fromkeys(source.refs))
        call.missing = len(missing)
        for source in missing:
            source.waiters = joined(source.waiters, call)
            self._need(source)
        return missing, error
