"""Data sets and logs as files: jsonl, a line a row, and parquet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

from exoflow.extras import needed
from exoflow.llm.calls.question import check_asked
from exoflow.llm.planning.sample import is_missing
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

        try:
            rows: list[Row] = parquet.read_table(path).to_pylist()
        except ValueError as error:
            raise ValueError(f"{path} is no parquet file, or not all of one: {error}") from error
        return rows
    with Path(path).open(encoding="utf-8") as lines:
        return [_object(line, f"{path}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]


def checked(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """The rows of a data set, with the fields that are needed and no others; ids are text.

    Raises:
        TypeError, ValueError: a row is no mapping, lacks a field, or has the id of another.
    """
    given: object = rows
    if not isinstance(given, Iterable) or hasattr(given, "to_dict"):
        raise TypeError(
            f"the data set is a {type(given).__name__}: give rows, as [{{'id': 1, 'prompt': '...'}}], of a DataFrame "
            "df.to_dict('records'), or the name of a file"
        )
    found: dict[str, Row] = {}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise TypeError(f"row {number} of the data set is no mapping of fields: {row!r}")
        here = f"row {number} of the data set"
        kept = {name: row[name] for name in ("prompt", "messages", "answer") if not is_missing(row.get(name))}
        if is_missing(row.get("id")):
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
    """A line a row; a parquet file has the columns of a log. The file is there whole, or as it was before."""
    write = _write_parquet if _is_parquet(path) else _write_jsonl
    target = Path(path).resolve()
    beside = target.with_name(f".{target.name}.{uuid4().hex}")
    try:
        with needed(path, "plan"):
            write(rows, beside)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _is_parquet(path: str) -> bool:
    if path.endswith((".jsonl", ".parquet")):
        return path.endswith(".parquet")
    raise ValueError(f"{path!r} is of no format that is known here: its name ends with .jsonl or .parquet")


def _object(line: str, place: str) -> Row:
    try:
        row = json.loads(line, parse_float=Decimal)
    except ValueError as error:
        cut = "" if line.endswith("\n") else ", and the file ends in this line: was it cut off?"
        raise ValueError(f"{place}: this is no JSON ({error}){cut}: {line.strip()[:80]!r}") from error
    if not isinstance(row, dict):
        raise TypeError(f"{place}: a row is a JSON object, not {line.strip()[:80]!r}")
    if "messages" in row:  # they go on as JSON, which has no Decimal
        row["messages"] = json.loads(json.dumps(row["messages"], default=float))
    return row


def _write_jsonl(rows: Sequence[Mapping[str, object]], path: Path) -> None:
    # Half of a surrogate pair, which a model can say, is no UTF-8; with a backslash it is what JSON has for it.
    with path.open("w", encoding="utf-8", errors="backslashreplace") as lines:
        lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_parquet(rows: Sequence[Mapping[str, object]], path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    text, whole, number, truth = pa.string(), pa.int64(), pa.float64(), pa.bool_()
    schema = pa.schema(
        {"id": text, "index": whole, "text": text, "answer": text, "abstained": truth, "why": text, "correct": truth,
         "tokens": whole, "usd": number, "seconds": number, "passed": truth, "maybe_rebilled": truth}
    )  # fmt: skip
    plain = [{name: _utf8(value) if isinstance(value, str) else value for name, value in row.items()} for row in rows]
    parquet.write_table(pa.Table.from_pylist(plain, schema=schema), path)


def _utf8(text: str) -> str:
    """Half of a surrogate pair as the character that stands for what is none."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
