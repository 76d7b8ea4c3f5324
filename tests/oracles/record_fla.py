"""Records layers of flash-linear-attention for test_fla_recorded.py: what they compute from random weights.

Run it where fla is installed and zoobench's own environment is not, as transformers picks fla's kernels up:

    python -m venv .fla && .fla/bin/pip install torch flash-linear-attention==0.6.0 triton safetensors
    .fla/bin/python tests/oracles/record_fla.py [name ...]

No GPU: Triton interprets the kernels. recorded/fla_<name>.safetensors holds, in float32, param.<official name>, input,
output, cotangent, grad.input and grad.<official name> of sum(output · cotangent), and state.final where the layer gives
one; recorded/fla_<name>.json says what ran.
"""

from __future__ import annotations

import inspect
import json
import os
import platform
import sys
import warnings
import zlib
from importlib import metadata
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"  # asked at the first import

import torch
from safetensors.torch import save_file
from triton.runtime.autotuner import Autotuner
from triton.runtime.interpreter import GridExecutor

warnings.simplefilter("ignore")
from fla import layers  # noqa: E402
from fla.layers import rwkv7  # noqa: E402
from fla.models.utils import Cache  # noqa: E402
from fla.ops.generalized_delta_rule.dplr.naive import dplr_recurrence  # noqa: E402

TO = Path(__file__).parent / "recorded"
B = 2
RWKV7 = {"decay_low_rank_dim": 5, "gate_low_rank_dim": 7, "a_low_rank_dim": 4, "v_low_rank_dim": 3}

