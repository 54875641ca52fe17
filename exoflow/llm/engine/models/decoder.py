"""A decoder over the pool: Llama, Mistral, Qwen2 and Qwen3, which differ in biases and norms only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from exoflow.llm.engine.batch import Batch
from exoflow.llm.engine.geometry import Geometry
from exoflow.llm.engine.ops.products import packed, product
from exoflow.llm.engine.ops.protocol import Ops

QKV, OUT, GATE_UP, DOWN = range(4)
"""Places in ``Geometry.groups``."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights of one layer, modules of a group one below the other: ``[outputs, inputs]``."""

    weights: tuple[Tensor, Tensor, Tensor, Tensor]
    biases: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]
    input_norm: Tensor
    post_norm: Tensor
    q_norm: Tensor | None
    """Qwen3: of each head."""
    k_norm: Tensor | None


@dataclass(frozen=True, slots=True)
class Decoder:
    """The weights, and how a step goes through them.

    Attributes:
        embedding: ``[vocab, hidden]``.
        head: ``[vocab, hidden]``: the embedding itself where they are tied.
        cos: ``[positions, head_dim]`` float32, halves alike.
    """

    geometry: Geometry
    embedding: Tensor
    layers: tuple[Layer, ...]
    final_norm: Tensor
    head: Tensor
    cos: Tensor
    sin: Tensor
    norm_eps: float
    complete: Callable[[Tensor], Tensor] = lambda partial: partial
    """Of several ranks: a partial sum of the outputs of o or down becomes the whole, in place."""

    @property
    def weight_bytes(self) -> int:
        tensors = [self.final_norm, self.head]
        for layer in self.layers:
            tensors += [*layer.weights, layer.input_norm, layer.post_norm]
        return sum(tensor.nbytes for tensor in tensors)

    def packed(self) -> Decoder:
        """The same to compute with, where packed weights are faster."""
        layers = [replace(layer, weights=tuple(map(packed, layer.weights))) for layer in self.layers]  # type: ignore[arg-type]
        return replace(self, layers=tuple(layers), head=packed(self.head))

    def forward(self, batch: Batch, ops: Ops) -> Tensor:
        """Logits of the wanted rows, ``[m, vocab]``; the KV of all rows is in the pool afterwards."""
        x = self.embedding[batch.tokens]
        cos = self.cos[batch.positions].to(x.dtype)
        sin = self.sin[batch.positions].to(x.dtype)
        eps = self.norm_eps
        following = [*(layer.input_norm for layer in self.layers), self.final_norm]
        normed = ops.norm(x, following[0], eps)
        for index, layer in enumerate(self.layers):
            x, normed = ops.add_norm(
                x, self._attention(index, layer, normed, cos, sin, batch, ops), layer.post_norm, eps
            )
            x, normed = ops.add_norm(x, self._mlp(index, layer, normed, batch, ops), following[index + 1], eps)
        return product(normed[batch.wanted], self.head)

    def _attention(
        self, index: int, layer: Layer, x: Tensor, cos: Tensor, sin: Tensor, batch: Batch, ops: Ops
    ) -> Tensor:
        shape = self.geometry
        qkv = self._linear(index, layer, QKV, x, batch, ops).view(len(x), -1, shape.head_dim)
        q, k, v = torch.split(qkv, [shape.heads, shape.kv_heads, shape.kv_heads], dim=1)
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = ops.norm(q, layer.q_norm, self.norm_eps), ops.norm(k, layer.k_norm, self.norm_eps)
        ops.store_kv(index, ops.rope(k, cos, sin), v, batch)
        out = ops.attend(index, ops.rope(q, cos, sin), batch)
        return self.complete(self._linear(index, layer, OUT, out.reshape(len(x), -1), batch, ops))

    def _mlp(self, index: int, layer: Layer, x: Tensor, batch: Batch, ops: Ops) -> Tensor:
        gate_up = self._linear(index, layer, GATE_UP, x, batch, ops)
        return self.complete(self._linear(index, layer, DOWN, ops.silu_mul(gate_up), batch, ops))

    def _linear(self, index: int, layer: Layer, group: int, x: Tensor, batch: Batch, ops: Ops) -> Tensor:
        """The base's product, and each row's own adapter added."""
        y = product(x, layer.weights[group], layer.biases[group])
        ops.lora(index, group, x, y, batch)
        return y


def make_layer(tensors: Mapping[str, Tensor]) -> Layer:
    """From the tensors of one layer under the names of the Hugging Face models, ``self_attn.q_proj.weight`` …"""

    def joined(kind: str, *names: str) -> Tensor | None:
        parts = [tensors[f"{name}.{kind}"] for name in names if f"{name}.{kind}" in tensors]
        return torch.cat(parts) if parts else None

    modules = [
        tuple(f"self_attn.{name}_proj" for name in "qkv"),
        ("self_attn.o_proj",),
        ("mlp.gate_proj", "mlp.up_proj"),
        ("mlp.down_proj",),
    ]
    weights = [joined("weight", *names) for names in modules]
    qkv, o, gate_up, down = weights
    assert qkv is not None
    assert o is not None
    assert gate_up is not None
    assert down is not None
    biases = [joined("bias", *names) for names in modules]
    return Layer(
        (qkv, o, gate_up, down),
        (biases[0], biases[1], biases[2], biases[3]),
        tensors["input_layernorm.weight"],
        tensors["post_attention_layernorm.weight"],
        tensors.get("self_attn.q_norm.weight"),
        tensors.get("self_attn.k_norm.weight"),
    )
