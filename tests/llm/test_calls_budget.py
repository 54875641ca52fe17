"""What a scheduler hears of a flow's calls: each is paid out of its budget once, whatever became of it before."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from exoflow import flow, gather
from exoflow.errors import BudgetExceeded, CallRefused
from exoflow.llm import LLM, FairScheduler, Prices, Tenant
from exoflow.testing import Asked, FakeEndpoint, Reply


def answers(asked: Asked) -> str | Reply:
    return Reply(status=401) if asked.headers.get("Authorization") == "Bearer wrong" else "yes " * 50


def test_a_call_that_failed_is_in_the_budget_when_a_resumed_run_has_its_answer(
    endpoint: FakeEndpoint, run: Callable[..., Any], tmp_path: Path
) -> None:
    described: list[LLM] = []

    @flow
    def asks() -> int:
        return len(gather(described[0].map(["?"] * 30)).result())

    def begin(key: str) -> FairScheduler:
        """As in a process of its own."""
        sched = FairScheduler(slots=1, tenants={"": Tenant(budget_usd=".001")})
        llm = LLM(endpoint.url, model="m", max_tokens=50, prices=Prices(0, 2), scheduler=sched, api_key=key)
        described[:] = [llm]
        return sched

    begin("wrong")
    with pytest.raises(CallRefused, match="401"):
        run(asks)
    sched = begin("right")
    with pytest.raises(BudgetExceeded):
        asks.options(store=tmp_path / "store").resume("r")
    paid_for = len(endpoint.billed())
    assert 5 < paid_for <= 10
    assert sched.stats()[""].calls == paid_for
    assert sched.stats()[""].spent_usd == Decimal("0.0001") * paid_for