# name: class, steps, options. Of more than 64 steps fla makes two chunks, and fewer it mostly takes one by one.
RECORDINGS = {
    "gla": ("GatedLinearAttention", 17, {"hidden_size": 24}),
    "gla_grouped": (
        "GatedLinearAttention",
        33,
        {"hidden_size": 16, "num_heads": 4, "num_kv_heads": 2, "expand_k": 1.0, "expand_v": 2.0}
        | {"feature_map": "relu", "gate_low_rank_dim": 5, "gate_logit_normalizer": 4, "clamp_min": -0.2},
    ),
    "gla_conv": (
        "GatedLinearAttention",
        70,
        {"hidden_size": 16, "num_heads": 3, "expand_k": 0.75, "expand_v": 1.5, "use_short_conv": True, "conv_size": 3}
        | {"conv_bias": True, "gate_fn": "sigmoid", "norm_eps": 1e-3, "elementwise_affine": False},
    ),
    "gla_ungated": ("GatedLinearAttention", 17, {"hidden_size": 16, "use_output_gate": False, "use_short_conv": True}),
    "delta_net": ("DeltaNet", 33, {"hidden_size": 24}),
    "delta_net_gate": (
        "DeltaNet",
        17,
        {"hidden_size": 24, "num_heads": 3, "expand_k": 0.5, "expand_v": 2.0, "use_gate": True, "conv_size": 3}
        | {"conv_bias": True, "norm_eps": 1e-3},
    ),
    "delta_net_negative": ("DeltaNet", 33, {"hidden_size": 16, "allow_neg_eigval": True, "qk_activation": "identity"}),
    "delta_net_elu": (
        "DeltaNet",
        33,
        {"hidden_size": 16, "use_short_conv": False, "qk_activation": "elu", "qk_norm": "sum"},
    ),
    "delta_net_relu": ("DeltaNet", 17, {"hidden_size": 16, "num_heads": 2, "use_beta": False, "qk_activation": "relu"}),
    "delta_net_sum": ("DeltaNet", 17, {"hidden_size": 16, "use_short_conv": False, "qk_norm": "sum"}),
    "gated_delta_net": ("GatedDeltaNet", 33, {"hidden_size": 24, "num_heads": 3, "head_dim": 6}),
    "gated_delta_net_values": (
        "GatedDeltaNet",
        17,
        {"hidden_size": 16, "num_heads": 2, "num_v_heads": 6, "head_dim": 5, "expand_v": 1.2}
        | {"conv_size": 3, "conv_bias": True, "output_gate_activation": "sigmoid"},
    ),
    "gated_delta_net_plain": (
        "GatedDeltaNet",
        70,
        {"hidden_size": 16, "num_heads": 4, "head_dim": 4, "use_gate": False, "use_short_conv": False}
        | {"allow_neg_eigval": True},
    ),
    # Its angles of rotation are those of RoPE, not torchscale's. Heads of width 2 have the one angle that both share.
    "retention": (
        "MultiScaleRetention",
        70,
        {"hidden_size": 12, "num_heads": 6, "norm_eps": 1e-12, "elementwise_affine": False},
    ),
    "based": ("BasedLinearAttention", 17, {"hidden_size": 16, "num_heads": 4, "num_key_value_heads": 4}),
    "based_chunk": (
        "BasedLinearAttention",
        70,
        {"hidden_size": 15, "num_heads": 3, "num_key_value_heads": 3, "feature_dim": 5, "mode": "chunk"},
    ),
    "based_both_ways": (
        "BasedLinearAttention",
        17,
        {"hidden_size": 16, "num_heads": 2, "num_key_value_heads": 2, "feature_dim": 3, "eps": 0.1, "causal": False},
    ),
    "linear_attention": (
        "LinearAttention",
        33,
        {"hidden_size": 16, "num_heads": 4, "expand_k": 0.5, "expand_v": 2.0}
        | {"feature_map": "elu", "do_feature_map_norm": True, "output_norm": "identity"},
    ),
    "rwkv6": (
        "RWKV6Attention",
        33,
        {"hidden_size": 16, "expand_k": 1.0, "num_heads": 2, "proj_low_rank_dim": 5, "gate_low_rank_dim": 6},
    ),
    "rwkv6_chunk": (
        "RWKV6Attention",
        70,
        {"hidden_size": 12, "expand_k": 1.0, "num_heads": 3, "proj_low_rank_dim": 3, "gate_low_rank_dim": 2}
        | {"norm_eps": 64e-5},
    ),
    "rwkv7_first": ("RWKV7Attention", 33, {"hidden_size": 16, "head_dim": 8, "num_hidden_layers": 2, **RWKV7}),
    "rwkv7_second": (
        "RWKV7Attention",
        33,
        {"hidden_size": 12, "head_dim": 4, "num_hidden_layers": 2, "layer_idx": 1, **RWKV7},
    ),
    "mamba": ("Mamba", 17, {"hidden_size": 16, "intermediate_size": 32}),
    "mamba_options": (
        "Mamba",
        33,
        {"hidden_size": 16, "intermediate_size": 24, "state_size": 5, "conv_kernel": 3, "use_conv_bias": False}
        | {"dt_rank": 3, "use_bias": True},
    ),
    "mamba2": ("Mamba2", 33, {"hidden_size": 16, "head_dim": 8, "state_size": 12, "chunk_size": 16}),
    # torch_forward tiles B and C where the CUDA kernels repeat them head by head: a group per head is the same in both.
    "mamba2_groups": (
        "Mamba2",
        17,
        {"hidden_size": 16, "head_dim": 8, "state_size": 5, "n_groups": 4, "conv_kernel": 3, "use_bias": True}
        | {"D_has_hdim": True, "norm_before_gate": True, "dt_limit": (0.4, 1.2)},
    ),
    "mamba2_gate": (
        "Mamba2",
        17,
        {"hidden_size": 12, "head_dim": 6, "expand": 3, "state_size": 8, "rmsnorm": False, "use_conv_bias": False},
    ),
}

NOTES = {
    "DeltaNet": "at most 64 steps, as its chunked kernels refuse float32",
    "RWKV7Attention": "in place of chunk_rwkv7, which inverts matrices in float16, runs dplr_recurrence of "
    "fla/ops/generalized_delta_rule/dplr/naive.py",
    "Mamba": "slow_forward, the official one without CUDA",
    "Mamba2": "torch_forward, the official one without CUDA",
}

ran: set[str] = set()
"""The kernels that ran."""


class Step(int):
    """A step of a loop in a kernel: compiled it is a tensor, interpreted an int, which has no `to`."""

    def to(self, *_):
        return self


def first_configuration(self, *arguments, **options):
    """Instead of `Autotuner.run`, which measures all of them on a GPU."""
    return self.fn.run(*arguments, **options, **self.configs[0].all_kwargs())


