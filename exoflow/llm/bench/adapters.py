"""Adapters with random weights, as PEFT would have saved them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from exoflow.llm.engine.geometry import Geometry

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
ALL = (*ATTENTION, "gate_proj", "up_proj", "down_proj")


def names(count: int) -> list[str]:
    """Of so many."""
    digits = len(str(max(count - 1, 0)))
    return [f"adapter-{index:0{digits}}" for index in range(count)]


def bytes_of(geometry: Geometry, count: int, ranks: Sequence[int], modules: Sequence[str] = ALL) -> int:
    """Of the weights of so many, in float32."""
    per_rank = sum(module.inputs + module.outputs for module in geometry.modules if module.name in modules)
    return sum(ranks[index % len(ranks)] for index in range(count)) * per_rank * geometry.layers * 4


def make_adapters(
    directory: str | os.PathLike[str],
    geometry: Geometry,
    count: int,
    ranks: Sequence[int] = (8,),
    modules: Sequence[str] = ALL,
    seed: int = 0,
    *,
    dtype: str = "float32",
    base_model: str | None = None,
    written: Callable[[int], None] = lambda count: None,
) -> dict[str, Path]:
    """Write ``count`` directories below this one; by name, in order. The same arguments write the same bytes.

    What lies there by these names is written over.

    Args:
        ranks: dealt out in turn.
        dtype: float32, float16 or bfloat16.
        written: called with how many there are, after each.
    """
    import torch
    from safetensors.torch import save_file

    found = {}
    for index, name in enumerate(names(count)):
        rank, chance = ranks[index % len(ranks)], torch.Generator().manual_seed(seed * 1_000_003 + index)
        tensors = {}
        for layer in range(geometry.layers):
            for group in geometry.groups:
                block = "self_attn" if group.name in ("qkv", "o") else "mlp"
                for module in group.modules:
                    if module.name in modules:
                        key = f"base_model.model.model.layers.{layer}.{block}.{module.name}"
                        a = torch.randn(rank, module.inputs, generator=chance) * module.inputs**-0.5
                        b = torch.randn(module.outputs, rank, generator=chance) * 0.1
                        tensors[f"{key}.lora_A.weight"] = a.to(getattr(torch, dtype))
                        tensors[f"{key}.lora_B.weight"] = b.to(getattr(torch, dtype))
        path = Path(directory) / name
        path.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path / "adapter_model.safetensors", metadata={"format": "pt"})
        config = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base_model,
            "r": rank,
            "lora_alpha": 2 * rank,
            "target_modules": list(modules),
            "inference_mode": True,
        }
        (path / "adapter_config.json").write_text(json.dumps(config, indent=2))
        found[name] = path
        written(len(found))
    return found
