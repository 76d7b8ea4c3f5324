"""Layers of the delta rule: plain torch in the place of kernels, by class."""

from functools import partial, wraps
from itertools import pairwise
from types import SimpleNamespace
from unittest.mock import patch

import torch
from fla.layers import comba, gated_deltaproduct, gdn2, kda, mom, precond_gated_deltanet
from fla.modules.norm import l2norm
from fla.ops.comba.naive import naive_chunk_comba
from fla.ops.gated_delta_product.naive import naive_recurrent_gated_delta_product
from fla.ops.gated_delta_rule.naive import naive_recurrent_gated_delta_rule
from fla.ops.gdn2.naive import naive_recurrent_gdn2
from fla.ops.kda.gate import naive_kda_gate, naive_kda_lowerbound_gate
from fla.ops.kda.naive import naive_recurrent_kda
from fla.ops.precond_gated_delta_rule import naive as precond

from .common import convolved


def exactly(naive):
    """`naive` with float64 wherever it asks for float32."""

    @wraps(naive)
    def call(*arguments, **options):
        with patch.object(torch, "float32", torch.float64), patch.object(torch, "float", torch.float64):
            return naive(*arguments, **options)

    return call


def unit(*tensors):
    """What kernels do with `use_qk_l2norm_in_kernel`."""
    return [l2norm.l2norm(x) for x in tensors]


@exactly
def kda_in_torch(
    q, k, v, g, beta, A_log, dt_bias, initial_state, output_final_state, allow_neg_eigval, lower_bound, **_
):
    gate = naive_kda_gate if lower_bound is None else partial(naive_kda_lowerbound_gate, lower_bound=lower_bound)
    beta = beta.sigmoid() * (2 if allow_neg_eigval else 1)
    o, S = naive_recurrent_kda(*unit(q, k), v, gate(g, A_log, dt_bias), beta, None, initial_state, output_final_state)
    return o, None if S is None else S.mT


@exactly
def product_in_torch(q, k, v, g, beta, use_qk_l2norm_in_kernel, **options):
    q, k = unit(q, k)
    return naive_recurrent_gated_delta_product(q, k, v, g, beta, q.shape[-1] ** -0.5, **options)


@exactly
def comba_in_torch(q, k, v, p, use_qk_l2norm_in_kernel, cu_seqlens, **options):
    """In chunks: the recurrent form in the same file decays before it erases, as no kernel does."""
    q, k, p = unit(q, k, p)
    return naive_chunk_comba(q, k, v, p, **options)


@exactly
def gdn2_in_torch(q, k, use_qk_l2norm_in_kernel, cu_seqlens, **options):
    q, k = unit(q, k)
    return naive_recurrent_gdn2(q, k, **options)


@exactly
def precond_in_torch(use_qk_l2norm_in_kernel, **options):
    """Which norms q and k itself, in another way than the kernels."""
    with patch.object(precond, "F", SimpleNamespace(normalize=lambda x, p, dim: l2norm.l2norm(x))):
        return precond.naive_recurrent_precond_gated_delta_rule(**options)


@exactly
def packed(q, k, v, g, beta, cu_seqlens, initial_state, output_final_state, **_):
    """The gated delta rule on sequences one behind the other."""
    (q, k), pieces = unit(q, k), []
    bounds = [0, q.shape[1]] if cu_seqlens is None else cu_seqlens.tolist()
    for start, end in pairwise(bounds):
        each = (x[:, start:end] for x in (q, k, v, beta, g))
        pieces.append(naive_recurrent_gated_delta_rule(*each)[0])
    return torch.cat(pieces, dim=1), None


def convolved_apart(convolution, x, cache=None, output_final_state=False, cu_seqlens=None, **_):
    """The convolution of sequences one behind the other."""
    bounds = [0, x.shape[1]] if cu_seqlens is None else cu_seqlens.tolist()
    pieces = [x[:, start:end] for start, end in pairwise(bounds)]
    weight, bias = convolution.weight[:, 0], convolution.bias
    return torch.cat([convolved(z, weight, bias, convolution.activation)[0] for z in pieces], dim=1), None


def mixture():
    """Not as in training, where convolutions run on from one memory's tokens into the next one's; and sorting tokens by
    memory keeps their order."""
    torch.Tensor.argsort = lambda x: torch.argsort(x, stable=True)
    mom.MomAttention.forward = exactly(mom.MomAttention.forward)
    mom.MomAttention.training = property(lambda _: False, lambda *_: None)
    mom.ShortConvolution.forward = convolved_apart
    mom.chunk_gated_delta_rule = packed


def instead_of(module, name, function):
    """A function that has `function` run in the place of a layer's kernel."""
    return lambda: setattr(module, name, function)


STAND_INS = {
    "KimiDeltaAttention": instead_of(kda, "chunk_kda", kda_in_torch),
    "GatedDeltaProduct": instead_of(gated_deltaproduct, "chunk_gated_delta_product", product_in_torch),
    "Comba": instead_of(comba, "chunk_comba", comba_in_torch),
    "GatedDeltaNet2": instead_of(gdn2, "chunk_gdn2", gdn2_in_torch),
    "PrecondGatedDeltaNet": instead_of(precond_gated_deltanet, "chunk_precond_gated_delta_rule", precond_in_torch),
    "MomAttention": mixture,
}
