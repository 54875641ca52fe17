"""All adapters in the same batches of one engine: what they say, who keeps to its rule, and what PEFT would say."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from exoflow.llm import Engine, Output, SamplingParams
from many_adapters_data import STYLES, Sight
from many_adapters_training import base, behind_best, prompt_of

if TYPE_CHECKING:
    from many_adapters import Adapter

TIE = 1e-3
"""Two tokens whose logits lie within it may change places: sums of floats in another order."""
GREEDY = SamplingParams(max_tokens=48, temperature=0)


@dataclass(frozen=True, slots=True)
class Served:
    """What one adapter answered, or the base model."""

    name: str | None
    sights: Sequence[Sight]
    outputs: list[Output]
    behind: list[float]
    """Of each token of all answers, by how much PEFT finds it worse than the best."""

    def kept(self, name: str) -> int:
        """How many of the answers keep to the rule of this style."""
        pairs = zip(self.sights, self.outputs, strict=True)
        return sum(STYLES[name].is_kept(sight, output.text.strip()) for sight, output in pairs)

    @property
    def as_peft(self) -> int:
        return sum(each <= TIE for each in self.behind)


def ask(model: str, adapters: Sequence[Adapter], sights: Sequence[Sight], console: Console) -> list[Served]:
    """The same questions to the base model and to every adapter, in mixed batches; then to PEFT, one after another."""
    names = [None, *(adapter.name for adapter in adapters)]
    tokenizer = base(model)[1]
    prompts = [prompt_of(tokenizer, sight.question) for sight in sights]
    with Engine(model, dtype="float32", pages=1000) as engine:
        for adapter in adapters:
            engine.load_adapter(adapter.name, adapter.path)
        begun = time.monotonic()
        outputs = engine.generate(
            [prompt for prompt in prompts for _ in names], GREEDY, adapter=[name for _ in prompts for name in names]
        )
        seconds = time.monotonic() - begun
    tokens = sum(len(output.token_ids) for output in outputs)
    console.print(
        f"\n{len(outputs)} requests to {len(names) - 1} adapters and the base model, mixed: {tokens} tokens"
        f" in {seconds:.1f} s, {tokens / seconds:.0f} a second"
    )
    paths = {None: None} | {adapter.name: Path(adapter.path) for adapter in adapters}
    served = []
    with console.status("asking PEFT, one adapter at a time"):
        for index, name in enumerate(names):
            mine = outputs[index :: len(names)]
            asked = [(prompt, output.token_ids) for prompt, output in zip(prompts, mine, strict=True)]
            served.append(Served(name, sights, mine, behind_best(model, paths[name], asked)))
    return served


def show(served: Sequence[Served], console: Console) -> int:
    """The table; 1 if a token is not PEFT's."""
    first = served[0]
    table = Table(title=f"“{first.sights[0].question}”", title_justify="left", show_lines=True)
    table.add_column("adapter", no_wrap=True)
    table.add_column("its answer", overflow="fold", ratio=1)
    table.add_column("keeps to\nits rule", justify="right")
    table.add_column("the base\ndoes", justify="right")
    table.add_column("tokens as\nPEFT's", justify="right")
    for each in served:
        rule = [f"{kept}/{len(each.outputs)}" for kept in _kept(each, first)] if each.name else ["–", "–"]
        peft = Text(f"{each.as_peft}/{len(each.behind)}", "green" if each.as_peft == len(each.behind) else "red")
        table.add_row(each.name or "(base)", Text(each.outputs[0].text.strip()), *rule, peft)
    console.print(table)
    ties = sum(each > 0 for one in served for each in one.behind)
    tokens = sum(len(one.behind) for one in served)
    wrong = tokens - sum(one.as_peft for one in served)
    console.print(
        f"{tokens - wrong} of {tokens} tokens are those that PEFT chooses, {ties - wrong} of them up to a tie of {TIE}."
    )
    return 1 if wrong else 0


def _kept(one: Served, bare: Served) -> tuple[int, int]:
    assert one.name is not None
    return one.kept(one.name), bare.kept(one.name)
