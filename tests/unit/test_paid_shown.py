"""What ``show`` and ``explain`` say of paid calls."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from rich.console import Console

from exoflow import flow, paid, task
from exoflow.catalogue import Description, describe, spent_by_flow
from exoflow.cli.explaining import explain_run, explain_source
from exoflow.cli.showing import description_json
from exoflow.cli.tree import totals, tree
from exoflow.cli.words import spending
from exoflow.model import Bill, Spent
from exoflow.storage import open_store


@task
async def question() -> str:
    return "which?"


@paid.paid_task(name="llm")
async def ask(prompt: str, sample: int) -> str:
    await paid.dispatching()
    paid.tell_bill(Bill(100, 10 + sample, 0, 1_500_000, maybe_rebilled=sample == 1))
    return f"{prompt} {sample}"


@flow
async def vote(prompt: str) -> list[str]:
    return await asyncio.gather(*(ask.options(key=f"sample-{n}")(prompt, n) for n in range(5)))


@flow
async def survey() -> str:
    prompt = await question()
    await vote(prompt)
    return await ask(prompt, 0)


@pytest.fixture
async def found(tmp_path: Path) -> Description:
    await survey.options(run_id="s", store=tmp_path, labels={"tenant": "acme"}).run()
    return describe("s", open_store(str(tmp_path)))


async def test_bills_are_summed_by_flow_and_a_flow_has_all_that_is_below(found: Description) -> None:
    spent = spent_by_flow(found.calls)
    assert spent["vote#0/"] == Spent(5, Bill(500, 60, 0, 7_500_000, maybe_rebilled=True), 1)
    assert spent[""] == Spent(6, Bill(600, 70, 0, 9_000_000, maybe_rebilled=True), 1)


async def test_the_tree_shows_what_each_flow_has_spent(found: Description) -> None:
    console = Console(width=200)
    with console.capture() as shown:
        console.print(tree(found, 200))
    row = next(line for line in shown.get().splitlines() if "vote" in line)
    assert "5 paid calls, 500 tokens in, 60 out, $0.0075, 1 maybe billed twice" in row
    row = next(line for line in shown.get().splitlines() if line.startswith("└─ llm"))
    assert "paid for; 100 tokens in, 10 out, $0.0015" in row
    assert totals(found).endswith("6 paid calls, 600 tokens in, 70 out, $0.009, 1 maybe billed twice")


@paid.paid_task(name="llm")
async def ask_or_be_refused(prompt: str) -> str:
    await paid.dispatching()
    if prompt == "refused":
        paid.tell_bill(Bill())
        raise ValueError(prompt)
    paid.tell_bill(Bill(100, 10, 0, 1_500_000))
    return prompt


@flow
async def half_refused() -> None:
    await asyncio.gather(*map(ask_or_be_refused, ["good", "refused", "refused"]), return_exceptions=True)


async def test_a_call_that_was_refused_is_no_paid_call(tmp_path: Path) -> None:
    await half_refused.options(run_id="s", store=tmp_path).run()
    found = describe("s", open_store(str(tmp_path)))
    assert totals(found).startswith("3 calls · ")
    assert totals(found).endswith(" · 1 paid call, 100 tokens in, 10 out, $0.0015")
    assert {path: spent.calls for path, spent in spent_by_flow(found.calls).items()} == {"": 1}


def test_calls_that_cost_nothing_are_not_called_paid() -> None:
    assert spending(Spent(2, Bill(10, 5, 0, 0), 0)) == "2 model calls, 10 tokens in, 5 out"


async def test_json_has_the_sums_by_path_and_by_call(found: Description) -> None:
    shown = description_json(found)
    assert shown["labels"] == {"tenant": "acme"}
    assert shown["spent"]["vote#0/"] == {
        "calls": 5, "input_tokens": 500, "output_tokens": 60, "cached_tokens": 0, "nano_usd": 7_500_000,
        "usd": "0.0075", "maybe_rebilled": 1,
    }  # fmt: skip
    by_id = {call["id"]: call for call in shown["calls"]}
    assert by_id["vote#0/llm[sample-1]"]["spent"]["maybe_rebilled"] == 1
    assert by_id["vote#0/llm[sample-1]"]["effect"] == "paid"
    assert by_id["question#0"]["spent"] is None


async def test_explain_says_what_a_paid_task_is(found: Description) -> None:
    starts = "only when every choice behind it is durable, sends behind its intent, never again once recorded"
    source = {each.call: each for each in explain_source(survey._spec)}
    assert source["llm"].effect == "paid"
    assert source["llm"].starts == f"starts {starts}"
    assert source["llm"].waits_for and source["llm"].waits_for[0].startswith("question")
    recorded = {each.call: each for each in explain_run(found)}
    assert recorded["llm#0"].starts == f"started {starts}"
