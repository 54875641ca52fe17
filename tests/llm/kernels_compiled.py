"""Compile every kernel for an H100, with the shapes of real models, and say what became of it. Needs no GPU.

    python tests/llm/kernels_compiled.py [llama-8b …]

What is launched is not run but compiled: the launches are the engine's own.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from exoflow.llm.engine.adapters.tables import AdapterTables
from exoflow.llm.engine.batch import TILE, Batch
from exoflow.llm.engine.geometry import Geometry
from exoflow.llm.engine.ops import attn_triton, lora_triton, norm_triton
from exoflow.llm.engine.ops.kernels import TritonOps

MODELS = {
    "llama-8b": (Geometry(2, 4096, 32, 8, 128, 14336), 16),
    "llama-7b": (Geometry(2, 4096, 32, 32, 128, 11008), 4),
    "smollm2": (Geometry(2, 576, 9, 3, 64, 1536), 16),
}
TYPES = {torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.int32: "*i32", torch.int64: "*i64"}
OPTIONS = ("num_warps", "num_stages")


@dataclasses.dataclass
class Compiled:
    """Stands in for a kernel: ``kernel[grid](…)`` compiles it for these arguments."""

    kernel: Any
    found: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return self._launch

    def _launch(self, *values: Any, **named: Any) -> None:
        options = {name: named.pop(name) for name in OPTIONS if name in named}
        names = self.kernel.arg_names
        assert set(named) <= set(names), f"unknown: {set(named) - set(names)}"
        values_by_name = dict(zip(names, values, strict=False)) | named
        marked = {name for name, param in zip(names, self.kernel.params, strict=True) if param.is_constexpr}
        signature = {name: "constexpr" if name in marked else kind(values_by_name[name]) for name in names}
        constants = {(names.index(name),): values_by_name[name] for name in marked}
        attributes = {
            (names.index(name),): [["tt.divisibility", 16]]
            for name in names
            if isinstance(values_by_name[name], torch.Tensor)
        }
        key = f"{self.kernel.__name__} {sorted(str(value) for value in constants.values())}"
        if key not in self.found:
            source = ASTSource(fn=self.kernel, signature=signature, constexprs=constants, attrs=attributes)
            self.found[key] = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


def kind(value: Any) -> str:
    return TYPES[value.dtype] if isinstance(value, torch.Tensor) else "i32"


def compile_all(name: str) -> list[tuple[str, Any]]:
    geometry, block = MODELS[name]
    elems = geometry.page_elems(block)
    meta = torch.device("meta")
    pool = torch.empty(geometry.layers, 1000, elems, dtype=torch.bfloat16, device=meta)
    ops = TritonOps(pool, AdapterTables(geometry, 512, elems, 64, meta), geometry, block, max_rows=1024)
    stand_ins = []
    for module in (lora_triton, attn_triton, norm_triton):
        for attribute in [attribute for attribute in dir(module) if attribute.endswith("_kernel")]:
            stand_ins.append(Compiled(getattr(module, attribute)))
            setattr(module, attribute, stand_ins[-1])
    rows = 48
    ints, longs = ({"dtype": dtype, "device": meta} for dtype in (torch.int32, torch.int64))
    row, sequence = torch.empty(rows, **longs), torch.empty(rows, **ints)
    batch = Batch(
        tokens=row, positions=row, places=row, wanted=row,
        tile_rows=torch.empty(rows, TILE, **longs), tile_slots=sequence, row_starts=sequence, context_lens=sequence,
        singles=sequence, spans=torch.empty(rows, 2, **ints), block_table=torch.empty(rows, 77, **ints),
        starts=None, contexts=None, slots=None,  # type: ignore[arg-type]  # no kernel reads them
    )  # fmt: skip
    x = torch.empty(rows, geometry.hidden, dtype=torch.bfloat16, device=meta)
    qkv = x.new_empty(rows, geometry.heads + 2 * geometry.kv_heads, geometry.head_dim)
    q, k, v = torch.split(qkv, [geometry.heads, geometry.kv_heads, geometry.kv_heads], dim=1)
    cos = x.new_empty(rows, geometry.head_dim)
    ops.norm(x, x[0], 1e-5)
    ops.add_norm(x, x, x[0], 1e-5)
    ops.silu_mul(x.new_empty(rows, 2 * geometry.intermediate))
    ops.store_kv(1, ops.rope(k, cos, cos), v, batch)
    ops.attend(1, ops.rope(q, cos, cos), batch)
    for index, group in enumerate(geometry.groups):
        ops.lora(1, index, x.new_empty(rows, group.inputs), x.new_empty(rows, group.outputs), batch)
    for each in stand_ins:
        setattr(sys.modules[each.kernel.fn.__module__], each.kernel.__name__, each.kernel)
    return [(each.kernel.__name__, binary) for each in stand_ins for binary in each.found.values()]


def loads(ptx: str) -> str:
    """Of the global loads, how many of which width in bytes; those for shared memory beside them."""
    widths = re.findall(r"ld\.global(?:\.\w+)*?(?:\.v(\d))?\.b(\d+)", ptx)
    counts: dict[str, int] = {}
    for vector, bits in widths:
        width = str(int(vector or 1) * int(bits) // 8)
        counts[width] = counts.get(width, 0) + 1
    for width in re.findall(r"cp\.async\.c[ag]\.shared\.global [^;]*?, (0x\w+|\d+)", ptx):
        counts[f"async {int(width, 0)}"] = counts.get(f"async {int(width, 0)}", 0) + 1
    return ", ".join(f"{count}x{width}" for width, count in sorted(counts.items()))


# What is read in bulk must be read 16 bytes at a time: a hint that was lost makes a kernel many times slower.
IN_BULK = ("shrink_kernel", "expand_kernel", "decode_kernel", "prefill_kernel")


def main(models: list[str]) -> int:
    narrow = []
    for model in models or MODELS:
        for kernel, binary in compile_all(model):
            found = loads(binary.asm["ptx"])
            print(f"{model:9} {kernel:16} shared {binary.metadata.shared:6} bytes, loads: {found}")
            if kernel in IN_BULK and "async 16" not in found:
                narrow.append(f"{model} {kernel}")
    print("narrow loads:", ", ".join(narrow) or "none")
    return len(narrow)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
