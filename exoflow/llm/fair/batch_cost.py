"""How long a batch takes on a machine: what the simulator has for a GPU."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchCost:
    """Seconds of a prefill and of a decode step, both linear in what is in the batch."""

    prefill_s: float
    prefill_token_s: float
    """For each token of the prompts."""
    step_s: float
    sequence_s: float
    """For each sequence, in each step."""
    context_token_s: float
    """For each token whose KV is read, in each step."""

    @classmethod
    def a10g(cls) -> BatchCost:
        """Llama-2-7B in float16 on an A10G, as the paper's authors measured it: with the 3 ms of their loop a step."""
        return cls(
            prefill_s=35.84e-3,
            prefill_token_s=0.21314e-3,
            step_s=20.432e-3 + 3e-3,
            sequence_s=0.21182e-3,
            context_token_s=1.55992e-6,
        )

    def prefill(self, tokens: int) -> float:
        return self.prefill_s + self.prefill_token_s * tokens

    def decode(self, sequences: int, context_tokens: int) -> float:
        """One step, that gives each sequence a token."""
        return self.step_s + self.sequence_s * sequences + self.context_token_s * context_tokens
