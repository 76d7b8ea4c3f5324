"""Nyströmformer: softmax attention through m landmarks (Xiong et al. 2021, arXiv:2102.03902, sections 3.2 to 3.4).

    S ≈ softmax(Q K̃ᵀ) Z softmax(Q̃ Kᵀ),    y = S V + conv(V),    Q and K scaled by d^{−1/4}

Q̃, K̃ are the means of Q and K over m segments of the sequence, Z is 6 steps of an iteration towards the pseudo-inverse
of A = softmax(Q̃ K̃ᵀ), and conv a depthwise convolution along time, one filter per head:

    Z ← ¼ Z (13 I − A Z (15 I − A Z (7 I − A Z))),    Z₀ = Aᵀ / max column sum of A                          (eq. 11)

A sequence of at most m steps has full softmax attention, as in the official code at T = m. Segments divide a row's
valid steps, so that padding moves none.
"""

import dataclasses
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, State, Traits
from zoo.layers.linear import Linear, branch_
from zoo.layers.multi_head import MultiHead
from zoo.layers.ranges import at_least_one
from zoo.layers.tensors import in_fp32, merge_heads, split_heads, zero_padding


@register(
    family="efficient attention",
    paper="Xiong et al. 2021, Nyströmformer: A Nyström-Based Algorithm for Approximating Self-Attention, "
    "arXiv:2102.03902",
    source="https://github.com/mlpen/Nystromformer (code/attention_nystrom.py)",
    deviations=(
        "init_option is 'exact' by default, the paper's ||A||_1 of each matrix; the official default divides by the "
        "largest of the batch, so that an output depends on what stands beside it",
        "segments divide the valid steps of a row, and lengths that are no multiple of num_landmarks are taken as they "
        "are; the official code has one fixed length, padding included in its segments' means",
        "rows of at most num_landmarks steps have full softmax attention; the official code, at exactly that length",
        "residual type, GELU and initialisation (but for the convolution's, PyTorch's) are pre_ln's",
    ),
    positions="learned",
)
class Nystromformer(MultiHead):
    """Transformer whose softmax attention goes through landmarks and a pseudo-inverse; never causal.

    Args:
        num_landmarks: m.
        conv_kernel_size: steps of the convolution's filter, odd; None for no convolution.
        init_option: the column sums of Z₀ are those of each head and row ("exact"), or of the largest in the batch
            ("original", the official default, with which an output depends on its batch).
        iterations: steps towards the pseudo-inverse.
    """

    traits = Traits(causal="no", bidirectional=True, resumable=False)
    feeds_matmul_only = True
    relative = ("rotation",)

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        num_landmarks: int = 64,
        conv_kernel_size: int | None = 65,
        init_option: Literal["exact", "original"] = "exact",
        iterations: int = 6,
    ) -> None:
        super().__init__(context, "nystromformer", heads)
        at_least_one("nystromformer", num_landmarks=num_landmarks, iterations=iterations)
        if conv_kernel_size is not None and (conv_kernel_size < 1 or conv_kernel_size % 2 == 0):
            raise ValueError(f"nystromformer: conv_kernel_size must be odd, got {conv_kernel_size}")
        self.m, self.init_option, self.iterations = num_landmarks, init_option, iterations
        if init_option == "original":  # the batch's padding and rows set the scale
            self.traits = dataclasses.replace(self.traits, padding_safe=False)  # type: ignore[misc]
        self.query, self.key, self.value = (Linear(context.width, context.width) for _ in range(3))
        self.out = Linear(context.width, context.width)
        self.conv = None
        if conv_kernel_size is not None:
            size, pad = (conv_kernel_size, 1), (conv_kernel_size // 2, 0)
            self.conv = nn.Conv2d(heads, heads, size, padding=pad, bias=False, groups=heads)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        q, k, v = (split_heads(layer(x), self.heads) for layer in (self.query, self.key, self.value))
        y = self._landmark_attention(q, k, v, mask)
        return self.out(merge_heads(y.to(x.dtype))), None

    @in_fp32
    def _landmark_attention(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask | None) -> Float[Tensor, "B H T d"]:
        """S V + conv(V)."""
        q, k = self.positions.rotate_both(q, k, torch.arange(q.shape[2], device=q.device)[None])
        q, k = (z * z.shape[-1] ** -0.25 for z in (q, k))
        q, k, v = (zero_padding(z, mask, 2) for z in (q, k, v))
        y = self.attend(q, k, v, mask)
        if self.conv is None:
            return y
        return y + F.conv2d(v, self.conv.weight.to(v.dtype), padding=self.conv.padding, groups=self.heads)

    def attend(
        self,
        q: Float[Tensor, "B H T d"],
        k: Float[Tensor, "B H T d"],
        v: Float[Tensor, "B H T d"],
        mask: Mask | None = None,
    ) -> Float[Tensor, "B H T d"]:
        """S V for scaled q, k; rows of at most m valid steps by full attention."""
        T, m = q.shape[2], self.m
        if m >= T:
            return softmax(q @ k.mT, mask) @ v
        Q, K = landmarks(q, m, mask), landmarks(k, m, mask)
        left, A, right = softmax(q @ K.mT), softmax(Q @ K.mT), softmax(Q @ k.mT, mask)
        y = (left @ self.inverse(A)) @ (right @ v)
        if mask is None:
            return y
        few = mask.sum(1) <= m  # all their valid steps are among the first m
        short = softmax(q[:, :, :m] @ k[:, :, :m].mT, mask[:, :m]) @ v[:, :, :m]
        return torch.where(few[:, None, None, None], F.pad(short, (0, 0, 0, T - m)), y)

    def inverse(self, A: Float[Tensor, "B H m m"]) -> Float[Tensor, "B H m m"]:
        """Z, close to the pseudo-inverse of the stochastic matrix A (section 3.3, eq. 11)."""
        columns = A.sum(-2)
        largest = columns.amax() if self.init_option == "original" else columns.amax(-1)[..., None, None]
        Z, eye = A.mT / largest, torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
        for _ in range(self.iterations):
            AZ = A @ Z
            Z = 0.25 * Z @ (13 * eye - AZ @ (15 * eye - AZ @ (7 * eye - AZ)))
        return Z

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """See `branch_`; the convolution keeps PyTorch's."""
        branch_(self.query, self.key, values=self.value, out=self.out, depth=depth, gain=self.gain)
        if self.conv is not None:
            self.conv.reset_parameters()


def softmax(scores: Float[Tensor, "B H T S"], valid: Bool[Tensor, "B S"] | None = None) -> Float[Tensor, "B H T S"]:
    """Over valid keys; uniform, and finite, where there are none."""
    if valid is not None:
        scores = scores.masked_fill(~valid[:, None, None, :], torch.finfo(scores.dtype).min)
    return scores.softmax(-1)


def landmarks(z: Float[Tensor, "B H T d"], m: int, mask: Mask | None = None) -> Float[Tensor, "B H m d"]:
    """The mean of each of m segments of the valid steps: step s of n belongs to segment ⌊s m / n⌋ (section 3.2)."""
    B, H, T, d = z.shape
    if mask is None and T % m == 0:
        return z.view(B, H, m, T // m, d).mean(-2)
    s, segment = torch.arange(T, device=z.device), torch.arange(m, device=z.device)[:, None]
    if mask is None:
        member = (s * m // T == segment)[None]
    else:
        n = mask.sum(1)[:, None, None]
        member = (s * m // n.clamp(min=1) == segment) & (s < n)
    weights = member.to(z.dtype)
    return (weights / weights.sum(-1, keepdim=True).clamp(min=1))[:, None] @ z
