"""S4 (Gu et al. 2022, arXiv:2111.00396, section 3).

Every channel is a linear system whose A is diagonal plus low rank, discretised by the bilinear rule at its own Δ:

    x' = A x + B u,    A = Λ − Σ_r P_r P_r*,    y_t = C x_t + D u_t,    out = GLU(W GELU(y) + b)

Over a whole sequence y = K ∗ u + D u with K_l = C Ā^l B̄, from the spectrum of K by the Cauchy form (`zoo.ops.cauchy`).
That form takes C̃ = C (I − Ā^L), and C̃ is what is learned (section 3.2): the parameter `C` holds C̃ for the length
L = `l_kernel`. All N modes come in conjugate pairs, of which N/2 are kept, with Λ = −e^{log_A_real} − i A_imag.
"""

from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, ParamOverride, State, Traits
from zoo.layers import dplr, hippo
from zoo.layers.linear import Linear, log_step_
from zoo.layers.ranges import at_least_one, check_step_sizes
from zoo.layers.tensors import align_right, in_fp32, zero_padding, zeros_fp32
from zoo.ops import cauchy
from zoo.ops.long_convolution import convolve

PIECE = 512
"""Steps that are taken at once from a state: their powers of Ā are written out."""


class Dense(NamedTuple):
    """The system in discrete time and real coordinates, N each."""

    A: Float[Tensor, "H N N"]
    B: Float[Tensor, "H N"]
    C: Float[Tensor, "K H N"]


