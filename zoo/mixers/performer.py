"""Performer: attention by positive orthogonal random features, FAVOR+ (Choromanski et al. 2021, arXiv:2009.14794).

    y_t = Σ_s φ(q_t)·φ(k_s) v_s / Σ_s φ(q_t)·φ(k_s)
    φ(x) = m^{-½} (exp(W x − |x|²/2 − c) + ε),    x scaled by d^{-¼}                      (kernel="softmax")
    φ(x) = m^{-½} (relu(W x) + ε),                x scaled by d^{-¼}                      (kernel="relu")

E[φ(q)·φ(k)] ∝ exp(q·k / √d) for W ~ N(0, I) (Lemma 1); the rows of W come in orthogonal blocks of d, each row with an
independent χ_d norm (section 3.3). c is a stabiliser that cancels in y but for ε. The sums cost O(T m d), and a causal
model carries S = Σ φ(k) vᵀ and z = Σ φ(k), of m(d + 1) numbers per head. Official code: google-research,
performer/fast_attention/jax/fast_attention.py.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zoo.contract import Mixer, Site, State, Traits, Unsupported
from zoo.initialise import fan_in_, residual_scale
from zoo.mixers.multi_head import head_width
from zoo.ops import precision
from zoo.ops.linear_attention import linear_attention
from zoo.positions import relative
from zoo.positions.in_attention import no_steps, places

Kernel: TypeAlias = Literal["softmax", "relu"]
EPS = {"softmax": 1e-4, "relu": 1e-3}


class Performer(Mixer):
    """FAVOR+ attention, causal or bidirectional.

    Args:
        features: m, the rows of W; None for int(d ln d), d being the width of a head.
        kernel: "softmax" approximates softmax attention; "relu" is the paper's generalised attention, with ReLU.
        eps: ε, positive; None for 1e-4 (softmax) or 1e-3 (relu).
    """

    traits = Traits(causal="strict", bidirectional=True, resumable=True, stochastic=True)
    relative = ("rotation",)
    W: Tensor

    def __init__(
        self,
        site: Site,
        *,
        heads: int = 4,
        features: int | None = None,
        kernel: Kernel = "softmax",
        eps: float | None = None,
    ) -> None:
        super().__init__(site)
        d = head_width("performer", site.width, heads)
        if kernel not in get_args(Kernel):
            raise ValueError(f"performer: kernel {kernel!r} is not one of {', '.join(get_args(Kernel))}")
        if features is not None and features < 1:
            raise ValueError(f"performer: features must be at least 1, got {features}")
        self.eps = EPS[kernel] if eps is None else eps
        if self.eps <= 0:
            raise ValueError(f"performer: eps must be positive, got {eps}; it keeps the normaliser from being 0")
        self.heads, self.causal, self.kernel = heads, site.causal, kernel
        self.placed = site.positions
        self.positions = relative(site.positions, heads=heads, head_width=d, causal=site.causal)
        self.qkv = nn.Linear(site.width, 3 * site.width)
        self.out = nn.Linear(site.width, site.width)
        m = max(1, int(d * math.log(d))) if features is None else features
        self.register_buffer("W", torch.empty(m, d))
        self.redraw()

    @torch.no_grad()
    def redraw(self, generator: torch.Generator | None = None) -> None:
        """Draw new random features W, from torch's global generator if none is given. Nothing else ever does so."""
        self.W.copy_(orthogonal_features(*self.W.shape, generator=generator))

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        state: State | None = None,
    ) -> tuple[Float[Tensor, "B T D"], State | None]:
        B, T, D = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)  # each (B, H, T, D/H)
        now, steps = places(state, T, mask, x.device)
        q, k = self.positions.rotate_both(q, k, now)
        valid = None if mask is None else mask[:, None, :, None]
        with precision.full(x.device):
            dtype = torch.float32 if v.dtype is torch.float16 else v.dtype  # e^64, see below, is too large for float16
            q, k = self.query_features(q).to(dtype), self.key_features(k, valid).to(dtype)
            v = F.pad(v.to(dtype), (0, 1), value=1.0)  # the last column sums to the normaliser
            if valid is not None:
                v = v.masked_fill(~valid, 0)
            y, new = self._causal(q, k, v, state) if self.causal else self._bidirectional(q, k, v, state)
            # A step that has seen no valid key has nothing to average: 0 rather than 0/0.
            total = y[..., -1:]
            y = y[..., :-1] / total.masked_fill(total == 0, 1)
        return self.out(y.to(x.dtype).transpose(1, 2).reshape(B, T, D)), None if new is None else {**new, **steps}

    def query_features(self, q: Float[Tensor, "B H T d"]) -> Float[Tensor, "B H T m"]:
        """√m φ(q), as m^{-½} cancels in y. c is the largest entry of W q at each step (official code)."""
        Wq, half = self._project(q)
        if self.kernel == "relu":
            return Wq.relu() + self.eps
        return (Wq - (half + Wq.detach().amax(-1, keepdim=True))).exp() + self.eps

    def key_features(
        self, k: Float[Tensor, "B H T d"], valid: Bool[Tensor, "B 1 T 1"] | None = None
    ) -> Float[Tensor, "B H T m"]:
        """√m φ(k), and 0 at masked steps."""
        Wk, half = self._project(k)
        if self.kernel == "relu":
            phi = Wk.relu() + self.eps
        elif self.causal:
            # c = 0. The official c, the largest entry of W k over the sequence, lets a later key change how much ε
            # weighs in earlier outputs. None is needed: W k − |k|²/2 ≤ |w|²/2 whatever k is, about d/2. A wide head
            # could still pass float32's e^88 with a key close to one of the w; there, and only there, the bound acts.
            phi = (Wk - half).clamp(max=64.0).exp() + self.eps
        else:
            seen = Wk.detach() if valid is None else Wk.detach().masked_fill(~valid, float("-inf"))
            c = seen.amax((-1, -2), keepdim=True)  # of all valid keys of a row and head
            phi = (Wk - (half + c.masked_fill(c == float("-inf"), 0))).exp() + self.eps
        return phi if valid is None else phi.masked_fill(~valid, 0)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """W x and |x|²/2 for x scaled by d^{-¼}, in float32 at least."""
        x = x.to(torch.promote_types(x.dtype, torch.float32)) * x.shape[-1] ** -0.25
        return x @ self.W.to(x.dtype).T, x.square().sum(-1, keepdim=True) / 2

    def _causal(self, q: Tensor, k: Tensor, v: Tensor, state: State | None) -> tuple[Tensor, State | None]:
        if state is None:
            return linear_attention(q, k, v)[0], None
        S, z = state["S"], state["z"]
        y, S = linear_attention(q, k, v, state=torch.cat([S, z[..., None]], dim=-1))
        return y, {"S": S[..., :-1], "z": S[..., -1]}

    def _bidirectional(self, q: Tensor, k: Tensor, v: Tensor, state: State | None) -> tuple[Tensor, State | None]:
        if state is not None:
            raise Unsupported("a bidirectional Performer cannot continue from a state")
        return q @ (k.transpose(-1, -2) @ v), None

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        """S and z, in float32 at least."""
        m, d = self.W.shape
        dtype = torch.promote_types(dtype, torch.float32)
        S = torch.zeros(batch, self.heads, m, d, device=device, dtype=dtype)
        return {"S": S, "z": S.new_zeros(batch, self.heads, m), **no_steps(batch, self.placed, device)}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """W ~ N(0, 1/fan_in), the projection into the residual stream scaled by 1/√(2·depth); biases zero."""
        fan_in_(self.qkv)
        fan_in_(self.out, residual_scale(depth))


def orthogonal_features(m: int, d: int, *, generator: torch.Generator | None = None) -> Float[Tensor, "m d"]:
    """m rows distributed as N(0, I_d), in blocks of d mutually orthogonal ones (float64, on the CPU).

    The signs of R's diagonal are folded into Q, without which LAPACK's Q is not uniform over the orthogonal matrices.
    """
    blocks = []
    for _ in range(-(-m // d)):
        Q, R = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
        blocks.append((Q * R.diagonal().sign()).T)
    norms = torch.randn(m, d, generator=generator, dtype=torch.float64).norm(dim=-1, keepdim=True)
    return torch.cat(blocks)[:m] * norms
