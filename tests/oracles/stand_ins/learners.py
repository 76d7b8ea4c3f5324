"""Layers that learn while they read, and Mamba-3: plain torch in the place of kernels, by class."""

import ast
import inspect
import math
import os
from pathlib import Path

import einops
import torch
from fla import layers, modules
from fla.layers import mamba3, mesa_net
from fla.ops.mesa_net.naive import naive_mesa_net_exact
from fla.ops.titans import naive as titans
from torch import nn


def official(path, name):
    """A function of a test of state-spaces/mamba, of which $MAMBA is a checkout (e9594ce1): the file wants a GPU."""
    source = ast.parse((Path(os.environ["MAMBA"]) / "tests" / "ops" / path).read_text(encoding="utf-8"))
    wanted = [part for part in source.body if isinstance(part, ast.FunctionDef) and part.name == name]
    names = {"torch": torch, "F": torch.nn.functional, "math": math}
    names |= {"rearrange": einops.rearrange, "repeat": einops.repeat}
    exec("from typing import *\nfrom torch import Tensor", names)
    exec(compile(ast.Module(wanted, []), path, "exec"), names)
    return names[name]


def siso(step_by_step):
    def kernel(Q, K, V, ADT, DT, Trap, Q_bias, K_bias, Angles, D, Z, **_):
        return step_by_step(Q, K, V, ADT, DT, Trap, Q_bias, K_bias, Angles, D, Z)[0]

    return kernel


def mimo(step_by_step):
    """The reference turns neighbouring channels, the kernel i and i + N/2 (a note in the official layer's `step`)."""

    def side_by_side(x):
        return x.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)

    def kernel(Q, K, V, ADT, DT, Trap, Q_bias, K_bias, MIMO_V, MIMO_Z, MIMO_Out, Angles, D, Z, **_):
        Q, K, Q_bias, K_bias = (side_by_side(x) for x in (Q, K, Q_bias, K_bias))
        rank = MIMO_V.shape[1]
        every = [MIMO_Out] if MIMO_Out is not None else torch.eye(rank, dtype=V.dtype)[:, None, :, None]
        parts = [one.expand_as(MIMO_V) for one in every]
        sums = [
            step_by_step(Q, K, V, ADT, DT, Trap, Q_bias, K_bias, Angles, MIMO_V, part, D, Z, MIMO_Z)[0]
            for part in parts
        ]
        return sums[0] if MIMO_Out is not None else torch.stack(sums, dim=2)

    return kernel


def run_mamba3():
    """By the official references, one step at a time."""
    mamba3.mamba3_siso_combined = siso(official("triton/test_mamba3_siso.py", "mamba3_siso_step_ref"))
    mamba3.mamba3_mimo_combined = mimo(official("tilelang/test_mamba3_mimo.py", "mamba3_MIMO_step_ref"))
    layers.Mamba3.forward = lambda layer, x, **_: layer.cuda_kernels_forward(x)  # which asks for no device


def run_mesa_net():
    """By the official exact solution, whose states have the default dtype."""

    def exactly(q, k, v, g, beta, lamb, **_):
        torch.set_default_dtype(torch.float64)
        solved = naive_mesa_net_exact(mesa_net.l2_norm(q), mesa_net.l2_norm(k), v, g, lamb, beta)
        torch.set_default_dtype(torch.float32)
        return solved

    mesa_net.chunk_mesa_net = exactly


def corrected_titans():
    """The official memory, one token at a time, whose slope of the layer norm has its parentheses where they belong."""
    wrong, right = ("D * grad - grad.sum(-1, keepdim=True) / (rstd", "(D * grad - grad.sum(-1, keepdim=True)) / (rstd")
    source, names = inspect.getsource(titans.titans_linear), {"torch": torch}
    assert source.count(f"v_new = {wrong}") == 1
    exec(source.replace(f"v_new = {wrong}", f"v_new = {right}"), names)
    return names["titans_linear"]


class TitansMemory(nn.Module):
    """The official op in a layer of official parts, as there is no official one."""

    __module__ = titans.__name__  # what is recorded stands there

    def __init__(self, hidden_size, num_heads, chunk_size, conv_size=4, use_gate=True, layer_idx=None):
        super().__init__()
        self.heads, self.size, d = num_heads, chunk_size, hidden_size // num_heads
        for name in "qkv":
            self.add_module(f"{name}_proj", nn.Linear(hidden_size, hidden_size, bias=False))
            convolution = modules.ShortConvolution(hidden_size, conv_size, activation="silu")
            self.add_module(f"{name}_conv1d", convolution)
        for name in ("alpha", "eta", "theta"):
            self.add_module(f"{name}_proj", nn.Linear(hidden_size, num_heads))
        self.norm_weight, self.norm_bias = (
            nn.Parameter(torch.empty(num_heads, d)),
            nn.Parameter(torch.empty(num_heads, d)),
        )
        self.M0 = nn.Parameter(torch.empty(num_heads, d, d))
        self.g_proj = nn.Linear(hidden_size, hidden_size, bias=False) if use_gate else None
        self.o_norm = modules.FusedRMSNormGated(d) if use_gate else modules.RMSNorm(d)
        self.o_proj = nn.Linear(hidden_size, hidden_size, bias=False)

    def forward(self, x):
        def by_head(y):
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        q, k, v = (by_head(getattr(self, f"{c}_conv1d")(getattr(self, f"{c}_proj")(x))[0]) for c in "qkv")
        gates = (by_head(getattr(self, f"{name}_proj")(x)).sigmoid() for name in ("theta", "alpha", "eta"))
        q, k, start = mesa_net.l2_norm(q), mesa_net.l2_norm(k), self.M0.expand(len(x), -1, -1, -1)
        norm = self.norm_weight, self.norm_bias
        o, _ = corrected_titans()(q, k, v, *norm, *gates, 1e-6, self.size, start, False)
        o = o.transpose(1, 2)
        o = self.o_norm(o) if self.g_proj is None else self.o_norm(o, self.g_proj(x).unflatten(-1, (self.heads, -1)))
        return self.o_proj(o.flatten(2))


setattr(layers, "titans_linear, corrected", TitansMemory)
STAND_INS = {"Mamba3": run_mamba3, "MesaNet": run_mesa_net}
