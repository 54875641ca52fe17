"""Where the time goes, over all threads, by sampling their stacks."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

INTERVAL_S = 0.001
SWITCH_INTERVAL_S = 0.0002  # or a busy thread keeps the sampler waiting for 5 ms
IDLE = {"threading", "queue", "selectors", "concurrent.futures.thread", "concurrent.futures._base"}
ROWS = 12


def sampled(work: Callable[[], dict[str, list[float]]]) -> dict[str, Any]:
    """Do the work with a sampler beside it; its figures, and the functions that were seen most.

    A sample is the innermost function of a thread that was not seen to wait in the standard library's own locks, queues
    and selectors. ``inside`` counts a function also where it had called another.
    """
    alone: Counter[str] = Counter()
    inside: Counter[str] = Counter()
    stop = threading.Event()

    def watch() -> None:
        me = threading.get_ident()
        while not stop.wait(INTERVAL_S):
            for thread, frame in sys._current_frames().items():
                if thread != me and frame.f_globals.get("__name__") not in IDLE:
                    alone[name(frame)] += 1
                    inside.update({name(outer) for outer in stack(frame)})

    sys.setswitchinterval(SWITCH_INTERVAL_S)
    sampler = threading.Thread(target=watch, daemon=True)
    sampler.start()
    figures = work()
    stop.set()
    sampler.join()
    total = max(1, sum(alone.values()))
    rows = [[function, count / total, inside[function] / total] for function, count in alone.most_common(ROWS)]
    return {"figures": figures, "profile": {"samples": total, "rows": rows}}


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
