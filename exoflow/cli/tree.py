"""``show`` as a tree: each call with how long it took, what was saved, what it waited for, and why it ran again."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group
from rich.text import Text

from exoflow import codec
from exoflow.catalogue import AttemptSeen, CallSeen, Description, spent_by_flow, spent_on
from exoflow.cli.rows import Row, names, rows, sources
from exoflow.cli.words import count, duration, listed, moment, place, reason, size, spending, times
from exoflow.model import Spent, Status, Version, show_version

_MOST_ERROR_CHARACTERS = 200
_GAP = "   "
_EFFECTS = {"rollback": "can be undone", "paid": "paid for"}


def tree(description: Description, width: int, *, every: bool = False) -> Group:
    """A line for each call, or for a group of calls that are alike; below it what is out of the ordinary."""
    drawn = rows(description, every=every)
    shown = names(description.calls)
    by_flow = spent_by_flow(description.calls)
    results = [_result(row, description) for row in drawn]
    label = max((len(row.branch) + len(row.label) for row in drawn), default=0)
    time = durations_width(drawn)
    column = max((len(result) for result in results), default=0)
    lines: list[Text] = []
    for row, result in zip(drawn, results, strict=True):
        line = Text.assemble((row.branch, "dim"), (row.label, _colour(row.calls)))
        line.append(" " * (label - len(line.plain)) + f"{took(row.calls):>{time}}{_GAP}")
        line.append_text(result)
        facts = "; ".join([*_facts(row.calls, description, shown), *_spending(row, by_flow)])
        before = label + time + len(_GAP) + column
        if facts and before + len(_GAP) + len(facts) <= width:
            line.append(" " * (column - len(result)) + _GAP + facts, "dim")
            facts = ""
        lines.append(line)
        below = row.branch.replace("├─ ", "│  ").replace("└─ ", "   ")
        if facts:
            lines.append(Text.assemble((f"{below}  ", "dim"), (facts, "dim")))
        lines.extend(Text.assemble((f"{below}  ", "dim"), extra) for extra in _extras(row.calls, description, shown))
    return Group(*lines)


def _colour(calls: Sequence[CallSeen]) -> str:
    if any(call.error or call.not_undone for call in calls):
        return "red"
    return "yellow" if any(call.again for call in calls) else ""


def took(calls: Sequence[CallSeen]) -> str:
    """How long the calls took, one or the sum of several: ``Σ 12 s`` may be longer than the run was."""
    seconds = [call.last.seconds for call in calls if call.last]
    return ("Σ " if len(seconds) > 1 else "") + duration(sum(seconds)) if seconds else ""


def durations_width(drawn: Sequence[Row]) -> int:
    """Columns for them, and for a gap before them."""
    return max([9, *(len(took(row.calls)) + 2 for row in drawn)])


def _result(row: Row, description: Description) -> Text:
    lasts = [call.last for call in row.calls if call.last]
    if row.calls and row.calls[0].not_undone is not None:
        return Text("undo failed, its effect is in place", style="bold red")
    if not lasts and row.calls and row.calls[0].undos == row.calls[0].intents > 0:
        return Text("undone" if row.calls[0].effect == "rollback" else "did not happen", style="yellow")
    if not lasts:
        return Text("no record yet" if not row.calls else "began", style="dim")
    first = lasts[0]
    if first.undone:
        return Text("undone", style="yellow")
    if first.saved == "error":
        return Text("failed", style="red")
    if first.saved == "not saved":
        return Text("not saved", style="dim")
    text = Text(f"saved {size(sum(last.size or 0 for last in lasts))}")
    if all(call.loaded for call in row.calls):
        text.append(f", loaded from process {first.epoch}", "green")
    return text


def _facts(calls: Sequence[CallSeen], description: Description, shown: dict[str, str]) -> Iterator[str]:
    actor = calls[0].actor if calls else None
    if actor is not None and actor != calls[0].id and len(description.actors) > 1:
        yield f"of {shown.get(actor, actor)}"
    after = sources(calls, shown)
    if after:
        yield f"after {listed(after)}"
    effect = calls[0].effect if calls else None
    if effect is not None and (effect != "paid" or spent_on(calls).bill.nano_usd):
        yield _EFFECTS.get(effect, f"{effect} effect")
    usual = description.run.executor
    places = list(dict.fromkeys(place(call.last, usual) for call in calls if call.last and call.last.worker))
    if places:
        yield f"on {places[0]}" if len(places) == 1 else f"on {len(places)} workers"


def _spending(row: Row, by_flow: Mapping[str, Spent]) -> Iterator[str]:
    """What these calls have cost; of a child flow, all that is below it."""
    own = spent_on(row.calls)
    if own.calls:
        yield spending(own, calls=own.calls > 1)
    elif row.below in by_flow:
        yield spending(by_flow[row.below])


def _extras(calls: Sequence[CallSeen], description: Description, shown: dict[str, str]) -> Iterator[tuple[str, str]]:
    if not calls:
        return
    first = calls[0]
    if first.actor == first.id:
        yield from _snapshots(calls, description, shown)
    if first.forced:
        yield f"saved before {listed([shown.get(id, id) for id in first.forced])}, behind it, was", "dim"
    yield from _undos(first)
    if first.runs > 1:
        yield ("each " if len(calls) > 1 else "") + _again(first, description), "yellow"
    if first.in_doubt:
        yield "in doubt: its effect began, and nothing says that it ended", "bold magenta"
    if first.effect == "paid" and not first.attempts and description.run.status is Status.BROKEN_OFF:
        yield "asked, and nothing says what came of it: it is asked again, and may be billed twice", "bold magenta"
    if first.error is not None:
        yield _below(first.error, description), "red"


def _snapshots(calls: Sequence[CallSeen], description: Description, shown: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Behind which calls of these actors the state was saved, and, if the run may go on, what that would cost."""
    ids = {call.id for call in calls}
    actors = [actor for actor in description.actors if actor.id in ids]
    taken = [shown[call.id] for actor in actors for call in actor.snapshots]
    behind = [shown[call.id] for actor in actors for call in actor.behind]
    if taken:
        yield f"{count(len(taken), 'snapshot')}, behind {listed(taken)}", "dim"
    if behind and description.run.status not in (Status.DONE, Status.CANCELLED):
        yield f"made again where the state is lost and needed: {listed(behind)}", "dim"


