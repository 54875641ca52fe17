"""Answers that follow a JSON schema or a regular expression: which tokens may come next, by llguidance."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from exoflow.llm.engine.models.tokenizer import ModelTokenizer
from exoflow.llm.engine.request import SamplingParams, WrongRequest
from exoflow.llm.engine.text import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from llguidance._lib import JsonCompileOptions

COMPILED_MAX = 64
STATES_MAX = 50_000
"""Of a grammar's automaton, which is made as an answer goes on: at most 100 MB of them."""
JSON_STYLE: JsonCompileOptions = {"whitespace_pattern": "[ ]?"}
"""One line, a space where it reads well: small models write blanks for ever where they may."""


class Grammar:
    """One answer's place in its grammar: after the tokens that the answer has, whatever became of their KV."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher
        self._taken = 0

    def allowed(self, output: Sequence[int]) -> Tensor:
        """``[vocab]`` bool: what may come after ``output``."""
        self.follow(output)
        return torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8) != 0

    def follow(self, output: Sequence[int]) -> None:
        """These are the answer's tokens by now."""
        self._matcher.consume_tokens(list(output[self._taken :]))
        self._taken = len(output)

    @property
    def is_complete(self) -> bool:
        """Nothing may come any more."""
        return bool(self._matcher.is_stopped())

    @property
    def error(self) -> WrongRequest | None:
        """Why it cannot be followed any further, if so."""
        return WrongRequest(f"the grammar failed: {_said(self._matcher)}") if self._matcher.is_error() else None


class Grammars:
    """Those of one tokenizer; from any thread."""

    def __init__(self, tokenizer: Tokenizer, vocab: int, states_max: int = STATES_MAX) -> None:
        self._tokenizer, self._vocab, self._states_max = tokenizer, vocab, states_max
        self._words: LLTokenizer | None = None
        self._lock = threading.Lock()
        self._compiled = lru_cache(COMPILED_MAX)(self._compile)

    def begin(self, params: SamplingParams) -> list[Grammar | None]:
        """One for each of the n answers; None: they may be anything.

        Raises:
            WrongRequest: the schema or the expression is none, or needs what is not supported; the message says what.
        """
        if params.json_schema is None and params.regex is None:
            return [None] * params.n
        try:
            from llguidance import LLMatcher
        except ImportError as error:
            raise WrongRequest("json_schema and regex need one more package: pip install 'exoflow[llm]'") from error
        if params.regex is not None:
            kind, text = "regex", LLMatcher.grammar_from_regex(params.regex)
        else:
            schema = params.json_schema
            given = schema if isinstance(schema, str) else dict(schema or {})
            try:
                kind, text = "json_schema", LLMatcher.grammar_from_json_schema(given, defaults=JSON_STYLE)
            except (TypeError, ValueError) as error:
                raise WrongRequest(f"json_schema: it is no JSON: {error}") from error
        first = self._compiled(kind, text)
        return [Grammar(first.deep_copy()) for _ in range(params.n)]

    def _compile(self, kind: str, text: str) -> LLMatcher:
        from llguidance import LLMatcher, LLParserLimits

        limits = LLParserLimits(max_lexer_states=self._states_max, verbose_errors=False)
        matcher = LLMatcher(self._vocabulary(), text, log_level=0, limits=limits)
        if matcher.is_error():
            raise WrongRequest(f"{kind}: {_said(matcher)}")
        begun = Grammar(matcher.deep_copy())
        begun.allowed(())
        if begun.is_complete:
            raise WrongRequest(f"{kind}: no answer can follow it, as it allows no first token")
        return matcher

    def _vocabulary(self) -> LLTokenizer:
        """Made once: it takes a second."""
        from llguidance.hf import from_tokenizer

        with self._lock:
            if self._words is None:
                if not isinstance(self._tokenizer, ModelTokenizer):
                    raise WrongRequest("json_schema and regex need the model's own tokenizer")
                eos = sorted(self._tokenizer.eos_ids) or None
                try:
                    tokenizer: Any = self._tokenizer.tokenizer  # it says itself which it takes
                    self._words = from_tokenizer(tokenizer, n_vocab=self._vocab, eos_token=eos)
                except ValueError as error:
                    raise WrongRequest(f"json_schema and regex do not work with this tokenizer: {error}") from error
            return self._words


def _said(matcher: LLMatcher) -> str:
    return " ".join(matcher.get_error().replace("<non-verbose/>", "").split())
