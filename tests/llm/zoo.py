"""Tiny models and adapters, made by transformers and PEFT, which are also what the engine is compared with."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
QKVO = ALL[:4]


def tiny_model(kind: str = "Llama", *, hidden: int = 128, intermediate: int = 256, seed: int = 0) -> PreTrainedModel:
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=hidden // 4,
        vocab_size=300,
        max_position_embeddings=512,
        bos_token_id=256,
        eos_token_id=257,
        tie_word_embeddings=kind == "Qwen2",
    )
    torch.manual_seed(seed)
    model: PreTrainedModel = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    for name, weight in model.named_parameters():
        with torch.no_grad():
            if weight.dim() == 1:
                weight.normal_(1 if "norm" in name else 0, 0.1)
            elif "embed" in name or "lm_head" in name:
                weight.normal_(0, 0.3)  # logits that differ: greedy streams are not decided by rounding
    return model


def save_model(model: PreTrainedModel, folder: Path) -> Path:
    """With a tokenizer whose tokens are bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    model.save_pretrained(folder)
    alphabet = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    bytewise = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    bytewise.add_special_tokens(["<bos>", "<eos>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytewise,
        bos_token="<bos>",  # a token of text
        eos_token="<eos>",
        chat_template="{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:",
    )
    tokenizer.save_pretrained(folder)
    return folder


def make_adapter(model: PreTrainedModel, folder: Path, seed: int, **config: object) -> PeftModel:
    """A random adapter as PEFT saves it, and the model with it."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1000 + seed)
    settings = {"r": 8, "lora_alpha": 16, "target_modules": QKVO, "init_lora_weights": False, "task_type": "CAUSAL_LM"}
    changed = get_peft_model(copy.deepcopy(model), LoraConfig(**(settings | config))).eval()  # type: ignore[arg-type]
    changed.save_pretrained(str(folder))
    assert (folder / "adapter_config.json").is_file()
    return changed  # type: ignore[return-value]


ADAPTERS: dict[str, dict[str, object]] = {
    "r1": {"r": 1},
    "r4-all": {"r": 4, "target_modules": ALL},
    "r8": {"r": 8},
    "r16-all": {"r": 16, "target_modules": ALL, "use_rslora": True},
    "r33": {"r": 33, "lora_alpha": 20},
    "mlp": {"r": 8, "target_modules": ALL[4:]},
    "ranks": {"r": 8, "target_modules": ALL, "rank_pattern": {"layers.0.self_attn.q_proj": 3, "down_proj": 16}},
    "alphas": {"r": 8, "target_modules": ALL, "alpha_pattern": {"up_proj": 4, "layers.1.self_attn.v_proj": 40}},
}


class Zoo:
    """A model and its adapters: their folders, and PEFT's own idea of each."""

    def __init__(self, model: PreTrainedModel, folder: Path, adapters: dict[str, dict[str, object]]) -> None:
        self.path = save_model(model, folder / "base")
        self.peft: dict[str | None, torch.nn.Module] = {None: model}
        self.folders: dict[str, Path] = {}
        for seed, (name, config) in enumerate(adapters.items()):
            self.folders[name] = folder / name
            self.peft[name] = make_adapter(model, self.folders[name], seed, **config)

    def logits(self, tokens: list[int], adapter: str | None) -> torch.Tensor:
        """``[length, vocab]``, by PEFT."""
        with torch.no_grad():
            found: torch.Tensor = self.peft[adapter](torch.tensor([tokens])).logits[0]
        return found

    def greedy(self, tokens: list[int], adapter: str | None, count: int) -> tuple[list[int], list[float]]:
        """The tokens that follow, and by how much each was better than the second best."""
        found, margins = list(tokens), []
        for _ in range(count):
            best = self.logits(found, adapter)[-1].topk(2)
            found.append(int(best.indices[0]))
            margins.append(float(best.values[0] - best.values[1]))
        return found[len(tokens) :], margins
