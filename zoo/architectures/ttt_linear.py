"""TTT-Linear: a linear model, trained as the tokens come, is the state (Sun et al. 2024, arXiv:2407.04620, section 2).

    q, k, v = R conv_q(x W_q), R conv_k(x W_q), x W_v,    f(u; W, b) = LN(u W + b)
    η_t = η_base σ(x_t w + w₀) / d,    c_i = max(0, 1/i + m_i)
    G_t = Σ_{s ≤ t} η_s ∇ ½ |f(k_s; W, b) − (v_s − k_s)|²,    o_t = q_t + f(q_t; (W, b) − c_i G_t)
    y_t = (GELU(x_t W_g) ⊙ LN(o_t)) W_o

per head of width d. The sum runs over the mini-batch of t, of which t is the i-th token; its gradients are at the W and
b before it, and behind its last token W and b have moved by c G. R turns pairs of features by the place i. The first W
and b are learned (`W1`, `b1`), the inner LN has one weight and bias per head, m is `learnable_token_idx`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, Part, State, Traits
from zoo.layers.linear import fan_in_, few, residual_scale
from zoo.layers.norms import LayerNorm
from zoo.layers.positions.in_attention import RoPE
from zoo.layers.ranges import at_least_one, head_width, positive
from zoo.layers.short_convolution import ShortConvolution
from zoo.layers.tensors import in_fp32, merge_heads, split_heads, zero_padding, zeros_fp32
from zoo.ops.precision import at_least_fp32
from zoo.ops.ttt import ttt_linear


@register(
    family="fast weights and matrix states",
    paper="Sun et al. 2024, Learning to (Learn at Test Time): RNNs with Expressive Hidden States, arXiv:2407.04620",
    source="https://github.com/test-time-training/ttt-lm-pytorch (ttt.py, TTTLinear)",
    deviations=(
        "by default with share_qk and use_gate, which the paper calls the Mamba backbone; both are off in the official "
        "configuration",
        "no pre_conv, an option of the official blocks: one more residual branch with a convolution",
        "4 heads; the official models have heads of 64",
        "weights start at N(0, 1/fan_in), not N(0, 0.02), the projection to the residual at 1/√(2·depth) of it; W1 and "
        "the weights of the learning rate keep N(0, 0.02)",
        "the SwiGLU is 8/3 times as wide",
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
)
class TTTLinear(Mixer):
    """TTT-Linear: the state is a linear model, which learns by gradient descent to reconstruct values from keys.

    State: `W` (B, H, d + 1, d), by how much the model has moved, its bias in the last row, and `G` of that shape, both
    in float32 at least; `count` (B), the tokens of the mini-batch under way; `conv` (B, D, conv_kernel − 1), the last
    inputs of the convolutions.

    Args:
        mini_batch_size: tokens that see the same W.
        share_qk, conv_kernel: keys are x W_q as queries are, and each has a convolution of its own; without, keys have
            their own projection and there are no convolutions.
        use_gate: the gate GELU(x W_g).
        ttt_base_lr: η_base. rope_theta: the base of the rotations.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        mini_batch_size: int = 16,
        share_qk: bool = True,
        conv_kernel: int = 4,
        use_gate: bool = True,
        ttt_base_lr: float = 1.0,
        rope_theta: float = 10000.0,
    ) -> None:
        super().__init__(context)
        D, d = context.width, head_width("ttt_linear", context.width, heads)
        at_least_one("ttt_linear", mini_batch_size=mini_batch_size, conv_kernel=conv_kernel)
        positive("ttt_linear", ttt_base_lr=ttt_base_lr, rope_theta=rope_theta)
        if d % 2:
            raise ValueError(f"ttt_linear: rotations turn pairs of features, so a head's width must be even, got {d}")
        self.heads, self.d, self.size, self.ttt_base_lr = heads, d, mini_batch_size, ttt_base_lr
        self.rope = RoPE(heads, d, causal=True, base=rope_theta, convention="interleaved")
        self.learnable_token_idx = nn.Parameter(torch.empty(mini_batch_size))
        self.q_proj = nn.Linear(D, D, bias=False)
        self.k_proj = None if share_qk else nn.Linear(D, D, bias=False)
        self.v_proj = nn.Linear(D, D, bias=False)
        self.o_proj = nn.Linear(D, D, bias=False)
        if share_qk:
            self.conv_q = ShortConvolution(D, conv_kernel, bias=True, activation=None)
            self.conv_k = ShortConvolution(D, conv_kernel, bias=True, activation=None)
        self.learnable_ttt_lr_weight = nn.Parameter(torch.empty(heads, 1, D))
        self.learnable_ttt_lr_bias = nn.Parameter(torch.empty(heads, 1))
        self.ttt_norm_weight = nn.Parameter(torch.empty(heads, d))
        self.ttt_norm_bias = nn.Parameter(torch.empty(heads, d))
        self.g_proj = nn.Linear(D, D, bias=False) if use_gate else None
        self.post_norm = LayerNorm(D, eps=1e-6)
        self.W1 = nn.Parameter(torch.empty(heads, d, d))
        self.b1 = nn.Parameter(torch.empty(heads, 1, d))
        self.reset_parameters(layer=context.layer, depth=context.depth)

    @classmethod
    def width_multiple(cls, *, heads: int, **_: Any) -> int:
        return 2 * heads  # rotations turn pairs of features

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        q, k, new = self._queries(x, mask, state)
        place = torch.arange(x.shape[1], device=x.device) + (0 if state is None else state["count"][:, None])
        place = place.view(-1, x.shape[1]) % self.size
        q, k, v = (split_heads(z, self.heads) for z in (q, k, self.v_proj(x)))
        q, k = self.rope.rotate_both(q, k, place)
        rate, step, start = self._rates(x, place)
        W, under_way = start.expand(len(x), *start.shape), None
        if state is not None:
            W, under_way = W + state["W"], (state["G"], state["count"])
        query, key = (F.pad(at_least_fp32(z), (0, 1), value=1.0) for z in (q, k))  # the 1 reads the bias
        target, weight, bias = at_least_fp32(v) - k, self.ttt_norm_weight, self.ttt_norm_bias
        z, (W, new["G"], new["count"]) = ttt_linear(
            query, key, target, rate, step, weight, bias, W, under_way, mask, size=self.size
        )
        new["W"] = W - start
        y = self.post_norm(merge_heads(self._residual(q, z)).to(x.dtype))
        if self.g_proj is not None:
            y = F.gelu(self.g_proj(x), approximate="tanh") * y
        return self.o_proj(y), None if state is None else new

    def _queries(self, x: Tensor, mask: Mask | None, state: State | None) -> tuple[Tensor, Tensor, State]:
        """q and k of all heads, and the next state of the convolutions."""
        q = self.q_proj(x)
        if self.k_proj is not None:
            return q, self.k_proj(x), {}
        before = None if state is None else state["conv"]
        k, after = self.conv_k(q, mask=mask, state=before, narrow=True)
        return self.conv_q(q, mask=mask, state=before, narrow=True)[0], k, {"conv": after}

    @in_fp32
    def _rates(
        self, x: Float[Tensor, "B T D"], place: Int[Tensor, "#B T"]
    ) -> tuple[Float[Tensor, "B H T"], Float[Tensor, "#B 1 T"], Float[Tensor, "H K V"]]:
        """η; c at these places in a mini-batch; the first W and b, as the rows of one matrix."""
        rate = few(x, self.learnable_ttt_lr_weight[:, 0], self.learnable_ttt_lr_bias[:, 0])
        own = 1 / torch.arange(1, self.size + 1, device=x.device, dtype=x.dtype) + self.learnable_token_idx
        step, first = F.relu(own)[place], torch.cat([self.W1, self.b1], dim=1)
        return self.ttt_base_lr / self.d * rate.sigmoid().transpose(1, 2), step[:, None], first

    @in_fp32
    def _residual(self, q: Float[Tensor, "B H T d"], z: Float[Tensor, "B H T d"]) -> Float[Tensor, "B H T d"]:
        """q + LN(z), as the inner model's output is."""
        normed = F.layer_norm(z, z.shape[-1:], eps=1e-6)
        return q + self.ttt_norm_weight[:, None] * normed + self.ttt_norm_bias[:, None]

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        model = batch, self.heads, self.d + 1, self.d
        state: State = {name: zeros_fp32(*model, device=device, dtype=dtype) for name in "WG"}
        state["count"] = torch.zeros(batch, dtype=torch.long, device=device)
        if self.k_proj is None:
            state["conv"] = self.conv_k.init_state(batch, device=device, dtype=dtype)
        return state

    @torch.no_grad()
    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """W ~ N(0, 1/fan_in), W_o scaled by 1/√(2·depth); W1 and w ~ N(0, 0.02²), norms 1 and 0, all else 0; PyTorch's
        convolutions."""
        for module in self.children():
            if isinstance(module, nn.Linear):
                fan_in_(module, residual_scale(depth) if module is self.o_proj else 1.0)
            elif isinstance(module, ShortConvolution | LayerNorm):
                module.reset_parameters()
        for parameter in (self.W1, self.learnable_ttt_lr_weight):
            nn.init.normal_(parameter, std=0.02)
        for parameter in (self.b1, self.learnable_ttt_lr_bias, self.ttt_norm_bias, self.learnable_token_idx):
            nn.init.zeros_(parameter)
        nn.init.ones_(self.ttt_norm_weight)
