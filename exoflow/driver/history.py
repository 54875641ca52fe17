"""What the journal says of earlier epochs, told to the kernel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from exoflow.driver import order, records
from exoflow.driver.values import Values, value_of
from exoflow.journal.collector import at_rest
from exoflow.journal.inbox import Message
from exoflow.journal.records import Kind as Code
from exoflow.kernel.kernel import Kernel
from exoflow.model import NO_VERSION, Bill, CallId, Version

Recorded = tuple[int, Version, object, bytes]
"""Of a call's newest record, what a replay is held against: kind, version, fingerprint of the arguments, code.

A plain tuple, as the records are: a run has very many, and the garbage collector leaves those alone that hold no
objects of its own.
"""

_SAVED, _MADE, _FAILED = int(Code.SAVED), int(Code.MADE), int(Code.FAILED)
_RESULTS = (_SAVED, _MADE, _FAILED)


class History:
    """A run's records, in journal order."""

    def __init__(self, run_records: Iterable[tuple[Any, ...]] = (), *, damaged: bool = False) -> None:
        self.damaged = damaged
        self.absent: set[CallId] = set()
        """Calls whose values were found damaged, and that have not been made again."""
        self.start: records.Start | None = None
        self.ended: records.Ended | None = None
        self.cancelled = False
        self.failing: bytes | None = None
        """The error that the run has failed with, while it rolls back."""
        self.forgiving = False
        """It has failed: who resumes it makes a new beginning with its errors (V14). Not where an undo has failed for
        good: the run then goes on with what it was doing."""
        self.results: dict[CallId, Recorded] = {}
        self.intents: dict[CallId, records.Intent] = {}
        self.puts: dict[CallId, tuple[CallId, ...]] = {}
        self.refs: dict[CallId, tuple[tuple[CallId, ...], bool]] = {}
        """Refs inside of recorded values, and whether some of them stand in what was put."""
        self.bills: dict[CallId, Bill] = {}
        """What the calls have cost that told it, in all their records."""
        self.events: dict[CallId, int] = {}
        """Which message each event took."""
        self._takers: dict[int, CallId] = {}
        self.reads: dict[str, list[records.Read]] = {}
        """Of bodies with several strands, by their paths: what they were given, in order."""
        self._ordered: list[tuple[Any, ...]] = []
        self._codes: dict[bytes, bytes] = {}
        """One object for each task, where each of its records has one."""
        for record in run_records:
            self._take(record)

    def _take(self, record: tuple[Any, ...]) -> None:
        code = record[0]
        if code in _RESULTS:
            self._ordered.append(record)
            if self.absent:
                self.absent.discard(record[2])
        elif code == Code.INTENT:
            intent = records.Intent(*record)
            self.intents[CallId(intent.call)] = intent
            self._ordered.append(intent)
        elif code == Code.UNDONE:
            self._ordered.append(records.Undone(*record))
        elif code == Code.SNAPSHOT:
            self._ordered.append(records.Snapshot(*record))
        elif code == Code.CALLED:
            self._ordered.append(records.Called(*record))
        elif code == Code.READ:
            read = records.Read(*record)
            order.add(self.reads.setdefault(read.path, []), read)
        elif code == Code.START:
            self.start = records.Start(*record)
        elif code == Code.CANCEL:
            self.cancelled = True
        elif code == Code.NOTE:
            self._take_note(record)
        elif code == Code.ENDED:
            self.ended = records.Ended(*record)
            self.forgiving = self.ended.status == "failed" and not self.ended.undo_failed
            if self.forgiving:
                self.failing = None

    def _take_note(self, record: tuple[Any, ...]) -> None:
        what = record[2]
        if what == records.ABSENT:
            self.absent.update(record[3])
        elif what == records.FAILING:
            self.failing = records.Failing(*record).error
        elif what not in (records.UNDO_FAILED, records.WAITING):
            self.damaged = True  # an earlier epoch found damage, and did not take it over

    def tell(self, kernel: Kernel, values: Values) -> None:
        """Bring the kernel, and the table of values, to where the last epoch's journal ends."""
        with at_rest(len(self._ordered)):
            self._tell(kernel, values)

    def _tell(self, kernel: Kernel, values: Values) -> None:
        kernel.damaged = self.damaged or bool(self.absent)
        kernel.forgiving = self.forgiving
        for record in self._ordered:
            if record[0] in _RESULTS:
                self._tell_result(record, kernel, values)
            elif isinstance(record, records.Intent):
                kernel.recall_intent(
                    CallId(record.call), path_of(record.call), Version(record.version),
                    names=tuple(map(CallId, record.names)), releases=tuple(map(CallId, record.releases)),
                    rollback=record.what == "rollback", reads_at=record.reads_at, paid=record.what == "paid",
                )  # fmt: skip
            elif isinstance(record, records.Snapshot):
                id = CallId(record.call)
                kernel.recall_snapshot(id, Version(record.version))
                if kernel.calls[id].snapshot == record.version:
                    value = value_of(record.payload)
                    assert value is not None
                    values.snapshots[id] = value
            elif isinstance(record, records.Called):
                id = CallId(record.call)
                kernel.recall_called(id, path_of(id), Version(record.version), record.reads_at)
            else:
                taken = record[6] if len(record) > 6 else None
                kernel.recall_undone(CallId(record[2]), Version(record[3]), tuple(map(CallId, taken or ())))
        self._ordered.clear()
        self._codes.clear()
        kernel.recalled()

    def _tell_result(self, record: tuple[Any, ...], kernel: Kernel, values: Values) -> None:
        kind, _, id, version, payload, puts, refs, names, reads_at, inputs, arguments, code = record[:12]
        bits = record[16]
        kernel.recall_result(
            id, path_of(id), version, saved=kind != _MADE, failed=kind == _FAILED,
            choice=bits & 1 != 0, effect=bits & 2 != 0, names=tuple(names) if names else (),
            refs=self._owners(id, refs) if refs else (),
            reads_at=reads_at, newest=record[17] if len(record) > 17 else NO_VERSION,
            actor=bits & records.ACTOR != 0, dead=bits & records.DEAD != 0,
            unheard=bits & records.UNHEARD != 0, billed=len(record) > records.BILL and bool(record[records.BILL]),
        )  # fmt: skip
        if refs or id in self.refs:
            self.refs[id] = tuple(map(CallId, refs or ())), bits & records.LINKED != 0
        self.results[id] = kind, version, arguments, self._codes.setdefault(code, code)
        if len(record) > records.BILL and record[records.BILL]:
            bill, former = Bill(*record[records.BILL]), self.bills.get(id)
            self.bills[id] = bill if former is None else former + bill
        if bits & records.EVENT:
            self._tell_taken(id, records.message_number(inputs))
        if kind == _FAILED:
            assert isinstance(payload, bytes)
            values.errors[id] = payload
        elif kind == _SAVED:
            value = value_of(payload)
            assert value is not None
            values.at[id] = value
            for put, payload in puts or ():
                put_value = value_of(payload)
                assert put_value is not None
                values.at[CallId(put)] = put_value
            if puts or id in self.puts:
                self.puts[id] = tuple(CallId(put) for put, _ in puts or ())

    def _owners(self, id: CallId, refs: list[str]) -> tuple[CallId, ...]:
        owners = dict.fromkeys(CallId(ref.partition("!")[0]) for ref in refs)
        return tuple(owner for owner in owners if owner != id)

    def _tell_taken(self, id: CallId, message: int) -> None:
        former = self._takers.get(message)
        if former is not None and self.events.get(former) == message:
            del self.events[former]  # it had fallen when another could take its message
        self.events[id] = message
        self._takers[message] = id


