"""Whole steps in which everybody decodes (D1 to D4), and what they cost the CPU (C1)."""

from __future__ import annotations

from typing import Any

from gpu_world import ALL, QKVO, Bench, Pages, decoding, layout_of, put_adapter, runner_of

from exoflow.llm.bench.roofline import Roofline
from exoflow.llm.engine.plan import Chunk
from exoflow.llm.engine.runner import Runner

Rows = list[dict[str, Any]]
CONTEXT = 390


def step_seconds(bench: Bench, runner: Runner, chunks: list[Chunk], slots: list[int]) -> tuple[float, float]:
    """Of the device, and of the CPU until it is free again."""
    run = lambda: runner.run(chunks, slots)  # noqa: E731  # said twice
    run()
    host_s = bench.host_seconds(run)
    if runner.graphs is None:
        return bench.seconds(run, graph=False), host_s
    replay = runner.graphs.last
    assert replay is not None
    return bench.seconds(replay, graph=False), host_s


def decode(bench: Bench) -> Rows:
    """The base alone, one adapter, as many as there are rows."""
    rows: Rows = []
    model = bench.model("8b")
    batches = [1, 8, 64, 256] if not bench.tiny else [1, 4]
    elems, most = model.geometry.page_elems(model.block), max(batches)
    layouts = {name: layout_of(model.geometry, 16, modules) for name, modules in (("qkvo", QKVO), ("all", ALL))}
    distinct = bench.scaled(64, 4)
    context = bench.scaled(CONTEXT, 40)
    needed = most * -(-context // model.block) + distinct * sum(layout.pages(elems) for layout in layouts.values())
    with runner_of(
        bench, "8b", needed, max_batch=most, token_budget=max(most, 64), adapter_slots=2 * distinct
    ) as runner:
        pages, roofline = Pages.of(needed), bench.roofline("8b")
        for first, layout in zip((0, distinct), layouts.values(), strict=True):
            for index in range(distinct):
                put_adapter(runner, first + index, layout, pages)
        chunks = decoding(model, most, context, pages)
        for batch in batches:
            base_s, host_s = step_seconds(bench, runner, chunks[:batch], [-1] * batch)
            rows.append(row("D3 base", batch, 0, base_s, host_s, roofline, roofline.step_s(batch * context)))
            for first, (name, modules) in zip((0, distinct), (("qkvo", QKVO), ("all", ALL)), strict=True):
                for count in sorted({1, min(batch, distinct)}):
                    slots = [first + index % count for index in range(batch)]
                    took_s, host_s = step_seconds(bench, runner, chunks[:batch], slots)
                    least_s = roofline.step_s(batch * context, {16: count}, modules)
                    kind = "D1" if count == 1 else "D2"
                    found = row(f"{kind} {name} r16", batch, count, took_s, host_s, roofline, least_s)
                    extra_s = count * roofline.adapter_bytes(16, modules) / bench.bandwidth
                    found |= {
                        "overhead": took_s / base_s - 1,
                        "added_ms": (took_s - base_s) * 1e3,
                        "added_bound_ms": extra_s * 1e3,
                    }
                    rows.append(found)
    return rows


def row(
    what: str, batch: int, adapters: int, took_s: float, host_s: float, roofline: Roofline, least_s: float
) -> dict[str, Any]:
    return {
        "what": what, "batch": batch, "adapters": adapters, "ms": took_s * 1e3, "bound_ms": least_s * 1e3,
        "of bound": least_s / took_s, "C1 host_ms": host_s * 1e3,
    }  # fmt: skip
