"""What is behind a call: the newest choice, the open ones, the effects that an intent releases."""

from __future__ import annotations

from collections.abc import Iterator

from exoflow.kernel.call import FIXED, Call, State, joined
from exoflow.kernel.graph import Graph, states
from exoflow.model import CallId, Kind, Version


class Lineage(Graph):
    """Walks over the graph that never visit a call twice."""

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
        if call.inputs or call.contents or call.late or call.note.actor:
            stamp = self._walk(self._sources(call), stamp)
        call.stamp = stamp
        call.stamp_at = self.remade
        return stamp

    def _sources(self, call: Call) -> list[Call]:
        """What the result is made from, reads apart; an error that is an input's stands on that input alone."""
        made_from = call.refs if call.propagated else (*call.inputs, *call.contents, *call.late)
        return [*made_from, *states(call)]

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
        around: list[Call] = []
        while owner is not None and owner.scope is not None:  # no recursion: flows may be deep inside each other
            stamp = max(stamp, owner.read_stamp)
            around += owner.inputs
            around += owner.contents
            owner = owner.scope.owner
        return self._walk(around, stamp)

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

    # -- everything behind a call ----------------------------------------------------------------------------------

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
            stack.extend(states(source))
            if source.scope is not None and source.scope.owner is not None:
                stack.append(source.scope.owner)

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
            whole = source.saved and not (source.note.actor and source.is_choice and not source.committed)
            if not whole and (source.is_choice or source.must_commit and not choices):
                names.append(source.id)
            names.extend(source.names)
            stack.extend(source.late)
            stack.extend((*source.refs, *states(source)) if source.propagated else self._behind(source))
        return tuple(sorted(set(names)))

    def _committed_by(self, cover: Call) -> list[Call] | None:
        """The actors' calls that a durable snapshot commits; None: something that it stands on is not committed.

        Calls of several actors may be read in turns, and the snapshot of each stand on the other: they commit together.
        """
        found: list[Call] = []
        seen = {cover}
        stack = [cover]
        while stack:
            source = stack.pop()
            more: list[Call] = []
            if source.must_commit and not source.committed:
                if not source.note.actor or not source.written or source.state is not State.DONE:
                    return None
                held_by = self._snapshot_of(source)
                if held_by is None:
                    return None
                found.append(source)
                more.append(held_by)
            elif source.holds:
                return None
            more.extend(source.late)
            more.extend((*source.refs, *states(source)) if source.propagated else self._behind(source))
            for each in more:
                if each not in seen and not each.closed:
                    seen.add(each)
                    stack.append(each)
        return found

    def _snapshot_of(self, call: Call) -> Call | None:
        """The next call of an actor, this one included, whose state is in a durable snapshot."""
        holder: Call | None = call
        while holder is not None and (holder.skipped or not holder.snapped):
            holder = holder.after
            if holder is not None and holder.state is not State.DONE:
                return None
        return holder

    def _behind(self, call: Call) -> Iterator[Call]:
        yield from call.inputs
        yield from call.contents
        yield from states(call)
        scope, upto = call.scope, call.reads_at
        while scope is not None:
            yield from scope.reads[min(scope.closed_reads, upto) : upto]
            owner = scope.owner
            if owner is None:
                return
            yield from owner.inputs
            yield from owner.contents
            scope, upto = owner.scope, owner.reads_at

    def _committed_inside(self, flow: Call) -> list[Call]:
        """What is committed of a child flow whose body is not replayed: its result may stand on any of it (V17)."""
        found: list[Call] = []
        paths = [f"{flow.id}/"]
        while paths:
            path = paths.pop()
            for call in (*self.by_path.get(path, ()), *self.former.get(path, ())):
                paths.append(f"{call.id}/")
                if call.committed:
                    found.append(call)
        return found

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
            stack.extend(states(source))
            if source.note.kind is Kind.FLOW and source.body is None:
                stack.extend(self._committed_inside(source))
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
