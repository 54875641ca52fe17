"""What ``adapter_config.json`` says, by PEFT's own rules of which module an adapter changes and how much.

The fields that are known are an allow-list. Any other with a value is refused by its name: an adapter whose
configuration is understood in part would answer wrongly, and nobody would see it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from exoflow.errors import AdapterError
from exoflow.llm.engine.adapters.matching import Found, is_plain, matched

CONFIG = "adapter_config.json"
OUTSIDE = ("lm_head", "model.embed_tokens")
"""Modules outside the layers."""

_READ = {
    *("peft_type", "task_type", "base_model_name_or_path", "init_lora_weights", "r", "lora_alpha", "use_rslora"),
    *("rank_pattern", "alpha_pattern", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
}
_OF_NO_MATTER = {
    *("auto_mapping", "peft_version", "revision", "inference_mode", "lora_dropout", "runtime_config"),
    # Read by PEFT only where init_lora_weights says so, which is looked at.
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),
}
_DEFAULTS = {"bias": "none", "megatron_core": "megatron.core", "qalora_group_size": 16}
"""Of fields that are off although they have a value. Others are off if they are null, false or empty."""

_KEEP_THE_BASE: tuple[object, ...] = (True, False, "gaussian", "eva", "orthogonal")
"""Ways to begin a training that leave the base's weights as they are."""


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """The fields that matter to the result, named as PEFT names them. A ``key`` is a module's name in the base."""

    r: int
    lora_alpha: float
    target_modules: str | tuple[str, ...]
    exclude_modules: str | tuple[str, ...]
    use_rslora: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    layers_to_transform: tuple[int, ...]
    layers_pattern: tuple[str, ...]
    base_model: str | None
    found: Found = field(default_factory=dict)
    """Where ``regexes`` match."""

    def targets(self, key: str) -> bool:
        """Whether the adapter changes this module; PEFT: ``check_target_module_exists``."""
        if self._names(self.exclude_modules, key):
            return False
        if isinstance(self.target_modules, str):
            everything = self.target_modules.lower() == "all-linear"
            return key not in OUTSIDE if everything else self._names(self.target_modules, key)
        if key in self.target_modules:
            return True
        return self._names(self.target_modules, key) and (not self.layers_to_transform or self._in_layers(key))

    def rank(self, key: str) -> int:
        return self.rank_pattern.get(self._pattern(self.rank_pattern, key), self.r)

    def scale(self, key: str) -> float:
        alpha = self.alpha_pattern.get(self._pattern(self.alpha_pattern, key), self.lora_alpha)
        return alpha / (math.sqrt(self.rank(key)) if self.use_rslora else self.rank(key))

    def regexes(self) -> Iterator[str]:
        """Those that are not plain, each as a whole key is matched with it."""
        for modules in (self.target_modules, self.exclude_modules):
            if isinstance(modules, str) and not is_plain(modules):
                yield modules
        yield from (_at_end(each) for each in (*self.rank_pattern, *self.alpha_pattern) if not is_plain(each))
        yield from (_of_layers(each) for each in self.layers_pattern if not is_plain(each))

    def _names(self, modules: str | tuple[str, ...], key: str) -> bool:
        if isinstance(modules, str):
            return bool(modules) and self._match(modules, modules, key) is not None
        return any(key == name or key.endswith(f".{name}") for name in modules)

    def _pattern(self, patterns: Mapping[str, object], key: str) -> str:
        """The first that matches the key's end; PEFT: ``get_pattern_key``."""
        return next((each for each in patterns if self._match(each, _at_end(each), key) is not None), key)

    def _in_layers(self, key: str) -> bool:
        patterns = [(each, _of_layers(each)) for each in self.layers_pattern]
        for written, regex in patterns or [("", r".*?\.[^.]*\.(?P<idx>\d+)\..*")]:
            if (layer := self._match(written, regex, key)) is not None:
                return layer.isdecimal() and int(layer) in self.layers_to_transform
        return False

    def _match(self, written: str, regex: str, key: str) -> str | None:
        """The group ``idx``, or empty; None: it does not match."""
        if not is_plain(written):
            return self.found.get(regex, {}).get(key)
        match = re.fullmatch(regex, key)
        return match and (match.groupdict().get("idx") or "")


def _at_end(pattern: str) -> str:
    return rf"(.*\.)?({pattern})$"


def _of_layers(pattern: str) -> str:
    return rf"(?:(?:^|.*?\.){pattern}\.(?P<idx>\d+)\.).*"


