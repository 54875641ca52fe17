"""Numbers, times and reasons in words."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from exoflow.catalogue import AttemptSeen, Waits
from exoflow.model import Spent

_REASONS = {
    "retry": "the attempt before it raised an error",
    "lost": "its result, or the worker that made it, was lost",
    "remade": "a result that it stands on was made again",
    "undone": "its earlier attempt was undone",
    "damaged": "its saved value could not be read",
    "not saved": "its earlier result had not been saved",
    "did not happen": "its effect certainly had not happened",
    "reopened": "a value inside it was needed again",
    "failed before": "it had failed",
}


def reason(why: str) -> str:
    """Why a call was run again, as a clause; an unknown reason as it is recorded."""
    return _REASONS.get(why, why)


def duration(seconds: float) -> str:
    """Three digits at most: ``80 µs``, ``0.4 ms``, ``12 ms``, ``1.25 s``, ``3 min 4 s``, ``2 h 5 min``."""
    if seconds < 0.000_095:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.0095:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    whole = round(seconds)
    for big, small, name, part in ((86400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s")):
        if whole >= big:
            rest = whole % big // small
            return f"{whole // big} {name} {rest} {part}" if rest else f"{whole // big} {name}"
    return f"{whole} s"


def size(count: int) -> str:
    """``214 B``, ``1.2 kB``, ``35 MB``: powers of ten."""
    if count < 1000:
        return f"{count} B"
    number = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        number /= 1000
        if number < 999.5 or unit == "TB":
            return f"{number:.1f} {unit}" if number < 9.95 else f"{number:.0f} {unit}"
    raise AssertionError


def usd(nano: int) -> Decimal:
    """Exact."""
    return Decimal(nano).scaleb(-9).normalize()


def spending(spent: Spent, *, calls: bool = True) -> str:
    """``11 calls, 1,210 tokens in, 330 out, $0.0012``, and how many may have been billed twice."""
    bill = spent.bill
    parts = [count(spent.calls, "paid call" if bill.nano_usd else "model call")] if calls else []
    parts.append(f"{bill.input_tokens:,} tokens in, {bill.output_tokens:,} out")
    if bill.nano_usd:
        money = usd(bill.nano_usd)
        parts.append(f"${money:,.2f}" if money >= 1 else f"${money:f}")
    if spent.maybe_rebilled:
        parts.append(f"{spent.maybe_rebilled:,} maybe billed twice" if calls else "maybe billed twice")
    return ", ".join(parts)


def moment(time_s: float) -> str:
    """Local date and time, to the second."""
    return datetime.fromtimestamp(time_s).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def ago(time_s: float) -> str:
    """``just now``, ``5 min ago``; a date where it is longer than a day."""
    seconds = time.time() - time_s
    if seconds < 5:
        return "just now"
    if seconds < 60:
        return f"{seconds:.0f} s ago"
    if seconds < 86400:
        return f"{duration(seconds // 60 * 60)} ago"
    return moment(time_s)[:16]


def place(attempt: AttemptSeen, usual: str) -> str:
    """Who ran it: ``ray worker 4711 on node-7``; empty: the run's own process.

    What goes without saying is left out: the ``usual`` executor, and this machine.
    """
    if attempt.executor is None or attempt.worker is None:
        return ""
    pid, _, host = attempt.worker.partition("@")
    words = [] if attempt.executor == usual else [attempt.executor]
    return " ".join([*words, "worker", pid, *([] if host == socket.gethostname() else ["on", host])])


def waits_for(waits: Waits, most: int = 3) -> str:
    """What a run waits for: ``the event 'approved' or 2026-03-01 09:00:00``."""
    shown = dict.fromkeys(
        f"the event {event!r}" if event is not None else moment(due_s) if due_s is not None else call
        for call, event, due_s in waits.calls[:most]
    )
    more = waits.count - min(most, len(waits.calls))
    return " or ".join([*shown, *([f"{more:,} more"] if more > 0 else [])])


def count(number: int, noun: str) -> str:
    """``1 call``, ``2,000 calls``."""
    return f"{number:,} {noun}{'' if number == 1 else 'es' if noun.endswith('s') else 's'}"


def times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def listed(words: Sequence[str], most: int = 4) -> str:
    """``a``, ``a and b``, ``a, b, c and 9 more``."""
    shown = list(words) if len(words) <= most else [*words[: most - 1], f"{len(words) - most + 1} more"]
    return " and ".join(([", ".join(shown[:-1])] if len(shown) > 1 else []) + shown[-1:])
