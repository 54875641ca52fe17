"""The graph of calls: what stands on what, and whether all of it is committed.

Lineage has two kinds of edges: the Refs among a call's arguments, and whatever the flow body had read before it made
the call (G10). The second kind is a prefix of the body's reads, so one number a call stands for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from exoflow.kernel.commands import Command
from exoflow.kernel.state import Call, Scope, joined
from exoflow.model import CallId, Kind, Version

FIXED = -2


class Lineage:
    """Calls, flow bodies and the edges between them. Every flag here is settled once: amortised constant a change."""

    def __init__(self) -> None:
        self.calls: dict[CallId, Call] = {}
        self.scopes: dict[str, Scope] = {}
        self.out: list[Command] = []
        self.remade = 0  # choices ordered again so far; stamps of unmade calls are cached against it
        self._closing: list[Call] = []

    # -- edges -----------------------------------------------------------------------------------------------------

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
        if not scope.base_closed or scope.closed_reads < call.reads_at:
            call.open += 1
            scope.waiting_prefix.append(call)
        if call.note.kind is Kind.FLOW:
            call.base_open = call.open
            call.open += 1
            call.holds = True

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

    def _link_late(self, owner: Call, source: Call) -> None:
        """A child flow's body has read ``source``, or returns a Ref to it: its result will stand on it."""
        if not source.attached and (source.committed or not source.must_commit):
            return
        owner.late = joined(owner.late, source)
        if owner.stamp_at != FIXED:
            self.remade += 1  # stamps behind the child flow may be newer now
        elif source.scope is not None:
            owner.stamp = max(owner.stamp, self._stamp(source))
        source.late_takers = joined(source.late_takers, owner)
        if not source.closed:
            owner.open += 1

    def _link_refs(self, call: Call) -> None:
        """The value is known, and Refs stand in it: who takes the value takes what they refer to."""
        for taker in list(call.takers):
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
                if call.body is not None:
                    scopes.append(call.body)
                    call.body = None
            gone.extend(current.calls)
            self._unlink_late(current)
            current.restart()
        self._unclose(gone)
        for source in {source for call in gone for source in call.late}:
            source.late_takers = [taker for taker in source.late_takers if taker.attached]
        for call in gone:
            call.late.clear()
        for source in {source for call in gone for source in (*call.inputs, *call.contents)}:
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

    # -- closed: it and every choice behind it are committed -----------------------------------------------------

    def _settle(self, call: Call) -> None:
        """Mark the call closed if it is, and whatever becomes closed with it."""
        self._closing.append(call)
        if len(self._closing) > 1:
            return  # the loop below, further up the stack, takes it
        i = 0
        while i < len(self._closing):
            self._close(self._closing[i])
            i += 1
        self._closing.clear()

    def _close(self, call: Call) -> None:
        if call.closed or not (self._may_close(call) if call.attached else call.committed):
            return
        call.closed = True
        for taker in call.takers:
            self._unblock(taker)
        for taker in call.late_takers:
            taker.open -= 1
            if not taker.open:
                self._opened(taker)
        if call.read_by:
            for scope, _ in call.readers():
                self._advance(scope)
        elif call.read_at >= 0 and call.scope is not None:
            self._advance(call.scope)

    def _is_closed(self, call: Call) -> bool:
        """In a child flow that is not replayed, the flow's own record stands for what is behind its committed calls."""
        return call.closed or not call.attached and call.committed

    def _may_close(self, call: Call) -> bool:
        return not call.open and (call.committed or not call.must_commit)

    def _advance(self, scope: Scope) -> None:
        """Move the boundary of closed reads forward; calls made before it lose their hold on the prefix."""
        reads = scope.reads
        while scope.closed_reads < len(reads) and self._is_closed(reads[scope.closed_reads]):
            scope.closed_reads += 1
        if not scope.base_closed:
            return
        waiting = scope.waiting_prefix
        while waiting and waiting[0].reads_at <= scope.closed_reads:
            call = waiting.popleft()
            if call.attached:
                self._unblock(call)

    def _unblock(self, call: Call) -> None:
        """One part of what stands behind the call has closed."""
        call.open -= 1
        if call.note.kind is Kind.FLOW:
            call.base_open -= 1
            if not call.base_open and call.body is not None:
                self._base_closed(call.body)
        if not call.open:
            self._opened(call)

    def _opened(self, call: Call) -> None:
        """Nothing open stands behind the call any more."""
        if call.gated:
            self._gate_opened(call)
        self._settle(call)

    def _gate_opened(self, call: Call) -> None:
        raise NotImplementedError

    def _base_closed(self, scope: Scope) -> None:
        scope.base_closed = True
        self._advance(scope)

    # -- stamps: the newest choice behind a call ------------------------------------------------------------------

    def _lineage_stamp(self, call: Call) -> Version:
        """Newest version among the choices behind an attached call, itself apart.

        Versions only grow, and a call starts after what it stands on, so this one number is the agreement check:
        a result is usable as long as its own version is greater. It is fixed while a call runs or has a result, since
        whatever is made again behind it takes that away; for the others it is cached until a choice is made again.
        """
        if call.stamp_at == FIXED or call.stamp_at == self.remade:
            return call.stamp
        stamp = self._prefix_stamp(call)
        if call.inputs or call.contents or call.late:
            stamp = self._walk(self._sources(call), stamp)
        call.stamp = stamp
        call.stamp_at = self.remade
        return stamp

    def _sources(self, call: Call) -> list[Call]:
        """What the result is made from, reads apart; an error that is an input's stands on that input alone."""
        return list(call.refs) if call.propagated else [*call.inputs, *call.contents, *call.late]

    def _walk(self, pending: list[Call], stamp: Version) -> Version:
        seen: set[Call] = set()
        while pending:
            source = pending.pop()
            if source in seen:
                continue
            seen.add(source)
            if source.version and source.is_choice and source.version > stamp:
                stamp = source.version
            if source.record_stamp > stamp:
                stamp = source.record_stamp
            if source.stamp_at == FIXED or source.stamp_at == self.remade:
                stamp = max(stamp, source.stamp)
            elif source.scope is not None:
                stamp = max(stamp, self._prefix_stamp(source))
                pending.extend(self._sources(source))
        return stamp

    def _prefix_stamp(self, call: Call) -> Version:
        """The part of the stamp that comes from reads: of its own body, and of what called the bodies around it."""
        stamp = call.read_stamp
        scope = call.scope
        assert scope is not None
        owner = scope.owner
        if owner is None or owner.scope is None:
            return stamp
        return self._walk([*owner.inputs, *owner.contents], max(stamp, self._prefix_stamp(owner)))

    def _fresh_stamp(self, call: Call) -> Version:
        """Its stamp as it would be now, whatever it was when the call started."""
        return self._walk(self._sources(call), self._prefix_stamp(call))

    def _fix_stamp(self, call: Call) -> None:
        call.stamp_at = -1
        self._lineage_stamp(call)
        call.stamp_at = FIXED

    def _stamp(self, call: Call) -> Version:
        """Newest version among the choices behind a call, itself included."""
        if call.scope is None:
            return call.version  # in a child flow that is not replayed: a result is newer than all behind it
        stamp = max(self._lineage_stamp(call), call.record_stamp)
        return max(stamp, call.version) if call.is_choice else stamp

    # -- derived: who would have to fall -------------------------------------------------------------------------

    def _mark_derived(self, call: Call) -> None:
        """Note on everything behind the call that something holds a result which stands on it."""
        if call.has_derived:
            return
        stack = [call]
        while stack:
            source = stack.pop()
            if source.has_derived:
                continue
            source.has_derived = True
            stack.extend(source.inputs)
            stack.extend(source.contents)
            stack.extend(source.late)
            if source.scope is not None and source.scope.owner is not None:
                stack.append(source.scope.owner)

    # -- walks that never visit a call twice ---------------------------------------------------------------------

    def _open_lineage(self, call: Call, *, choices: bool = False) -> tuple[CallId, ...]:
        """What is behind a call and has no record with its value (L5): choices, and what an effect would wait for."""
        names: list[CallId] = []
        seen = {call}
        stack = [*call.late, *self._behind(call)]
        while stack:
            source = stack.pop()
            if source in seen or source.closed:
                continue
            seen.add(source)
            if not source.saved and (source.is_choice or source.must_commit and not choices):
                names.append(source.id)
            names.extend(source.names)
            stack.extend(source.late)
            stack.extend(source.refs if source.propagated else self._behind(source))
        return tuple(sorted(set(names)))

    def _behind(self, call: Call) -> Iterator[Call]:
        yield from call.inputs
        yield from call.contents
        scope, upto = call.scope, call.reads_at
        while scope is not None:
            yield from scope.reads[min(scope.closed_reads, upto) : upto]
            owner = scope.owner
            if owner is None:
                return
            yield from owner.inputs
            yield from owner.contents
            scope, upto = owner.scope, owner.reads_at

    def _sweep(self, call: Call) -> tuple[CallId, ...]:
        """Release every call with rollback that an effect stands on; the ids of those not released before (G6)."""
        released: list[CallId] = []
        stack = [call]
        while stack:
            source = stack.pop()
            if source.swept:
                continue
            source.swept = True
            if source is not call and source.note.rollback and not source.released:
                source.released = True
                released.append(source.id)
            stack.extend(source.inputs)
            stack.extend(source.contents)
            stack.extend(source.late)
            scope, upto = source.scope, source.reads_at
            while scope is not None:
                stack.extend(scope.reads[scope.swept_reads : upto])
                scope.swept_reads = max(scope.swept_reads, upto)
                owner = scope.owner
                if owner is None:
                    break
                stack.extend(owner.inputs)
                stack.extend(owner.contents)
                scope, upto = owner.scope, owner.reads_at
        return tuple(sorted(released))
