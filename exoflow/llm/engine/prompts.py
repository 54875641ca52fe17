"""What may be asked: prompts, how they are answered, and by which adapters. Checked before anything starts."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

from exoflow.llm.engine.request import SamplingParams

Prompt = str | Sequence[int]


def prompts_of(prompts: object, *, later: tuple[type[Any], ...] = ()) -> list[Any]:
    """One prompt or several, as a list.

    Args:
        later: types of what will be a prompt, and is not looked into; several, where it is a sequence itself.

    Raises:
        TypeError: they are none.
    """
    is_later = isinstance(prompts, later) and not isinstance(prompts, Sequence)
    if is_later or isinstance(prompts, str | Mapping) or not isinstance(prompts, Iterable):
        several = [prompts]
    else:
        several = list(prompts)
        if several and isinstance(several[0], Integral):
            several = [prompts]  # token ids of one prompt
    for prompt in several:
        if not isinstance(prompt, later):
            check_prompt(prompt)
    return several


def check_prompt(prompt: object) -> None:
    """Raises TypeError: it is neither a text nor token ids."""
    if isinstance(prompt, str):
        return
    if isinstance(prompt, Collection) and not isinstance(prompt, bytes | Mapping):
        kinds = set(map(type, prompt))
        if all(issubclass(kind, Integral) and not issubclass(kind, bool) for kind in kinds):
            return
        if any(issubclass(kind, Mapping) for kind in kinds):
            prompt = next(iter(prompt))
    if isinstance(prompt, Mapping):
        raise TypeError(
            f"{reprlib.repr(prompt)} is a message, and a prompt is a text or token ids: ask LLM(engine) with messages,"
            " and the model's chat template makes a prompt of them"
        )
    raise TypeError(f"{reprlib.repr(prompt)} is no prompt: give a text, or token ids")


def params_of(params: SamplingParams | None) -> SamplingParams:
    """Raises TypeError: they are none."""
    if params is None:
        return SamplingParams()
    if not isinstance(params, SamplingParams):
        raise TypeError(f"params={params!r}: give SamplingParams(max_tokens=...)")
    return params


def one_for_each(adapter: str | Sequence[str | None] | None, count: int) -> list[str | None]:
    """The adapters of so many prompts, of which one may have been given for all.

    Raises:
        TypeError: they are no names.
        ValueError: there are more prompts, or fewer.
    """
    one = adapter is None or isinstance(adapter, str)
    adapters = [adapter] * count if one else list(adapter) if isinstance(adapter, Iterable) else [adapter]
    if not all(name is None or isinstance(name, str) for name in adapters):
        raise TypeError(f"adapter={adapter!r}: give a name, or one for each prompt; None is the base model")
    if len(adapters) != count:
        raise ValueError(f"{count} prompts and {len(adapters)} adapters: give one for all, or one for each")
    return adapters  # type: ignore[return-value]  # all of them were looked at
