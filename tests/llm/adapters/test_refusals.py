"""What is not understood whole is refused by its name; what is damaged is an AdapterError and nothing else."""

from __future__ import annotations

import contextlib
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from exoflow.errors import AdapterError
from exoflow.llm.engine.adapters import matching
from exoflow.llm.engine.adapters.format import read_adapter
from exoflow.llm.engine.geometry import Geometry

Write = Callable[..., Path]
WEIGHTS = "adapter_model.safetensors"
Q_A = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"
Q_B = "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"


def refused(directory: Path, geometry: Geometry, *words: str) -> None:
    with pytest.raises(AdapterError) as error:
        read_adapter(directory, geometry, max_rank=16)
    assert str(directory) in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("peft_type", "ADALORA"),
        ("task_type", "SEQ_CLS"),
        ("use_dora", True),
        ("bias", "all"),
        ("bias", "lora_only"),
        ("lora_bias", True),
        ("modules_to_save", ["lm_head"]),
        ("layer_replication", [[0, 2], [1, 2]]),
        ("target_parameters", ["mlp.experts.gate_up_proj"]),
        ("trainable_token_indices", [3]),
        ("alora_invocation_tokens", [1, 2]),
        ("use_qalora", True),
        ("qalora_group_size", 32),
        ("megatron_config", {"size": 1}),
        ("megatron_core", "other.core"),
        ("fan_in_fan_out", True),
        ("use_bdlora", {"nblocks": 2}),
        ("arrow_config", {"top_k": 3}),
        ("kasa_config", {"beta": 1e-4}),
        ("velora_config", {"num_groups": 2}),
        ("ensure_weight_tying", True),
        ("a_field_of_next_year", 1),
        ("a_field_of_next_year", 0),
        ("another_of_next_year", "on"),
        ("init_lora_weights", "pissa"),
        ("init_lora_weights", "pissa_niter_16"),
        ("init_lora_weights", "olora"),
        ("init_lora_weights", "loftq"),
        ("init_lora_weights", 1),
        ("r", 0),
        ("r", 4.0),
        ("r", True),
        ("r", "4"),
        ("lora_alpha", "8"),
        ("lora_alpha", float("nan")),
        ("lora_alpha", float("inf")),
        ("lora_alpha", 10**400),
        ("use_rslora", "yes"),
        ("rank_pattern", {"q_proj": -1}),
        ("rank_pattern", {"q_proj(": 4}),
        ("rank_pattern", ["q_proj"]),
        ("alpha_pattern", {"q_proj": None}),
        ("target_modules", None),
        ("target_modules", []),
        ("target_modules", [1]),
        ("target_modules", "*.q_proj"),
        ("target_modules", ["c_attn"]),
        ("exclude_modules", 4),
        ("exclude_modules", "("),
        ("layers_to_transform", "0"),
        ("layers_to_transform", [True]),
        ("layers_pattern", "layers"),
    ],
)
def test_a_field_is_refused_by_its_name(adapter: Write, tiny: Geometry, field: str, value: Any) -> None:
    name = "target_modules" if field == "target_modules" else field
    refused(adapter(**{field: value}), tiny, "adapter_config.json", name)


def test_fields_that_are_off_are_of_no_matter(adapter: Write, tiny: Geometry) -> None:
    off: dict[str, Any] = dict.fromkeys(["modules_to_save", "layer_replication", "next_year", "task_type"])
    off |= dict.fromkeys(["use_dora", "lora_bias", "inference_mode", "next_year_too"], False)
    off |= {"bias": "none", "megatron_core": "megatron.core", "qalora_group_size": 16, "loftq_config": {}}
    off |= {"lora_dropout": 0.3, "eva_config": {"rho": 2.0}, "init_lora_weights": "eva", "target_parameters": []}
    directory, plain = adapter("off", **off), adapter("plain")
    versions = {read_adapter(path, tiny, max_rank=16)[0].version for path in (directory, plain)}
    assert len(versions) == 1


@pytest.mark.parametrize(
    "field",
    [
        {"target_modules": "(([a-z_.0-9])+)+x"},
        {"exclude_modules": "(([a-z_.0-9])+)+x"},
        {"rank_pattern": {"(([a-z_.0-9])+)+x": 3}},
        {"alpha_pattern": {"(([a-z_.0-9])+)+x": 3}},
        {"layers_to_transform": [0], "layers_pattern": "(([a-z_.0-9])+)+x"},
    ],
    ids=lambda field: next(reversed(field)),
)
def test_a_regular_expression_that_takes_for_ever_is_refused(
    adapter: Write, tiny: Geometry, field: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "LIMIT_S", 1)
    refused(adapter(**field), tiny, "regular expressions take more than 1 s")


