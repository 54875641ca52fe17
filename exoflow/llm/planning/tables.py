"""Rows as text in columns."""

from __future__ import annotations

from collections.abc import Sequence


def in_columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Numbers to the right, the last column to the left."""
    lines = [head, *rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    return "\n".join(
        "  ".join([*(cell.rjust(width) for cell, width in zip(line[:-1], widths, strict=False)), line[-1]]).rstrip()
        for line in lines
    )
