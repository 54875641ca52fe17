"""What an engine is told once, when it starts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from exoflow.llm.engine.kinds import FLAG, NUMBER, TEXT, WHOLE, check_kinds

Policy = Literal["fcfs", "deadline"]
DTYPES = ("auto", "float32", "bfloat16", "float16")
MOST = {"threads": 1024, "max_batch": 65_536, "max_rank": 65_536}
"""More are never wanted, and cost memory, or the process, before anybody asks."""
COUNTS = (
    "pages", "block", "max_batch", "token_budget", "max_context", "max_waiting", "adapter_slots", "max_rank",
    "host_cache_bytes", "tensor_parallel", "threads",
)  # fmt: skip
KINDS = {
    **dict.fromkeys((*COUNTS, "seed"), WHOLE),
    **dict.fromkeys(("memory_fraction", "slo_s", "cluster_s"), NUMBER),
    **dict.fromkeys(("device", "dtype", "policy"), TEXT),
    "prefix_cache": FLAG,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """The keywords of ``Engine``; all have a default that works."""

    device: str = "auto"
    """``cpu``, ``cuda``, ``cuda:1``; auto: a GPU if there is one."""
    dtype: str = "auto"
    """``float32``, ``bfloat16``, ``float16``; auto: float32 on a CPU, bfloat16 on a GPU."""
    pages: int | None = None
    """Pages of the pool, for KV and adapters together; None: what ``memory_fraction`` leaves room for."""
    memory_fraction: float = 0.85
    """Of the device's free memory once the weights are loaded (on a CPU: of 4 GiB)."""
    block: int = 16
    """Tokens in a page of KV."""
    max_batch: int = 64
    """Sequences that run at once."""
    token_budget: int = 1024
    """Tokens that a step computes at most: longer prompts are taken in chunks."""
    max_context: int | None = None
    """Tokens of prompt and answer together; None: what the model was trained for."""
    max_waiting: int = 4096
    """Requests that may wait; one more is refused (the server answers 429)."""
    adapter_slots: int = 512
    """Adapters that can be in the pool at once. A slot costs some hundred bytes."""
    max_rank: int = 256
    """The largest rank that is accepted. It sizes tables, not memory for weights."""
    host_cache_bytes: int = 4 << 30
    """Adapters that are kept in host memory beside the pool; the others are read from their directories again."""
    prefix_cache: bool = True
    tensor_parallel: int = 1
    """Processes that have a part of the model each; on GPUs, one each."""
    policy: Policy = "fcfs"
    """deadline: a request that cannot have its first token within ``slo_s`` any more is dropped, not served late. Who
    is next is the queue's affair: whoever came first, or, with a queue that is fair, whose turn it is.
    """
    slo_s: float = 6.0
    cluster_s: float = 0.0
    """Among requests that arrive within so many seconds, those whose adapter is in the pool come first: fewer adapters
    are loaded, and nobody is passed over by who came later than that. 0: strictly in the order of arrival.
    """
    group_by: tuple[str, ...] = ("tenant", "user")
    """The labels of a request that say who is charged for it, from the root: for queues that are fair."""
    threads: int | None = None
    """Threads of torch on a CPU; None: as torch has it."""
    seed: int = 0
    """Where the chance of requests without a seed of their own begins."""

    def __post_init__(self) -> None:
        check_kinds(self, KINDS)
        for name in COUNTS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: it must be at least 1")
        for name, most in MOST.items():
            if (getattr(self, name) or 0) > most:
                raise ValueError(f"{name}={getattr(self, name)}: it can be 1 to {most}")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"device={self.device!r}: give cpu, cuda or cuda:1")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype={self.dtype!r}: there are {', '.join(DTYPES[1:])}")
        if self.token_budget < self.max_batch:
            raise ValueError(
                f"token_budget={self.token_budget} is less than max_batch={self.max_batch}: all could not decode"
            )
        if not 0 < self.memory_fraction <= 1:
            raise ValueError(f"memory_fraction={self.memory_fraction}: it must lie in (0, 1]")
        if self.policy not in ("fcfs", "deadline"):
            raise ValueError(f"policy={self.policy!r}: there are 'fcfs' and 'deadline'")
        if not self.cluster_s >= 0:
            raise ValueError(f"cluster_s={self.cluster_s}: it cannot be negative")
        if type(self.group_by) is not tuple or not all(type(name) is str and name for name in self.group_by):
            raise ValueError(f"group_by={self.group_by!r}: it is a tuple of names of labels, as ('tenant', 'user')")
        if not self.slo_s > 0:
            raise ValueError(f"slo_s={self.slo_s}: it must be positive")

    def pages_for(self, tokens: int) -> int:
        """Pages of the KV of so many tokens."""
        return -(-tokens // self.block)