@pytest.mark.parametrize("key", ["lm_head", "embed_tokens"])
def test_modules_outside_the_layers_are_refused(adapter: Write, tiny: Geometry, key: str) -> None:
    refused(adapter(target_modules=["q_proj", key]), tiny, key)


def test_patterns_by_which_layers_cannot_be_told_from_a_regex_are_refused(adapter: Write, tiny: Geometry) -> None:
    refused(adapter(target_modules=".*q_proj", layers_to_transform=[0]), tiny, "layers_to_transform")


def test_a_rank_above_the_limit_is_refused_before_the_weights_are_read(adapter: Write, tiny: Geometry) -> None:
    directory = adapter(rank=17)
    (directory / WEIGHTS).write_bytes(b"")
    refused(directory, tiny, "rank 17", "max_rank=16")


def change(directory: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    tensors = {name: tensor.clone() for name, tensor in load_file(directory / WEIGHTS).items()}
    edit(tensors)
    save_file(tensors, directory / WEIGHTS)
    return directory


def put(name: str, tensor: torch.Tensor) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda tensors: tensors.update({name: tensor})


def test_a_matrix_without_its_other_is_refused(adapter: Write, tiny: Geometry) -> None:
    refused(change(adapter(), lambda tensors: tensors.pop(Q_B)), tiny, Q_B, "missing")


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.lm_head.weight",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        "base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.1.self_attn.q_proj.lora_magnitude_vector",
        "base_model.model.model.layers.1.self_attn.q_proj.lora_B.bias",
        "base_model.model.model.layers.1.self_attn.q_proj.lora_A.default.weight",
    ],
)
def test_a_tensor_that_the_configuration_does_not_explain_is_refused(adapter: Write, tiny: Geometry, name: str) -> None:
    refused(change(adapter(), put(name, torch.zeros(4, 128))), tiny, name)


def test_tensors_of_a_module_that_is_not_named_are_refused(adapter: Write, tiny: Geometry) -> None:
    refused(adapter(target_modules=["q_proj"]), tiny, "layers.0.mlp.down_proj.lora_A.weight is no LoRA matrix")


@pytest.mark.parametrize("shape", [(4, 127), (5, 128), (512,), (128, 4), (0, 128), ()])
def test_a_shape_is_told_as_found_and_expected(adapter: Write, tiny: Geometry, shape: tuple[int, ...]) -> None:
    refused(change(adapter(), put(Q_A, torch.zeros(shape))), tiny, Q_A, str(list(shape)), "[4, 128]")


