"""Parity on the device, what it can move, and the kernels by themselves (K1 to K4)."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from gpu_world import ALL, QKVO, Bench, Pages, decoding, layout_of, put_adapter, runner_of
from torch import Tensor

from exoflow.llm.engine.batch import Batch, arrays_of, send
from exoflow.llm.engine.ops.protocol import Ops
from exoflow.llm.engine.ops.reference import ReferenceOps
from exoflow.llm.engine.runner import Runner

Rows = list[dict[str, Any]]
GROUPS = ("qkv", "o", "gate_up", "down")


def bandwidth(bench: Bench) -> Rows:
    """Bytes/s, read and written, of a copy that no cache holds."""
    source = torch.empty(bench.scaled(2 << 30, 32 << 20), dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    took_s = bench.seconds(lambda: target.copy_(source))
    bench.bandwidth = 2 * len(source) / took_s
    return [{"what": "copy", "TB/s": bench.bandwidth / 1e12}]


def parity(bench: Bench) -> Rows:
    """The device's operations against the reference in float32, beside torch's own in the device's type."""
    model = bench.model("8b")
    with runner_of(bench, "8b", 700, max_batch=64, adapter_slots=16) as runner:
        runner.pool.normal_()
        pages = Pages.of(runner.pages)
        for slot, rank in enumerate((1, 8, 16, 33, 64)):
            put_adapter(runner, slot, layout_of(model.geometry, rank, ALL if slot % 2 else QKVO), pages)
        chunks = [chunk for context in (1, 65, 300, 700) for chunk in decoding(model, 3, context, pages)]
        batch = batch_of(bench, chunks, [(index % 6) - 1 for index in range(len(chunks))])
        wide = runner.pool.float()
        ours = runner._ops
        right, plain = (ReferenceOps(pool, runner.tables, model.geometry, model.block) for pool in (wide, runner.pool))
        rows: Rows = []
        for index, group in enumerate(model.geometry.groups):
            x = torch.randn(batch.rows, group.inputs, device=bench.device).to(bench.dtype)
            rows.append(
                compared(f"lora {group.name}", lambda ops, x=x, i=index: delta(ops, i, x, batch), ours, right, plain)
            )
        q = torch.randn(batch.rows, model.geometry.heads, model.geometry.head_dim, device=bench.device).to(bench.dtype)
        rows.append(compared("attend", lambda ops: ops.attend(1, typed(ops, q), batch), ours, right, plain))
        rows.append(whole_step(runner, bench, chunks))
    return rows


def typed(ops: Ops, x: Tensor) -> Tensor:
    return x.float() if getattr(ops, "pool", x).dtype == torch.float32 else x


def delta(ops: Ops, group: int, x: Tensor, batch: Batch) -> Tensor:
    ops.begin(batch)
    x = typed(ops, x)
    outputs = (ops if isinstance(ops, ReferenceOps) else ops._lora.tables).geometry.groups[group].outputs  # type: ignore[attr-defined]
    y = x.new_zeros(len(x), outputs)
    ops.lora(1, group, x, y, batch)
    return y


def compared(what: str, function: Any, ours: Ops, right: Ops, plain: Ops) -> dict[str, Any]:
    expected = function(right)
    size = expected.abs().max()
    mine, torchs = ((function(ops).float() - expected).abs().max() / size for ops in (ours, plain))
    return {"what": what, "error": float(mine), "torch's": float(torchs), "good": bool(mine <= 2 * torchs + 1e-6)}


def whole_step(runner: Runner, bench: Bench, chunks: Sequence[Any]) -> dict[str, Any]:
    """A step as a graph, captured and repeated, against the same step launched kernel by kernel."""
    slots = [(index % 6) - 1 for index in range(len(chunks))]
    graphs, runner.graphs = runner.graphs, None
    eager = runner.run(chunks, slots).float().clone()
    runner.graphs = graphs
    found = [runner.run(chunks, slots).float().clone() for _ in range(2)]
    worst = max(float((each - eager).abs().max() / eager.abs().max()) for each in found)
    return {"what": "step as a graph", "error": worst, "torch's": None, "good": worst < 0.05}


