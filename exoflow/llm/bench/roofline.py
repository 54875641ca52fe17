"""What a device must move for a step, whatever the code: the bound beside every figure. Numbers only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from exoflow.llm.engine.geometry import Geometry


@dataclass(frozen=True, slots=True)
class Roofline:
    """Of one model on one device.

    Attributes:
        bandwidth: bytes/s that a large copy moves on it.
        itemsize: bytes of a weight.
    """

    geometry: Geometry
    vocab: int
    bandwidth: float
    itemsize: int = 2

    @property
    def weight_bytes(self) -> int:
        """Of all layers and the head: read once in each step."""
        modules = sum(module.inputs * module.outputs for module in self.geometry.modules)
        return (self.geometry.layers * modules + self.vocab * self.geometry.hidden) * self.itemsize

    @property
    def kv_bytes(self) -> int:
        """Of a token."""
        return 2 * self.geometry.layers * self.geometry.kv_heads * self.geometry.head_dim * self.itemsize

    def adapter_bytes(self, rank: int, modules: Collection[str] | None = None) -> int:
        """Of one adapter that has this rank in these modules (all, if none are named)."""
        per_rank = sum(
            module.inputs + module.outputs for module in self.geometry.modules if not modules or module.name in modules
        )
        return rank * per_rank * self.geometry.layers * self.itemsize

    def step_s(
        self, context_tokens: int, adapters: Mapping[int, int] | None = None, modules: Collection[str] | None = None
    ) -> float:
        """The least time of a step in which everybody decodes.

        Args:
            context_tokens: of all sequences together.
            adapters: how many different ones there are of each rank.
        """
        bytes_ = self.weight_bytes + context_tokens * self.kv_bytes
        for rank, count in (adapters or {}).items():
            bytes_ += count * self.adapter_bytes(rank, modules)
        return bytes_ / self.bandwidth


def distinct(batch: int, adapters: int) -> float:
    """Different adapters in a batch, if each of so many is as likely: expected."""
    return adapters * (1 - (1 - 1 / adapters) ** batch)
