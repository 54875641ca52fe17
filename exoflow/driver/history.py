"""What the journal says of earlier epochs, told to the kernel."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from exoflow.driver import records
from exoflow.driver.values import Values, value_of
from exoflow.journal.records import Kind as Code
from exoflow.kernel.kernel import Kernel
from exoflow.model import CallId, Version


class History:
    """A run's records, in journal order."""

    def __init__(self, run_records: Iterable[tuple[Any, ...]] = (), *, damaged: bool = False) -> None:
        self.damaged = damaged
        self.absent: set[CallId] = set()
        """Calls whose values were found damaged, and that have not been made again."""
        self.start: records.Start | None = None
        self.ended: records.Ended | None = None
        self.cancelled = False
        self.results: dict[CallId, records.Result] = {}
        self.intents: dict[CallId, records.Intent] = {}
        self.puts: dict[CallId, tuple[CallId, ...]] = {}
        self.reads: dict[str, deque[records.Read]] = {}
        self._ordered: list[tuple[Any, ...]] = []
        for record in run_records:
            self._take(record)

    def _take(self, record: tuple[Any, ...]) -> None:
        code = record[0]
        if code in (Code.SAVED, Code.MADE, Code.FAILED):
            result = records.Result(*record)
            self.results[CallId(result.call)] = result
            self.absent.discard(CallId(result.call))
            self._ordered.append(result)
        elif code == Code.INTENT:
            intent = records.Intent(*record)
            self.intents[CallId(intent.call)] = intent
            self._ordered.append(intent)
        elif code == Code.UNDONE:
            self._ordered.append(records.Undone(*record))
        elif code == Code.READ:
            read = records.Read(*record)
            self.reads.setdefault(read.path, deque()).append(read)
        elif code == Code.START:
            self.start = records.Start(*record)
        elif code == Code.CANCEL:
            self.cancelled = True
        elif code == Code.NOTE and record[2] == records.ABSENT:
            self.absent.update(record[3])
        elif code == Code.NOTE:
            self.damaged = True  # an earlier epoch found damage, and did not take it over
        elif code == Code.ENDED:
            self.ended = records.Ended(*record)

    def tell(self, kernel: Kernel, values: Values) -> None:
        """Bring the kernel, and the table of values, to where the last epoch's journal ends."""
        kernel.damaged = self.damaged or bool(self.absent)
        kernel.forgiving = self.ended is not None and self.ended.status == "failed"
        for record in self._ordered:
            if isinstance(record, records.Result):
                self._tell_result(record, kernel, values)
            elif isinstance(record, records.Intent):
                kernel.recall_intent(
                    CallId(record.call), path_of(record.call), Version(record.version),
                    names=tuple(map(CallId, record.names)), releases=tuple(map(CallId, record.releases)),
                    rollback=record.what == "rollback",
                )  # fmt: skip
            else:
                kernel.recall_undone(CallId(record[2]), Version(record[3]))
        self._ordered.clear()
        kernel.recalled()

    def _tell_result(self, record: records.Result, kernel: Kernel, values: Values) -> None:
        id = CallId(record.call)
        saved = record.kind != Code.MADE
        kernel.recall_result(
            id, path_of(record.call), Version(record.version), saved=saved, failed=record.kind == Code.FAILED,
            choice=bool(record.choice & 1), effect=bool(record.choice & 2),
            names=tuple(map(CallId, record.names or ())),
            refs=tuple(CallId(ref.partition("!")[0]) for ref in record.refs or ()),
            reads_at=record.reads_at, newest=Version(record.newest),
        )  # fmt: skip
        if record.kind == Code.FAILED:
            assert isinstance(record.payload, bytes)
            values.errors[id] = record.payload
        elif record.kind == Code.SAVED:
            value = value_of(record.payload)
            assert value is not None
            values.at[id] = value
            for put, payload in record.puts or ():
                put_value = value_of(payload)
                assert put_value is not None
                values.at[CallId(put)] = put_value
            self.puts[id] = tuple(CallId(put) for put, _ in record.puts or ())


def path_of(call: str) -> str:
    """The path of the flow whose body made the call: ``"week#0/day#1/read#3"`` was made by ``"week#0/day#1/"``."""
    return call[: call.rfind("/") + 1]
