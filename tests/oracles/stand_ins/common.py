"""flash-linear-attention in float64: plain torch in the place of its kernels, which compute in float32 at most.

`prepare` replaces what most of its layers share. For what one layer calls, its family's file has a function that
replaces that, mostly by the official naive form.
"""

import sys

import torch
import torch.nn.functional as F
from fla import modules
from fla.modules import activations, convolution, layernorm_gated, rotary
from fla.modules.norm import fused_norm_gate, l2norm, layernorm


def replace(original, by):
    """Everywhere that the package has `original` under a name."""
    for name, module in list(sys.modules.items()):
        if name.startswith("fla."):
            for key, value in list(vars(module).items()):
                if value is original:
                    setattr(module, key, by)


def prepare():
    """Norms, convolutions, activations and rotations in torch, and no cast to float32."""
    to, arange = torch.Tensor.to, torch.arange
    narrow = (torch.float32, torch.bfloat16, torch.float16)
    torch.Tensor.float = torch.Tensor.double
    torch.Tensor.to = lambda x, *a, **k: x if a[:1] in {(dtype,) for dtype in narrow} else to(x, *a, **k)
    torch.arange = lambda *a, dtype=None, **k: arange(*a, dtype=torch.float64 if dtype in narrow else dtype, **k)
    modules.RMSNorm.forward = lambda norm, x: rms(x, norm.weight, norm.eps)
    modules.LayerNorm.forward = lambda norm, x: F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)
    modules.GroupNorm.forward = group_norm
    modules.FusedRMSNormGated.forward = gated_rms
    modules.ShortConvolution.forward = short_convolution
    replace(layernorm.rms_norm, lambda x, weight, bias=None, eps=1e-5: rms(x, weight, eps))
    replace(layernorm.rms_norm_linear, rms_norm_linear)
    replace(fused_norm_gate.rms_norm_swish_gate_linear, rms_norm_swish_gate_linear)
    replace(layernorm_gated.rmsnorm_fn, layernorm_gated.rms_norm_ref)
    replace(l2norm.l2norm, lambda x, eps=1e-6, output_dtype=None: x * (x.square().sum(-1, keepdim=True) + eps).rsqrt())
    replace(rotary.rotary_embedding, rotated)
    replace(convolution.causal_conv1d, convolved)
    in_torch = {"sigmoid": torch.sigmoid, "swish": F.silu, "logsigmoid": F.logsigmoid, "elu_p1": lambda x: F.elu(x) + 1}
    in_torch |= {"swiglu": lambda x, y: F.silu(x) * y}
    for name, function in in_torch.items():
        replace(getattr(activations, name), function)
    activations.ACT2FN |= in_torch | {"silu": F.silu}


def rms(x, weight, eps):
    y = x * (x.square().mean(-1, keepdim=True) + eps).rsqrt()
    return y if weight is None else y * weight


def group_norm(norm, x):
    assert norm.is_rms_norm
    y = rms(x.unflatten(-1, (norm.num_groups, -1)), None, norm.eps).flatten(-2)
    return y if norm.weight is None else y * norm.weight


def gated_rms(norm, x, gate):
    act = torch.sigmoid if norm.activation == "sigmoid" else F.silu
    return rms(x, norm.weight, norm.eps) * act(gate)


def rms_norm_linear(x, norm_weight, norm_bias, linear_weight, linear_bias, eps=1e-5):
    return F.linear(rms(x, norm_weight, eps), linear_weight, linear_bias)


def rms_norm_swish_gate_linear(x, g, norm_weight, norm_bias, linear_weight, linear_bias, eps=1e-6):
    return F.linear(rms(x, norm_weight, eps) * F.silu(g), linear_weight, linear_bias)


def short_convolution(convolution, x, cache=None, output_final_state=False, **_):
    y, _ = convolved(x, convolution.weight[:, 0], convolution.bias, activation=convolution.activation)
    return y, torch.zeros(len(x), x.shape[-1], convolution.kernel_size[0]) if output_final_state else None


def convolved(x, weight, bias=None, activation=None, **_):
    (width, size), T = weight.shape, x.shape[1]
    y = F.conv1d(x.mT, weight[:, None], bias, padding=size - 1, groups=width)[..., :T].mT
    return (y if activation is None else F.silu(y)), None


def rotated(x, cos, sin, interleaved=False, seqlen_offsets=0, **_):
    T = x.shape[1]
    cos, sin = (table[seqlen_offsets : seqlen_offsets + T] for table in (cos, sin))
    return rotary.ops.rotary_embedding_ref(x, cos, sin, interleaved)
