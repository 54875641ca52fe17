"""The graph of calls: what stands on what.

Lineage has two kinds of edges: the Refs among a call's arguments, and whatever the flow body had read before it made
the call (G10). The second kind is a prefix of the body's reads, so one number a call stands for all of them.
"""

from __future__ import annotations

from exoflow.kernel.call import Call, Scope, joined
from exoflow.kernel.closing import Closing
from exoflow.model import Kind


class Graph(Closing):
    """Edges come when a call is made, when its value shows Refs, and when a child flow's body reads."""

    def _link(self, call: Call, scope: Scope, inputs: tuple[Call, ...], passes: tuple[Call, ...]) -> None:
        """Give an attached call its place in the graph."""
        if call.closed:
            self._unclose([call])
        call.scope = scope
        call.inputs = inputs
        if passes or call.rare:
            call.passes = passes
        call.reads_at = len(scope.reads)
        call.read_stamp = scope.stamp
        call.attached = True
        call.read_at = call.stamp_at = -1
        call.missing = 0
        call.gated = call.closed = False
        call.open = 0
        scope.calls.append(call)
        for source in inputs:
            if (
                source.attached or source.must_commit and not source.committed
            ):  # else its child flow's own record stands for it
                source.takers = joined(source.takers, call)
                if not source.closed:
                    call.open += 1
            for ref in source.refs:
                self._link_content(call, ref)
        if call.note.actor:
            self._link_state(call)
        if not scope.base_closed or scope.closed_reads < call.reads_at:
            call.open += 1
            scope.waiting_prefix.append(call)
        if call.note.kind is Kind.FLOW:
            call.base_open = call.open
            call.open += 1
            call.holds = True

    def _link_state(self, call: Call) -> None:
        """Put an actor's call behind the one before it."""
        call.after = None
        call.cover_wanted = call.skipped = False
        if call.before is not None:
            call.before.after = call
        for source in states(call):
            self._take_from(call, source)

    def holder(self, call: Call) -> Call | None:
        """Whose state the call begins with: that of the call before it, those apart that never begin."""
        source = call.before
        while source is not None and source.skipped:
            source = source.before
        return source

    def taker(self, call: Call) -> Call | None:
        """Who begins with the state that the call has left."""
        taker = call.after
        while taker is not None and taker.skipped:
            taker = taker.after
        return taker

    def _skip(self, call: Call, *, skipped: bool) -> None:
        """The call does not take the state, and does not stand on it: who does take it does; or it is as it was."""
        call.skipped = False
        taker = self.taker(call)
        for source in states(call):
            if skipped:
                self._leave(call, source)
                if taker is not None:
                    self._take_from(taker, source)
            else:
                self._take_from(call, source)
                if taker is not None:
                    self._leave(taker, source)
        call.skipped = skipped
        self._recovered = bool(self._covers)
        if taker is not None and not taker.open:
            self._opened(taker)

    def _take_from(self, call: Call, source: Call) -> None:
        source.takers = joined(source.takers, call)
        if not source.closed:
            call.open += 1

    def _leave(self, call: Call, source: Call) -> None:
        source.takers.remove(call)
        if not source.closed:
            call.open -= 1

    def _link_content(self, call: Call, source: Call) -> None:
        """A Ref to ``source`` stands in the value of an input: the call takes its value too."""
        if not source.attached and (source.committed or not source.must_commit):
            return  # in a child flow that is not replayed: its own record stands for all of it
        if source in call.contents:
            return
        call.contents = joined(call.contents, source)
        source.takers = joined(source.takers, call)
        for ref in source.refs:
            self._link_content(call, ref)
        if not source.closed:
            call.open += 1
            if call.note.kind is Kind.FLOW:
                call.base_open += 1

    def _relink_contents(self, call: Call) -> None:
        """An input's value is not true any more: neither is what it referred to."""
        for source in call.contents:
            source.takers.remove(call)
            if not source.closed:
                call.open -= 1
                call.base_open -= call.note.kind is Kind.FLOW
        call.contents.clear()
        for source in call.inputs:
            for ref in source.refs:
                self._link_content(call, ref)

    def _link_refs(self, call: Call) -> None:
        """The value is known, and Refs stand in it: who takes the value takes what they refer to."""
        for taker in list(call.takers):
            if taker.before is not None and self.holder(taker) is call and call not in taker.inputs:
                continue  # it takes the state alone
            for ref in call.refs:
                self._link_content(taker, ref)

    def _unlink(self, scope: Scope) -> list[Call]:
        """Take the calls of a body that is set aside, and of its children's bodies, out of the graph."""
        gone: list[Call] = []
        scopes = [scope]
        while scopes:
            current = scopes.pop()
            for call in current.calls:
                call.attached = False
                call.scope = None
                call.recorded_reads_at = call.reads_at
                if call.body is not None:
                    scopes.append(call.body)
                    call.body = None
            gone.extend(current.calls)
            self.former[current.path] = current.calls
            self._unlink_late(current)
            for call in current.result_refs:
                if call.handed_out:
                    call.handed_out = False
            current.restart()
        self._unclose(gone)
        for source in {source for call in gone for source in (*call.inputs, *call.contents, *states(call))}:
            source.takers = [taker for taker in source.takers if taker.attached]
            source.waiters = [waiter for waiter in source.waiters if waiter.attached]
        for call in gone:
            call.contents.clear()
        return gone

    def _unclose(self, gone: list[Call]) -> None:
        """A call that is to be made again closes again: whoever outside stands on it waits for that."""
        for call in gone:
            if not call.closed:
                continue
            call.closed = False
            for taker in call.takers:
                if taker.attached:
                    taker.open += 1
                    taker.base_open += taker.note.kind is Kind.FLOW
            for taker in call.late_takers:
                taker.open += taker.attached

    def _unlink_late(self, scope: Scope) -> None:
        owner = scope.owner
        if owner is None:
            return
        for source in set(owner.late):
            source.late_takers = [taker for taker in source.late_takers if taker is not owner]
        owner.late.clear()
        owner.open = owner.base_open + 1
        owner.holds = True

    def _release(self, owner: Call) -> None:
        """All that the body of a child flow reads is known."""
        if owner.holds:
            owner.holds = False
            owner.open -= 1
            self._recovered = bool(self._covers)


def states(call: Call) -> tuple[Call, ...]:
    """Where the state that an attempt at the call would begin with comes from: ``holder``, and who stood aside since.

    That those did is their arguments' error, and part of its lineage.
    """
    found: list[Call] = []
    source = None if call.skipped else call.before
    while source is not None:
        found.append(source)
        source = source.before if source.skipped else None
    return tuple(found)