@register(
    family="state spaces and long convolutions",
    paper="Gu et al. 2022, Efficiently Modeling Long Sequences with Structured State Spaces, arXiv:2111.00396",
    source="https://github.com/state-spaces/s4 (models/s4/s4.py, S4Block with SSMKernelDPLR)",
    deviations=(
        "one Δ and one state per channel and no dropout inside the layer; LayerNorm stands before the layer",
        "the parameter C is C̃ = C(I − Ā^L), as the official code's is after its first forward pass, from the start and "
        "with L the length the model is built for; longer inputs carry C̃ on without rewriting the parameter",
        "the frequency form is multiplied through by (1 + ω)/2, which the official code divides by, zero at ω = −1",
        "eigenvectors of HiPPO have their first component positive; B is clipped at that phase (official: ± of it)",
        "for both directions the framework sums two layers, where the official layer has a two-sided kernel",
        "parameters are named log_dt, log_A_real, output for inv_dt, A_real, output_linear.0",
    ),
    channel=None,
)
class S4(Mixer):
    """S4: a diagonal-plus-low-rank HiPPO system per channel, run as a long convolution, then GELU and a GLU.

    State: `x` (B, D, N/2, 2), real and imaginary parts, in float32 at least.

    Args:
        d_state: N, even. init: `legs`, `legt` (rank 2), `fout`, or `hippo` (legs and fout in turn halves of n_ssm).
        rank: of the correction P. n_ssm: how many different (A, B, P) the channels share; by default each has its own.
        channels: outputs y of each system. dt_min, dt_max: Δ starts log-uniform between them.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)
    l_kernel: Tensor

    def __init__(
        self,
        context: LayerContext,
        *,
        d_state: int = 64,
        init: Literal["legs", "legt", "fout", "hippo"] = "legs",
        rank: int = 1,
        n_ssm: int | None = None,
        channels: int = 1,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
    ) -> None:
        super().__init__(context)
        H, M, S = context.width, d_state // 2, context.width if n_ssm is None else n_ssm
        if d_state < 2 or d_state % 2:
            raise ValueError(f"s4: d_state {d_state} must be even, modes come in conjugate pairs")
        if S < 1 or H % S:
            raise ValueError(f"s4: width {H} does not divide into n_ssm {S} systems")
        at_least_one("s4", channels=channels)
        check_step_sizes("s4", dt_min, dt_max)
        self.init, self.dt_min, self.dt_max, self.length = init, dt_min, dt_max, context.length
        hippo.combination(init, d_state, rank, S)  # says what cannot be
        self.log_dt = nn.Parameter(torch.empty(H, 1))
        self.log_A_real, self.A_imag = (nn.Parameter(torch.empty(S, M)) for _ in range(2))
        self.P = nn.Parameter(torch.empty(rank, S, M, 2))
        self.B = nn.Parameter(torch.empty(1, S, M, 2))
        self.C = nn.Parameter(torch.empty(channels, H, M, 2))
        self.D = nn.Parameter(torch.empty(channels, H))
        self.output = Linear(channels * H, 2 * H)
        self.register_buffer("l_kernel", torch.zeros((), dtype=torch.long))
        self._read: tuple[Any, int] = (None, 0)
        self._kept: tuple[Any, Any, Dense | None] = (None, None, None)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    @classmethod
    def width_multiple(cls, *, n_ssm: int | None, init: str, **_: Any) -> int:
        return max(1, n_ssm or (2 if init == "hippo" else 1))

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        if self.kernel_length == 0:
            self.attune_(x.shape[1])  # as the official code does in its first forward pass
        u = zero_padding(x, mask)
        y, new = (self._sequence(u), None) if state is None else self._resume(u, mask, state)
        return F.glu(self.output(F.gelu(y).to(x.dtype)), dim=-1), new

    @in_fp32
    def continuous(self) -> tuple[Complex[Tensor, "H M"], Complex[Tensor, "R H M"], Complex[Tensor, "H M"]]:
        """ΔΛ, √Δ P and ΔB of every channel; channel h shares those of system h mod n_ssm."""
        copies, dt = len(self.log_dt) // len(self.A_imag), self.log_dt.exp()
        A = -torch.complex(self.log_A_real.exp(), self.A_imag).repeat(copies, 1)
        P, B = torch.view_as_complex(self.P), torch.view_as_complex(self.B)[0]
        return dt * A, dt.sqrt() * P.repeat(1, copies, 1), dt * B.repeat(copies, 1)

    @in_fp32
    def kernel(self, T: int) -> Float[Tensor, "K H T"]:
        """K_l for l < T. Beyond `kernel_length` L, C̃ is carried on: C (I − Ā^{2L}) = C̃ (I + Ā^L)."""
        (a, p, b), c, L = self.continuous(), torch.view_as_complex(self.C), self.kernel_length
        if L < T:
            A, _ = dplr.transition(a, p, b)
            row, power = dplr.row(c), torch.linalg.matrix_power(A, L)
            while L < T:
                row, power, L = row + _times(row, power), power @ power, 2 * L
            c = dplr.unrow(row)
        return cauchy.kernel(a, p, b, c, L)[..., :T]

    def dense(self) -> Dense:
        """The system to step with. Without gradients it is made once for given parameters."""
        if torch.is_grad_enabled() or self.C.is_meta:
            return self._dense()
        own = [*(getattr(self, name) for name in SYSTEM), self.l_kernel]
        stamp = [(p.data_ptr(), p._version, p.dtype) for p in own]
        if self._kept[0] != stamp or self._kept[2] is None:
            # The parameters are held too, so that their addresses cannot come to mean others.
            self._kept = stamp, [p.detach() for p in own], self._dense()
        assert self._kept[2] is not None
        return self._kept[2]

    @in_fp32
    def _dense(self) -> Dense:
        A, B = dplr.transition(*self.continuous())
        row = 2 * dplr.row(torch.view_as_complex(self.C))
        whole = _decay(A, self.kernel_length)
        C = torch.linalg.solve(whole, row.transpose(0, 1).to(whole.dtype), left=False).transpose(0, 1)
        return Dense(A, B, C.to(A.dtype))

    @in_fp32
    def _sequence(self, u: Float[Tensor, "B T D"]) -> Float[Tensor, "B T KD"]:
        """y = K ∗ u + D u."""
        return _convolve(u, self.kernel(u.shape[1]), self.D.flatten())

    @in_fp32
    def _resume(
        self, u: Float[Tensor, "B T D"], mask: Mask | None, state: State
    ) -> tuple[Float[Tensor, "B T KD"], State]:
        """y from x_0: one step as it reads; more in pieces, each with its powers of Ā."""
        (A, B, C), x, outputs = self.dense(), state["x"].flatten(2), []
        P = dplr.powers(A, min(u.shape[1], PIECE))
        masks = (None,) * len(u.split(PIECE, dim=1)) if mask is None else mask.split(PIECE, dim=1)
        for part, valid in zip(u.split(PIECE, dim=1), masks, strict=True):
            T = part.shape[1]
            Ax = torch.einsum("hmn,bhn->bhm", A, x)
            if T == 1:
                after = Ax + B * part[:, 0, :, None]
                outputs.append(torch.einsum("khn,bhn->bkh", C, after).flatten(1)[:, None])
                x = after if valid is None else torch.where(valid[:, :, None], after, x)
                continue
            G = dplr.rows(P, C, T)
            y = _convolve(part, torch.einsum("htkn,hn->kht", G, B))
            outputs.append(y + torch.einsum("htkn,bhn->btkh", G, Ax).flatten(2))
            part, n = align_right(part, valid)
            x = dplr.power_apply(P, n, x) + dplr.accumulate(P, B, part)
        y = torch.cat(outputs, dim=1) + self.D.flatten() * u.repeat(1, 1, len(self.D))
        return y, {"x": x.unflatten(2, state["x"].shape[2:])}

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return {"x": zeros_fp32(batch, *self.C.shape[1:], device=device, dtype=dtype)}

    @property
    def kernel_length(self) -> int:
        """`l_kernel` as a number, read from its device only when it changed. 0: the parameter C is C itself."""
        if self.l_kernel.is_meta:
            return self.length
        stamp = self.l_kernel.data_ptr(), self.l_kernel._version
        if self._read[0] != stamp:
            self._read = stamp, int(self.l_kernel)
        return self._read[1]

    @torch.no_grad()
    def attune_(self, L: int) -> None:
        """Turn C into C̃ = C (I − Ā^L).

        Raises:
            ValueError: the parameter holds C̃ already.
        """
        if not self.l_kernel.is_meta and self.kernel_length:
            raise ValueError(f"s4: C is attuned to {self.kernel_length} steps already")
        A, _ = dplr.transition(*(z.to(torch.complex128) for z in self.continuous()))
        row = dplr.row(torch.view_as_complex(self.C.double()))
        self.C.copy_(torch.view_as_real(dplr.unrow(_times(row, _decay(A, L)))))
        self.l_kernel.fill_(L)

    @torch.no_grad()
    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """A, B, P by HiPPO, Δ log-uniform, C complex and D real standard normal; the output keeps PyTorch's."""
        forms = hippo.combination(self.init, 2 * self.A_imag.shape[1], *self.P.shape[:2])
        A, P, B = (torch.from_numpy(z) for z in forms)
        log_step_(self.log_dt, self.dt_min, self.dt_max)
        self.log_A_real.copy_(torch.log((-A.real).clamp(min=1e-4)))
        self.A_imag.copy_(-A.imag)
        self.P.copy_(torch.view_as_real(P))
        self.B.copy_(torch.view_as_real(B[None]))
        nn.init.normal_(self.C, std=0.5**0.5)
        nn.init.normal_(self.D)
        self.output.reset_parameters()
        self.l_kernel.zero_()
        self.attune_(self.length)

    def param_overrides(self) -> dict[str, ParamOverride]:
        """A, B, P and Δ learn at 1e-3 at most; none of the system's parameters decays."""
        slow = dict.fromkeys(("log_dt", "log_A_real", "A_imag", "B", "P"), ParamOverride(lr_max=1e-3, decay=False))
        return slow | dict.fromkeys(("C", "D"), ParamOverride(decay=False))


SYSTEM = ("log_dt", "log_A_real", "A_imag", "P", "B", "C")


def _convolve(u: Tensor, K: Float[Tensor, "K H T"], skip: Tensor | float = 0.0) -> Float[Tensor, "B T KH"]:
    return convolve(u if len(K) == 1 else u.repeat(1, 1, len(K)), K.flatten(0, 1), skip)


def _times(r: Float[Tensor, "K H N"], A: Float[Tensor, "H N N"]) -> Float[Tensor, "K H N"]:
    return torch.einsum("khm,hmn->khn", r, A)


def _decay(A: Float[Tensor, "H N N"], L: int) -> Float[Tensor, "H N N"]:
    """I − Ā^L, in float64: the slowest modes leave little of it."""
    A = A.double()
    return torch.eye(A.shape[-1], dtype=A.dtype, device=A.device) - torch.linalg.matrix_power(A, L)
