"""``show --timeline``: a bar for each call, over the time that some process worked on the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.text import Text

from exoflow.catalogue import CallSeen, Description
from exoflow.cli.rows import Row, rows
from exoflow.cli.tree import durations_width, took
from exoflow.cli.words import duration

_COLOURS = ("cyan", "green", "blue", "magenta")
_PAUSE = 3
"""Columns for the time between two processes, however long it was."""
_LEFT, _BOTH, _RIGHT = "╺", "━", "╸"
_MOST_LABEL = 36


@dataclass(frozen=True, slots=True)
class _Span:
    """The time that one process worked, and the columns it gets."""

    epoch: int
    begin_s: float
    end_s: float
    column: int = 0
    columns: int = 0

    def half(self, time_s: float) -> int:
        """The half column that a moment falls on."""
        share = (time_s - self.begin_s) / max(self.end_s - self.begin_s, 1e-9)
        return 2 * self.column + round(min(max(share, 0.0), 1.0) * 2 * self.columns)


def timeline(description: Description, width: int, *, every: bool = False) -> RenderableType:
    """Bars that fit ``width`` columns; a colour for each process."""
    lines = rows(description, every=every)
    spans = _spans(description)
    if not spans:
        return Text("no call has a record yet", style="dim")
    label = min(_MOST_LABEL, max(len(row.branch) + len(row.label) for row in lines))
    time = durations_width(lines)
    room = max(20, width - label - time - 3)
    placed = _placed(spans, room)
    drawn = [_line(row, placed, label, room, time) for row in lines]
    return Group(_header(placed, label), *drawn)


def _spans(description: Description) -> list[_Span]:
    ends: dict[int, tuple[float, float]] = {}
    for call in description.calls:
        for attempt in call.attempts:
            begin, end = ends.get(attempt.epoch, (attempt.started_s, attempt.started_s))
            ends[attempt.epoch] = (min(begin, attempt.started_s), max(end, attempt.started_s + attempt.seconds))
    return [_Span(epoch, *ends[epoch]) for epoch in sorted(ends)]


def _placed(spans: Sequence[_Span], room: int) -> list[_Span]:
    """Columns by duration, a pause between two processes; none gets less than four columns."""
    free = max(room - _PAUSE * (len(spans) - 1) - 4 * len(spans), 0)
    whole = sum(span.end_s - span.begin_s for span in spans) or 1.0
    placed, column = [], 0
    for span in spans:
        columns = 4 + int(free * (span.end_s - span.begin_s) / whole)
        placed.append(_Span(span.epoch, span.begin_s, span.end_s, column, columns))
        column += columns + _PAUSE
    return placed


def _header(spans: Sequence[_Span], label: int) -> Text:
    text = Text(" " * (label + 1))
    for n, span in enumerate(spans):
        if n:
            text.append("┊".center(_PAUSE), "dim")
        took = duration(span.end_s - span.begin_s)
        names = (f"process {span.epoch} · {took}", f"{span.epoch} · {took}", str(span.epoch))
        name = next((each for each in names if len(each) <= span.columns), "")
        text.append(f"{name if len(spans) > 1 else took:<{span.columns}}", _COLOURS[(span.epoch - 1) % len(_COLOURS)])
    return text


def _line(row: Row, spans: Sequence[_Span], label: int, room: int, time: int) -> Text:
    name = row.branch + row.label
    name = name if len(name) <= label else name[: label - 1] + "…"
    text = Text.assemble((name[: len(row.branch)], "dim"), name[len(row.branch) :].ljust(label - len(row.branch)), " ")
    for n, span in enumerate(spans):
        if n:
            text.append("┊".center(_PAUSE), "dim")
        text.append_text(_bar(row.calls, span))
    last = spans[-1]
    text.append(" " * (room - last.column - last.columns + 1))
    text.append(f"{took(row.calls):>{time}}", "dim")
    return text


def _bar(calls: Sequence[CallSeen], span: _Span) -> Text:
    halves = [False] * (2 * span.columns)
    failed = False
    for call in calls:
        for attempt in call.attempts:
            if attempt.epoch == span.epoch:
                begin = span.half(attempt.started_s) - 2 * span.column
                end = span.half(attempt.started_s + attempt.seconds) - 2 * span.column
                begin = min(begin, 2 * span.columns - 1)
                halves[begin : max(end, begin + 1)] = [True] * (max(end, begin + 1) - begin)
                failed |= attempt.saved == "error"
    cells = (
        (_BOTH if right else _RIGHT) if left else (_LEFT if right else " ")
        for left, right in zip(halves[::2], halves[1::2], strict=True)
    )
    colour = "red" if failed else _COLOURS[(span.epoch - 1) % len(_COLOURS)]
    return Text("".join(cells), style=colour)
