"""LoRA by PEFT and a loop in torch: one small adapter from a list of lessons. No ExoFlow here."""

from __future__ import annotations

import functools
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from exoflow.llm import find_model

BATCH = 8
RATE = 1e-3
RANK = 8
ENOUGH = 0.05
"""Mean loss of a token, in nats, from which on a style is learned."""
FILES = ("adapter_config.json", "adapter_model.safetensors")
"""What PEFT saves, and the engine reads."""
_IGNORED = -100
"""The label of a token that is not learned: torch's word for it."""


@functools.cache
def base(model: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model that all adapters share; loaded once in a process."""
    logging.disable_progress_bar()  # there is one already
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)  # PEFT asks for it
    folder = find_model(model)
    bare = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    bare.name_or_path = model  # an adapter says what it was trained on: a name, no folder of this machine
    return bare, AutoTokenizer.from_pretrained(folder)


def prompt_of(tokenizer: PreTrainedTokenizerBase, question: str) -> list[int]:
    """The question as the model's own chat template has it, up to where the answer begins."""
    messages = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer.encode(text, add_special_tokens=False)


def fit(
    model: str, lessons: Sequence[tuple[str, str]], steps: int, seed: int, tell: Callable[[float], None]
) -> dict[str, bytes]:
    """Learn the lessons, a batch a step, until it is enough; the adapter's files as PEFT saves them.

    Args:
        steps: at most.
        tell: is called with the loss of each step.
    """
    bare, tokenizer = base(model)
    torch.manual_seed(seed)
    tuned = get_peft_model(
        bare, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    try:
        optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=RATE)
        tuned.train()
        for step in range(steps):
            tokens, labels = _batch(tokenizer, [lessons[(step * BATCH + i) % len(lessons)] for i in range(BATCH)])
            # Padding is at the end, where nothing that is learned sees it: no mask is needed.
            loss = tuned(input_ids=tokens, labels=labels).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            tell(float(loss.detach()))
            if loss < ENOUGH:
                break
        with tempfile.TemporaryDirectory() as folder:
            tuned.save_pretrained(folder, save_embedding_layers=False)  # "auto" looks the base up on the hub
            return {name: Path(folder, name).read_bytes() for name in FILES}
    finally:
        tuned.unload()  # the base as it was


def _batch(tokenizer: PreTrainedTokenizerBase, lessons: Sequence[tuple[str, str]]) -> tuple[Tensor, Tensor]:
    """Tokens and labels, ``[lessons, longest]``: of a lesson only the answer and its end are learned."""
    rows = []
    for question, answer in lessons:
        prompt = prompt_of(tokenizer, question)
        answered = [*tokenizer.encode(answer, add_special_tokens=False), tokenizer.eos_token_id]
        rows.append((prompt + answered, [_IGNORED] * len(prompt) + answered))
    longest = max(len(tokens) for tokens, _ in rows)
    return (
        torch.tensor([tokens + [tokenizer.eos_token_id] * (longest - len(tokens)) for tokens, _ in rows]),
        torch.tensor([labels + [_IGNORED] * (longest - len(labels)) for _, labels in rows]),
    )


@torch.no_grad()
def behind_best(model: str, adapter: Path | None, answers: Sequence[tuple[list[int], Sequence[int]]]) -> list[float]:
    """By how much PEFT finds each token worse than the best one in its place; of all answers, each with its prompt.

    Where none is above 0, these answers are what PEFT's own greedy decoding gives, token by token.
    """
    bare, _ = base(model)
    tuned = bare.eval() if adapter is None else PeftModel.from_pretrained(bare, str(adapter)).eval()
    try:
        found: list[float] = []
        for prompt, answer in answers:
            logits = tuned(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
            chosen = logits[torch.arange(len(answer)), torch.tensor(answer)]
            found += (logits.amax(-1) - chosen).tolist()
        return found
    finally:
        if adapter is not None:
            tuned.unload()
