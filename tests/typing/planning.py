"""Plans of calls, typed as a user would."""

from __future__ import annotations

from typing import assert_type

from exoflow import Ref, flow
from exoflow.llm import LLM, Log, choice, collect, curve, fit_scaling, plan
from exoflow.llm.planning import BestK, Curve, Plan, Scaling

ROWS = [{"id": "q", "prompt": "?", "answer": "A"}]


@flow
def worth(llm: LLM) -> int:
    log = collect(llm, ROWS, n=11, parse=choice("AB"), temperature=0.7)
    assert_type(log, Log)
    assert_type(collect.submit(llm, ROWS), Ref[Log])
    assert_type(curve(log), Curve)
    assert_type(fit_scaling(log), Scaling)
    assert_type(fit_scaling(log).best_k("1se"), BestK)
    assert_type(fit_scaling(log).predict(3), float)
    assert_type(fit_scaling(log).predict([3, 5]), list[float])
    assert_type(plan(log, 1, usd_per_call=0.1), Plan)
    k, (low, high) = curve(log).best_k()
    return low + k + high


async def outside(llm: LLM) -> None:
    assert_type(await collect(llm, "rows.jsonl"), Log)
    assert_type(await collect.options(run_id="x").run(llm, ROWS), Log)
    collect(llm, ROWS, n="many")  # type: ignore[call-overload]
