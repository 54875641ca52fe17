"""A model's own tokenizer and chat template, by transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from exoflow.errors import LLMError
from exoflow.llm.engine.request import WrongRequest

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


class ModelTokenizer:
    """``Tokenizer`` of a directory."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, eos_ids: frozenset[int]) -> None:
        self.tokenizer = tokenizer
        self.eos_ids = eos_ids

    @cached_property
    def longest(self) -> int:
        return max(map(len, self.tokenizer.get_vocab()))  # some are written with a letter for each byte

    def encode(self, text: str) -> list[int]:
        tokens: list[int] = self.tokenizer.encode(text)
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        text = self.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    def word(self, token: int) -> str:
        name = self.tokenizer.convert_ids_to_tokens(token)
        return self.tokenizer.convert_tokens_to_string([name]) if isinstance(name, str) else ""

    def chat(self, messages: Sequence[dict[str, object]]) -> list[int]:
        from jinja2 import TemplateError

        try:
            text = self.tokenizer.apply_chat_template(
                list(messages),  # type: ignore[arg-type]  # a message holds more than strings
                add_generation_prompt=True,
                tokenize=False,
            )
        except (ValueError, TypeError, LookupError, TemplateError) as error:
            raise WrongRequest(f"the messages do not fit the model's chat template: {error}") from error
        tokens: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return tokens


def load_tokenizer(folder: Path, config: PretrainedConfig) -> ModelTokenizer:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise LLMError(f"{folder}: its tokenizer cannot be read: {error}") from error
    return ModelTokenizer(tokenizer, _eos_ids(folder, config, tokenizer))


def _eos_ids(folder: Path, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """All tokens that end an answer: of the tokenizer, the model, and what the model says of generation."""
    file = folder / "generation_config.json"
    told = json.loads(file.read_text()).get("eos_token_id") if file.is_file() else None
    found: set[int] = set()
    for source in (told, config.eos_token_id, tokenizer.eos_token_id):
        found |= set(source) if isinstance(source, list) else {source} if source is not None else set()
    return frozenset(found)
