"""PEFT on the same device, model and requests (P1 to P3)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from gpu_serving import server_of
from gpu_world import QKVO, Bench, RandomStore

from exoflow.llm.bench.workload import Call

Rows = list[dict[str, Any]]
LIMIT_S = 30.0
"""For each way of PEFT: the rate of the batches that fit into it."""


def peft(bench: Bench) -> Rows:
    """Tokens of answers a second: ``set_adapter`` and batches of one adapter each; ``adapter_names`` and one mixed
    batch; merged and unmerged for each batch.
    """
    rows: Rows = []
    requests, prompt, output = bench.scaled(64, 4), bench.scaled(128, 8), bench.scaled(64, 4)
    counts = (5, 100) if not bench.tiny else (2,)
    ours = our_rates(bench, counts, requests, prompt, output)
    bench.empty()
    model = llama(bench)
    chance = random.Random(0)
    prompts = [chance.choices(range(bench.model("7b").vocab), k=prompt) for _ in range(requests)]
    tuned = None
    for count in counts:
        tuned = with_adapters(model if tuned is None else tuned, count)
        batches = [[i for i in range(requests) if i % count == adapter] for adapter in range(min(count, requests))]
        ways: dict[str, Callable[[], float]] = {
            "P1 set_adapter": lambda m=tuned, b=batches: in_turn(m, prompts, b, output, merge=False),
            "P2 adapter_names": lambda m=tuned, c=count: mixed(m, prompts, c, output),
        }
        if count == counts[0]:
            ways["P3 merge"] = lambda m=tuned, b=batches: in_turn(m, prompts, b, output, merge=True)
        for what, way in ways.items():
            rate = way()
            rows.append(
                {
                    "what": what,
                    "adapters": count,
                    "peft tokens/s": rate,
                    "tokens/s": ours[count],
                    "times": ours[count] / rate,
                }
            )
    return rows


def our_rates(bench: Bench, counts: Sequence[int], requests: int, prompt: int, output: int) -> dict[int, float]:
    """By the number of adapters, none of which is in the pool when it begins."""
    rates = {}
    with server_of(bench, "7b", (8,)) as server:
        store = RandomStore(bench, server.runner, (8,), QKVO)
        for count in counts:
            calls = [Call(index * 1e-6, index % count, prompt, output) for index in range(requests)]
            begin = time.perf_counter()
            served = server.serve(server.core(store), calls, 300)
            tokens = sum(len(request.output) for request in served.requests)
            rates[count] = tokens / (time.perf_counter() - begin)
    return rates


def llama(bench: Bench) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    model = bench.model("7b")
    shape = model.geometry
    config = LlamaConfig(
        hidden_size=shape.hidden, intermediate_size=shape.intermediate, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, head_dim=shape.head_dim,
        vocab_size=model.vocab, max_position_embeddings=4096, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    before = torch.get_default_dtype()
    torch.set_default_dtype(bench.dtype)
    try:
        with torch.device(bench.device):
            return LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


def with_adapters(model: Any, count: int) -> Any:
    """``count`` random adapters, named a0, a1 …; those that are there stay."""
    from peft import LoraConfig, PeftModel, get_peft_model

    config = LoraConfig(r=8, lora_alpha=16, target_modules=list(QKVO), init_lora_weights=False, task_type="CAUSAL_LM")
    if not isinstance(model, PeftModel):
        model = get_peft_model(model, config, adapter_name="a0", autocast_adapter_dtype=False)
    for index in range(len(model.peft_config), count):
        model.add_adapter(f"a{index}", config, autocast_adapter_dtype=False)
    return model.eval()


@torch.inference_mode()
def answered(model: Any, prompts: Sequence[Sequence[int]], output: int, **more: Any) -> int:
    ids = torch.tensor(prompts, device=model.device)
    model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=output, min_new_tokens=output,
        do_sample=False, pad_token_id=0, **more,
    )  # fmt: skip
    return len(prompts) * output


def in_turn(model: Any, prompts: Sequence[Any], batches: Sequence[Any], output: int, *, merge: bool) -> float:
    model.set_adapter("a0")
    answered(model, prompts[:1], 2)
    tokens, begin = 0, time.perf_counter()
    for adapter, batch in enumerate(batches):
        if merge:
            model.merge_adapter([f"a{adapter}"])
        else:
            model.set_adapter(f"a{adapter}")
        tokens += answered(model, [prompts[index] for index in batch], output)
        if merge:
            model.unmerge_adapter()
        if time.perf_counter() - begin > LIMIT_S:
            break
    return tokens / (time.perf_counter() - begin)


def mixed(model: Any, prompts: Sequence[Any], count: int, output: int) -> float:
    names = [f"a{index % count}" for index in range(len(prompts))]
    answered(model, prompts[:2], 2, adapter_names=names[:2])
    begin = time.perf_counter()
    return answered(model, prompts, output, adapter_names=names) / (time.perf_counter() - begin)
