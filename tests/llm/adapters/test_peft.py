"""What is read equals what PEFT reads, for all that PEFT can say about ranks, scales and modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from exoflow.llm.engine.adapters.format import read_adapter
from exoflow.llm.engine.adapters.layout import AdapterLayout
from exoflow.llm.engine.adapters.packing import pack, unpack
from exoflow.llm.engine.adapters.sharding import Shard
from exoflow.llm.engine.geometry import Geometry

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",  # PEFT asks transformers for it
)

QKVO = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL = [*QKVO, "gate_proj", "up_proj", "down_proj"]
CONFIGS: dict[str, dict[str, Any]] = {
    "r1": {"r": 1, "target_modules": QKVO},
    "r4 of all": {"r": 4, "target_modules": ALL},
    "r8 and alpha": {"r": 8, "lora_alpha": 12, "target_modules": ["q_proj", "down_proj"]},
    "r16 rslora": {"r": 16, "lora_alpha": 32, "target_modules": ALL, "use_rslora": True},
    "r33": {"r": 33, "target_modules": ALL},
    "all-linear": {"r": 4, "target_modules": "all-linear"},
    "a regex": {"r": 4, "target_modules": r".*\.1\.(self_attn\.[qv]_proj|mlp\.down_proj)"},
    "full names": {"r": 2, "target_modules": ["model.layers.0.self_attn.q_proj", "1.mlp.up_proj"]},
    "rank_pattern": {
        "r": 4,
        "target_modules": ALL,
        "rank_pattern": {r"^model\.layers\.0\.self_attn\.q_proj": 9, "v_proj": 2, r"1\.mlp\..*": 3, "up_proj": 7},
    },
    "alpha_pattern": {
        "r": 4,
        "lora_alpha": 6,
        "target_modules": ALL,
        "alpha_pattern": {"q_proj": 3, r"layers\.1\..*": 5, r"(k|o)_proj": 11, ".*_proj": 50},
        "rank_pattern": {"layers.1.self_attn.(q|o)_proj": 5},
        "use_rslora": True,
    },
    "layers_to_transform": {"r": 4, "target_modules": ALL, "layers_to_transform": [1]},
    "one layer": {"r": 4, "target_modules": QKVO, "layers_to_transform": 0},
    "layers_pattern": {
        "r": 4,
        "target_modules": QKVO,
        "layers_to_transform": [0],
        "layers_pattern": "layers",
    },
    "exclude_modules": {"r": 4, "target_modules": ALL, "exclude_modules": ["0.mlp.up_proj", "k_proj"]},
    "exclude by regex": {"r": 4, "target_modules": "all-linear", "exclude_modules": r".*\.0\..*(q|up)_proj"},
    "gaussian": {"r": 4, "target_modules": QKVO, "init_lora_weights": "gaussian", "lora_dropout": 0.1},
}


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(geometry, configuration) → a directory saved by PEFT, and what PEFT reads from it."""
    known: dict[Any, Any] = {}

    def save(geometry: Geometry, name: str) -> Any:
        import peft  # here, as in what follows: seconds, which not every process of a test run has to wait

        if (geometry, name) not in known:
            directory = tmp_path_factory.mktemp("peft")
            torch.manual_seed(len(known))
            model = peft.get_peft_model(base(geometry), peft.LoraConfig(task_type="CAUSAL_LM", **CONFIGS[name]))
            for key, weights in model.named_parameters():
                if "lora_" in key:
                    torch.nn.init.normal_(weights)
            model.save_pretrained(directory)
            known[geometry, name] = directory, peft_reads(geometry, directory)
        return known[geometry, name]

    return save


def base(geometry: Geometry) -> Any:
    import transformers

    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=300,
            hidden_size=geometry.hidden,
            intermediate_size=geometry.intermediate,
            num_hidden_layers=geometry.layers,
            num_attention_heads=geometry.heads,
            num_key_value_heads=geometry.kv_heads,
            head_dim=geometry.head_dim,
        )
    )


def peft_reads(geometry: Geometry, directory: Path) -> dict[tuple[int, str], tuple[torch.Tensor, torch.Tensor, float]]:
    import peft

    model = peft.PeftModel.from_pretrained(base(geometry), directory)
    return {
        (int(name.split(".layers.")[1].split(".")[0]), name.rsplit(".", 1)[1]): (
            module.lora_A["default"].weight.detach(),
            module.lora_B["default"].weight.detach(),
            module.scaling["default"],
        )
        for name, module in model.named_modules()
        if isinstance(module, peft.tuners.lora.LoraLayer)
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_matrices_ranks_and_scales_are_those_that_peft_reads(geometry: Geometry, saved: Any, name: str) -> None:
    directory, theirs = saved(geometry, name)
    spec, ours = read_adapter(directory, geometry, max_rank=64)
    assert ours.keys() == theirs.keys()
    names = [module.name for module in geometry.modules]
    for (layer, module), (a, b, scale) in theirs.items():
        assert torch.equal(ours[layer, module][0], a)
        assert torch.equal(ours[layer, module][1], b)
        assert spec.scale[layer, names.index(module)] == torch.tensor(scale)
    assert spec.ranks == tuple(max([len(theirs[key][0]) for key in theirs if key[1] == name] or [0]) for name in names)
    assert spec.scale.count_nonzero() == len(theirs)


@pytest.mark.parametrize("name", ["r33", "rank_pattern", "layers_to_transform", "exclude_modules"])
@pytest.mark.parametrize("block", [1, 4])
def test_what_was_packed_is_unpacked(geometry: Geometry, saved: Any, name: str, block: int) -> None:
    spec, matrices = read_adapter(saved(geometry, name)[0], geometry, max_rank=64)
    layout = AdapterLayout(geometry, spec.ranks)
    packed = pack(layout, matrices, geometry.page_elems(block), torch.float32)
    for layer in range(geometry.layers):
        for module, most in zip(geometry.modules, spec.ranks, strict=True):
            a, b = unpack(layout, packed, layer, module.name)
            assert a.shape == (most, module.inputs) and b.shape == (module.outputs, most)
            if (layer, module.name) in matrices:
                own_a, own_b = matrices[layer, module.name]
                rank = len(own_a)
                assert torch.equal(a[:rank], own_a) and torch.equal(b[:, :rank], own_b)
                a, b = a[rank:], b[:, rank:]
            assert not a.any() and not b.any()


def test_the_deltas_of_all_ranks_make_up_the_whole(tiny: Geometry, saved: Any) -> None:
    _, matrices = read_adapter(saved(tiny, "r4 of all")[0], tiny, max_rank=64)
    parts = [Shard(rank, 2).of(matrices, tiny) for rank in range(2)]
    for (layer, name), (a, b) in matrices.items():
        mine = [part[layer, name] for part in parts]
        of_part = next(module for module in tiny.shard(2).modules if module.name == name)
        assert all(half.shape[1] == of_part.inputs for half, _ in mine)
        assert all(len(half) == of_part.outputs for _, half in mine)
        if name in ("o_proj", "down_proj"):
            whole = torch.cat([half @ torch.eye(half.shape[1]) for half, _ in mine], dim=1)
            assert torch.equal(whole, a) and all(torch.equal(half, b) for _, half in mine)
        else:
            assert torch.equal(torch.cat([half for _, half in mine]), b)
            assert all(torch.equal(half, a) for half, _ in mine)
