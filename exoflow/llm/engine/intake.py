"""What is asked, as the requests that the scheduler knows: checked, in tokens, n answers side by side."""

from __future__ import annotations

from collections.abc import Mapping

from exoflow.llm.engine.adapters.store import AdapterStore
from exoflow.llm.engine.config import EngineConfig
from exoflow.llm.engine.generation import Answer, Generation
from exoflow.llm.engine.grammar import Grammars
from exoflow.llm.engine.models.loaded import LoadedModel
from exoflow.llm.engine.prompts import Prompt
from exoflow.llm.engine.request import Request, SamplingParams, WrongRequest, client_of


class Intake:
    """Of one engine; from any thread."""

    def __init__(self, config: EngineConfig, model: LoadedModel, store: AdapterStore) -> None:
        self.vocab: int = model.decoder.embedding.shape[0]
        self.grammars = Grammars(model.tokenizer, self.vocab)
        self._config, self._tokenizer, self._store = config, model.tokenizer, store

    def generation(
        self,
        prompt: Prompt,
        params: SamplingParams,
        adapter: str | None,
        labels: Mapping[str, str],
        priority: int,
        *,
        scores: bool = False,
    ) -> Generation:
        """One that nobody has begun with. Its adapter is held until it has ended.

        Raises:
            AdapterError: nothing has the adapter's name.
            ValueError: a priority below 0.
            WrongRequest: tokens that there are not, more answers than can be, or a grammar that is none.
        """
        if priority < 0:
            raise ValueError(f"priority={priority}: 0 is the most urgent")
        tokens = tuple(self._tokenizer.encode(prompt) if isinstance(prompt, str) else prompt)
        if tokens and not 0 <= min(tokens) <= max(tokens) < self.vocab:
            raise WrongRequest(f"the prompt has a token that there is not: they are 0 to {self.vocab - 1}")
        most = self._config.max_batch + self._config.max_waiting
        if params.n > most:
            raise WrongRequest(f"n={params.n} is more than can ever be here at once: {most}, max_batch + max_waiting")
        grammars = self.grammars.begin(params)
        ref = self._store.hold(adapter) if adapter is not None else None
        client = client_of(labels, self._config.group_by)
        first = Request(tokens, params, ref, scores=scores, client=client, priority=priority)
        first.job = labels.get("job") or (f"answers to {first.number}" if params.n > 1 else "")
        others = [
            Request(tokens, params, ref, index=index, leader=first, client=client, job=first.job, priority=priority)
            for index in range(1, params.n)
        ]
        seed = params.seed if params.seed is not None else hash((self._config.seed, first.number))
        answers = [
            Answer(request, self._tokenizer, seed, grammar)
            for request, grammar in zip((first, *others), grammars, strict=True)
        ]
        return Generation(answers, ref, when_done=lambda: self._store.let_go(ref) if ref else None)
