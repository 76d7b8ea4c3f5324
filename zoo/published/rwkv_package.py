"""RWKV-4, 5.2, 6 and 7 run by the official package `rwkv`, one sequence of a batch at a time."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from zoo.contract import Batch, Model, Shape, State, Traits, leaves
from zoo.files import whole
from zoo.inputs import check_inputs, check_state
from zoo.ops.precision import no_autocast
from zoo.published.errors import PretrainedError, missing, writing

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Packaged(Model):
    """The package's model. Its strategy fixes device and precision (`to` does nothing); logits are float32.

    State, for each block: the last inputs `x` of time mixing and `y` of channel mixing (B, D), and between them `S`
    (B, H, N, N), values by keys in RWKV-7, or RWKV-4's `a`, `b` and `p` (B, D).

    Args:
        version: 4, 5 (5.2), 6 or 7.
        weights: under official names, with raw decays and the official eps of ln_x.
        where: their origin, for error messages.
        strategy: a device and a precision, such as `cuda fp16`.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)

    def __init__(
        self, version: int, weights: Mapping[str, Tensor], shape: Shape, where: str, strategy: str | None = None
    ) -> None:
        super().__init__()
        self.role, self.shape = "lm", shape
        self.strategy = strategy or f"{'cuda' if torch.cuda.is_available() else 'cpu'} fp32"
        self.device, self.dtype = _placed(self.strategy)
        att = "blocks.0.att."
        if version != 4 and weights[f"{att}value.weight"].shape[0] != shape.width:
            raise PretrainedError(f"{where}: the package rwkv has no dim_att; through='zoo' has")
        heads = weights.get(f"{att}{'r_k' if version == 7 else 'time_faaaa'}")
        self.heads = () if heads is None else tuple(heads.shape)
        self.package = _opened(version, weights, where, self.strategy)
        stored = self.package.z if version == 7 else self.package.w
        self.weights = nn.ParameterList(nn.Parameter(w, requires_grad=False) for w in stored.values() if w.numel())

    def _apply(self, fn: Any, recurse: bool = True) -> Packaged:
        return self

    def forward(self, batch: Batch) -> Float[Tensor, "B T V"]:
        """Logits at every step; padding must stand on the right."""
        return self.extend(batch.inputs, self.init_state(len(batch.inputs)))[0]

    def init_state(self, batch: int) -> State:
        def zeros(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(batch, *sizes, dtype=dtype, device=self.device)

        def block() -> State:
            C = self.shape.width
            if self.heads:
                H, N = self.heads
                inner = {"S": zeros(H, N, N)}
            else:
                inner = {"a": zeros(C), "b": zeros(C), "p": zeros(C) - 1e30}
            return {"x": zeros(C, dtype=self.dtype), **inner, "y": zeros(C, dtype=self.dtype)}

        return {f"block{i}": block() for i in range(self.shape.depth or 0)}

    def extend(self, tokens: Int[Tensor, "B T"], state: State) -> tuple[Float[Tensor, "B T V"], State]:
        if not tokens.numel():
            return torch.zeros(*tokens.shape, self.shape.outputs, device=tokens.device), state
        check_inputs(tokens, None, name="tokens")
        check_state(self, state, tokens.to(self.device))
        rows, states = [], []
        with no_autocast(self.device):
            for row, line in enumerate(tokens.tolist()):
                before = [leaf[row] for leaf in leaves(state)]
                y, after = self.package.forward(line, before, full_output=True)
                rows.append(y.float().view(len(line), -1))
                states.append(after)
        joined = (torch.stack(parts) for parts in zip(*states, strict=True))
        after = {block: {name: next(joined) for name in parts} for block, parts in state.items()}
        return torch.stack(rows).to(tokens.device), after


def write(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write official weights in an order by which the package can tell the version."""
    from safetensors.torch import save_file

    ordered = dict(sorted(weights.items(), key=lambda item: "ln_x" not in item[0] and "time_maa" not in item[0]))
    with writing(path), whole(path) as part:
        if path.suffix == ".safetensors":
            save_file(ordered, part, metadata={"format": "pt"})
        else:
            torch.save(ordered, part)


def _placed(strategy: str) -> tuple[torch.device, torch.dtype]:
    match = re.fullmatch(r"(cpu|cuda(?::\d+)?) (fp32|fp16|bf16)", strategy)
    if match is None:
        raise PretrainedError(f"strategy={strategy!r}: a device and a precision, such as 'cpu fp32' or 'cuda fp16'")
    if strategy.startswith("cuda") and not torch.cuda.is_available():
        raise PretrainedError(f"strategy={strategy!r}: torch sees no CUDA device here; 'cpu fp32' runs anywhere")
    return torch.device(match[1]), PRECISIONS[match[2]]


def _opened(version: int, weights: Mapping[str, Tensor], where: str, strategy: str) -> Any:
    """The package's model, which reads a file ending in .pth: one is written for it."""
    make = _module(goose=version == 7).RWKV  # (path without .pth, strategy)
    early = {name: value.float() for name, value in weights.items() if name.startswith(("emb.", "blocks.0.ln0."))}
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # RWKV-7's stays mapped into memory
        write({**weights, **early}, Path(folder) / "model.pth")  # it normalises the embedding in the stored precision
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                return make(str(Path(folder) / "model"), strategy)
        except Exception as error:  # it asserts, or fails somewhere
            problem = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise PretrainedError(f"{where}: the package rwkv cannot run it: {problem}") from None


@cache
def _module(*, goose: bool) -> Any:
    """A private copy of rwkv/model.py, one for RWKV-7 and one for the others.

    The package reads its options from the environment, at import and again later; each copy keeps those of its import.
    """
    found = importlib.util.find_spec("rwkv")
    if found is None or not found.submodule_search_locations:
        raise missing("rwkv", "rwkv", "running RWKV through its own package")
    name, file = f"_zoo_rwkv_{'goose' if goose else 'before'}", Path(found.submodule_search_locations[0]) / "model.py"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    options = dict.fromkeys(("RWKV_JIT_ON", "RWKV_CUDA_ON", "RWKV_DE_VERSION", "RWKV_DML_ON"), "0")
    sys.modules[name] = module  # TorchScript looks its functions up there
    with _restored({**options, "RWKV_V7_ON": str(int(goose))}) as environment:
        spec.loader.exec_module(module)
    module.os = SimpleNamespace(environ=environment, path=os.path, name=os.name)
    module.gc = SimpleNamespace(collect=lambda: 0)  # it would collect the whole process's garbage after every layer
    return module


@contextlib.contextmanager
def _restored(options: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Set `options` in the environment and yield a copy of it; then restore it, torch's switches and stdout."""
    before = {name: os.environ.get(name) for name in options}
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    flags: tuple[tuple[Any, str], ...] = ((cudnn, "benchmark"), (cudnn, "allow_tf32"), (products, "allow_tf32"))
    switches = [(owner, name, getattr(owner, name)) for owner, name in flags]
    autocast = torch._C._jit_set_autocast_mode(True)
    try:
        os.environ.update(options)
        with contextlib.redirect_stdout(io.StringIO()):
            yield dict(os.environ)
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        for owner, name, value in switches:
            setattr(owner, name, value)
        torch._C._jit_set_autocast_mode(autocast)
