"""What a model asks of a device. One implementation is obvious, the others must agree with it."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from exoflow.llm.engine.batch import Batch


class Ops(Protocol):
    """The operations of a decoder over the pool.

    An implementation is bound to one pool, ``[layers, pages, page_elems]``, and to the tables of its adapters.
    ``group`` counts ``Geometry.groups``.
    """

    def begin(self, batch: Batch) -> None:
        """A step begins: what it needs for all layers is made ready here, once."""
        ...

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """RMSNorm of the last dimension, in float32 inside."""
        ...

    def add_norm(self, x: Tensor, y: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """The sum of both, and its ``norm``."""
        ...

    def rope(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotate halves: x ``[rows, heads, head_dim]``; cos, sin ``[rows, head_dim]``."""
        ...

    def store_kv(self, layer: int, k: Tensor, v: Tensor, batch: Batch) -> None:
        """Write ``[rows, kv_heads, head_dim]`` to the places of their tokens."""
        ...

    def attend(self, layer: int, q: Tensor, batch: Batch) -> Tensor:
        """Causal attention of each row ``[rows, heads, head_dim]`` to its own sequence, from the pool; the same
        shape.
        """
        ...

    def lora(self, layer: int, group: int, x: Tensor, y: Tensor, batch: Batch) -> None:
        """Add to each row of ``y`` ``[rows, outputs of the group]`` its own adapter's delta, in place.

        ``y[i, m] += (x[i] @ A_m.T @ B_m.T) * scale`` for the modules m of the group, side by side in ``y``. Rows
        without an adapter are not touched. MUST be deterministic, and the delta of a row MUST NOT depend on the other
        rows, to the last bit.
        """
        ...

    def silu_mul(self, x: Tensor) -> Tensor:
        """``silu(gate) * up`` of ``[rows, 2 * n]``, gate first."""
        ...
