"""What tests of mixers share: random ones in float64, and random inputs."""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from zoo.architectures import recipe
from zoo.checks.subject import Subject
from zoo.contract import LayerContext, Mixer, Model, Part
from zoo.layers import MIXERS
from zoo.options import make

M = TypeVar("M", bound=nn.Module)


def drawn(mixer: M, std: float = 0.5) -> M:
    """In float64, every parameter drawn anew from N(0, std²)."""
    torch.manual_seed(0)
    for parameter in mixer.double().parameters():
        nn.init.normal_(parameter, std=std)
    return mixer


def shaken(mixer: M, std: float = 0.3) -> M:
    """In float64, N(0, std²) added to every parameter."""
    torch.manual_seed(0)
    for parameter in mixer.double().parameters():
        parameter.data += std * torch.randn_like(parameter)
    return mixer


def part_of(name: str) -> Part:
    """A mixer by its name, or that of an architecture; `rwkv5.channel` is its channel mixer."""
    if name in MIXERS:
        return Part(MIXERS.resolve(name))
    name, _, channel = name.partition(".")
    own: Any = recipe(name)
    return own.channel if channel else own.mixers[1 if name == "based" else 0]


def make_mixer(name: str, context: LayerContext, **options: Any) -> Any:
    """Built as a suite builds it, options checked."""
    part = part_of(name)
    return make(MIXERS, Part(part.kind, **{**part.options, **options}), context)


def mixers_of(subject: Subject, model: Model) -> list[Any]:
    """The mixers of a model, without its channel mixers."""
    kinds: Any = tuple(part.kind for part in subject.recipe.mixers)
    return [module for module in model.modules() if isinstance(module, kinds)]


def vectors(batch: int, steps: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, steps, width, generator=generator, dtype=torch.float64)


def start(mixer: Mixer, x: Tensor) -> Any:
    """The state before the first step of `x`."""
    return mixer.init_state(len(x), device=x.device, dtype=x.dtype)