def in_doubt(run_records: Iterable[tuple[Any, ...]]) -> dict[CallId, Version]:
    """The irrevocable calls that may have happened, and the intents under which: no result says, and no undo."""
    doubts: dict[CallId, Version] = {}
    for record in run_records:
        if record[0] == Code.INTENT and record[4] == "irrevocable":
            doubts[record[2]] = record[3]
        elif record[0] in _RESULTS or record[0] == Code.UNDONE:
            doubts.pop(record[2], None)
    return doubts


def open_doubts(run_records: Iterable[tuple[Any, ...]], messages: Iterable[Message]) -> list[CallId]:
    """Those in doubt of which nobody has said, in the run's inbox, whether they happened."""
    told = {(each.name, each.version) for each in messages if each.what in ("happened", "did not happen")}
    return [call for call, version in in_doubt(run_records).items() if (call, version) not in told]


def recorded_results(run_records: Iterable[tuple[Any, ...]]) -> set[CallId]:
    """The calls that have a result, or an error, in these records."""
    return {record[2] for record in run_records if record[0] in _RESULTS}


def path_of(call: str) -> str:
    """The path of the flow whose body made the call: ``"week#0/day#1/read#3"`` was made by ``"week#0/day#1/"``."""
    return call[: call.rfind("/") + 1]
