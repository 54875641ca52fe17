"""How far a run has come, while it runs: a line that is drawn over on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.live import Live
from rich.text import Text

from exoflow.catalogue.description import task_of
from exoflow.cli.terminal import Terminal
from exoflow.cli.words import count, duration, listed
from exoflow.kernel.call import State
from exoflow.model import Kind, version

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution

_DRAW_S = 0.1
_SAY_S = 10.0
_COST_MAX = 0.02
"""At most this share of the time goes into counting: a run may have 100,000 calls."""
_BAR = 24
_TASKS = 3


@dataclass(frozen=True, slots=True)
class Progress:
    """Calls of tasks and child flows, as far as the body has made them."""

    made: int
    done: int
    loaded: int
    """Done in an earlier process."""
    running: Counter[str]
    events: tuple[str, ...] = ()
    """Those that it waits for."""
    starting: tuple[str, ...] = ()
    """The models of engines that start here."""

    def words(self) -> str:
        busy = [name if n == 1 else f"{name} × {n:,}" for name, n in self.running.most_common(_TASKS)]
        more = len(self.running) - len(busy)
        busy += [f"{more} more"] if more > 0 else []
        if not busy and self.events:
            busy = [f"waits for the event {listed([repr(name) for name in self.events])}"]
        busy += [f"loading {listed(self.starting)}"] if self.starting else []
        return f"{self.done:,} of {count(self.made, 'call')}" + (f" · {', '.join(busy)}" if busy else "")


def progress(execution: Execution) -> Progress:
    """A count without the run's lock: a call may be counted a moment late."""
    made = done = loaded = 0
    running: Counter[str] = Counter()
    events: dict[str, None] = {}
    for call in list(execution.kernel.calls.values()):
        kind, state = call.note.kind, call.state
        if kind is Kind.NOTE or not call.attached:
            continue
        made += 1
        if state is State.DONE:
            done += 1
            loaded += call.version < version(execution.epoch, 0)
        elif state is State.RUNNING and kind is Kind.TASK:
            running[task_of(call.id)] += 1
        elif state is State.RUNNING and kind is Kind.EVENT and call.id in execution.handles:
            events[execution.handles[call.id].event_name] = None
    seats = sys.modules.get("exoflow.llm.durable.seats")  # where nobody has imported it, no engine starts
    return Progress(made, done, loaded, running, tuple(events), tuple(seats.starting()) if seats else ())


@contextmanager
def told(execution: Execution, terminal: Terminal) -> Iterator[None]:
    """Tell how far the run is, from a thread of its own, as long as the block lasts."""
    if terminal.json_output:
        yield
        return
    over = threading.Event()
    tell = _draw if terminal.live else _say
    teller = threading.Thread(target=tell, args=(execution, terminal, over), name="exoflow-progress", daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


def _draw(execution: Execution, terminal: Terminal, over: threading.Event) -> None:
    begun, pause_s = time.monotonic(), _DRAW_S
    # What the flow prints goes above the line, if it goes to the same screen.
    with Live(console=terminal.err, transient=True, auto_refresh=False, redirect_stdout=sys.stdout.isatty()) as live:
        while not over.wait(pause_s):
            now = time.perf_counter()
            found = progress(execution)
            live.update(_line(found, time.monotonic() - begun), refresh=True)
            pause_s = max(_DRAW_S, (time.perf_counter() - now) / _COST_MAX)


def _line(found: Progress, seconds: float) -> Text:
    full = round(_BAR * found.done / found.made) if found.made else 0
    bar = (("━" * full, "green"), ("━" * (_BAR - full), "bright_black"))
    return Text.assemble(*bar, f" {found.words()} · {duration(round(seconds, 1))}", no_wrap=True, overflow="ellipsis")


def _say(execution: Execution, terminal: Terminal, over: threading.Event) -> None:
    begun = time.monotonic()
    while not over.wait(_SAY_S):
        terminal.say(f"{execution.run_id}: {progress(execution).words()} · {duration(time.monotonic() - begun)}")
