"""What both layers of xLSTM are made of (Beck et al. 2024, arXiv:2405.04517; official: NX-AI/xlstm, components)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.layers.tensors import in_fp32


class MultiHeadLayerNorm(nn.Module):
    """(x − mean)/std over each head's channels, times 1 + w (xlstm/components/ln.py)."""

    def __init__(self, width: int, heads: int, *, weight: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        self.heads, self.eps = heads, eps
        self.weight = nn.Parameter(torch.zeros(width)) if weight else None

    @in_fp32
    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        x = x.unflatten(-1, (self.heads, -1))
        x = F.layer_norm(x, x.shape[-1:], eps=self.eps).flatten(-2)
        return x if self.weight is None else x * (1 + self.weight)

    def reset_parameters(self) -> None:
        """w = 0."""
        if self.weight is not None:
            nn.init.zeros_(self.weight)


class LinearHeadwise(nn.Module):
    """A block-diagonal matrix: each of `heads` groups of channels has its own (components/linear_headwise.py)."""

    def __init__(self, width: int, heads: int, *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, width // heads, width // heads))
        self.bias = nn.Parameter(torch.empty(width)) if bias else None

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "G B T d"]:
        """The outputs of each block by themselves, one contiguous matrix per block."""
        return _by_block(x, self.weight, self.bias)

    def by_head(self, x: Float[Tensor, "B T D"], heads: int) -> Float[Tensor, "B H T d"]:
        """The outputs of each of `heads` heads, which may have many blocks. Small ones are multiplied as one."""
        blocks, d, _ = self.weight.shape
        weight: Tensor = self.weight
        several = min(blocks // heads, max(1, DENSE // d)) if blocks % heads == 0 else 1
        while blocks % several or (blocks // heads) % several:
            several -= 1
        if several > 1:
            group = weight.view(-1, several, d, d).permute(0, 2, 3, 1)  # (G, out, in, block)
            weight = torch.diag_embed(group).permute(0, 3, 1, 4, 2).reshape(-1, several * d, several * d)
        y = _by_block(x, weight, self.bias)
        if blocks % heads:  # heads share blocks
            return y.permute(1, 2, 0, 3).flatten(2).unflatten(-1, (heads, -1)).transpose(1, 2).contiguous()
        return y.unflatten(0, (heads, -1)).permute(2, 0, 3, 1, 4).flatten(3)

    def before(self, weight: Float[Tensor, "F D"]) -> Float[Tensor, "F D"]:
        """The matrix of `weight` after this one."""
        blocks, d, _ = self.weight.shape
        product = torch.bmm(weight.unflatten(1, (blocks, d)).transpose(0, 1), self.weight.to(weight.dtype))
        return product.transpose(0, 1).flatten(1)


DENSE = 32
"""Blocks narrower than this are put together up to it: products of smaller matrices take longer."""


def _by_block(x: Tensor, weight: Tensor, bias: Tensor | None) -> Float[Tensor, "G B T d"]:
    (B, T, _), (G, d, _) = x.shape, weight.shape
    by_block = x.reshape(B * T, G, d).transpose(0, 1).contiguous()  # its transpose meets gradients in the backward pass
    y = torch.bmm(by_block, weight.mT)
    return (y if bias is None else y + bias.view(G, 1, d)).view(G, B, T, d)
