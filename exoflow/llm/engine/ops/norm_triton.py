"""Small kernels that touch each element once: norm, rotation, gate."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def norm_kernel(x, weight, out, width: tl.constexpr, eps: tl.constexpr, W2: tl.constexpr):
    """RMSNorm of one row; sums in float32."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, W2)
    inside = column < width
    value = tl.load(x + row * width + column, mask=inside, other=0.0).to(tl.float32)
    value = value * tl.rsqrt(tl.sum(value * value, axis=0) / width + eps)
    scaled = value.to(out.dtype.element_ty) * tl.load(weight + column, mask=inside, other=0.0)
    tl.store(out + row * width + column, scaled, mask=inside)


@triton.jit
def add_norm_kernel(x, y, weight, total, out, width: tl.constexpr, eps: tl.constexpr, W2: tl.constexpr):
    """Of one row the sum, rounded as the type has it, and the RMSNorm of that."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, W2)
    inside = column < width
    value = tl.load(x + row * width + column, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(y + row * width + column, mask=inside, other=0.0).to(tl.float32)
    rounded = value.to(out.dtype.element_ty)
    tl.store(total + row * width + column, rounded, mask=inside)
    value = rounded.to(tl.float32)
    value = value * tl.rsqrt(tl.sum(value * value, axis=0) / width + eps)
    scaled = value.to(out.dtype.element_ty) * tl.load(weight + column, mask=inside, other=0.0)
    tl.store(out + row * width + column, scaled, mask=inside)


@triton.jit
def rope_kernel(x, cos, sin, out, x_stride: tl.constexpr, heads: tl.constexpr, HALF: tl.constexpr, H2: tl.constexpr):
    """Rotate the halves of one head of one row, in float32."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    d = tl.arange(0, H2)
    inside = d < HALF
    source = x + row * x_stride + head * 2 * HALF + d
    first = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(source + HALF, mask=inside, other=0.0).to(tl.float32)
    c = tl.load(cos + row * 2 * HALF + d, mask=inside, other=0.0).to(tl.float32)
    s = tl.load(sin + row * 2 * HALF + d, mask=inside, other=0.0).to(tl.float32)
    target = out + (row * heads + head) * 2 * HALF + d
    tl.store(target, (first * c - second * s).to(out.dtype.element_ty), mask=inside)
    tl.store(target + HALF, (second * c + first * s).to(out.dtype.element_ty), mask=inside)


@triton.jit
def silu_mul_kernel(x, out, width: tl.constexpr, BLOCK: tl.constexpr):
    """``silu(gate) * up`` of a part of one row ``[gate, up]``."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    gate = tl.load(x + row * 2 * width + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(x + row * 2 * width + width + column, mask=inside, other=0.0)
    tl.store(out + row * width + column, (gate * tl.sigmoid(gate)).to(up.dtype) * up, mask=inside)


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    flat = x.reshape(-1, x.shape[-1])
    out = torch.empty_like(flat)
    width = flat.shape[-1]
    norm_kernel[(len(flat),)](
        flat, weight, out, width, eps, W2=triton.next_power_of_2(width), num_warps=8 if width > 2048 else 4
    )
    return out.view(x.shape)


def add_norm(x: Tensor, y: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """X and y ``[rows, width]``, without gaps."""
    total, out = torch.empty_like(x), torch.empty_like(x)
    width = x.shape[-1]
    warps = 8 if width > 2048 else 4
    add_norm_kernel[(len(x),)](x, y, weight, total, out, width, eps, W2=triton.next_power_of_2(width), num_warps=warps)
    return total, out


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """X ``[rows, heads, dim]``, its heads side by side; rows may be apart."""
    rows, heads, dim = x.shape
    out = torch.empty(rows, heads, dim, dtype=x.dtype, device=x.device)
    half = dim // 2
    rope_kernel[(rows, heads)](
        x, cos, sin, out, x.stride(0), heads, HALF=half, H2=triton.next_power_of_2(half), num_warps=2
    )
    return out


def silu_mul(x: Tensor) -> Tensor:
    rows, width = x.shape[0], x.shape[1] // 2
    out = torch.empty(rows, width, dtype=x.dtype, device=x.device)
    silu_mul_kernel[(rows, triton.cdiv(width, 1024))](x, out, width, BLOCK=1024)
    return out
