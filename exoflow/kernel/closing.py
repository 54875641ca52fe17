"""Whether a call, and every choice behind it, is committed: what an effect waits for (G3, G6)."""

from __future__ import annotations

from exoflow.kernel.call import Call, Scope, State
from exoflow.kernel.state import RunState
from exoflow.model import Kind


class Closing(RunState):
    """Each flag is settled once: amortised constant a change."""

    def _settle(self, call: Call) -> None:
        """Mark the call closed if it is, and whatever becomes closed with it."""
        if call.open and call.attached:
            return
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
            self._unblock(waiting.popleft())

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
        if call.gated and call.state is State.NEEDED:
            self._ready.append(call)
        self._settle(call)

    def _base_closed(self, scope: Scope) -> None:
        scope.base_closed = True
        self._advance(scope)
