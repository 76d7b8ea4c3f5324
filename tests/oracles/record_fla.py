"""Records layers of flash-linear-attention for test_recorded.py: what they compute from random weights.

Run it where fla is installed and zoobench's own environment is not, as transformers picks fla's kernels up:

    python -m venv .fla && .fla/bin/pip install torch flash-linear-attention==0.6.0 triton safetensors
    .fla/bin/python tests/oracles/record_fla.py [name ...]

No GPU: Triton interprets the kernels, in float32. recorded/fla_<name>.json says what to record (cls, hyper, steps) and
is given what ran; a new one needs no more than those three. Of more than 64 steps fla makes two chunks, and fewer it
mostly takes one by one. Where it has "dtype": "float64" as well, plain torch stands in for the kernels (stand_ins/),
and with "cached": true the layer is called once more with a cache, for its last state.
recorded/fla_<name>.safetensors then holds param.<official name>, input, output, cotangent, grad.input and
grad.<official name> of sum(output · cotangent), and state.final where the layer gives one.
"""

import inspect
import json
import platform
import sys
import warnings
import zlib
from importlib import metadata
from pathlib import Path

from interpreted import prepare  # isort: skip  (it must be imported before fla is)
import torch
from safetensors.torch import save_file
from triton.runtime.interpreter import GridExecutor

warnings.simplefilter("ignore")
from fla import layers  # noqa: E402
from fla.layers import rwkv7  # noqa: E402
from fla.models.utils import Cache  # noqa: E402
from fla.ops.generalized_delta_rule.dplr.naive import dplr_recurrence  # noqa: E402
from stand_ins import attention, common, delta, gated, learners, sparse  # noqa: E402

TO = Path(__file__).parent / "recorded"
B = 2
STAND_INS = delta.STAND_INS | gated.STAND_INS | learners.STAND_INS | attention.STAND_INS | sparse.STAND_INS

ran: set[str] = set()
"""The kernels that ran."""


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
    """In place of chunk_rwkv7, which inverts matrices in float16, runs fla's own reference."""
    rwkv7.chunk_rwkv7 = rwkv7_step_by_step
    GridExecutor.__call__ = noted(GridExecutor.__call__)
    prepare()


def randomise(layer):
    for name, parameter in layer.named_parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
        torch.nn.init.normal_(parameter, std=fan_in**-0.5)
        if "norm" in name and name.endswith("weight"):
            parameter.data += 1
        if name.startswith("w_") and name.endswith("bias"):
            parameter.data -= 2  # slow decays in RWKV: sums of fast ones cost its chunked kernels digits


def record(name):
    file = TO / f"fla_{name}.json"
    about = json.loads(file.read_text(encoding="utf-8"))
    cls, options = about["cls"], about["hyper"]
    torch.manual_seed(zlib.crc32(name.encode()))
    ran.clear()
    layer = getattr(layers, cls)(**({} if cls.startswith("Based") else {"layer_idx": 0}) | options)
    if cls.startswith("HGRN") and options.get("layer_idx"):  # what its model has, and hands to each layer as a bound
        layer.lower_bounds = torch.nn.Parameter(torch.empty(2, layer.f_proj.out_features))
    dtype = getattr(torch, about.get("dtype", "float32"))
    if dtype == torch.float64:
        layer.double()
        STAND_INS.get(cls, lambda: None)()
    randomise(layer)
    inputs = {"input": torch.randn(B, about["steps"], options["hidden_size"], dtype=dtype)}
    if cls == "RWKV7Attention" and options.get("layer_idx"):  # from its second layer on
        inputs["input.v_first"] = torch.randn_like(inputs["input"])
    for x in inputs.values():
        x.requires_grad_()
    more = {key.removeprefix("input."): x for key, x in inputs.items() if key != "input"}
    if hasattr(layer, "lower_bounds"):
        bounds = layer.lower_bounds.softmax(0)
        more["lower_bound"] = (bounds.cumsum(0) - bounds[0])[options["layer_idx"]]
    answer = layer(inputs["input"].clone(), **more)  # RWKV-7 writes its gradient over it
    output = answer[0] if isinstance(answer, tuple) else answer
    cotangent = torch.randn_like(output)
    (output * cotangent).sum().backward()
    about["kernels"] = sorted(ran) or "none: plain torch"
    named = dict(layer.named_parameters())
    tensors = inputs | {"output": output, "cotangent": cotangent}
    tensors |= {f"param.{key}": value for key, value in named.items()}
    tensors |= {f"grad.{key}": value.grad for key, value in (inputs | named).items()}
    again = None
    if about.get("cached", dtype == torch.float32 and cls != "BasedLinearAttention"):  # which keeps no state
        with torch.no_grad():
            cache = Cache()
            resumed = layer.eval()(inputs["input"], past_key_values=cache, use_cache=True, **more)[0]
            again = float((resumed - output).abs().max() / output.abs().max())
        state = cache[layer.layer_idx]["recurrent_state"]
        if torch.is_tensor(state):
            tensors["state.final"] = state
    stored = {key: value.detach().clone().contiguous() for key, value in tensors.items()}
    save_file(stored, file.with_suffix(".safetensors"))
    about |= {
        "repo": "fla-org/flash-linear-attention",
        "file": inspect.getfile(type(layer)).split("site-packages/")[-1],
        "version": metadata.version("flash-linear-attention"),
        "with_cache_relerr": again,
        "dtype": str(dtype).removeprefix("torch."),
        "environment": f"torch {torch.__version__}, triton {metadata.version('triton')} (interpreted), CPU, "
        f"python {platform.python_version()}",
    }
    file.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    print(f"{name:24} with a cache {again}", flush=True)


def main(names):
    """Those in float32 first, as what stands in for kernels stays."""
    prepare_fla()
    exact = [name for name in names if '"float64"' in (TO / f"fla_{name}.json").read_text(encoding="utf-8")]
    for name in names:
        if name not in exact:
            record(name)
    if exact:
        common.prepare()
    for name in exact:
        record(name)


if __name__ == "__main__":
    main(sys.argv[1:] or sorted(path.stem.removeprefix("fla_") for path in TO.glob("fla_*.json")))
