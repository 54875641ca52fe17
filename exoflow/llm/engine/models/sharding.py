"""One rank's part of a decoder: heads and the MLP are split, the rest is whole (Megatron-LM, 2019, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from exoflow.errors import LLMError
from exoflow.llm.engine.adapters.sharding import Shard
from exoflow.llm.engine.geometry import Geometry
from exoflow.llm.engine.models.decoder import DOWN, GATE_UP, OUT, QKV, Decoder, Layer


def check_split(name: str, geometry: Geometry, ranks: int) -> None:
    """Raises LLMError: it cannot be split among so many ranks, and because of what."""
    try:
        geometry.shard(ranks)
    except ValueError as error:
        raise LLMError(f"{name}: {error}: choose another tensor_parallel") from error


def shard(decoder: Decoder, part: Shard, device: torch.device) -> Decoder:
    """This rank's part, on its device; what is left of the whole can be let go. ``complete`` is still to be set."""
    return replace(
        decoder,
        geometry=decoder.geometry.shard(part.ranks),
        embedding=(embedding := decoder.embedding.to(device)),
        layers=tuple(_layer(layer, decoder.geometry, part, device) for layer in decoder.layers),
        final_norm=decoder.final_norm.to(device),
        head=embedding if decoder.head is decoder.embedding else decoder.head.to(device),
        cos=decoder.cos.to(device),
        sin=decoder.sin.to(device),
    )


def _layer(layer: Layer, geometry: Geometry, part: Shard, device: torch.device) -> Layer:
    def mine(tensor: Tensor, dim: int) -> Tensor:
        return tensor.chunk(part.ranks, dim)[part.rank]

    def rows(tensor: Tensor | None, group: int) -> Tensor | None:
        """Of each module of the group its rows."""
        if tensor is None:
            return None
        outputs = [module.outputs for module in geometry.groups[group].modules]
        return torch.cat([mine(module, 0) for module in torch.split(tensor, outputs)])

    def once(bias: Tensor | None) -> Tensor | None:
        """The sum over the ranks has it once."""
        return bias if part.rank == 0 else None

    weights, biases = layer.weights, layer.biases
    split: Sequence[Tensor | None] = (
        rows(weights[QKV], QKV),
        mine(weights[OUT], 1),
        rows(weights[GATE_UP], GATE_UP),
        mine(weights[DOWN], 1),
    )
    w = [_owned(tensor, device) for tensor in split if tensor is not None]
    b = [rows(biases[QKV], QKV), once(biases[OUT]), rows(biases[GATE_UP], GATE_UP), once(biases[DOWN])]
    moved = [None if bias is None else _owned(bias, device) for bias in b]
    return Layer(
        (w[0], w[1], w[2], w[3]),
        (moved[0], moved[1], moved[2], moved[3]),
        layer.input_norm.to(device),
        layer.post_norm.to(device),
        None if layer.q_norm is None else layer.q_norm.to(device),
        None if layer.k_norm is None else layer.k_norm.to(device),
    )


def _owned(tensor: Tensor, device: torch.device) -> Tensor:
    """Not a view of the whole."""
    return tensor.to(device, copy=True).contiguous()