def test_an_adapter_of_another_base_is_refused(adapter: Write) -> None:
    refused(adapter(), Geometry(2, 72, 4, 2, 18, 200), "another base", "[4, 72]")
    refused(adapter(), Geometry(1, 128, 4, 2, 32, 344), "layers.1")
    refused(adapter(), Geometry(3, 128, 4, 2, 32, 344), "layers.2", "missing")


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_a_type_is_refused(adapter: Write, tiny: Geometry, dtype: torch.dtype) -> None:
    refused(change(adapter(), put(Q_A, torch.zeros(4, 128).to(dtype))), tiny, Q_A, str(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_is_refused(
    adapter: Write, tiny: Geometry, dtype: torch.dtype, value: float
) -> None:
    matrix = torch.zeros(4, 128, dtype=dtype)
    matrix[3, 127] = value
    refused(change(adapter(), put(Q_A, matrix)), tiny, Q_A, "finite")


def test_a_pickle_is_refused_by_its_name(adapter: Write, tiny: Geometry) -> None:
    directory = adapter()
    (directory / WEIGHTS).rename(directory / "adapter_model.bin")
    refused(directory, tiny, "adapter_model.bin", "safe_serialization")


def test_files_that_are_not_there_are_told(adapter: Write, tiny: Geometry, tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", tiny, "adapter_config.json")
    directory = adapter()
    (directory / WEIGHTS).unlink()
    refused(directory, tiny, WEIGHTS)
    (directory / WEIGHTS).mkdir()
    refused(directory, tiny, f"{WEIGHTS} is no file")
    (directory / WEIGHTS).rmdir()
    (directory / WEIGHTS).symlink_to("elsewhere")
    refused(directory, tiny, f"{WEIGHTS} is a link to elsewhere")


def test_a_path_that_no_system_takes_is_refused(tmp_path: Path, tiny: Geometry) -> None:
    refused(tmp_path / ("x" * 300), tiny, "File name too long")
    refused(tmp_path / ("\N{SNOWMAN}" * 90), tiny, "File name too long")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe{", b"[" * 100_000, b'{"r": ' + b"1" * 9_999])
def test_a_configuration_that_is_none_is_refused(adapter: Write, tiny: Geometry, text: bytes) -> None:
    directory = adapter()
    (directory / "adapter_config.json").write_bytes(text)
    refused(directory, tiny, "adapter_config.json")


def test_a_file_that_is_far_too_large_is_not_read(adapter: Write, tiny: Geometry) -> None:
    directory = adapter()
    with (directory / WEIGHTS).open("r+b") as file:
        file.truncate(1 << 40)  # a hole: it takes no room
    refused(directory, tiny, "bytes")


@pytest.mark.parametrize("seed", range(60))
def test_damage_anywhere_is_an_adapter_error_or_leaves_an_adapter(adapter: Write, tiny: Geometry, seed: int) -> None:
    chance = random.Random(seed)
    directory = adapter(rank_pattern={"q_proj": 4}, alpha_pattern={"v_proj": 3}, exclude_modules=[])
    path = directory / chance.choice(["adapter_config.json", WEIGHTS])
    content = bytearray(path.read_bytes())
    head = len(content) if chance.random() < 0.3 else min(len(content), 8_000)  # most of what can be wrong is there
    if chance.random() < 0.3:
        del content[chance.randrange(len(content)) :]
    else:
        for _ in range(chance.choice([1, 3, 30])):
            content[chance.randrange(head)] = chance.choice([0, 34, 48, 91, 93, 125, 255, chance.randrange(256)])
    path.write_bytes(content)
    with contextlib.suppress(AdapterError):
        spec, matrices = read_adapter(directory, tiny, max_rank=16)
        assert len(spec.version) == 40 and matrices


def test_equal_content_has_one_version_wherever_it_lies_and_however_it_is_written(
    adapter: Write, tiny: Geometry
) -> None:
    one = adapter("one")
    other = adapter("other", base_model_name_or_path="else", target_modules="all-linear", lora_alpha=8.0)
    tensors = load_file(other / WEIGHTS)
    save_file(dict(reversed(list(tensors.items()))), other / WEIGHTS, metadata={"by": "somebody else"})
    assert (one / WEIGHTS).read_bytes() != (other / WEIGHTS).read_bytes()
    assert version(one, tiny) == version(other, tiny)


def test_whatever_changes_the_answer_changes_the_version(adapter: Write, tiny: Geometry) -> None:
    swapped = adapter("swapped")
    key = Q_A.replace("q_proj", "k_proj")
    change(swapped, lambda tensors: tensors.update({Q_A: tensors[key], key: tensors[Q_A]}))
    directories = [
        adapter("one"),
        swapped,
        adapter("seed", seed=1),
        adapter("rank", rank=5),
        adapter("alpha", lora_alpha=9),
        adapter("rslora", use_rslora=True),
        adapter("pattern", alpha_pattern={r"layers\.0\.mlp\.up_proj": 3}),
        change(adapter("bit"), lambda tensors: tensors[Q_A][3, 5].add_(1e-6)),
        change(adapter("dtype"), lambda tensors: tensors.update({Q_A: tensors[Q_A].half()})),
    ]
    assert len({version(directory, tiny) for directory in directories}) == len(directories)


def version(directory: Path, geometry: Geometry) -> str:
    spec, _ = read_adapter(directory, geometry, max_rank=16)
    assert re.fullmatch("[0-9a-f]{40}", spec.version)
    return spec.version


def test_a_directory_that_is_written_to_meanwhile_is_refused(
    adapter: Write, tiny: Geometry, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = adapter()
    read = Path.read_bytes

    def read_and_write(path: Path) -> bytes:
        content = read(path)
        if path.name == WEIGHTS:
            path.write_bytes(content[:-1])
        return content

    monkeypatch.setattr(Path, "read_bytes", read_and_write)
    refused(directory, tiny, "while it was read")


def test_generated_adapters_are_the_same_for_the_same_arguments(adapter: Write, tiny: Geometry) -> None:
    assert version(adapter("a", seed=3), tiny) == version(adapter("b", seed=3), tiny)
    config = json.loads((adapter("c") / "adapter_config.json").read_text())
    assert config["r"] == 4 and config["lora_alpha"] == 8
