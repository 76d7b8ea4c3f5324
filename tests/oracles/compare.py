"""How oracle tests compare: relative errors, gradients by name, pieces with a state; and random layers and inputs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from zoo.contract import Mixer, State

Named = Mapping[str, Tensor]
M = TypeVar("M", bound=nn.Module)


def relative(got: Tensor, want: Tensor) -> float:
    """max |got − want| / max(max |want|, 1e-6); infinite where shapes differ or a number is missing."""
    if got.shape != want.shape:
        return float("inf")
    got, want = (torch.view_as_real(x) if x.is_complex() else x for x in (got.detach(), want.detach()))
    if got.numel() == 0:
        return 0.0
    error = float((got.double() - want.double()).abs().max() / want.double().abs().max().clamp(min=1e-6))
    return error if error == error else float("inf")


@dataclass
class Proof:
    """Comparisons of one architecture with one independent implementation."""

    entry: dict[str, float]

    def outputs(self, got: Tensor, want: Tensor, tolerance: float = 1e-5) -> None:
        """Equal within `tolerance`, relative to the largest entry."""
        self._enter("output", relative(got, want), tolerance, "output")

    def gradients(self, got: Named, want: Named, tolerance: float = 1e-4) -> None:
        """Every gradient in `want`, by name, equal within `tolerance`. `got` must have the same names."""
        assert got.keys() == want.keys(), f"names differ: {sorted(got.keys() ^ want.keys())}"
        assert want, "no gradient to compare"
        for name in want:
            self._enter("gradient", relative(got[name], want[name]), tolerance, f"gradient of {name}")

    def equal(
        self,
        got: Tensor,
        want: Tensor,
        ours: Named,
        theirs: Named | None = None,
        tolerance: float = 1e-5,
        gradients: float | None = None,
        renamed: Callable[[dict[str, Tensor]], Named] = lambda official: official,
    ) -> None:
        """Outputs, and the gradients of a random cotangent: of `ours` through `got`, of `theirs` through `want`.

        `theirs` are the same tensors if not given; `renamed` turns their gradients into ours, by our names. Gradients
        are to agree within `gradients`, ten times `tolerance` by default.
        """
        self.outputs(got, want, tolerance)
        cotangent = torch.randn_like(want)
        found = gradients_of(got, cotangent, ours)
        official = gradients_of(want, cotangent, ours if theirs is None else theirs)
        self.gradients(found, renamed(official), 10 * tolerance if gradients is None else gradients)

    def layers(
        self,
        ours: Mixer,
        theirs: nn.Module,
        x: Tensor,
        call: Callable[[Tensor], Tensor] | None = None,
        *,
        renamed: Callable[[dict[str, Tensor]], Named] = dict,
        alone: str = "",
        mask: Tensor | None = None,
        tolerance: float = 1e-5,
    ) -> Tensor:
        """Two layers with the parameters of `theirs`: outputs, which are returned, and gradients of x and parameters.

        Args:
            call: x through their layer; by default their `forward`.
            renamed: from tensors by their names to those by ours.
            alone: how the names of our parameters begin that have no counterpart.
            mask: the valid steps, which alone are compared.
        """
        official = dict(theirs.named_parameters())
        weights = renamed(official)
        ours.to(x.dtype).load_state_dict({**ours.state_dict(), **weights})
        own = {name: p for name, p in ours.named_parameters() if not (alone and name.startswith(alone))}
        assert own.keys() == weights.keys(), f"names differ: {sorted(own.keys() ^ weights.keys())}"
        y, want = ours(x, mask=None if mask is None or mask.all() else mask)[0], (call or theirs)(x)
        if mask is None:
            mask = torch.ones(x.shape[:2], dtype=torch.bool)

        def by_our_names(found: dict[str, Tensor]) -> Named:
            return {"x": found.pop("x"), **renamed(found)}

        both = {"x": x, **own}, {"x": x, **official}
        self.equal(y[mask], want[mask], *both, tolerance, renamed=by_our_names)
        return want

    def recorded(
        self, got: Tensor, data: Named, leaves: Named, tolerance: float = 1e-9, gradients: float | None = None
    ) -> None:
        """Recorded outputs, and recorded gradients (grad.name or grad.input.name) of all leaves."""
        self.outputs(got, data["output"], tolerance)
        want = {
            name.removeprefix("grad.").removeprefix("input."): value
            for name, value in data.items()
            if name.startswith("grad.")
        }
        found = gradients_of(got, data["cotangent"], leaves)
        self.gradients(found, want, tolerance if gradients is None else gradients)

    def _enter(self, kind: str, error: float, tolerance: float, what: str) -> None:
        assert error <= tolerance, f"{what}: relative error {error:.2e} exceeds {tolerance:.0e}"
        self.entry[kind] = max(self.entry.get(kind, 0.0), error)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """A recording: all its tensors, in float64; and its inputs and its parameters, by name, to take gradients of."""
    safetensors = pytest.importorskip("safetensors.torch")
    data = {key: x.double() if x.is_floating_point() else x for key, x in safetensors.load_file(path).items()}
    parts: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    for key, value in data.items():
        if key.startswith(("input", "param.")):
            name = key.removeprefix("input.").removeprefix("param.")
            parts[key.startswith("param.")][name] = value.clone().requires_grad_(value.is_floating_point())
    return data, *parts


def gradients_of(y: Tensor, cotangent: Tensor, leaves: Named) -> dict[str, Tensor]:
    """By name, of Σ y · cotangent."""
    found = torch.autograd.grad((y * cotangent).sum(), list(leaves.values()), retain_graph=True)
    return dict(zip(leaves, found, strict=True))


def leaves(module: nn.Module, **inputs: Tensor) -> dict[str, Tensor]:
    """The inputs and all parameters, by name."""
    return {**inputs, **dict(module.named_parameters())}


def copies(module: nn.Module) -> dict[str, Tensor]:
    """Leaves of their own with the values of all parameters."""
    return {name: p.detach().clone().requires_grad_() for name, p in module.named_parameters()}


def drawn(module: M, std: float = 0.5) -> M:
    """In float64, every parameter drawn anew from N(0, std²)."""
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, std=std)
    return module


def shaken(module: M, std: float = 0.3) -> M:
    """In float64, N(0, std²) added to every parameter."""
    for parameter in module.double().parameters():
        parameter.data += std * torch.randn_like(parameter)
    return module


def vectors(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@torch.no_grad()
def in_pieces(mixer: Mixer, x: Tensor, sizes: int | list[int] = 1) -> tuple[Tensor, State]:
    """Outputs side by side and the last state, from no past, with x cut into pieces of these sizes."""
    state, outputs = mixer.init_state(len(x), device="cpu", dtype=x.dtype), []
    for piece in x.split(sizes, dim=1):
        y, after = mixer(piece, state=state)
        assert after is not None
        state = after
        outputs.append(y)
    return torch.cat(outputs, 1), state


S4_NAMES = {
    "log_dt": "layer.kernel.inv_dt",
    "log_A_real": "layer.kernel.A_real",
    "A_imag": "layer.kernel.A_imag",
    "B": "layer.kernel.B",
    "P": "layer.kernel.P",
    "C": "layer.kernel.C",
    "D": "layer.D",
    "output.weight": "output_linear.0.weight",
    "output.bias": "output_linear.0.bias",
}
"""Of S4 and, but for P, of S4D: our names, and those of state-spaces/s4."""


def swapped(names: Mapping[str, str]) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    """Of a table {ours: theirs}: from tensors by their names, those by our names."""
    return lambda official: {ours: official[theirs] for ours, theirs in names.items()}