def _undos(call: CallSeen) -> Iterator[tuple[str, str]]:
    """What was undone, when and after how many tries; what was not, and why."""
    undone = [undo for undo in call.undoings if undo.error is None]
    if undone:
        tries = sum(undo.tries for undo in call.undoings)
        how = f", in {tries} tries" if tries > len(undone) else ""
        when = "at" if len(undone) == 1 else "last at"
        what = "undone" if call.effect == "rollback" else "found not to have happened"
        yield f"{what} {times(len(undone))}, {when} {moment(undone[-1].time_s)}{how}", "yellow"
    failed = call.not_undone
    if failed is not None:
        attempt = show_version(Version(failed.version))
        yield f"the undo of attempt {attempt} failed {times(failed.tries)}, at {moment(failed.time_s)}", "bold red"
        assert failed.error is not None
        yield _short(error_line(failed.error)), "red"


def _again(call: CallSeen, description: Description) -> str:
    """Every attempt but the first, with its reason."""
    clauses = dict.fromkeys(_clause(attempt, description) for attempt in call.attempts if attempt.why is not None)
    if call.runs == 2 and len(clauses) == 1:
        return f"ran again{next(iter(clauses))}"
    return f"ran {times(call.runs)}" + (f": again{', again'.join(clauses)}" if clauses else "")


def _clause(attempt: AttemptSeen, description: Description) -> str:
    where = f" in process {attempt.epoch}" if description.run.epoch > 1 else ""
    return f"{where} because {reason(attempt.why or '')}"


def error_line(data: bytes) -> str:
    """An encoded error in one line: its type and the first line of its message."""
    error = codec.decode_error(data)
    message = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _below(data: bytes, description: Description) -> str:
    """A call's error; what the run has failed with stands at the top, whole."""
    text = error_line(data)
    if description.run.error is not None and text == error_line(description.run.error):
        return f"{text.partition(':')[0]}, as above"
    return _short(text)


def _short(text: str) -> str:
    return textwrap.shorten(text, _MOST_ERROR_CHARACTERS, placeholder=" …")


def totals(description: Description) -> str:
    """The last line: how much there was to do, and how much of it again."""
    calls = description.calls
    again = sum(call.runs - 1 for call in calls if call.runs)
    loaded = sum(call.loaded for call in calls)
    stored = sum(call.last.size or 0 for call in calls if call.last)
    parts = [count(len(calls), "call"), f"{size(stored)} saved"]
    if loaded:
        parts.append(f"{loaded:,} loaded by the last process")
    if again:
        parts.append(f"{again:,} run again")
    spent = spent_on(calls)
    if spent.calls:
        parts.append(spending(spent))
    return " · ".join(parts)
