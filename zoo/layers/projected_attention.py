"""What attention of other kinds shares: projections, norms and rotations of queries and keys by head.

Parameters are named as in flash-linear-attention (fla/layers/attn.py).
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from zoo.contract import LayerContext, State, Traits
from zoo.layers.linear import branch_
from zoo.layers.multi_head import MultiHead
from zoo.layers.norms import HeadNorm
from zoo.layers.ranges import shared_heads
from zoo.layers.tensors import split_heads


class ProjectedAttention(MultiHead):
    """q, k, v = R norm(x W_q), R norm(x W_k), x W_v of each head, and W_o.

    Args:
        kv_heads: heads of keys and values, each shared by heads / kv_heads query heads; None for as many.
        qkv_bias: of W_q, W_k and W_v. qk_norm: RMSNorm over each head of q and k.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)
    relative = ("rotation",)

    def __init__(
        self,
        context: LayerContext,
        name: str,
        *,
        heads: int,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        qkv_bias: bool,
        qk_norm: bool = False,
    ) -> None:
        super().__init__(context, name, heads, head_dim)
        self.kv_heads, D, d = shared_heads(name, heads, kv_heads), context.width, self.head_width
        self.q_proj = nn.Linear(D, heads * d, bias=qkv_bias)
        self.k_proj = nn.Linear(D, self.kv_heads * d, bias=qkv_bias)
        self.v_proj = nn.Linear(D, self.kv_heads * d, bias=qkv_bias)
        self.q_norm, self.k_norm = (HeadNorm(d, 1e-5) if qk_norm else None for _ in range(2))
        self.o_proj = nn.Linear(heads * d, D, bias=False)

    @classmethod
    def width_multiple(cls, *, heads: int, head_dim: int | None = None, **_: Any) -> int:
        return 2 * heads if head_dim is None else 1  # rotations turn pairs of features

    def project(
        self, x: Float[Tensor, "B T D"], now: Int[Tensor, "#B T"]
    ) -> tuple[Float[Tensor, "B H T d"], Float[Tensor, "B G T d"], Float[Tensor, "B G T d"]]:
        """q, k and v of the steps `now`."""
        q, k = self.rotated(self.q_proj(x), self.q_norm, now), self.rotated(self.k_proj(x), self.k_norm, now, key=True)
        return q, k, split_heads(self.v_proj(x), self.kv_heads)

    def rotated(
        self, x: Float[Tensor, "B T F"], norm: HeadNorm | None, now: Int[Tensor, "#B T"], *, key: bool = False
    ) -> Float[Tensor, "B H T d"]:
        """Queries, or keys, by head, normed and turned."""
        y = split_heads(x, self.kv_heads if key else self.heads)
        y = y if norm is None else norm(y).to(x.dtype)
        return self.positions.rotate(y, now, key=key)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        empty = torch.empty(batch, self.kv_heads, 0, self.head_width, device=device, dtype=dtype)
        return {"k": empty, "v": empty}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """See `branch_`; norm weights one."""
        linear = [module for module in self.modules() if isinstance(module, nn.Linear)]
        branch_(*linear, values=self.v_proj, out=self.o_proj, depth=depth, gain=self.gain)
        for module in self.modules():
            if isinstance(module, HeadNorm):
                module.reset_parameters()
