"""Where the time goes, over all threads, and where the memory."""

from __future__ import annotations

import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

INTERVAL_S = 0.001
SWITCH_INTERVAL_S = 0.0002  # or a busy thread keeps the sampler waiting for 5 ms
AT_LEAST_S = 2.0
ROWS = 12


def sampled(work: Callable[[], dict[str, list[float]]]) -> dict[str, Any]:
    """Do the work again and again for some seconds; its figures, and the functions that had the processor.

    A thread's innermost function is charged with the processor time that the thread has had since it was last seen, so
    that one which only waits weighs nothing.
    """
    alone: Counter[str] = Counter()
    inside: Counter[str] = Counter()
    stop = threading.Event()
    sampler = threading.Thread(target=watch, args=(stop, alone, inside), daemon=True)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    start, figures = time.perf_counter(), {}
    sampler.start()
    while time.perf_counter() - start < AT_LEAST_S:
        figures = work()
    wall_s = time.perf_counter() - start
    stop.set()
    sampler.join()
    total = max(1, sum(alone.values()))
    rows = [
        [f"`{function}`", f"{spent / total:.0%}", f"{inside[function] / total:.0%}"]
        for function, spent in alone.most_common(ROWS)
    ]
    note = f"Processor time by function, all threads: {total / 1e9:.2f} s in {wall_s:.2f} s; the rest is waiting."
    return {"figures": figures, "profile": {"note": note, "rows": [["function", "alone", "with what it calls"], *rows]}}


def watch(stop: threading.Event, alone: Counter[str], inside: Counter[str]) -> None:
    """Look at all threads until told to stop."""
    me = threading.get_ident()
    threads = [thread.native_id for thread in threading.enumerate()]
    seen = {native: processor_ns(native) for native in threads if native is not None}  # what went before is not ours
    while not stop.wait(INTERVAL_S):
        frames = sys._current_frames()
        for thread in threading.enumerate():
            frame, native = frames.get(thread.ident or 0), thread.native_id
            if frame is None or native is None or thread.ident == me:
                continue
            spent = processor_ns(native)
            share = spent - seen.get(native, 0)
            seen[native] = spent
            if share > 0:
                alone[name(frame)] += share
                for function in {name(outer) for outer in stack(frame)}:
                    inside[function] += share


def processor_ns(native: int) -> int:
    """The processor time that a thread has had; nothing once it has ended."""
    try:
        return int(Path(f"/proc/self/task/{native}/schedstat").read_text().split()[0])
    except OSError:
        return 0


def stack(frame: FrameType | None) -> list[FrameType]:
    """The frame and those that called it."""
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames


def name(frame: FrameType) -> str:
    """Module and function of a frame."""
    function = getattr(frame.f_code, "co_qualname", frame.f_code.co_name)
    return f"{frame.f_globals.get('__name__', '?')}.{function}"


def growth(calls: int, work: Callable[[], object]) -> dict[str, Any]:
    """The lines that allocated what is still there after the work, by bytes a call."""
    tracemalloc.start()
    before = tracemalloc.take_snapshot()
    work()
    found = tracemalloc.take_snapshot().compare_to(before, "lineno")
    tracemalloc.stop()
    rows = []
    for line in found[:ROWS]:
        place = line.traceback[0]
        file = "/".join(Path(place.filename).parts[-3:])
        rows.append([f"`{file}:{place.lineno}`", f"{line.size_diff / calls:.0f}", f"{line.count_diff / calls:.1f}"])
    total = sum(line.size_diff for line in found)
    note = f"Memory by the line that allocated it, {calls:,} calls: {total / calls:,.0f} bytes a call."
    return {"note": note, "rows": [["line", "bytes a call", "objects a call"], *rows]}
