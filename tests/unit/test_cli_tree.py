"""``show`` as a tree, drawn from what a catalogue might say."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from exoflow import codec
from exoflow.catalogue import AttemptSeen, CallSeen, Description
from exoflow.catalogue.summary import RunSummary
from exoflow.cli.timeline import timeline
from exoflow.cli.tree import totals, tree
from exoflow.model import EPOCH_SHIFT, Bill, Status


def attempt(seconds: float = 0.001, epoch: int = 1, why: str | None = None, **rest: Any) -> AttemptSeen:
    fields = {"number": 1, "saved": "inline", "size": 1, "undone": False, "executor": None, "worker": None, **rest}
    return AttemptSeen(version=epoch << EPOCH_SHIFT, started_s=0.0, seconds=seconds, why=why, **fields)


def call(id: str, *attempts: AttemptSeen, **rest: Any) -> CallSeen:
    fields = {
        "task": id.partition("#")[0], "path": "", "inputs": (), "runs": len(attempts), "loaded": False, "choice": True,
        "child_flow": False, "effect": None, "intents": 0, "key": None, "undoings": (), "in_doubt": False,
        "reads_at": 0, "forced": (), "error": None, **rest,
    }  # fmt: skip
    return CallSeen(id=id, attempts=attempts, **fields)


def description(*calls: CallSeen, epoch: int = 1, error: bytes | None = None) -> Description:
    status = Status.DONE if error is None else Status.FAILED
    return Description(RunSummary("r", "f", status, 0.0, 1.0, len(calls), epoch, error=error), calls)


def shown(drawn: Any) -> list[str]:
    console = Console(width=300)
    with console.capture() as captured:
        console.print(drawn)
    return captured.get().splitlines()


def test_there_is_a_gap_before_a_duration_however_long_it_is() -> None:
    found = description(call("generate#4", attempt(41 * 60 + 38)), call("read#0", attempt()))
    assert "generate  41 min 38 s   saved" in shown(tree(found, 120))[0]
    assert shown(timeline(found, 120))[1].endswith("  41 min 38 s")


def test_a_sum_of_durations_is_marked_as_one() -> None:
    found = description(*(call(f"read#{n}", attempt(2.0)) for n in range(5)), call("sum#0", attempt(3.0)))
    rows = shown(tree(found, 120))
    assert "read × 5  Σ 10.0 s   saved" in rows[0]
    assert "Σ" not in rows[1]
    assert shown(timeline(found, 120))[1].endswith("  Σ 10.0 s")


def test_calls_that_ran_again_for_one_reason_are_one_row() -> None:
    lost = [call(f"read#{n}", attempt(), attempt(why="lost")) for n in range(44)]
    found = description(*lost, call("read#44", attempt(), attempt(why="retry")))
    assert len(rows := shown(tree(found, 120))) == 4
    assert rows[0].startswith("├─ read#0…43")
    assert rows[1].endswith("each ran again because its result, or the worker that made it, was lost")
    assert rows[3].endswith("ran again because the attempt before it raised an error")
    assert len(shown(tree(found, 120, every=True))) == 90


def test_the_error_of_a_run_is_shown_once_and_others_end_with_a_whole_word() -> None:
    error = codec.encode_error(ValueError("correct the address " * 30))
    failed = [call("a#0", attempt(saved="error"), error=error), call("b#0", attempt(saved="error"), error=error)]
    assert [row.strip("│ ") for row in shown(tree(description(*failed, error=error), 120))[1::2]] == [
        "ValueError, as above", "ValueError, as above",
    ]  # fmt: skip
    assert shown(tree(description(*failed), 120))[1].endswith(("correct …", "the …", "address …"))


def test_calls_of_a_model_without_prices_are_not_called_paid() -> None:
    free = call("llm#0", attempt(bill=Bill(100, 10)), effect="paid", intents=1)
    [row] = shown(tree(description(free), 120))
    assert row.endswith("100 tokens in, 10 out")
    assert "paid" not in row
    assert totals(description(free)).endswith("1 model call, 100 tokens in, 10 out")
