"""Layers with decays, slots or levels: plain torch in the place of kernels, by class."""

from fla.layers import gsa, hgrn, hgrn2, log_linear_mamba2, raven, rodimus
from fla.ops.gla.naive import naive_recurrent_gla
from fla.ops.gsa.naive import naive_recurrent_gsa
from fla.ops.hgrn.naive import naive_recurrent_hgrn
from fla.ops.log_linear_attn.naive import naive_log_linear_attn


def gla(q, k, v, g, cu_seqlens, state_v_first=False, **options):
    """chunk_gla, whose last state may lie the other way round."""
    o, state = naive_recurrent_gla(q, k, v, g, **options)
    return o, state.mT if state is not None and state_v_first else state


def use_hgrn():
    hgrn.chunk_hgrn = naive_recurrent_hgrn


def use_gla():
    hgrn2.chunk_gla = rodimus.chunk_gla = gla


def use_gsa():
    gsa.chunk_gsa = raven.chunk_gsa = lambda cu_seqlens, **inputs: naive_recurrent_gsa(**inputs)


def use_log_linear():
    """The path of its CUDA kernels is the only one that it has."""

    def attention(q, k, v, g, level_scales, scale, **_):
        return naive_log_linear_attn(q, k, v, g, level_scales, scale), None

    layer = log_linear_mamba2.LogLinearMamba2
    log_linear_mamba2.chunk_log_linear_attn = attention
    layer.forward = lambda layer, x: layer.cuda_kernels_forward(x)[0]


STAND_INS = {
    "GatedSlotAttention": use_gsa,
    "HGRN2Attention": use_gla,
    "HGRNAttention": use_hgrn,
    "LogLinearMamba2": use_log_linear,
    "Raven": use_gsa,
    "RodimusAttention": use_gla,
}