def noted(execute):
    def call(self, *arguments, **options):
        ran.add(self.fn.__name__)
        return execute(self, *arguments, **options)

    return call


def rwkv7_step_by_step(r, w, k, v, a, b, scale, output_final_state, **_):
    """chunk_rwkv7 by fla's own reference, which has heads before time, and a scale of its own to undo."""
    r, w, k, v, a, b = (x.transpose(1, 2) for x in (r, w, k, v, a, b))
    o, state = dplr_recurrence(r * scale * r.shape[-1] ** 0.5, k, v, a, b, w, output_final_state=output_final_state)
    return o.transpose(1, 2), state


def prepare_fla():
    """What is measured on a GPU, or asked of compiled loops, must do without; and RWKV-7 see `NOTES`."""
    rwkv7.chunk_rwkv7 = rwkv7_step_by_step
    Autotuner.run = first_configuration
    GridExecutor.__call__ = noted(GridExecutor.__call__)
    for name, module in list(sys.modules.items()):
        if name.startswith("fla.ops."):
            module.range = lambda *limits: map(Step, range(*limits))


def randomise(layer):
    for name, parameter in layer.named_parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
        torch.nn.init.normal_(parameter, std=fan_in**-0.5)
        if "norm" in name and name.endswith("weight"):
            parameter.data += 1
        if name.startswith("w_") and name.endswith("bias"):
            parameter.data -= 2  # slow decays in RWKV: sums of fast ones cost its chunked kernels digits


def record(name, cls, steps, options):
    torch.manual_seed(zlib.crc32(name.encode()))
    ran.clear()
    layer = getattr(layers, cls)(**({} if cls.startswith("Based") else {"layer_idx": 0}) | options)
    randomise(layer)
    inputs = {"input": torch.randn(B, steps, options["hidden_size"])}
    if options.get("layer_idx"):  # RWKV-7 from its second layer on
        inputs["input.v_first"] = torch.randn_like(inputs["input"])
    for x in inputs.values():
        x.requires_grad_()
    more = {key.removeprefix("input."): x for key, x in inputs.items() if key != "input"}
    answer = layer(inputs["input"].clone(), **more)  # RWKV-7 writes its gradient over it
    output = answer[0] if isinstance(answer, tuple) else answer
    cotangent = torch.randn_like(output)
    (output * cotangent).sum().backward()
    kernels = sorted(ran)
    named = dict(layer.named_parameters())
    tensors = inputs | {"output": output, "cotangent": cotangent}
    tensors |= {f"param.{key}": value for key, value in named.items()}
    tensors |= {f"grad.{key}": value.grad for key, value in (inputs | named).items()}
    again = None
    if cls != "BasedLinearAttention":  # which keeps no state
        with torch.no_grad():
            cache = Cache()
            resumed = layer.eval()(inputs["input"], past_key_values=cache, use_cache=True, **more)[0]
            again = float((resumed - output).abs().max() / output.abs().max())
        state = cache[layer.layer_idx]["recurrent_state"]
        if torch.is_tensor(state):
            tensors["state.final"] = state
    save_file(
        {key: value.detach().clone().contiguous() for key, value in tensors.items()}, TO / f"fla_{name}.safetensors"
    )
    about = {
        "repo": "fla-org/flash-linear-attention",
        "file": inspect.getfile(type(layer)).split("site-packages/")[-1],
        "cls": cls,
        "version": metadata.version("flash-linear-attention"),
        "hyper": options,
        "notes": NOTES.get(cls, ""),
        "kernels": kernels or "none: plain torch",
        "with_cache_relerr": again,
        "dtype": "float32",
        "environment": f"torch {torch.__version__}, triton {metadata.version('triton')} (interpreted), CPU, "
        f"python {platform.python_version()}",
    }
    (TO / f"fla_{name}.json").write_text(json.dumps(about, indent=1) + "\n")
    print(f"{name:24} {len(kernels):2} kernels, with a cache {again}", flush=True)


if __name__ == "__main__":
    prepare_fla()
    for name in sys.argv[1:] or RECORDINGS:
        record(name, *RECORDINGS[name])
