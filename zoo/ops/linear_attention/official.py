"""Linear attention by the Triton kernels of flash-linear-attention (fla-org/flash-linear-attention, fla/ops), one for
each kind of decay, in the package fla-core. They have time before heads and the state as we do, (B, H, K, V)."""

from functools import partial
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.ops import official, precision
from zoo.ops.linear_attention import naive


def linear_attention(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, state: Tensor | None, bonus: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """As `naive.recurrent`, or None where fla's kernel may not be used."""
    by_channel = log_decay is not None and log_decay.ndim == 4
    if bonus is not None and not by_channel:
        return None
    kernel = BONUS if bonus is not None else PLAIN if log_decay is None else PER_CHANNEL if by_channel else PER_HEAD
    return compute(kernel, q, k, v, log_decay, state, bonus)


def compute(kernel: official.Official, *inputs: Any, multiplied: int = 3) -> tuple | None:
    """See `official.compute`; inputs are q, k, v and others.

    Matrix products run in bfloat16 where what they read, the first `multiplied` inputs, is that, or autocast says so.
    """
    q, _, v = inputs[:3]
    sizes = q.shape[1], v.shape[1], q.shape[-1], v.shape[-1]
    return official.compute(kernel, precision.matmul_dtype(*inputs[:multiplied]), sizes, *inputs)


def fla_kernel(
    op: str,
    path: str,
    arguments: str,
    naive_form: Any,
    dtypes: Any = official.DTYPES,
    without: str = "",
    **options: Any,
) -> official.Official:
    """`module.function` of fla.ops; `arguments` are its names for those of the naive form, in their order, of which it
    is always `without` some."""
    module, name = path.split(".")

    def run(*inputs: Tensor | None) -> tuple[Tensor, Tensor]:
        given = {of: x for of, x in zip(arguments.split(), inputs, strict=True) if x is not None}
        B, H, v = *given["v"].shape[:2], given["v"]
        dtype = precision.matmul_dtype(*(x for of, x in given.items() if of in MULTIPLIED))
        for of, x in given.items():
            if of in MULTIPLIED:
                x = naive.repeat(x.to(dtype), H)
            elif of in DECAYS:  # bounded from below: differences of sums from the start stand in the official
                x = x.float().clamp(min=official.LOWEST).expand(B, *x.shape[1:])
            else:
                x = x.float()
            given[of] = (x if of in UNTIMED else x.transpose(1, 2)).contiguous()
        function = getattr(import_module(f"fla.ops.{module}"), name)
        o, S = function(**given, scale=1.0, output_final_state=True, **options)
        return o.transpose(1, 2).to(v.dtype), S

    draw = partial(_draw, arguments, name in PER_CHANNEL_DECAYS)
    unused = tuple(arguments.split().index(argument) for argument in without.split())
    install = "pip install 'zoobench[fla]'"
    return official.Official(op, f"fla {name}", "fla", install, run, naive_form, draw, (2, 2, 64, 64), unused, dtypes)


PER_CHANNEL_DECAYS = ("chunk_gla", "chunk_rwkv6", "chunk_dplr_delta_rule")
"""Kernels with a decay per channel."""
MULTIPLIED, DECAYS, UNTIMED = ("q", "r", "k", "v", "a", "b"), ("g", "w", "gk"), ("u", "initial_state")
"""Names of arguments: read by matrix products, log decays, and those that do not vary with time."""


def _draw(
    arguments: str, per_channel: bool, random: torch.Generator, T: int, G: int, H: int, K: int, V: int
) -> list[Tensor]:
    """Unit keys, β between 0 and 1, and a and b as RWKV-7 has them, −κ̂ and κ̂ ⊙ rate; all else is normal, but decays."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    q, k, key = normal(2, G, T, K), *(F.normalize(normal(2, heads, T, K), dim=-1) for heads in (G, H))
    drawn = {"q": q, "r": q, "k": k, "v": normal(2, H, T, V), "beta": normal(2, H, T).sigmoid(), "u": normal(H, K)}
    drawn |= {"a": -key, "b": key * normal(2, H, T, K).sigmoid(), "initial_state": normal(2, H, K, V)}
    drawn |= dict.fromkeys(DECAYS, _draw_decay(random, 2, H, T, *([K] if per_channel else [])))
    return [drawn[argument] for argument in arguments.split()]


def _draw_decay(random: torch.Generator, *shape: int) -> Tensor:
    """ln a: in the first row fast, and −inf now and then; in the second slow."""
    rates = torch.tensor([5.0, 0.05], dtype=torch.float64).view(2, *[1] * (len(shape) - 1))
    log_decay = -rates * torch.rand(shape, generator=random, dtype=torch.float64)
    all_gone = (torch.rand(shape, generator=random) < 1 / 30) & (rates > 1)
    return log_decay.masked_fill(all_gone, -torch.inf)


_kernel = partial(fla_kernel, "linear_attention", naive_form=naive.recurrent)
PLAIN = _kernel("linear_attn.chunk_linear_attn", "q k v g initial_state u", without="g u", normalize=False)
PER_HEAD = _kernel("simple_gla.chunk_simple_gla", "q k v g initial_state u", without="u")
PER_CHANNEL = _kernel("gla.chunk_gla", "q k v g initial_state u", without="u")
BONUS = _kernel("rwkv6.chunk_rwkv6", "r k v w initial_state u")
KERNELS = (PLAIN, PER_HEAD, PER_CHANNEL, BONUS)
