"""Products with packed weights are those with weights as they come."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from exoflow.llm.engine.ops.products import packed, product


@pytest.mark.parametrize("rows", [0, 1, 2, 5, 32, 100])
@pytest.mark.parametrize("biased", [False, True])
def test_a_packed_weight_gives_the_product_of_the_weight(rows: int, biased: bool) -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(72, 48), torch.randn(rows, 96)[:, ::2]
    bias = torch.randn(72) if biased else None
    y = product(x, packed(weight), bias)
    assert y.shape == (rows, 72)
    torch.testing.assert_close(y, functional.linear(x, weight, bias), rtol=1e-5, atol=1e-5)


def test_a_float32_weight_on_a_cpu_is_packed() -> None:
    assert packed(torch.randn(8, 8)).is_mkldnn == torch.backends.mkldnn.is_available()


def test_weights_of_other_types_stay_as_they_are() -> None:
    weight = torch.randn(8, 8, dtype=torch.bfloat16)
    assert packed(weight) is weight
    assert torch.equal(product(weight, weight), functional.linear(weight, weight))