def batch_of(bench: Bench, chunks: Sequence[Any], slots: Sequence[int]) -> Batch:
    return send(arrays_of(chunks, slots, bench.model("8b").block), bench.device)


@contextlib.contextmanager
def world(bench: Bench, mix: Sequence[int], batch: int, adapters: int) -> Iterator[tuple[Runner, Batch]]:
    """Adapters of these ranks in turn, one row each (or several, if there are fewer adapters than rows)."""
    model = bench.model("8b")
    elems = model.geometry.page_elems(model.block)
    layouts = [layout_of(model.geometry, mix[index % len(mix)]) for index in range(adapters)]
    needed = sum(layout.pages(elems) for layout in layouts) + batch * -(-64 // model.block)
    with runner_of(bench, "8b", needed, max_batch=batch, token_budget=max(batch, 64), adapter_slots=adapters) as runner:
        pages = Pages.of(needed)
        for slot, layout in enumerate(layouts):
            put_adapter(runner, slot, layout, pages)
        chunks = decoding(model, batch, 64, pages)
        yield runner, batch_of(bench, chunks, [index % adapters for index in range(batch)])


def pair_seconds(bench: Bench, runner: Runner, batch: Batch, ops: Ops | None = None) -> list[float]:
    """Of each group: shrink and expand, over all layers in turn, so that no cache holds the adapters."""
    ops = ops or runner._ops
    layers = runner.decoder.geometry.layers
    times = []
    ops.begin(batch)
    for index, group in enumerate(runner.decoder.geometry.groups):
        x = torch.randn(batch.rows, group.inputs, device=bench.device).to(bench.dtype)
        y = torch.zeros(batch.rows, group.outputs, dtype=bench.dtype, device=bench.device)

        def launch(index: int = index, x: Tensor = x, y: Tensor = y) -> None:
            for layer in range(layers):
                ops.lora(layer, index, x, y, batch)

        times.append(bench.seconds(launch) / layers)
    return times


def pair_bytes(runner: Runner) -> list[float]:
    """Of each group in one layer: what all adapters have there."""
    totals = [0.0] * len(GROUPS)
    for layout in runner.tables.layouts.values():
        for rows in layout.rows():
            for index, group in enumerate(layout.geometry.groups):
                if rows.module in group.modules:
                    totals[index] += rows.count * rows.length * runner.pool.element_size()
    return totals


def kernels(bench: Bench) -> Rows:
    """K1, K1b: distinct adapters, bytes of A and B over time; K2: one adapter; K3b: torch with padded ranks; K4."""
    rows: Rows = []
    many = bench.scaled(64, 4)
    for mix, count in [((16,), many), ((64,), many), ((8, 16, 32, 64), many), ((16,), 4 * many)]:
        rows += distinct_adapters(bench, mix, count)
    for count in (1, many):
        with world(bench, (16,), count, 1) as (runner, batch):
            times = pair_seconds(bench, runner, batch)
        del runner, batch
        rows += [
            {"what": f"K2 {group}", "ranks": "(16,)", "rows": count, "us": took_s * 1e6}
            for group, took_s in zip(GROUPS, times, strict=True)
        ]
    for count, context in [(64, 1024), (1, 8192), (256, 390)]:
        rows.append(attention(bench, min(count, bench.scaled(256, 4)), bench.scaled(context, 64)))
    return rows


def distinct_adapters(bench: Bench, mix: Sequence[int], count: int) -> Rows:
    rows: Rows = []
    with world(bench, mix, count, count) as (runner, batch):
        for group, took_s, size in zip(GROUPS, pair_seconds(bench, runner, batch), pair_bytes(runner), strict=True):
            found = {"what": f"K1 {group}", "ranks": str(mix), "distinct": count, "MB": size / 1e6, "us": took_s * 1e6}
            least_s = size / bench.bandwidth
            rows.append(found | {"bound_us": least_s * 1e6, "of bound": least_s / took_s})
        return rows + padded_torch(bench, runner, batch, rows) if len(mix) > 1 else rows


def padded_torch(bench: Bench, runner: Runner, batch: Batch, ours: Rows) -> Rows:
    """K3b: A and B of each row's adapter gathered from stacks padded to the largest rank, and two bmm a module."""
    rows: Rows = []
    layers, adapters, rank = bench.scaled(8, 2), len(runner.tables.layouts), 64
    which = torch.arange(batch.rows, device=bench.device) % adapters

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, device=bench.device, dtype=bench.dtype)

    for group, our in zip(runner.decoder.geometry.groups, ours, strict=True):
        stacks = [
            (normal(layers, adapters, rank, module.inputs), normal(layers, adapters, rank, module.outputs))
            for module in group.modules
        ]
        x, y = normal(batch.rows, 1, group.inputs), normal(batch.rows, 1, group.outputs)
        columns = y.split([module.outputs for module in group.modules], dim=-1)

        def launch(stacks: list[tuple[Tensor, Tensor]] = stacks, x: Tensor = x, columns: Any = columns) -> None:
            for layer in range(layers):
                for (a, b), column in zip(stacks, columns, strict=True):
                    column.add_(torch.bmm(torch.bmm(x, a[layer][which].transpose(1, 2)), b[layer][which]))

        took_us = bench.seconds(launch) / layers * 1e6
        rows.append({"what": f"K3b {group.name}", "us": our["us"], "torch_us": took_us, "times": took_us / our["us"]})
    return rows


