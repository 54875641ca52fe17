"""In which order the strands of a body are given values, and after which calls: as in its life before (L9).

Strands share memory, so what a call is made with may depend on what the others had read by then. In a replay all that
was recorded is there at once: without an order the first strand would read to its end before the second had begun.
"""

from __future__ import annotations

from collections import deque

from exoflow.driver import records
from exoflow.driver.strands import current
from exoflow.journal.records import Kind as Code
from exoflow.kernel.call import Call, Scope, State
from exoflow.kernel.kernel import Kernel
from exoflow.model import FIRST_VERSION

Log = list[records.Read]


def add(log: Log, read: records.Read) -> None:
    """Note a read. Whatever had been read at that place or after it belongs to another history."""
    while log and log[-1].reads_at >= read.reads_at:
        log.pop()
    log.append(read)


class Order:
    """Of one incarnation of a body: whose turn it is."""

    def __init__(self, kernel: Kernel, scope: Scope, log: Log) -> None:
        self._kernel = kernel
        self._scope = scope
        self._log = log
        self._reads = deque(log)
        self._calls = deque(kernel.made_before(scope))

    def __bool__(self) -> bool:
        """Whether there is an order left to keep."""
        return bool(self._reads or self._calls)

    def allows(self, call: Call) -> bool:
        """Whether the body may be given this call's value now."""
        return self.waits_for() is None and self._is_its_turn(call)

    def waits_for(self) -> Call | None:
        """A call that had been made before what the body is given next, and has not been made again."""
        calls = self._calls
        while calls and not self._kernel.is_due(self._scope, calls[0]):
            calls.popleft()
        if calls and calls[0].recorded_reads_at <= len(self._scope.reads):
            return calls[0]
        return None

    def _is_its_turn(self, call: Call) -> bool:
        reads, made = self._reads, len(self._scope.reads)
        while reads and reads[0].reads_at < made:
            reads.popleft()
        if not reads or reads[0].reads_at > made:
            return True
        if reads[0].version != self._scope.stamp:
            reads.clear()  # another history: what was read before is not what it was
            return True
        return reads[0].call == call.id and reads[0].strand == _strand()

    def took(self, run: int, call: Call) -> records.Read | None:
        """The body is given this call's value; the record of that, where it is not the one that stands already."""
        made = len(self._scope.reads)
        read = records.Read(Code.READ, run, self._scope.path, call.id, self._scope.stamp, made, _strand())
        if self._reads and self._reads[0].reads_at == made and self._reads[0][2:] == read[2:]:
            self._reads.popleft()
            return None
        add(self._log, read)
        return read

    def called(self, run: int, call: Call) -> records.Called | None:
        """An effect is called that may begin without an intent; the record of that, where none stands already."""
        place = max(self._scope.stamp, FIRST_VERSION), call.reads_at
        if call.state is State.DONE or place == (call.called_at, call.recorded_reads_at):
            return None
        call.called_at = place[0]
        return records.Called(Code.CALLED, run, call.id, *place)


def _strand() -> str:
    strand = current.get()
    assert strand is not None
    return strand.name