def read_config(directory: Path, keys: Sequence[str]) -> LoraConfig:
    """As it is said of the base's modules, which have these keys.

    Raises:
        AdapterError: it is not there, not JSON, not of LoRA, or it asks for something that is not supported.
    """
    path = directory / CONFIG
    try:
        fields = json.loads(path.read_bytes())
    except OSError as error:
        raise AdapterError(
            f"{path} cannot be read ({error.strerror}): an adapter is a directory as PEFT saves it"
        ) from None
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{path} is no JSON ({error}): save the adapter again") from None
    if not isinstance(fields, dict):
        raise AdapterError(f"{path} holds no fields: save the adapter again")
    try:
        _refuse_unsupported(fields)
        config = _parse(fields)
        return replace(config, found=matched(list(config.regexes()), keys))
    except AdapterError as error:
        raise AdapterError(f"{path}: {error}") from None


def _refuse_unsupported(fields: dict[str, Any]) -> None:
    if fields.get("peft_type") != "LORA":
        raise AdapterError(f"peft_type is {fields.get('peft_type')!r}: only 'LORA' is supported")
    if fields.get("task_type") not in (None, "CAUSAL_LM"):
        raise AdapterError(f"task_type is {fields['task_type']!r}: only 'CAUSAL_LM' is supported")
    for name, value in fields.items():
        if name in _READ or name in _OF_NO_MATTER:
            continue
        is_off = value is None or value is False or value in ("", [], {}) or value == _DEFAULTS.get(name)
        if not is_off:
            raise AdapterError(f"{name} is {_short(value)}: it is not supported; train the adapter without it")
    begun = fields.get("init_lora_weights", True)
    if not any(begun is way or (isinstance(way, str) and begun == way) for way in _KEEP_THE_BASE):
        raise AdapterError(
            f"init_lora_weights is {_short(begun)}: it changes the weights of the base; convert the adapter with"
            " save_pretrained(path_initial_model_for_weight_conversion=…)"
        )


def _parse(fields: dict[str, Any]) -> LoraConfig:
    targets = _modules(fields, "target_modules")
    layers = _layers(fields)
    if not targets:
        raise AdapterError("target_modules is empty: name the modules that the adapter changes")
    if isinstance(targets, str) and layers:
        raise AdapterError("layers_to_transform works with a list of target_modules only")
    patterns = _names_in(fields, "layers_pattern")
    if patterns and fields.get("layers_to_transform") is None:
        raise AdapterError("layers_pattern works with layers_to_transform only")
    for pattern in patterns:
        _check_regex("layers_pattern", pattern, _of_layers(pattern))
    base = fields.get("base_model_name_or_path")
    return LoraConfig(
        r=_rank("r", fields.get("r", 8)),
        lora_alpha=_number("lora_alpha", fields.get("lora_alpha", 8)),
        target_modules=targets,
        exclude_modules=_modules(fields, "exclude_modules"),
        use_rslora=_flag(fields, "use_rslora"),
        rank_pattern={key: _rank("rank_pattern", value) for key, value in _by_pattern(fields, "rank_pattern")},
        alpha_pattern={key: _number("alpha_pattern", value) for key, value in _by_pattern(fields, "alpha_pattern")},
        layers_to_transform=layers,
        layers_pattern=patterns,
        base_model=base if isinstance(base, str) and base else None,
    )


def _modules(fields: dict[str, Any], name: str) -> str | tuple[str, ...]:
    value = fields.get(name)
    if isinstance(value, str):
        _check_regex(name, value, value)
        return value
    return _names_in(fields, name)


def _names_in(fields: dict[str, Any], name: str) -> tuple[str, ...]:
    value = fields.get(name) or []
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise AdapterError(f"{name} is {_short(value)}: it must be a text or a list of texts")
    return tuple(cast("list[str]", value))


def _layers(fields: dict[str, Any]) -> tuple[int, ...]:
    value = fields.get("layers_to_transform")
    numbers = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(one, int) and not isinstance(one, bool) for one in numbers):
        raise AdapterError(f"layers_to_transform is {_short(value)}: it must be a layer's number or a list of them")
    return tuple(numbers)


def _by_pattern(fields: dict[str, Any], name: str) -> list[tuple[str, Any]]:
    value = fields.get(name) or {}
    if not isinstance(value, dict):
        raise AdapterError(f"{name} is {_short(value)}: it must map names of modules to numbers")
    for pattern in value:
        _check_regex(name, pattern, _at_end(pattern))
    return list(value.items())


def _check_regex(name: str, written: str, regex: str) -> None:
    try:
        re.compile(regex)
    except (re.error, OverflowError, RecursionError) as error:
        raise AdapterError(f"{name}: {_short(written)} is no regular expression ({error})") from None


def _rank(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise AdapterError(f"{name} is {_short(value)}: a rank is a whole number of at least 1")
    return value


def _number(name: str, value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e30:  # False for NaN, too
        return float(value)
    raise AdapterError(f"{name} is {_short(value)}: it must be a finite number")


def _flag(fields: dict[str, Any], name: str) -> bool:
    value = fields.get(name) or False
    if not isinstance(value, bool):
        raise AdapterError(f"{name} is {_short(value)}: it must be true or false")
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
