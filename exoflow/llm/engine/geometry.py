"""The shape of a decoder: what the pool, the adapters and the kernels must know of it. Numbers only."""

from __future__ import annotations

from dataclasses import dataclass

SEGMENT = 64
"""Elements; rows in the pool are padded to a multiple of it, so that a segment never straddles two pages."""


@dataclass(frozen=True, slots=True)
class Module:
    """A linear module that an adapter can change."""

    name: str
    """As in the model's own tree: q_proj, down_proj."""
    inputs: int
    outputs: int


@dataclass(frozen=True, slots=True)
class Group:
    """Modules that read the same input: their base weights are one matrix, their adapter rows lie side by side."""

    name: str
    modules: tuple[Module, ...]

    @property
    def inputs(self) -> int:
        return self.modules[0].inputs

    @property
    def outputs(self) -> int:
        return sum(module.outputs for module in self.modules)


@dataclass(frozen=True, slots=True)
class Geometry:
    """One rank's part of a decoder (all of it, if there is one rank)."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int

    @property
    def groups(self) -> tuple[Group, ...]:
        """In the order in which a layer uses them."""
        query, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return (
            Group(
                "qkv",
                (
                    Module("q_proj", self.hidden, query),
                    Module("k_proj", self.hidden, keys),
                    Module("v_proj", self.hidden, keys),
                ),
            ),
            Group("o", (Module("o_proj", query, self.hidden),)),
            Group(
                "gate_up",
                (
                    Module("gate_proj", self.hidden, self.intermediate),
                    Module("up_proj", self.hidden, self.intermediate),
                ),
            ),
            Group("down", (Module("down_proj", self.intermediate, self.hidden),)),
        )

    @property
    def modules(self) -> tuple[Module, ...]:
        """All of them, group by group."""
        return tuple(module for group in self.groups for module in group.modules)

    def page_elems(self, block: int) -> int:
        """Elements of a page in one layer: keys and values of ``block`` tokens."""
        return padded(2 * block * self.kv_heads * self.head_dim)

    def shard(self, ranks: int) -> Geometry:
        """The part of one of so many ranks.

        Raises:
            ValueError: heads, KV heads or the MLP cannot be split so.
        """
        for name in ("heads", "kv_heads", "intermediate"):
            if getattr(self, name) % ranks:
                raise ValueError(f"{getattr(self, name)} {name} cannot be split among {ranks} ranks")
        return Geometry(
            self.layers,
            self.hidden,
            self.heads // ranks,
            self.kv_heads // ranks,
            self.head_dim,
            self.intermediate // ranks,
        )


def padded(elems: int) -> int:
    return -(-elems // SEGMENT) * SEGMENT
