"""Attention to chosen keys, or along paths: plain torch in the place of kernels, by class."""

import math

import torch
from fla.layers import deltaformer, nsa, parallax, path_attn, wall_attn
from fla.ops.deltaformer.naive import naive_deltaformer_attn
from fla.ops.moba import parallel as moba_op
from fla.ops.nsa import naive as nsa_op
from fla.ops.parallax.naive import naive_parallax
from fla.ops.path_attn.naive import naive_path_attn
from fla.ops.wall_attn import naive as wall_op


def in_float64(naive):
    """What makes tensors without saying of which dtype makes them of float64."""

    def call(*args, **options):
        torch.set_default_dtype(torch.float64)
        try:
            return naive(*args, **options)
        finally:
            torch.set_default_dtype(torch.float32)

    return call


def path():
    def attend(q, k, v, w, beta, g, cu_seqlens=None):
        g = q.new_zeros(q.shape[:3]) if g is None else g
        return in_float64(naive_path_attn)(q, k, v, w, beta, g, q.shape[-1] ** -0.5, chunk_size=16), None

    path_attn.parallel_path_attn = attend


def native_sparse():
    nsa_op.range = range  # which was replaced for kernels
    nsa_op.mean_pooling = mean_pooling
    nsa_op.flash_attn_func = window_attention
    nsa.parallel_nsa = in_float64(nsa_op.naive_nsa)


def mean_pooling(x, size, cu_seqlens=None):
    blocks = [block.mean(1) for block in x.split(size, dim=1)]
    return torch.stack(blocks, dim=1)


def window_attention(q, k, v, causal, window_size):
    q, k, v = (x.transpose(1, 2) for x in (q, *(y.repeat_interleave(q.shape[2] // y.shape[2], 2) for y in (k, v))))
    seen = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).tril().triu(-window_size[0])
    scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~seen, float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2)


def mixture_of_blocks():
    """fla's own autograd function around flash-attn's two kernels."""
    zeros_like = torch.zeros_like
    torch.zeros_like = lambda x, dtype=None, **k: zeros_like(x, dtype=None if dtype == torch.float32 else dtype, **k)
    moba_op._flash_attn_varlen_forward = flash_forward
    moba_op._flash_attn_varlen_backward = flash_backward
    moba_op.flash_attn_varlen_func = object()  # only asked whether it is there


def flash_forward(q, k, v, cu_seqlens_q, cu_seqlens_k, softmax_scale, causal, **_):
    out, lse = torch.empty_like(q), q.new_empty(q.shape[1], len(q))
    for at, of in spans(cu_seqlens_q, cu_seqlens_k):
        scores = scored(q[at], k[of], softmax_scale, causal)
        lse[:, at] = scores.logsumexp(-1)
        out[at] = torch.einsum("hts,shd->thd", scores.softmax(-1), v[of])
    return out, lse, None, None


def flash_backward(dout, q, k, v, out, softmax_lse, dq, dk, dv, cu_seqlens_q, cu_seqlens_k, softmax_scale, causal, **_):
    for at, of in spans(cu_seqlens_q, cu_seqlens_k):
        p = (scored(q[at], k[of], softmax_scale, causal) - softmax_lse[:, at, None]).exp()
        dp = torch.einsum("thd,shd->hts", dout[at], v[of])
        ds = p * (dp - torch.einsum("thd,thd->ht", dout[at], out[at])[..., None]) * softmax_scale
        dq[at] = torch.einsum("hts,shd->thd", ds, k[of])
        dk[of] = torch.einsum("hts,thd->shd", ds, q[at])
        dv[of] = torch.einsum("hts,thd->shd", p, dout[at])


def spans(*borders):
    """Slices of queries and of the keys they see."""
    starts = ((slice(*pair) for pair in zip(x.tolist(), x.tolist()[1:], strict=False)) for x in borders)
    return zip(*starts, strict=True)


def scored(q, k, scale, causal):
    scores = torch.einsum("thd,shd->hts", q, k) * scale
    return scores.masked_fill(~torch.ones(len(q), len(k)).tril().bool(), float("-inf")) if causal else scores


def wall():
    wall_op.RCP_LN2 = 1 / math.log(2)  # theirs is rounded to float32
    wall_op.chunk_global_cumsum = lambda x, scale, cu_seqlens=None: scale * x.cumsum(1)
    attend = in_float64(wall_op.naive_wall_attn)
    wall_attn.parallel_wall_attn = lambda q, k, v, g, **options: attend(
        q, k, v, g, scale=q.shape[-1] ** -0.5, **options
    )


def of_parallax():
    parallax.parallel_parallax = lambda q, r, k, v, window_size, cu_seqlens: naive_parallax(q, r, k, v)


def of_deltaformer():
    attend = in_float64(naive_deltaformer_attn)
    deltaformer.deltaformer_attn = lambda q, k, v, beta, **_: attend(q, k, v, beta)


STAND_INS = {
    "DeltaFormerAttention": of_deltaformer,
    "MoBA": mixture_of_blocks,
    "NativeSparseAttention": native_sparse,
    "Parallax": of_parallax,
    "PaTHAttention": path,
    "WallAttention": wall,
}
