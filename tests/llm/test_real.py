"""SmolLM2-135M: real weights against transformers, mixed batches of it against PEFT."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from llm_zoo import ALL, make_adapter

from exoflow.llm import Engine, SamplingParams
from exoflow.llm.engine.models.loading import load_model
from exoflow.llm.engine.models.sources import _packaged_smollm2

if TYPE_CHECKING:
    from transformers import PreTrainedModel

pytestmark = [
    pytest.mark.big,
    pytest.mark.slow,
    # The conversion, once for each cache, takes some twenty seconds; on a loaded machine all takes far longer.
    pytest.mark.timeout(600),
]

ADAPTERS: dict[str, dict[str, object]] = {
    "r4": {"r": 4, "lora_alpha": 8},
    "r16-all": {"r": 16, "target_modules": ALL, "use_rslora": True, "lora_alpha": 4},
    "r33-mixed": {"r": 33, "target_modules": ALL, "rank_pattern": {"down_proj": 8}, "lora_alpha": 10},
}
MESSAGES = [
    [{"role": "user", "content": "What is the capital of France? Answer in one word."}],
    [{"role": "system", "content": "You are a pirate."}, {"role": "user", "content": "Who are you?"}],
    [{"role": "user", "content": "Write a short poem about the sea – with an é."}],
    [{"role": "user", "content": "1, 1, 2, 3, 5, 8,"}],
]
NAMES = [None, *ADAPTERS]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine("smollm2", device="cpu", dtype="float32", pages=700) as engine:
        yield engine


@pytest.fixture(scope="module")
def reference(engine: Engine) -> PreTrainedModel:
    """As transformers loads it from the GGUF file."""
    from transformers import AutoModelForCausalLM, GgufConfig

    file = _packaged_smollm2()
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        str(file.parent),
        gguf_file=file.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    model.name_or_path = ""  # else PEFT asks a hub for it
    return model.eval()


def test_every_tensor_is_what_transformers_loads(reference: PreTrainedModel) -> None:
    decoder = load_model("smollm2", torch.device("cpu"), torch.float32).decoder  # an engine packs its weights
    state = reference.state_dict()
    assert torch.equal(decoder.embedding, state["model.embed_tokens.weight"])
    assert decoder.head is decoder.embedding
    assert torch.equal(decoder.final_norm, state["model.norm.weight"])
    seen = {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}
    for index, layer in enumerate(decoder.layers):
        prefix = f"model.layers.{index}."
        groups = [
            [f"self_attn.{name}_proj" for name in "qkv"],
            ["self_attn.o_proj"],
            ["mlp.gate_proj", "mlp.up_proj"],
            ["mlp.down_proj"],
        ]
        for weight, names in zip(layer.weights, groups, strict=True):
            keys = [f"{prefix}{name}.weight" for name in names]
            assert torch.equal(weight, torch.cat([state[key] for key in keys]))
            seen.update(keys)
        for norm, name in ((layer.input_norm, "input_layernorm"), (layer.post_norm, "post_attention_layernorm")):
            assert torch.equal(norm, state[f"{prefix}{name}.weight"])
            seen.add(f"{prefix}{name}.weight")
    assert seen == set(state)


def test_a_mixed_batch_is_pefts(engine: Engine, reference: PreTrainedModel, tmp_path: Path) -> None:
    """Greedy, 32 tokens, base rows among them; logits of all that was asked and answered."""
    count = 32
    models: dict[str | None, torch.nn.Module] = {None: reference}
    for seed, (name, config) in enumerate(ADAPTERS.items()):
        models[name] = make_adapter(reference, tmp_path / name, seed, **config)
        engine.load_adapter(name, tmp_path / name)
    asked = [engine.model.tokenizer.chat(messages) for messages in MESSAGES]
    params = SamplingParams(max_tokens=count, temperature=0, ignore_eos=True)
    outputs = engine.generate(asked, params, NAMES)
    whole = [[*prompt, *output.token_ids] for prompt, output in zip(asked, outputs, strict=True)]
    found = engine.logits(whole, NAMES)
    for prompt, tokens, name, rows in zip(asked, whole, NAMES, found, strict=True):
        with torch.inference_mode():
            expected = models[name](torch.tensor([tokens])).logits[0]
        assert (rows - expected).abs().max() <= 1e-5 * expected.abs().max(), name
        best = expected[len(prompt) - 1 : -1].topk(2)  # PEFT's choice at each place, given what came before it
        gaps = (best.values[:, 0] - best.values[:, 1]).tolist()
        same = next((place for place, gap in enumerate(gaps) if gap < 1e-3), count)
        assert same >= 8
        assert tokens[len(prompt) :][:same] == best.indices[:same, 0].tolist()


def test_the_chat_template_is_the_models_own(engine: Engine) -> None:
    tokens = engine.model.tokenizer.chat([{"role": "user", "content": "Hi"}])
    text = engine.model.tokenizer.tokenizer.decode(tokens)  # type: ignore[attr-defined]
    assert text.startswith("<|im_start|>system\n")
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_an_answer_stops_at_its_end(engine: Engine) -> None:
    prompt = engine.model.tokenizer.chat(MESSAGES[0])
    (output,) = engine.generate([prompt], SamplingParams(max_tokens=64, temperature=0))
    assert output.finish_reason == "stop"
    assert output.token_ids[-1] in engine.model.tokenizer.eos_ids
    assert output.text.strip().startswith("Paris") or "Paris" in output.text
    assert "<|im_end|>" not in output.text
    (longer,) = engine.generate([prompt], SamplingParams(max_tokens=64, temperature=0, ignore_eos=True))
    assert longer.finish_reason == "length"
    assert longer.token_ids[: len(output.token_ids)] == output.token_ids
