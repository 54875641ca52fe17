"""Products with weights. On a CPU these are packed once as oneDNN wants them: of 1 to 64 rows, which read all weights
for few products, it makes about twice as many a second as MKL does with weights as they come.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

ROWS = 32
"""For so many the layout is chosen; fewer and more go with it, at no less than MKL's speed (1 to 1,024 were tried)."""


def packed(weight: Tensor) -> Tensor:
    """The same for ``product`` alone: float32 on a CPU where torch has oneDNN; else it stays as it is."""
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or not has_onednn:
        return weight
    # What torch.compile makes of a frozen linear layer; there is no public name for it.
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), ROWS)  # type: ignore[no-any-return]


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``, ``[rows, outputs]``, of a weight ``[outputs, inputs]``, packed or not."""
    if not weight.is_mkldnn:
        return functional.linear(x, weight, bias)
    if not len(x):
        return x.new_empty(0, len(weight))
    return torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, "none", [], "")  # type: ignore[no-any-return]
