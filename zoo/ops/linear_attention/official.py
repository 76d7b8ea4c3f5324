"""Linear attention by the Triton kernels of flash-linear-attention (fla-org/flash-linear-attention, fla/ops), one for
each kind of decay, in the package fla-core. They have time before heads and the state as we do, (B, H, K, V)."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from zoo.ops import official, precision
from zoo.ops.linear_attention import naive


def linear_attention(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, state: Tensor | None, bonus: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """As `naive.recurrent`, or None where fla's kernel may not be used.

    Matrix products run in bfloat16 where q, k and v are that, or autocast says so.
    """
    if bonus is not None and (log_decay is None or log_decay.ndim == 3):
        return None
    if bonus is not None:
        kernel = BONUS
    elif log_decay is None:
        kernel = PLAIN
    else:
        kernel = PER_HEAD if log_decay.ndim == 3 else PER_CHANNEL
    sizes = q.shape[1], v.shape[1], q.shape[-1], v.shape[-1]
    return official.serve(kernel, precision.matmul_dtype(q, k, v), sizes, q, k, v, log_decay, state, bonus)


def by_fla(module: str, name: str, *inputs: Tensor, state: Tensor | None, **options: Any) -> tuple[Tensor, Tensor]:
    """`name` of fla.ops.`module` on inputs (B, H, T, …): output (B, H, T, V) and last state (B, H, K, V)."""
    function = getattr(import_module(f"fla.ops.{module}"), name)
    by_time = [x.transpose(1, 2).contiguous() for x in inputs]
    first = None if state is None else state.float().contiguous()
    o, S = function(*by_time, scale=1.0, initial_state=first, output_final_state=True, **options)
    return o.transpose(1, 2), S


def decay(log_decay: Tensor, rows: int) -> Tensor:
    """ln a in float32, for each row, bounded from below: differences of sums from the start stand in the official."""
    return log_decay.float().clamp(min=official.LOWEST).expand(rows, *log_decay.shape[1:])


def drawn_decay(random: torch.Generator, *shape: int) -> Tensor:
    """ln a: in the first row fast, and −inf now and then; in the second slow."""
    rates = torch.tensor([5.0, 0.05], dtype=torch.float64).view(2, *[1] * (len(shape) - 1))
    log_decay = -rates * torch.rand(shape, generator=random, dtype=torch.float64)
    all_gone = (torch.rand(shape, generator=random) < 1 / 30) & (rates > 1)
    return log_decay.masked_fill(all_gone, -torch.inf)


def _draw(per_channel: bool) -> Any:
    def draw(random: torch.Generator, T: int, G: int, H: int, K: int, V: int) -> list[Tensor]:
        shapes = (2, G, T, K), (2, G, T, K), (2, H, T, V), (2, H, K, V), (H, K)
        q, k, v, state, bonus = (torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes)
        log_decay = drawn_decay(random, 2, H, T, *([K] if per_channel else []))
        return [q, k * K**-0.5, v, log_decay, state, bonus]

    return draw


def _kernel(module: str, function: str, per_channel: bool = False, **options: Any) -> official.Official:
    def run(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        log_decay: Tensor | None = None,
        state: Tensor | None = None,
        bonus: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        dtype = precision.matmul_dtype(q, k, v)
        inputs = [naive.repeat(x.to(dtype), v.shape[1]) for x in (q, k, v)]
        inputs += [] if log_decay is None else [decay(log_decay, len(v))]
        u = {} if bonus is None else {"u": bonus.float()}
        o, S = by_fla(module, function, *inputs, state=state, **u, **options)
        return o.to(v.dtype), S

    return official.Official(
        "linear_attention",
        f"fla {function}",
        package="fla",
        install="fla-core",
        run=run,
        naive=naive.recurrent,
        draw=_draw(per_channel),
    )


PLAIN = _kernel("linear_attn", "chunk_linear_attn", normalize=False)
PER_HEAD = _kernel("simple_gla", "chunk_simple_gla")
PER_CHANNEL = _kernel("gla", "chunk_gla", per_channel=True)
BONUS = _kernel("rwkv6", "chunk_rwkv6", per_channel=True)
KERNELS = (PLAIN, PER_HEAD, PER_CHANNEL, BONUS)
