"""Layers that learn while they read, and Mamba-3: plain torch in the place of kernels, by class."""

import ast
import math
import os
from pathlib import Path

import einops
import torch
from fla import layers
from fla.layers import mamba3, mesa_net
from fla.ops.mesa_net.naive import naive_mesa_net_exact


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


STAND_INS = {"Mamba3": run_mamba3, "MesaNet": run_mesa_net}