def attention(bench: Bench, count: int, context: int) -> dict[str, Any]:
    """K4: one row of each sequence."""
    model = bench.model("8b")
    needed, layers = count * -(-context // model.block), model.geometry.layers
    with runner_of(bench, "8b", needed, max_batch=count, token_budget=max(count, 64)) as runner:
        batch = batch_of(bench, decoding(model, count, context, Pages.of(needed)), [-1] * count)
        q = torch.randn(count, model.geometry.heads, model.geometry.head_dim, device=bench.device).to(bench.dtype)
        runner._ops.begin(batch)
        took_s = bench.seconds(lambda: [runner._ops.attend(layer, q, batch) for layer in range(layers)]) / layers
    least_s = count * context * bench.roofline("8b").kv_bytes / layers / bench.bandwidth
    return {
        "what": "K4 decode attention", "rows": count, "context": context, "us": took_s * 1e6,
        "bound_us": least_s * 1e6, "of bound": least_s / took_s,
    }  # fmt: skip


def tune(bench: Bench) -> Rows:
    """Which ``Tuning`` is the fastest: for 64 adapters, and for one."""
    if bench.device.type != "cuda":
        return [{"what": "tune", "note": "only for Triton's kernels on a GPU"}]
    from exoflow.llm.engine.ops.kernels import TritonOps
    from exoflow.llm.engine.ops.lora_triton import Tuning

    model, found = bench.model("8b"), []
    shrink = itertools.product((4, 8, 16), (1, 2, 4), (3, 4, 6), (4,), (2,))
    expand = itertools.product((8,), (2,), (4,), (2, 4, 8), (1, 2, 3))
    tunings = {Tuning(*values) for values in (*shrink, *expand)}
    for adapters in (64, 1):
        with world(bench, (16,), 64, adapters) as (runner, batch):
            for tuning in sorted(tunings, key=str):
                ops = TritonOps(runner.pool, runner.tables, model.geometry, model.block, max_rows=64, tuning=tuning)
                times = pair_seconds(bench, runner, batch, ops)
                found.append({"what": str(tuning), "adapters": adapters, "us": sum(times) * 1e6})
        del runner, batch
    return sorted(found, key=lambda row: (row["adapters"], row["us"]))
