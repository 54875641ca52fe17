"""From a directory of safetensors to a decoder on its device."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from exoflow.errors import LLMError
from exoflow.llm.engine.geometry import Geometry
from exoflow.llm.engine.models.decoder import Decoder, make_layer
from exoflow.llm.engine.models.loaded import LoadedModel
from exoflow.llm.engine.models.sources import find_model
from exoflow.llm.engine.models.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")


def load_model(name: str, device: torch.device, dtype: torch.dtype) -> LoadedModel:
    """Weights and tokenizer of a model; ``name`` as in ``find_model``.

    Raises:
        LLMError: it is not there, is broken, or is of a kind that is not supported; the message says which.
    """
    folder = find_model(name)
    config = read_config(folder)
    decoder = make_decoder(config, read_weights(folder), device, dtype)
    return LoadedModel(name, decoder, load_tokenizer(folder, config), max_context_of(config))


def read_config(folder: Path) -> PretrainedConfig:
    from transformers import AutoConfig

    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise LLMError(f"{folder}/config.json cannot be read: {error}") from error
    kinds = config.architectures or []
    if not set(kinds) & set(ARCHITECTURES):
        raise LLMError(f"{folder}: {kinds} is not supported; these are: {', '.join(ARCHITECTURES)}")
    if getattr(config, "quantization_config", None):
        raise LLMError(f"{folder}: quantised weights are not supported; take the model in float32 or bfloat16")
    if getattr(config, "hidden_act", "silu") != "silu":
        raise LLMError(f"{folder}: hidden_act={config.hidden_act!r} is not supported, only 'silu'")
    return config


def max_context_of(config: PretrainedConfig) -> int:
    """Tokens that the model was trained for; within a sliding window, where it has one: all attention here is full."""
    longest = int(config.max_position_embeddings)
    window = getattr(config, "sliding_window", None)
    return min(longest, int(window)) if window and getattr(config, "use_sliding_window", True) else longest


def geometry_of(config: PretrainedConfig) -> Geometry:
    heads = int(config.num_attention_heads)
    return Geometry(
        layers=int(config.num_hidden_layers),
        hidden=int(config.hidden_size),
        heads=heads,
        kv_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head_dim=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
        intermediate=int(config.intermediate_size),
    )


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of the directory's safetensors, mapped into memory."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    else:
        files = sorted(file.name for file in folder.glob("*.safetensors"))
    if not files:
        raise LLMError(f"{folder} has no *.safetensors: other formats are not read (.bin may run code)")
    found: dict[str, Tensor] = {}
    for name in files:
        try:
            found |= load_file(folder / name)
        except (OSError, SafetensorError) as error:
            raise LLMError(f"{folder / name} cannot be read: {error}") from error
    return found


def make_decoder(
    config: PretrainedConfig, weights: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype
) -> Decoder:
    """The decoder of a configuration, from weights under the names of the Hugging Face models."""

    def tensor(name: str) -> Tensor:
        if name not in weights:
            raise LLMError(f"the weights lack {name}")
        return weights[name].to(device, dtype)

    geometry = geometry_of(config)
    layers = []
    for index in range(geometry.layers):
        prefix = f"model.layers.{index}."
        mine = {name.removeprefix(prefix): tensor(name) for name in weights if name.startswith(prefix)}
        try:
            layers.append(make_layer(mine))
        except KeyError as error:
            raise LLMError(f"the weights lack {prefix}{error.args[0]}") from error
    embedding = tensor("model.embed_tokens.weight")
    cos, sin = _rotations(config, geometry.head_dim, device)
    return Decoder(
        geometry,
        embedding,
        tuple(layers),
        tensor("model.norm.weight"),
        embedding if config.tie_word_embeddings else tensor("lm_head.weight"),
        cos,
        sin,
        float(config.rms_norm_eps),
    )


def _rotations(config: PretrainedConfig, head_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cos and sin of all positions, ``[positions, head_dim]`` float32, by the kind of RoPE that the model has."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = getattr(config, "rope_parameters", None) or {}
    kind = scaling.get("rope_type", "default")
    if kind in ("dynamic", "longrope"):
        raise LLMError(f"rope_type={kind!r} is not supported: it depends on the length of the prompt")
    if kind == "default":
        base = float(scaling.get("rope_theta", 10_000.0))
        frequencies = 1.0 / base ** (torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim)
        factor = 1.0
    else:
        frequencies, factor = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
    positions = torch.arange(int(config.max_position_embeddings)).float()
    angles = torch.outer(positions, frequencies.float())
    angles = torch.cat((angles, angles), dim=-1)
    return (angles.cos() * factor).to(device), (angles.sin() * factor).to(device)
