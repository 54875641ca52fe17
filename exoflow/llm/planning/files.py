"""Data sets and logs as files: jsonl, a line a row, and parquet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from exoflow.extras import needed
from exoflow.llm.calls.question import check_asked
from exoflow.naming import key_text

Row = dict[str, Any]


def read_rows(path: str) -> list[Row]:
    """All rows of the file.

    Raises:
        TypeError, ValueError: a line of it is no JSON object, or it is of no known format; the message says which.
    """
    if _is_parquet(path):
        with needed(path, "plan"):
            from pyarrow import parquet

        rows: list[Row] = parquet.read_table(path).to_pylist()
        return rows
    with Path(path).open(encoding="utf-8") as lines:
        return [_object(line, f"{path}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]


def checked(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """The rows of a data set, with the fields that are needed and no others; ids are text.

    Raises:
        TypeError, ValueError: a row is no mapping, lacks a field, or has the id of another.
    """
    found: dict[str, Row] = {}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise TypeError(f"row {number} of the data set is no mapping of fields: {row!r}")
        here = f"row {number} of the data set"
        kept = {name: row[name] for name in ("prompt", "messages", "answer") if row.get(name) is not None}
        if row.get("id") is None:
            raise ValueError(f"{here} has no id; it has {', '.join(map(str, row)) or 'nothing'}")
        if ("prompt" in kept) == ("messages" in kept):
            which = "both prompt and messages" if "prompt" in kept else "neither prompt nor messages"
            raise ValueError(f"{here}, id {row['id']!r}, has {which}: it needs one of them")
        name = str(row["id"])
        if name in found:
            raise ValueError(f"{here} has the id {row['id']!r}, and so has a row before it: each needs its own")
        try:
            key_text(name)
            check_asked(kept.get("messages"), kept.get("prompt"), {})
        except (TypeError, ValueError) as error:  # now, while nothing has been paid for
            raise type(error)(f"{here}, id {row['id']!r}: {error}") from None
        found[name] = {"id": name, **kept}
    if not found:
        raise ValueError("the data set has no rows")
    return list(found.values())


def write_rows(rows: Sequence[Mapping[str, object]], path: str) -> None:
    """A line a row; a parquet file has the columns of a log."""
    if _is_parquet(path):
        _write_parquet(rows, path)
    else:
        with Path(path).open("w", encoding="utf-8") as lines:
            lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _is_parquet(path: str) -> bool:
    if path.endswith((".jsonl", ".parquet")):
        return path.endswith(".parquet")
    raise ValueError(f"{path!r} is of no format that is known here: its name ends with .jsonl or .parquet")


def _object(line: str, place: str) -> Row:
    try:
        row = json.loads(line, parse_float=Decimal)
    except ValueError as error:
        raise ValueError(f"{place}: this is no JSON ({error}): {line.strip()[:80]!r}") from error
    if not isinstance(row, dict):
        raise TypeError(f"{place}: a row is a JSON object, not {line.strip()[:80]!r}")
    return row


def _write_parquet(rows: Sequence[Mapping[str, object]], path: str) -> None:
    with needed(path, "plan"):
        import pyarrow as pa
        from pyarrow import parquet

    text, whole, number, truth = pa.string(), pa.int64(), pa.float64(), pa.bool_()
    schema = pa.schema(
        {"id": text, "index": whole, "text": text, "answer": text, "abstained": truth, "why": text, "correct": truth,
         "tokens": whole, "usd": number, "seconds": number, "passed": truth, "maybe_rebilled": truth}
    )  # fmt: skip
    parquet.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=schema), path)
