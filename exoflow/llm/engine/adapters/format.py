"""From a directory as PEFT saves it to checked matrices: all that is wrong with it is found here, before it is used."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from exoflow.errors import AdapterError
from exoflow.llm.engine.adapters.configuration import CONFIG, OUTSIDE, LoraConfig, read_config
from exoflow.llm.engine.adapters.packing import Matrices
from exoflow.llm.engine.geometry import Geometry, Module

WEIGHTS = "adapter_model.safetensors"

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_LARGEST_HEADER = 100_000_000
"""Bytes; the format's own limit."""


@dataclass(frozen=True, slots=True, eq=False)
class AdapterSpec:
    """What is known of an adapter without its weights."""

    version: str
    """A digest of ranks, scales and weights: of all that its answers depend on, and of nothing else."""
    ranks: tuple[int, ...]
    """By module, in the order of ``Geometry.modules``: the largest over the layers; 0: left alone everywhere."""
    scale: Tensor
    """``[layers, modules]`` float32; 0 where a layer lacks the module."""
    base_model: str | None
    """The name of the base that it says it was trained on."""

    @property
    def rank(self) -> int:
        """The largest of its modules."""
        return max(self.ranks)


@dataclass(frozen=True, slots=True)
class _Part:
    """One module of one layer that the adapter changes."""

    layer: int
    module: Module
    key: str
    """Its name in the base."""
    rank: int
    scale: float

    def tensors(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """A and B: their names in the file, and their shapes."""
        yield f"base_model.model.{self.key}.lora_A.weight", (self.rank, self.module.inputs)
        yield f"base_model.model.{self.key}.lora_B.weight", (self.module.outputs, self.rank)


def read_adapter(
    directory: str | os.PathLike[str], geometry: Geometry, *, max_rank: int
) -> tuple[AdapterSpec, Matrices]:
    """Read, check, digest.

    The weights are read, not mapped: a training that saves into the directory meanwhile would truncate the file under
    the map, and reading a page that is gone ends the process by SIGBUS.

    Args:
        geometry: of the whole base, not of one rank's part.

    Raises:
        AdapterError: the directory is broken, not for this base, or asks for something that is not supported.
    """
    path = Path(directory)
    before = _state(path)
    config = read_config(path, [*OUTSIDE, *(key for _, _, key in _modules(geometry))])
    parts = list(_parts(config, geometry))
    _check_targets(path, config, parts, max_rank)
    tensors = _read_tensors(path / WEIGHTS, parts, geometry, max_rank)
    if _state(path) != before:
        raise AdapterError(f"{path} was written to while it was read: load it again when that is done")
    matrices = {}
    ranks, scale = [0] * len(geometry.modules), torch.zeros(geometry.layers, len(geometry.modules))
    for part in parts:
        (a, _), (b, _) = part.tensors()
        matrices[part.layer, part.module.name] = tensors[a], tensors[b]
        column = geometry.modules.index(part.module)
        ranks[column] = max(ranks[column], part.rank)
        scale[part.layer, column] = part.scale
    spec = AdapterSpec(_digest(parts, tensors), tuple(ranks), scale, config.base_model)
    return spec, matrices


def _modules(geometry: Geometry) -> Iterator[tuple[int, Module, str]]:
    """With the layer and the key of each, in the order of layers, groups and modules."""
    for layer in range(geometry.layers):
        for group in geometry.groups:
            block = "self_attn" if group.name in ("qkv", "o") else "mlp"
            for module in group.modules:
                yield layer, module, f"model.layers.{layer}.{block}.{module.name}"


def _parts(config: LoraConfig, geometry: Geometry) -> Iterator[_Part]:
    for layer, module, key in _modules(geometry):
        if config.targets(key):
            yield _Part(layer, module, key, config.rank(key), config.scale(key))


def _check_targets(path: Path, config: LoraConfig, parts: list[_Part], max_rank: int) -> None:
    for key in OUTSIDE:
        if config.targets(key):
            raise AdapterError(
                f"{path / CONFIG}: target_modules names {key}: only modules of the layers can be changed"
            )
    if not parts:
        raise AdapterError(f"{path / CONFIG}: target_modules names no module of this base; was it trained on another?")
    largest = max(parts, key=lambda part: part.rank)
    if largest.rank > max_rank:
        raise AdapterError(
            f"{path / CONFIG}: {largest.key} has rank {largest.rank}, the engine was started with max_rank={max_rank}:"
            " start it with more"
        )


def _state(path: Path) -> list[tuple[int, int, int]]:
    """Changes whenever the files are written or replaced."""
    found = []
    for file in (path / CONFIG, path / WEIGHTS):
        try:
            state = file.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise AdapterError(_missing(file)) from None
        except OSError as error:
            raise AdapterError(f"{file} cannot be read ({error.strerror})") from None
        if not stat.S_ISREG(state.st_mode):
            raise AdapterError(f"{file} is no file")
        found.append((state.st_ino, state.st_size, state.st_mtime_ns))
    return found


def _missing(file: Path) -> str:
    path = file.parent
    if file.is_symlink():
        return f"{file} is a link to {file.readlink()}, which is not there"
    if file.name == CONFIG:
        return f"{path} has no {CONFIG}: an adapter is a directory as PEFT saves it"
    pickled = next((each.name for each in sorted(path.glob("adapter_model.*"))), None)
    why = f"; {pickled} is not read, a pickle can run anything: save with safe_serialization=True" if pickled else ""
    return f"{path} has no {WEIGHTS}{why}"


def _read_tensors(path: Path, parts: list[_Part], geometry: Geometry, max_rank: int) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    most = sum((module.inputs + module.outputs) * max_rank for module in geometry.modules) * geometry.layers * 4
    try:
        if (size := path.stat().st_size) > most + _LARGEST_HEADER:
            raise AdapterError(f"{path} has {size:,} bytes: no adapter of this base has more than {most:,}")
        tensors = load(path.read_bytes())
    except OSError as error:
        raise AdapterError(f"{path} cannot be read ({error.strerror})") from None
    # Besides its own error: a type that torch does not have, a tensor without elements.
    except (SafetensorError, KeyError, ValueError, RuntimeError, AssertionError, TypeError) as error:
        raise AdapterError(f"{path} is damaged ({error}): save the adapter again") from None
    _check_tensors(path, parts, tensors)
    return tensors


def _check_tensors(path: Path, parts: list[_Part], tensors: Mapping[str, Tensor]) -> None:
    expected = {name: shape for part in parts for name, shape in part.tensors()}
    for name in sorted(tensors):
        if name not in expected:
            raise AdapterError(
                f"{path}: {name} is no LoRA matrix of a module that {CONFIG} names and this base has:"
                f" it would be ignored; found {list(tensors[name].shape)}"
            )
    for name, shape in expected.items():
        tensor = tensors.get(name)
        if tensor is None:
            raise AdapterError(f"{path}: {name} is missing, which {CONFIG} names: save the adapter again")
        if tuple(tensor.shape) != shape:
            raise AdapterError(
                f"{path}: {name} is {list(tensor.shape)}, and {list(shape)} is expected: the adapter is of another"
                f" base, or {CONFIG} of another adapter"
            )
        if tensor.dtype not in _DTYPES:
            raise AdapterError(f"{path}: {name} is {tensor.dtype}: save it as float32, float16 or bfloat16")
        if not torch.isfinite(tensor).all():
            raise AdapterError(f"{path}: {name} has values that are not finite: its training has diverged")


def _digest(parts: list[_Part], tensors: Mapping[str, Tensor]) -> str:
    """Equal for two directories if and only if they change the base in the same way, bit by bit."""
    names = [[name for name, _ in part.tensors()] for part in parts]
    head = [
        [part.layer, part.module.name, part.rank, part.scale.hex(), *(str(tensors[name].dtype) for name in of_part)]
        for part, of_part in zip(parts, names, strict=True)
    ]
    digest = hashlib.blake2b(json.dumps(head).encode(), digest_size=20)
    for of_part in names:
        for name in of_part:
            digest.update(tensors[name].contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
